"""The built-in street generator: drawn scenes with exact truth, for trying and testing the loop.

Stylised on purpose: heads and plates are about 1.5 times life size, so that pictures of a few
hundred pixels hold several that count as identifiable. A number measured on these scenes says
whether the loop works; it says nothing of a real street.
"""

from data.street.config import StreetConfig, StreetError
from data.street.generator import (
    draw_sequence,
    encode_scene,
    sequence_count,
    settings_digest,
    source_id,
)
from data.street.scene import Scene, SceneObject

__all__ = [
    "Scene",
    "SceneObject",
    "StreetConfig",
    "StreetError",
    "draw_sequence",
    "encode_scene",
    "sequence_count",
    "settings_digest",
    "source_id",
]
