"""The registered model as MLflow serves it: what a picture's metadata say counts there, too."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anonymization.anonymizer import AnonymizedImage, Anonymizer
from anonymization.bundle import Bundle
from anonymization.panorama.projection import Equirectangular

pytest.importorskip("mlflow")

from evaluation.serving import ServedAnonymizer

GPANO = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    b'xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" %s/></rdf:RDF></x:xmpmeta>'
)
WHOLE = GPANO % b'GPano:ProjectionType="equirectangular"'
UNKNOWN = GPANO % b'GPano:ProjectionType="mirror-ball"'


def jpeg(xmp: bytes) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (128, 64), (9, 90, 200)).save(buffer, "JPEG", xmp=xmp)
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture
def served(constant_bundle: Bundle) -> ServedAnonymizer:
    model = ServedAnonymizer()
    model.anonymizer = Anonymizer.from_bundle(constant_bundle)
    model.names = constant_bundle.card.taxonomy.names
    return model


def test_a_panorama_is_looked_at_as_one(
    served: ServedAnonymizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Any] = []
    detect = served.anonymizer.detect

    def watched(pixels: np.ndarray, *, view: Any, **more: Any) -> Any:
        looked.append(view.projection)
        return detect(pixels, view=view, **more)

    monkeypatch.setattr(served.anonymizer, "detect", watched)
    flat, whole = served.predict(None, [jpeg(b""), jpeg(WHOLE)])
    assert isinstance(looked[1], Equirectangular)
    assert not isinstance(looked[0], Equirectangular)
    assert "2:1 shape of a panorama but no GPano" in flat["warning"]
    assert whole["warning"] == ""
    assert len(whole["detections"]) > len(flat["detections"])
    assert whole["detections"][0].keys() == {"class", "score", "box_xyxy", "source"}


def test_a_projection_that_is_not_known_is_told(served: ServedAnonymizer) -> None:
    (answer,) = served.predict(None, [jpeg(UNKNOWN)])
    assert "mirror-ball" in answer["warning"]


def test_a_file_that_is_anonymized_tells_the_same(constant_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "in.jpg").write_bytes(base64.b64decode(jpeg(UNKNOWN)))
    anonymizer = Anonymizer.from_bundle(constant_bundle)
    done = anonymizer.anonymize_file(tmp_path / "in.jpg", tmp_path / "out.jpg")
    assert isinstance(done, AnonymizedImage)
    assert "mirror-ball" in (done.warning or "")
