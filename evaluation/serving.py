"""The registered model: MLflow runs this file to load an anonymizer (models from code, no pickle).

`mlflow models serve -m models:/anonymizer@champion` takes `{"inputs": ["<base64 picture>", ...]}`
and answers with one record per picture: `picture` (base64 PNG, anonymized) and `detections`.
`mlflow.pyfunc.load_model(...).predict` also takes bytes and uint8 arrays of shape (H, W, 3).
"""

from __future__ import annotations

import base64
import binascii
import io
from typing import Any

import mlflow
from mlflow.pyfunc.model import PythonModel


def to_pixels(value: Any) -> Any:
    """Return uint8 RGB pixels, shape (H, W, 3), of a base64 text, encoded bytes or an array.

    Raises:
        ValueError: If it is none of these. MLflow's server answers it as a bad request.
    """
    import tempfile
    from pathlib import Path

    import numpy as np

    from anonymization.picture import read_picture

    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 3:
        return value
    if isinstance(value, str):
        try:
            value = base64.b64decode(value, validate=True)
        except binascii.Error as error:
            raise ValueError(f"a picture is not base64: {error}") from error
    if not isinstance(value, bytes):
        raise ValueError(f"a picture is {type(value).__name__}; expected base64, bytes or uint8")
    # The safe reader works on files: limits, orientation and format checks are its own.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture"
        path.write_bytes(value)
        return read_picture(path).pixels


def to_record(image: Any, names: tuple[str, ...]) -> dict[str, Any]:
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
    return {"picture": picture, "detections": detections}


class ServedAnonymizer(PythonModel):  # type: ignore[misc,unused-ignore]
    """The shipped anonymizer behind MLflow's interface."""

    def load_context(self, context: Any) -> None:
        """Load the bundle that lies in the registered model; its digests are checked."""
        from anonymization.anonymizer import Anonymizer
        from anonymization.bundle import Bundle

        self.anonymizer = Anonymizer.from_bundle(context.artifacts["bundle"])
        self.names = Bundle.load(context.artifacts["bundle"]).card.taxonomy.names

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Anonymize each picture; one that fails fails the whole request, so none leaks.

        Without type hints: MLflow would take one as the schema of the only input it accepts.
        """
        del context, params  # MLflow's interface; the pictures are all that is used
        values = model_input
        if hasattr(values, "columns"):
            values = values.iloc[:, 0].tolist()
        elif getattr(values, "ndim", 0) == 3 or isinstance(values, str | bytes):
            values = [values]
        return [to_record(self.anonymizer(to_pixels(value)), self.names) for value in values]


mlflow.models.set_model(ServedAnonymizer())
