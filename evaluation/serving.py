"""The registered model: MLflow runs this file to load an anonymizer (models from code, no pickle).

`mlflow models serve -m models:/anonymizer@champion` takes `{"inputs": ["<base64 picture>", ...]}`
and answers with one record per picture: `picture` (base64 PNG, anonymized), `detections` and
`warning`.
`mlflow.pyfunc.load_model(...).predict` takes the same list. Python programs that hold pixels use
`anonymization.anonymizer.Anonymizer`.
"""

from __future__ import annotations

import base64
import binascii
import io
from typing import Any, TypedDict

import mlflow
from mlflow.pyfunc.model import PythonModel


class Record(TypedDict):
    """What is answered for one picture.

    Attributes:
        picture: Base64 text of the anonymized picture, PNG.
        detections: `class`, `score`, `box_xyxy` (picture pixels) and `source` of each find.
        warning: What its metadata say of its projection and could not be followed, or empty.
    """

    picture: str
    detections: list[dict[str, Any]]
    warning: str


def to_picture(text: str) -> Any:
    """Return the `Picture` of a picture file's base64 text.

    Raises:
        ValueError: If it is no base64. MLflow's server answers it as a bad request.
        PictureError: If it is no picture, or an unsafe one.
    """
    import tempfile
    from pathlib import Path

    from anonymization.formats.picture import read_picture

    try:
        content = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"a picture is not base64: {error}") from error
    # The safe reader works on files: limits, orientation and format checks are its own.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture"
        path.write_bytes(content)
        return read_picture(path)


def to_record(image: Any, names: tuple[str, ...]) -> Record:
    """Return an anonymized image and its finds as plain types."""
    from PIL import Image

    encoded = io.BytesIO()
    Image.fromarray(image.pixels).save(encoded, format="PNG")
    found = image.detections
    rows = zip(found.class_ids, found.scores, found.boxes_xyxy, found.sources, strict=True)
    detections = [
        {
            "class": names[int(index)],
            "score": float(score),
            "box_xyxy": [float(side) for side in box],
            "source": source,
        }
        for index, score, box, source in rows
    ]
    picture = base64.b64encode(encoded.getvalue()).decode()
    return {"picture": picture, "detections": detections, "warning": image.warning or ""}


class ServedAnonymizer(PythonModel):  # type: ignore[misc,unused-ignore]
    """The shipped anonymizer behind MLflow's interface."""

    def load_context(self, context: Any) -> None:
        """Load the bundle that lies in the registered model; its digests are checked."""
        from anonymization.anonymizer import Anonymizer
        from anonymization.bundle import Bundle

        self.anonymizer = Anonymizer.from_bundle(context.artifacts["bundle"])
        self.names = Bundle.load(context.artifacts["bundle"]).card.taxonomy.names

    def predict(
        self, context: Any, model_input: list[str], params: dict[str, Any] | None = None
    ) -> list[Record]:
        """Anonymize each picture; one that fails fails the whole request, so none leaks."""
        del context, params  # MLflow's interface; the pictures are all that is used
        pictures = (to_picture(text) for text in model_input)
        made = (self.anonymizer(p.pixels, xmp=p.xmp) for p in pictures)
        return [to_record(image, self.names) for image in made]


mlflow.models.set_model(ServedAnonymizer())
