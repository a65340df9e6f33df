"""One picture judged as an operator would get it: finds, what they hide, the written file."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from anonymization.errors import BlurloopError
from anonymization.taxonomy import Taxonomy
from evaluation.coverage import (
    SHARE_MIN,
    WRITTEN_ALLOWANCE,
    coverage_shares,
    regions_of,
    unrolled,
    written_coverage,
)
from evaluation.judging import ClassJudgement, check_detections, judge
from evaluation.measures.utility import Kept, kept_outside
from evaluation.report.rows import FindRow, ObjectRow, PictureRow
from evaluation.truth import PictureTruth

if TYPE_CHECKING:
    from anonymization.card import Card
    from anonymization.detection.finds import Detections
    from anonymization.formats.picture import Picture

Pixels = NDArray[np.uint8]
Rewrite = Callable[[Pixels], Pixels]


class EvaluationError(BlurloopError):
    """An evaluation cannot be made or trusted."""


@dataclass(frozen=True)
class PictureResult:
    """What one picture shows.

    Attributes:
        picture: The picture itself.
        objects: Every true object.
        finds: Finds that the card's thresholds keep, heads and faces merged.
        all_finds: Finds at every score, for curves.
        written_failed: Objects that the regions hide and the written file does not.
        thumbnail: Whether the thumbnail embedded in the written file shows the written picture;
            None where it has none.
    """

    picture: PictureRow
    objects: tuple[ObjectRow, ...]
    finds: tuple[FindRow, ...]
    all_finds: tuple[FindRow, ...]
    written_failed: tuple[ObjectRow, ...]
    thumbnail: bool | None = None


def judge_picture(
    truth: PictureTruth,
    raw: Detections,
    card: Card,
    taxonomy: Taxonomy,
    *,
    rewrite: Rewrite,
    pixels: Pixels | None = None,
    thumbnail: bool | None = None,
    seed: int = 0,
) -> PictureResult:
    """Judge what the anonymizer makes of one picture.

    Args:
        truth: The picture's truth.
        raw: Every find of both networks down to a low score.
        card: The bundle's thresholds and margins.
        taxonomy: Geometry and identifiable rule of the truth; obscuring follows the card.
        rewrite: Writes pixels as the anonymizer does and reads them back (`rewritten_as`).
        pixels: The picture itself, uint8 (H, W, 3), where `rewrite` writes it as the anonymizer
            does; None leaves what the written file keeps of it unmeasured.
        thumbnail: What the check of its embedded thumbnail said (`thumbnails.shows_written`).
        seed: Of the noise pictures.

    Raises:
        MatchingError: If a find is not made of numbers.
    """
    from anonymization.detection.applying import apply_card, merge_heads
    from anonymization.obscuring.obscure import obscure
    from anonymization.obscuring.seam import obscure_wrapped
    from anonymization.obscuring.shapes import growths
    from anonymization.panorama.wrapping import over_the_seam, with_copies, with_grown_copies

    check_detections(raw, truth.image.sha256)
    shipped = apply_card(raw, card)
    judged = judge(truth, shipped, taxonomy, mask_threshold=card.mask_threshold)
    merged = merge_heads(raw, iou=card.nms_iou)
    at_all_scores = judge(truth, merged, taxonomy, mask_threshold=card.mask_threshold)
    height, width = truth.image.height, truth.image.width
    patches = [thing.patch for thing in truth.objects]
    turn = None if truth.panorama is None else truth.panorama.turn
    drawn, owners = with_copies(shipped, width, turn)
    growth = growths(drawn, card.taxonomy)
    drawn, owners, copied = with_grown_copies(drawn, owners, growth, width, turn)
    across = over_the_seam(drawn, owners, growth[copied], width, turn)
    regions = regions_of(
        drawn, card.taxonomy, height=height, width=width, mask_threshold=card.mask_threshold
    )
    hidden = coverage_shares(patches, unrolled(regions, truth.seam))

    def hide_finds(shown: Pixels, finds: Detections, _: object, __: object) -> Pixels:
        return np.asarray(
            obscure(shown, finds, card.taxonomy, mask_threshold=card.mask_threshold, seed=seed)
        )

    def hide(shown: Pixels) -> Pixels:
        return np.asarray(
            obscure_wrapped(shown, drawn, hide_finds, card.taxonomy, across=across), np.uint8
        )

    def kept(outside: NDArray[np.bool_]) -> Kept | None:
        return None if pixels is None else kept_outside(pixels, rewrite(hide(pixels)), outside)

    written = written_coverage(
        patches, height=height, width=width, obscure=hide, rewrite=rewrite, seed=seed
    )
    objects = _object_rows(truth, judged, at_all_scores, hidden, written)
    return PictureResult(
        picture=_picture_row(truth, drawn, card, taxonomy, kept),
        objects=objects,
        finds=tuple(_find_rows(truth, shipped, judged)),
        all_finds=tuple(_find_rows(truth, merged, at_all_scores)),
        written_failed=tuple(row for row in objects if _fell_short(row)),
        thumbnail=thumbnail,
    )


def rewritten_as(picture: Picture) -> Rewrite:
    """Return what writes 8-bit RGB pixels as the anonymizer writes this picture, and reads them.

    Pictures of other channels (grey, 16-bit, CMYK, with alpha) are checked through PNG: noise in
    their channels would not come back as the noise that went in.
    """
    from anonymization.formats.picture import decode, encode

    def rewrite(pixels: Pixels) -> Pixels:
        if is_rgb(picture):
            return decode(encode(picture, pixels), name="written noise").pixels
        return through_png(pixels)

    return rewrite


def is_rgb(picture: Picture) -> bool:
    """Return whether a picture's own pixels are the 8-bit RGB that networks and people see."""
    return picture.native.shape == picture.pixels.shape and picture.encoding.mode == "RGB"


