"""Merging: one find for each object that several views saw.

Two finds of different views are the same object if they agree where both views look: their boxes,
or their masks, cut to what both views see, have the wanted overlap. So a piece at the border of
one view agrees with the whole in another, and two pieces with each other, in any projection, at a
pole and across a seam alike.

Whole finds come first: the best of those that agree is kept. A piece, which touches a border that
cuts through the picture, goes to the whole that it agrees with; it widens it where it was seen
more finely, or where they agree only in that the whole holds it.
Pieces that no whole explains become one find that holds them all: rather too much is hidden than
an object lost. Finds below their thresholds never change one above.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anonymization.detection.finds import MASK_SIDE, Detections
from anonymization.panorama.views import Tile, View
from anonymization.panorama.warping import picture_mask, picture_points

Floats = NDArray[np.float32]
Reals = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

HELD_MIN = 0.7
"""Share of a piece inside another find's box from which on they belong together."""

SEEN_WELL_PX = 32.0
"""Shorter side on the network's input below which a find ranks lower, in proportion: of two views
of a small object, the one that saw it larger has the better box."""

FINER = 0.7
"""A piece widens the whole that it agrees with where its view is finer by this factor: its edges
are known better."""

PLACED_PX = 1.5
"""How far networks place the edge of a box from where it is, in pixels of their input."""

SAMPLES = 12
"""Points across and down a find at which overlaps are measured."""

BORDER_PX = 2.0
BORDER_SHARE = 0.015
"""A find this close to a border that cuts, in pixels or as a share of the view's side, is a piece:
networks place box edges no better."""


@dataclass(frozen=True)
class Sightings:
    """Finds of all views of a picture, before merging; N finds.

    Attributes:
        finds: In pixels of the view that each was found in.
        views: int64 (N,), position of that view.
        boxes: float32 (N, 4), box of each in the picture.
        edges: float32 (N, 4), box of each in its view with what is open of its edges, which `boxes`
            and masks in the picture hold (`with_open_edges`).
        pixel: float32 (N,), pixels of that view per pixel of the network's input.
        cut: bool (N,), whether it touches a border that cuts through the picture.
    """

    finds: Detections
    views: Ints
    boxes: Floats
    edges: Floats
    pixel: Floats
    cut: Bools

    @staticmethod
    def concatenate(parts: Sequence[Sightings]) -> Sightings:
        """Return all finds of several, at least one."""
        return Sightings(
            Detections.concatenate(part.finds for part in parts),
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("views", "boxes", "edges", "pixel", "cut")
            ),
        )


def at_inner_border(boxes_xyxy: Floats, view: View) -> Bools:
    """Tell which boxes of a view touch one of its borders that cut; bool (N,)."""
    close_x, close_y = (max(BORDER_PX, BORDER_SHARE * side) for side in (view.width, view.height))
    left, top, right, bottom = view.inner
    x0, y0, x1, y1 = boxes_xyxy.T
    return np.asarray(
        (left & (x0 <= close_x))
        | (top & (y0 <= close_y))
        | (right & (x1 >= view.width - close_x))
        | (bottom & (y1 >= view.height - close_y))
    )


@dataclass(frozen=True)
class _Pairs:
    """Overlaps of finds of different views; P pairs, each in both directions.

    Attributes:
        first: int64 (P,).
        second: int64 (P,).
        agreement: float64 (P,), overlap where both views look.
        held: float64 (P,), share of the first that lies in or just beside the second's box.
    """

    first: Ints
    second: Ints
    agreement: Reals
    held: Reals

    def by_find(self, count: int) -> list[list[tuple[int, float, float]]]:
        """Return partner, agreement and held share for each find."""
        found: list[list[tuple[int, float, float]]] = [[] for _ in range(count)]
        for i, j, same, held in zip(
            self.first.tolist(),
            self.second.tolist(),
            self.agreement.tolist(),
            self.held.tolist(),
            strict=True,
        ):
            found[i].append((j, same, held))
        return found


