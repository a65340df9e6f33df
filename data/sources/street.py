"""The built-in street generator: drawn scenes with exact masks, boxes and keypoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from data.coco import mask_to_rle
from data.sources.protocol import Entry, Found, LabelledObject, Labels
from data.street import (
    Scene,
    SceneObject,
    StreetConfig,
    draw_sequence,
    encode_scene,
    source_id,
)

CLASSES = ("face", "person", "license_plate", "vehicle")
"""What the generator draws, all of it labelled."""


class StreetSource:
    """Scenes of one setting of the generator; they depend on the setting and their number alone."""

    def __init__(self, config: StreetConfig) -> None:
        self._config = config
        self._drawn: tuple[int, list[Scene]] = (-1, [])

    @cached_property
    def id(self) -> str:
        """Identity of the settings and of what this machine draws from them."""
        return source_id(self._config)

    def survey(self) -> dict[str, Any]:
        """Return the number of scenes; the settings are in the identity."""
        return {"scenes": self._config.scenes}

    def entries(self, surveyed: Mapping[str, Any]) -> list[Entry]:
        """Return one entry per scene, sequence by sequence."""
        length = self._config.sequence_length
        return [
            Entry(f"{n // length:06d}/{n % length:03d}", self.id) for n in range(surveyed["scenes"])
        ]

    def part(self, entries: Sequence[Entry]) -> StreetSource:
        """Return this source: it holds no list of its scenes."""
        del entries
        return self

    def read(self, entry: Entry) -> Found:
        """Draw one scene; its whole sequence is drawn at once and remembered."""
        sequence, frame = (int(part) for part in entry.origin.split("/"))
        if self._drawn[0] != sequence:
            self._drawn = (sequence, draw_sequence(self._config, sequence))
        scene = self._drawn[1][frame]
        labels = Labels(
            objects=tuple(_object(thing) for thing in scene.objects),
            labelled=CLASSES,
            keypoints_labelled=True,
        )
        fields = {
            "camera": scene.camera,
            "sequence": scene.sequence,
            "frame": scene.frame,
            "licence": "CC0-1.0",
            "attributes": dict(scene.attributes),
        }
        height, width = scene.pixels.shape[:2]
        return Found(encode_scene(scene, self._config), fields, labels, (width, height))


def _object(thing: SceneObject) -> LabelledObject:
    x0, y0, x1, y1 = (float(v) for v in thing.box_xyxy)
    points = thing.keypoints
    return LabelledObject(
        label=thing.class_name,
        box_xyxy=(x0, y0, x1, y1),
        segmentation=mask_to_rle(thing.mask),
        keypoints=None if points is None else [float(v) for point in points for v in point],
        attributes=dict(thing.attributes),
    )