def through_png(pixels: Pixels) -> Pixels:
    """Write pixels as a PNG file in memory and read it back."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    with Image.open(file) as read:
        return np.asarray(read)


def _object_rows(
    truth: PictureTruth,
    judged: dict[str, ClassJudgement],
    at_all_scores: dict[str, ClassJudgement],
    hidden: NDArray[np.float64],
    written: NDArray[np.float64],
) -> tuple[ObjectRow, ...]:
    shipped_at = _by_annotation(judged)
    detected_at = _by_annotation(at_all_scores)
    rows = []
    for thing, share, in_file in zip(truth.objects, hidden, written, strict=True):
        at = detected_at[thing.annotation_id]
        rows.append(
            ObjectRow(
                sha256=truth.image.sha256,
                class_name=thing.class_name,
                annotation_id=thing.annotation_id,
                cluster=truth.cluster,
                box_xyxy=thing.box_xyxy,
                counted=thing.counted,
                crowd=thing.crowd,
                side_px=thing.side_px,
                detected_at=at if np.isfinite(at) else None,
                detected=bool(np.isfinite(shipped_at[thing.annotation_id])),
                share=float(share),
                written_share=float(in_file),
                covered=bool(share >= SHARE_MIN and in_file >= share - WRITTEN_ALLOWANCE),
            )
        )
    return tuple(rows)


def _by_annotation(judged: dict[str, ClassJudgement]) -> dict[int, float]:
    return {
        thing.annotation_id: float(at)
        for each in judged.values()
        for thing, at in zip(each.truths, each.detected_at, strict=True)
    }


def _fell_short(row: ObjectRow) -> bool:
    written = row.written_share
    return written is not None and row.share >= SHARE_MIN and not row.covered


def _find_rows(
    truth: PictureTruth, detections: Detections, judged: dict[str, ClassJudgement]
) -> Iterable[FindRow]:
    for name, each in judged.items():
        for index, state in zip(each.indices, each.matching.find_state, strict=True):
            x0, y0, x1, y1 = (float(v) for v in detections.boxes_xyxy[index])
            yield FindRow(
                sha256=truth.image.sha256,
                class_name=name,
                score=float(detections.scores[index]),
                box_xyxy=(x0, y0, x1, y1),
                source=detections.sources[index],
                state=int(state),
            )


def _picture_row(
    truth: PictureTruth,
    drawn: Detections,
    card: Card,
    taxonomy: Taxonomy,
    kept: Callable[[NDArray[np.bool_]], Kept | None],
) -> PictureRow:
    """Compare pixels in no object; only where every gated class is labelled can that be known."""
    labelled = frozenset(truth.image.labelled)
    if not truth.fully_labelled(taxonomy.gated):
        return PictureRow(truth.image.sha256, labelled, None, None, truth.panorama)
    from anonymization.obscuring.obscure import obscured_mask

    height, width = truth.image.height, truth.image.width
    background = np.ones((height, width), dtype=bool)
    for thing in truth.objects:
        for patch in thing.patch.pieces(width):
            background[patch.y0 : patch.y1, patch.x0 : patch.x1] &= ~patch.mask
    hidden = obscured_mask(drawn, card.taxonomy, height, width, mask_threshold=card.mask_threshold)
    return PictureRow(
        truth.image.sha256,
        labelled,
        int(np.count_nonzero(background)),
        int(np.count_nonzero(background & hidden)),
        truth.panorama,
        kept(background),
    )