def merge(
    sightings: Sightings,
    views: Sequence[View],
    *,
    firm: Bools,
    iou: float,
    mask_threshold: float,
    turn: float | None,
    poles: tuple[float, float] | None = None,
) -> Detections:
    """Return one find per object, in the picture's coordinates.

    Args:
        sightings: Finds of all views.
        views: The views.
        firm: bool (N,), finds above their thresholds; the others never change one of these.
        iou: Least overlap of two finds of the same object.
        mask_threshold: Least probability at which a pixel belongs to a mask.
        turn: Columns of a whole turn of a panorama, else None.
        poles: Rows at which a panorama's upper and lower pole lie, where it reaches them or not.

    Returns:
        Best first. In a panorama, boxes at any multiple of a turn.
    """
    partners = _overlaps(sightings, views, mask_threshold, turn).by_find(len(sightings.finds))
    boxes = sightings.finds.boxes_xyxy
    sides = (boxes[:, 2:] - boxes[:, :2]).min(axis=1) / sightings.pixel
    ranks = sightings.finds.scores * np.minimum(sides / SEEN_WELL_PX, 1)
    order = np.argsort(-ranks, kind="stable")
    strong = [int(i) for i in order if firm[i]]
    weak = [int(i) for i in order if not firm[i]]
    weak = [i for i in weak if not _explained(i, partners[i], sightings, firm, iou)]
    parts = []
    for some in (strong, weak):
        groups = _grouped(some, sightings, partners, iou)
        joined = [_joined(group, sightings, views, turn) for group in groups]
        if turn is not None and poles is not None:
            groups = _one_at_each_pole(groups, joined, poles, turn)
            joined = [_joined(group, sightings, views, turn) for group in groups]
        parts += joined
    found = Detections.concatenate(parts)
    return found.select(np.argsort(-found.scores, kind="stable"))


@dataclass
class _Group:
    """One object: the find that stands for it, those that widen it, and the best score."""

    best: int
    others: list[int]
    score: float


def _explained(
    find: int,
    partners: list[tuple[int, float, float]],
    sightings: Sightings,
    firm: Bools,
    iou: float,
) -> bool:
    """Tell whether a find below its threshold repeats one above."""
    piece = bool(sightings.cut[find])
    return any(
        firm[other] and (same >= iou or (piece and held >= HELD_MIN))
        for other, same, held in partners
    )


def _grouped(
    order: list[int],
    sightings: Sightings,
    partners: list[list[tuple[int, float, float]]],
    iou: float,
) -> list[_Group]:
    """Group finds, best first, into objects."""
    scores, pixel = sightings.finds.scores, sightings.pixel
    wholes: dict[int, _Group] = {}
    for i in (i for i in order if not sightings.cut[i]):
        known = [(same, j) for j, same, _ in partners[i] if j in wholes and same >= iou]
        if known:
            group = wholes[max(known)[1]]
            group.score = max(group.score, float(scores[i]))
        else:
            wholes[i] = _Group(i, [], float(scores[i]))
    loose = []
    for i in (i for i in order if sightings.cut[i]):
        known = [(same, j) for j, same, _ in partners[i] if j in wholes and same >= iou]
        holding = [(held, j) for j, _, held in partners[i] if j in wholes and held >= HELD_MIN]
        if not known and not holding:
            loose.append(i)
            continue
        group = wholes[max(known or holding)[1]]
        group.score = max(group.score, float(scores[i]))
        if not known or pixel[i] < FINER * pixel[group.best]:
            group.others.append(i)
    return [*wholes.values(), *_pieces_joined(loose, scores, partners, iou)]


def _pieces_joined(
    loose: list[int],
    scores: Floats,
    partners: list[list[tuple[int, float, float]]],
    iou: float,
) -> Iterable[_Group]:
    """Yield the connected groups of pieces that belong together."""
    waiting = dict.fromkeys(loose)
    linked: dict[int, set[int]] = {i: set() for i in loose}
    for i in loose:
        for j, same, held in partners[i]:
            if j in linked and (same >= iou or held >= HELD_MIN):
                linked[i].add(j)
                linked[j].add(i)
    for start in loose:
        if start not in waiting:
            continue
        members, edge = [], [start]
        del waiting[start]
        while edge:
            members.append(edge.pop())
            new = [j for j in linked[members[-1]] if j in waiting]
            for j in new:
                del waiting[j]
            edge += new
        yield _Group(start, members[1:], max(float(scores[i]) for i in members))


POLAR_SHARE = 1 / 8
"""Share of a turn from which on what touches a pole's row may be a part of what lies over it."""


def _one_at_each_pole(
    groups: list[_Group], joined: list[Detections], poles: tuple[float, float], turn: float
) -> list[_Group]:
    """Return groups of which those of one class that hold the same pole are one.

    Of an object over a pole a view that looks past it shows a strip, which agrees with nothing.

    Args:
        groups: Objects.
        joined: The find of each.
        poles: As for `merge`.
        turn: Columns of the panorama.
    """
    kept: list[_Group] = []
    at_pole: dict[tuple[int, str, bool], list[int]] = {}
    around = set()
    for i, find in enumerate(joined):
        x0, y0, x1, y1 = find.boxes_xyxy[0].tolist()
        over = y0 <= poles[0] + 1, y1 >= poles[1] - 1
        if not any(over) or x1 - x0 < POLAR_SHARE * turn:
            kept.append(groups[i])
            continue
        pole = int(find.class_ids[0]), find.sources[0], over[0]
        at_pole.setdefault(pole, []).append(i)
        if x1 - x0 >= turn:
            around.add(pole)
    for pole, members in at_pole.items():
        if pole not in around:
            kept += [groups[i] for i in members]
            continue
        # The one that goes all around saw the pole.
        width = {i: float(np.diff(joined[i].boxes_xyxy[0, 0::2])[0]) for i in members}
        first, *others = (groups[i] for i in sorted(members, key=width.__getitem__, reverse=True))
        more = [i for group in others for i in (group.best, *group.others)]
        score = max(groups[i].score for i in members)
        kept.append(_Group(first.best, [*first.others, *more], score))
    return kept


