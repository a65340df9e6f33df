"""What is true in a picture: its objects in the taxonomy's geometry, and what counts.

An object counts for recall if it is identifiable and no crowd. Identifiable is what the annotator
said (`attributes.identifiable`), else what the class's size rule says (DESIGN section 7).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from anonymization.errors import BlurloopError
from anonymization.files import read_json
from anonymization.panorama.projection import Equirectangular
from anonymization.taxonomy import ClassSpec, Taxonomy
from data.coco import Annotation, Dataset, Image, is_identifiable
from data.layout import GROUPS
from evaluation.matching import LABELLED, PARTIAL, UNLABELLED
from evaluation.panoramas import joined, seam_of
from evaluation.patch import Box, Patch, annotation_to_patch


class TruthError(BlurloopError):
    """A set of true objects cannot be judged against."""


@dataclass(frozen=True)
class TruthObject:
    """One true object of a picture.

    Attributes:
        annotation_id: Id of its annotation.
        class_name: Class of the taxonomy.
        box_xyxy: Labelled box, picture pixels, half-open; may reach beyond the picture. Across
            the seam of a panorama it ends beyond the width.
        patch: Its pixels in the geometry of its class; across the seam beyond the width too.
        has_mask: Whether `patch` is a labelled outline (a class with outlines may have sets that
            label boxes only; such objects are matched by box).
        identifiable: Whether it could single somebody out.
        crowd: Whether it is a region of several objects.
        side_px: Length of the side that the class's size rule measures.
    """

    annotation_id: int
    class_name: str
    box_xyxy: Box
    patch: Patch
    has_mask: bool
    identifiable: bool
    crowd: bool
    side_px: float

    @property
    def counted(self) -> bool:
        """Whether a miss of it is a miss."""
        return self.identifiable and not self.crowd


@dataclass(frozen=True)
class PictureTruth:
    """The truth of one picture.

    Attributes:
        image: The picture.
        objects: Its true objects, in the order of their annotations.
        cluster: Name of the group of pictures whose objects stand or fall together.
        panorama: How the picture is projected; None for a flat one.
    """

    image: Image
    objects: tuple[TruthObject, ...]
    cluster: str
    panorama: Equirectangular | None = None

    @property
    def seam(self) -> int | None:
        """Column at which the picture goes on at its first one; None where it does not."""
        return seam_of(self.panorama)

    def of_class(self, class_name: str) -> tuple[TruthObject, ...]:
        """Return the objects of one class, in order."""
        return tuple(o for o in self.objects if o.class_name == class_name)

    def coverage(self, class_name: str) -> str:
        """Return how far a class is labelled here: LABELLED, PARTIAL or UNLABELLED.

        A class that the picture does not claim to label but has an object of is PARTIAL.
        """
        if class_name in self.image.labelled:
            return LABELLED
        if class_name in self.image.partial or self.of_class(class_name):
            return PARTIAL
        return UNLABELLED

    def fully_labelled(self, class_names: Iterable[str]) -> bool:
        """Return whether every object of these classes is labelled."""
        return all(name in self.image.labelled for name in class_names)


def truth_of(
    image: Image,
    annotations: Iterable[Annotation],
    taxonomy: Taxonomy,
    panorama: Equirectangular | None = None,
    *,
    cluster: str | None = None,
) -> PictureTruth:
    """Draw the true objects of one picture.

    Args:
        image: The picture.
        annotations: Its labels.
        taxonomy: The classes.
        panorama: How it is projected (`panoramas.panorama_of_image`); None for a flat picture.
            Pieces at both sides of its seam are one object (`panoramas.joined`).
        cluster: Group of near-duplicates that the picture belongs to, as preparation found it.

    Raises:
        PatchError: If an object lies outside the picture.
        DatasetError: If an annotator's word is neither true, false nor null.
    """
    wraps = seam_of(panorama) is not None
    objects = tuple(
        _truth_object(a, image, taxonomy[a.class_name], wraps)
        for a in joined(annotations, image, panorama)
    )
    return PictureTruth(image, objects, cluster or cluster_of(image), panorama)


def _truth_object(
    annotation: Annotation, image: Image, spec: ClassSpec, wraps: bool
) -> TruthObject:
    by_width = spec.identifiable_side == "width"
    return TruthObject(
        annotation_id=annotation.id,
        class_name=annotation.class_name,
        box_xyxy=annotation.box_xyxy,
        patch=annotation_to_patch(
            annotation, spec.geometry, height=image.height, width=image.width, wraps=wraps
        ),
        has_mask=spec.geometry == "mask" and annotation.segmentation is not None,
        identifiable=is_identifiable(annotation, spec),
        crowd=annotation.crowd,
        side_px=annotation.width if by_width else annotation.height,
    )


def cluster_of(image: Image) -> str:
    """Return the cluster of a picture of which no group is known: its sequence, or itself."""
    source = image.fields.get("source", "")
    if image.fields.get("sequence") not in (None, ""):
        return f"{source}/{image.fields.get('camera')}/{image.fields['sequence']}"
    return image.sha256


def read_groups(path: Path = GROUPS) -> dict[str, str]:
    """Return the group of each picture that preparation found company for, by SHA-256.

    Raises:
        FileError: If preparation has not written it.
    """
    return {str(k): str(v) for k, v in read_json(path, schema_version=1)["groups"].items()}


def check_reference(dataset: Dataset, name: str) -> None:
    """Refuse a set that nothing can be measured on.

    Raises:
        TruthError: If it has no pictures, or holds a picture twice.
    """
    if not dataset.images:
        raise TruthError(
            f"the {name} set holds no pictures; give preparation a share for it, or release a "
            "reference set (python -m data.reference release)"
        )
    seen: dict[str, int] = {}
    for image in dataset.images:
        if image.sha256 in seen:
            raise TruthError(
                f"the {name} set holds picture {image.sha256} twice, as images "
                f"{seen[image.sha256]} and {image.id}; prepare it again"
            )
        seen[image.sha256] = image.id


def counted_objects(truths: Iterable[PictureTruth], taxonomy: Taxonomy) -> Mapping[str, int]:
    """Return the number of counted objects of each class, in the taxonomy's order."""
    counts = dict.fromkeys(taxonomy.names, 0)
    for truth in truths:
        for thing in truth.objects:
            counts[thing.class_name] += thing.counted
    return counts
