"""Names that the labelling configuration, what is pushed and what is pulled agree on."""

from __future__ import annotations

IMAGE = "image"
"""Name of the picture's tag, and the field of a task that holds its address."""
TAGS = {
    "brush": "BrushLabels",
    "polygon": "PolygonLabels",
    "ellipse": "EllipseLabels",
    "rectangle": "RectangleLabels",
    "keypoint": "KeyPointLabels",
}
"""Tag per type of region; its name in the project is the type itself."""

KINDS = {tag.lower(): kind for kind, tag in TAGS.items()}
"""Type of region per type of result."""

TOOLS = {
    "mask": ("polygon", "brush"),
    "ellipse": ("ellipse", "rectangle"),
    "box": ("rectangle", "polygon"),
}
"""What annotators draw a class of each geometry with, the usual tool first."""

IDENTIFIABLE, OCCLUDED, CROWD = "identifiable", "occluded", "group"
CHOICES: dict[str, tuple[tuple[str, bool], ...]] = {
    IDENTIFIABLE: (("identifiable", True), ("not identifiable", False)),
    OCCLUDED: (("occluded", True), ("not occluded", False)),
    CROWD: (("several objects", True),),
}
"""Choices per region, and what each means; none chosen means that the annotator did not say."""

SOURCE = "label_studio"
"""Attribute `source` of what people drew."""


def result_type(kind: str) -> str:
    """Return Label Studio's name of a labelled region's type.

    >>> result_type("brush")
    'brushlabels'
    """
    return TAGS[kind].lower()