def _joined(
    group: _Group, sightings: Sightings, views: Sequence[View], turn: float | None
) -> Detections:
    """Return the find of one object, in the picture."""
    finds, best = sightings.finds, group.best
    members = [best, *sorted(group.others)]
    seen_by = [views[sightings.views[i]] for i in members]
    box = _union([sightings.boxes[i] for i in members], turn)
    points = picture_points(finds, best, seen_by[0])
    if turn is not None:
        points[:, 0] -= np.rint((points[:, 0] - (box[0] + box[2]) / 2) / turn) * turn
    mask = finds.masks[best]
    if len(members) > 1 or not isinstance(seen_by[0], Tile):
        masks = [finds.masks[i] for i in members]
        mask = picture_mask(box, masks, [sightings.edges[i] for i in members], seen_by)
    return Detections.from_boxes(
        box[None],
        class_ids=finds.class_ids[[best]],
        scores=[group.score],
        masks=mask[None],
        keypoints=points[None],
        source=finds.sources[best],
    )


def _union(boxes: list[Floats], turn: float | None) -> Floats:
    """Return the box around all, each taken where it is nearest to what is joined already."""
    low, high = boxes[0][:2].astype(np.float64), boxes[0][2:].astype(np.float64)
    for box in boxes[1:]:
        near = box.astype(np.float64)
        if turn is not None:
            middle = (low[0] + high[0]) / 2
            near[[0, 2]] -= np.rint(((near[0] + near[2]) / 2 - middle) / turn) * turn
        low, high = np.minimum(low, near[:2]), np.maximum(high, near[2:])
    if turn is not None and len(boxes) > 1 and high[0] - low[0] > turn:
        low[0], high[0] = min(0.0, boxes[0][0]), max(turn, boxes[0][2])
    return np.concatenate([low, high]).astype(np.float32)


def _overlaps(
    sightings: Sightings, views: Sequence[View], mask_threshold: float, turn: float | None
) -> _Pairs:
    """Measure how much finds of one class and network in different views overlap."""
    first, second = _candidates(sightings, turn)
    points = _sample_points(sightings, views)
    own = _own_masks(sightings.finds.masks, mask_threshold)
    in_box, in_mask, held = (np.zeros(len(first)) for _ in range(3))
    for number in np.unique(sightings.views[second]):
        here = np.flatnonzero(sightings.views[second] == number)
        a, b = first[here], second[here]
        seen = views[number].to_view(points[a])
        in_box[here], in_mask[here] = _shares(seen, own[a], sightings.finds, b, mask_threshold)
        held[here] = _held(seen, sightings, a, b)
    back = _reverse(first, second, len(sightings.finds))
    agreement = np.maximum(_iou(in_box, in_box[back]), _iou(in_mask, in_mask[back]))
    return _Pairs(first, second, agreement, held)


def _reverse(first: Ints, second: Ints, count: int) -> Ints:
    """Return the position of each pair's other direction."""
    order = np.argsort(first * count + second)
    backward = np.argsort(second * count + first)
    found = np.empty(len(first), np.int64)
    found[backward] = order
    return found


def _iou(a: Reals, b: Reals) -> Reals:
    """Return the intersection over union from the shares of each that lie in the other."""
    both = (a > 0) & (b > 0)
    a, b = np.where(both, a, 1), np.where(both, b, 1)
    return np.asarray(np.where(both, 1 / (1 / a + 1 / b - 1), 0))


def _candidates(sightings: Sightings, turn: float | None) -> tuple[Ints, Ints]:
    """Return pairs of one class and network, of different views, whose boxes nearly touch."""
    boxes_in_views = sightings.finds.boxes_xyxy
    spans = (sightings.boxes[:, 2:] - sightings.boxes[:, :2]).sum(axis=1)
    shown = (boxes_in_views[:, 2:] - boxes_in_views[:, :2]).sum(axis=1) / sightings.pixel
    beside = (PLACED_PX * spans / np.maximum(shown, 1))[:, None]
    grown = sightings.boxes + beside * np.array([-1, -1, 1, 1], np.float32)
    network = np.unique(np.array(sightings.finds.sources, dtype=str), return_inverse=True)[1]
    first, second = [], []
    for name in np.unique(np.stack([sightings.finds.class_ids, network]), axis=1).T:
        rows = np.flatnonzero((sightings.finds.class_ids == name[0]) & (network == name[1]))
        boxes, views = grown[rows], sightings.views[rows]
        touch = _touching(boxes[:, 1::2], None) & _touching(boxes[:, 0::2], turn)
        i, j = np.nonzero(touch & (views[:, None] != views[None, :]))
        first.append(rows[i])
        second.append(rows[j])
    none = np.zeros(0, np.int64)
    return np.concatenate([none, *first]), np.concatenate([none, *second])


def _touching(spans: Floats, turn: float | None) -> Bools:
    """Tell which spans (N, 2) overlap, also a turn further; bool (N, N)."""
    low, high = spans[:, 0], spans[:, 1]
    if turn is None:
        return np.asarray((low[:, None] < high[None, :]) & (low[None, :] < high[:, None]))
    behind = np.mod(low[None, :] - low[:, None], turn)
    length = high - low
    return np.asarray((behind < length[:, None]) | (turn - behind < length[None, :]))


def _sample_points(sightings: Sightings, views: Sequence[View]) -> Reals:
    """Return points of each find in the picture, evenly over its box; (N, SAMPLES**2, 2)."""
    steps = (np.arange(SAMPLES) + 0.5) / SAMPLES
    grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    points = np.zeros((len(sightings.finds), SAMPLES**2, 2))
    for number in np.unique(sightings.views):
        rows, view = np.flatnonzero(sightings.views == number), views[number]
        box = sightings.finds.boxes_xyxy[rows].astype(np.float64)
        low, high = np.maximum(box[:, :2], 0), np.minimum(box[:, 2:], (view.width, view.height))
        points[rows] = view.to_picture(low[:, None] + grid * (high - low)[:, None])
    return points


def _own_masks(masks: Floats, mask_threshold: float) -> Bools:
    """Tell which sample points lie in the find's own mask; bool (N, SAMPLES**2)."""
    cells = (np.arange(SAMPLES) * 2 + 1) * MASK_SIDE // (2 * SAMPLES)
    return (masks[:, cells][:, :, cells] >= mask_threshold).reshape(len(masks), SAMPLES**2)


def _shares(
    seen: Reals, own: Bools, finds: Detections, others: Ints, mask_threshold: float
) -> tuple[Reals, Reals]:
    """Return the shares of each find's points that another find holds, where its view looks.

    Args:
        seen: Points of P finds in the view of the others, (P, S, 2), NaN where it sees none.
        own: bool (P, S), points in the find's own mask.
        finds: All finds.
        others: int64 (P,), the other find of each pair.
        mask_threshold: Least probability at which a pixel belongs to a mask.

    Returns:
        Of the points that the view sees, the share in the other's box; of those in the own mask,
        the share in the other's mask.
    """
    boxes = finds.boxes_xyxy[others].astype(np.float64)[:, None]
    visible = np.isfinite(seen[..., 0])
    place = np.where(visible[..., None], seen, -1e9)
    in_box = visible & ((place >= boxes[..., :2]) & (place <= boxes[..., 2:])).all(axis=-1)
    size = np.maximum(boxes[..., 2:] - boxes[..., :2], 1e-6)
    cells = np.floor((place - boxes[..., :2]) / size * MASK_SIDE)
    cells = np.clip(cells, 0, MASK_SIDE - 1).astype(np.int64)
    value = finds.masks[others[:, None], cells[..., 1], cells[..., 0]]
    in_mask = in_box & own & (value >= mask_threshold)
    return (
        in_box.sum(axis=1) / np.maximum(visible.sum(axis=1), 1),
        in_mask.sum(axis=1) / np.maximum((visible & own).sum(axis=1), 1),
    )


def _held(seen: Reals, sightings: Sightings, finds: Ints, others: Ints) -> Reals:
    """Return the share of each find's points that lie in or just beside another find's box.

    Beside: within `PLACED_PX` network pixels of either view. A sliver at a border may lie wholly
    in what both networks leave open about where the object ends.
    """
    visible = np.isfinite(seen[..., 0])
    place = np.where(visible[..., None], seen, -1e9)
    low, high = place.min(axis=1, where=visible[..., None], initial=1e9), place.max(axis=1)
    boxes = sightings.finds.boxes_xyxy.astype(np.float64)
    own = (boxes[finds, 2:] - boxes[finds, :2]).sum(axis=1)
    scale = np.maximum((high - low).sum(axis=1), 0) / np.maximum(own, 1e-6)
    beside = PLACED_PX * (sightings.pixel[others] + scale * sightings.pixel[finds])
    other = boxes[others][:, None]
    inside = (place >= other[..., :2] - beside[:, None, None]) & (
        place <= other[..., 2:] + beside[:, None, None]
    )
    return np.asarray((visible & inside.all(axis=-1)).mean(axis=1))
