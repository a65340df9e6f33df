"""Attack on what is obscured: `python -m evaluation.attack --plates FOLDER --faces FOLDER`.

Each method and strength is attacked as somebody would who wants to know. Plates are read by an OCR
engine, before and after, and what it reads is looked up in the list of all plates; faces are
embedded and looked up among all originals. An attacker is told where the object is and, for
faces, where eyes and nose were; blurred pictures are also deconvolved first. Looking up by chance
is right once in as many as there are. A method and strength that is right more often, by more
than noise (its exact lower bound lies above chance), is refused as a default: by this program,
and by the gate where reports/attack.json says so (evaluation/attack_gate.py).

The whole surroundings of an object are obscured with it: what is measured is method and strength,
not how well an outline fits. Originals and attacked pictures are the same photograph, which is
harder to withstand than another photograph of the same person would be.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from anonymization.errors import BlurloopError
from anonymization.taxonomy import STRENGTH_MIN, ClassSpec, Taxonomy
from evaluation.attack_engines import (
    AttackError,
    Box,
    Embedder,
    Pixels,
    Reader,
    Vector,
    deconvolve,
    engine_versions,
    plain,
)
from evaluation.bound import CONFIDENCE, exact_lower
from evaluation.measures.leaks import FACES_MATCHED, PLATES_READ, used_setting

SCHEMA_VERSION = 1
STRENGTHS = (STRENGTH_MIN, 0.8, 1.0)
DRAWN = 80
AROUND = 1.0
"""Sides of an object that are obscured around it: the surroundings must not tell either."""
FACE_MIN_PX = 40
"""Faces narrower than this hardly give a landmark, in the original either."""
PLATE_MIN_PX = 20
"""Plates lower than this the engine hardly reads, in the original either."""
SEED = 20261123
DIGEST_SIDES_PX = (8, 24, 48)
"""Objects of which `obscuring_digest` is made: below, about and above the smallest cells."""


@dataclass(frozen=True)
class Target:
    """One object that is obscured and attacked.

    Attributes:
        pixels: Picture around it, uint8 (H, W, 3).
        box_xyxy: Where it is.
        text: Its text, for plates.
    """

    pixels: Pixels
    box_xyxy: Box
    text: str = ""

    @property
    def side(self) -> float:
        """Shorter side of the box."""
        x0, y0, x1, y1 = self.box_xyxy
        return min(x1 - x0, y1 - y0)

    def crop(self, pixels: Pixels) -> Pixels:
        """Return the pixels of a picture inside the box."""
        x0, y0, x1, y1 = (round(v) for v in self.box_xyxy)
        return np.ascontiguousarray(pixels[max(y0, 0) : y1, max(x0, 0) : x1])


@dataclass(frozen=True)
class Setting:
    """One method and strength; `none` leaves the picture as it is, to show what the engine can."""

    method: str
    strength: float


def drawn_plates(count: int, *, seed: int = SEED) -> list[Target]:
    """Return plates of one line, drawn by the street generator at 24 to 72 px of height."""
    from data.street.plate import draw_plate, plate_texture

    random = np.random.default_rng(seed)
    found: list[Target] = []
    while len(found) < count:
        plate = draw_plate(random)
        if "/" in plate.text:
            continue
        texture = plate_texture(plate)
        height = int(random.integers(24, 73))
        width = round(texture.shape[1] * height / texture.shape[0])
        small = cv2.resize(texture, (width, height), interpolation=cv2.INTER_AREA)
        picture = np.full((3 * height, width + 2 * height, 3), 90, np.uint8)
        picture[height : 2 * height, height : height + width] = small
        box = (float(height), float(height), float(height + width), 2.0 * height)
        found.append(Target(picture, box, plain(plate.text)))
    return found


def faces_of(folder: Path, count: int, *, seed: int = SEED) -> list[Target]:
    """Return faces of a COCO folder (annotations.json, images/), one a picture, 40 px and wider.

    Raises:
        AttackError: If fewer than two are there.
    """
    things = [t for t in _labelled(folder, "face") if t["bbox"][2] >= FACE_MIN_PX]
    by_picture = {thing["image_id"]: thing for thing in things}
    return _targets(folder, by_picture, count, seed, f"faces of {FACE_MIN_PX} px or wider")


def plates_of(folder: Path, count: int, *, seed: int = SEED) -> list[Target]:
    """Return plates of a COCO folder whose text is known, one of each text, 20 px and higher.

    The text stands in `attributes.text`.

    Raises:
        AttackError: If fewer than two are there.
    """
    by_text: dict[Any, dict[str, Any]] = {}
    for thing in _labelled(folder, "license_plate"):
        text = plain(str((thing.get("attributes") or {}).get("text") or ""))
        if text and thing["bbox"][3] >= PLATE_MIN_PX:
            by_text.setdefault(text, thing | {"text": text})
    named = f"plates of {PLATE_MIN_PX} px or higher with attributes.text"
    return _targets(folder, by_text, count, seed, named)


def _labelled(folder: Path, class_name: str) -> list[dict[str, Any]]:
    """Return the annotations of one class, each with the file of its picture."""
    from anonymization.files import read_json

    coco = read_json(folder / "annotations.json")
    names = {c["id"] for c in coco["categories"] if c["name"] == class_name}
    files = {image["id"]: image["file_name"] for image in coco["images"]}
    return [
        thing | {"file_name": files[thing["image_id"]]}
        for thing in coco["annotations"]
        if thing["category_id"] in names
    ]


def _targets(
    folder: Path, things: dict[Any, dict[str, Any]], count: int, seed: int, named: str
) -> list[Target]:
    """Return at most so many objects, cut out of their pictures, drawn at random."""
    from anonymization.formats.picture import read_picture

    if len(things) < 2 or count < 2:
        raise AttackError(f"{folder} holds {len(things)} {named}, {count} asked; expected 2 each")
    keys = sorted(things)
    targets = []
    for index in np.random.default_rng(seed).permutation(len(keys))[:count].tolist():
        thing = things[keys[index]]
        inside = folder / thing["file_name"]
        path = inside if inside.is_file() else folder / "images" / thing["file_name"]
        x, y, width, height = thing["bbox"]
        picture = read_picture(path).pixels
        cut = _cut_out(picture, (x, y, x + width, y + height))
        targets.append(replace(cut, text=thing.get("text", "")))
    return targets


def _cut_out(picture: Pixels, box: Box) -> Target:
    """Return an object with one and a half of its shorter sides around it."""
    grow = 1.5 * min(box[2] - box[0], box[3] - box[1])
    x0, y0 = (max(0, int(v - grow)) for v in box[:2])
    x1, y1 = int(box[2] + grow), int(box[3] + grow)
    moved = (box[0] - x0, box[1] - y0, box[2] - x0, box[3] - y0)
    return Target(np.ascontiguousarray(picture[y0:y1, x0:x1]), moved)


def obscured(target: Target, setting: Setting, *, seed: int = SEED) -> Pixels:
    """Return a target's picture with it and its surroundings obscured, by the shipped code.

    Obscuring raises a strength below its floor. Such a one is asked for as the floor itself, on a
    box of a shorter side with so much more margin that the region is the same.
    """
    from anonymization.detection.finds import Detections
    from anonymization.obscuring.obscure import obscure

    if setting.method == "none":
        return target.pixels
    share = 1.0
    if setting.method in ("blur", "pixelate"):
        share = min(1.0, setting.strength / STRENGTH_MIN)
    less = target.side * (1 - share) / 2
    x0, y0, x1, y1 = target.box_xyxy
    box = (x0 + less, y0 + less, x1 - less, y1 - less)
    # A hair less, or a sum that is rounded up takes in one more row or column.
    margin = (AROUND * target.side + less - 1e-3) / (share * target.side)
    spec = ClassSpec("box", "box", setting.method, margin=margin, strength=setting.strength)
    found = Detections.from_boxes([box], class_ids=[0], scores=[1.0])
    return np.asarray(obscure(target.pixels, found, Taxonomy({"object": spec}), seed=seed))


def obscuring_digest(setting: Setting) -> str:
    """Return what a method and strength makes of drawn objects, as a SHA-256.

    Of pixels, not of source files: code that is rewritten and obscures as before keeps its
    digest, and a library that rounds otherwise changes it. The gate compares it with the kept one.
    """
    coarse = np.random.default_rng(SEED).integers(0, 256, (20, 30, 3), np.uint8)
    picture = np.kron(coarse, np.ones((8, 8, 1), np.uint8))
    digest = hashlib.sha256()
    for side in DIGEST_SIDES_PX:
        target = Target(picture, (60.0, 50.0, 60.0 + 2 * side, 50.0 + side))
        digest.update(obscured(target, setting).tobytes())
    return digest.hexdigest()


def blur_sigma(target: Target, setting: Setting) -> float:
    """Return the spread of the shipped blur: its kernel spans `strength` of the shorter side."""
    return max(1.0, setting.strength * target.side / 4)


def identified(texts: Sequence[str], known: Sequence[str]) -> list[bool]:
    """Return which readings are closest to their own plate, and to no other alike.

    >>> identified(["ABC12", "", "X"], ["ABC123", "XYZ987", "XYZ986"])
    [True, False, False]
    """
    hits = []
    for index, text in enumerate(texts):
        like = [difflib.SequenceMatcher(None, text, other).ratio() for other in known]
        best = max(like)
        hits.append(best > 0 and like[index] == best and like.count(best) == 1)
    return hits


def matched(probes: Sequence[Vector], gallery: Sequence[Vector]) -> list[bool]:
    """Return which probes lie closest to their own original (rank-1 re-identification)."""
    stacked = np.stack(gallery)
    return [
        int(np.argmin(np.linalg.norm(stacked - probe, axis=1))) == index
        for index, probe in enumerate(probes)
    ]


Look = Callable[[Sequence[Pixels]], list[bool]]


def plates_look(reader: Reader, targets: Sequence[Target]) -> Look:
    """Return the attack on plates: read, then look up."""
    known = [target.text for target in targets]

    def look(pictures: Sequence[Pixels]) -> list[bool]:
        texts = [reader.read(t.crop(p)) for t, p in zip(targets, pictures, strict=True)]
        return identified(texts, known)

    return look


def faces_look(embedder: Embedder, targets: Sequence[Target]) -> Look:
    """Return the attack on faces: embed, then look up among the originals."""
    gallery = [embedder.embed(t.pixels, t.box_xyxy, t.pixels) for t in targets]

    def look(pictures: Sequence[Pixels]) -> list[bool]:
        pairs = zip(targets, pictures, strict=True)
        return matched([embedder.embed(p, t.box_xyxy, t.pixels) for t, p in pairs], gallery)

    return look


def attacked(
    name: str,
    targets: Sequence[Target],
    look: Look,
    settings: Sequence[Setting],
    defaults: dict[Setting, list[str]],
) -> Iterator[dict[str, Any]]:
    """Yield one row for each setting, and one more for blur that is deconvolved first."""
    for setting in settings:
        pictures = [obscured(t, setting, seed=SEED + i) for i, t in enumerate(targets)]
        yield _row(name, setting, look(pictures), defaults)
        if setting.method == "blur":
            sharpened = [
                deconvolve(p, blur_sigma(t, setting))
                for t, p in zip(targets, pictures, strict=True)
            ]
            yield _row(f"{name}, deconvolved", setting, look(sharpened), defaults)


def _row(
    attack: str, setting: Setting, hits: Sequence[bool], defaults: dict[Setting, list[str]]
) -> dict[str, Any]:
    leaked, total = sum(hits), len(hits)
    lower = float(exact_lower(leaked, total, confidence=CONFIDENCE))
    chance = 1 / total
    return {
        "attack": attack,
        "method": setting.method,
        "strength": setting.strength,
        "default_of": defaults.get(setting, []),
        "leaked": leaked,
        "total": total,
        "rate": leaked / total,
        "lower": lower,
        "upper": 1 - float(exact_lower(total - leaked, total, confidence=CONFIDENCE)),
        "chance": chance,
        "refused": lower > chance,
    }


def settings_of(
    taxonomy: Taxonomy, strengths: Sequence[float] = STRENGTHS
) -> tuple[list[Setting], dict[Setting, list[str]]]:
    """Return the methods and strengths to attack, and which classes have one as their default."""
    defaults: dict[Setting, list[str]] = {}
    for name, spec in taxonomy.classes.items():
        defaults.setdefault(Setting(*used_setting(spec)), []).append(name)
    wanted = {Setting(m, s) for m in ("blur", "pixelate") for s in strengths} | set(defaults)
    wanted -= {setting for setting in wanted if setting.method == "none"}
    ordered = sorted(wanted | {Setting("solid", 0.0)}, key=lambda s: (s.method, s.strength))
    return [Setting("none", 0.0), *ordered], defaults


HEAD = (
    f"{'attack':32}{'method':10}{'strength':>9}{'leaked':>10}{'rate':>8}{'bounds':>15}{'chance':>9}"
)


def line(row: dict[str, Any]) -> str:
    """Return one row of the table that the program prints, under HEAD."""
    said = "refused" if row["refused"] else "holds"
    said = "what the engine can" if row["method"] == "none" else said
    default = f", default of {', '.join(row['default_of'])}" if row["default_of"] else ""
    return (
        f"{row['attack']:32}{row['method']:10}{row['strength']:9g}"
        f"{row['leaked']:6d}/{row['total']:<3d}{row['rate']:8.3f}"
        f"{row['lower']:9.3f}-{row['upper']:.3f}{row['chance']:9.3f}  {said}{default}"
    )


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.attack",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--drawn", type=int, default=DRAWN, help="drawn plates to attack")
    parser.add_argument("--plates", type=Path, help="COCO folder with plates and their texts")
    parser.add_argument("--faces", type=Path, help="COCO folder with faces")
    parser.add_argument("--most", type=int, default=100, help="objects of each folder to attack")
    parser.add_argument(
        "--strengths",
        type=_strength,
        nargs="+",
        default=STRENGTHS,
        help="to attack, beside defaults",
    )
    parser.add_argument("--json", type=Path, help="file to write, such as reports/attack.json")
    return parser


def _strength(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no strength; expected a number above 0")
    return value


def materials(given: argparse.Namespace) -> Iterator[tuple[str, str, list[Target], Look]]:
    """Yield name, description, targets and attack of each kind that the command line asks for.

    Raises:
        AttackError: If an engine is missing or there is too little to attack.
    """
    from evaluation.attack_engines import DlibEmbedder, RapidReader

    if given.drawn:
        if given.drawn < 2:
            raise AttackError(f"--drawn is {given.drawn}; expected 0, or 2 and more")
        plates = drawn_plates(given.drawn)
        look = plates_look(RapidReader(), plates)
        yield f"drawn {PLATES_READ}", f"{len(plates)} drawn plates", plates, look
    if given.plates:
        plates = plates_of(given.plates, given.most)
        said = f"{len(plates)} photographed plates of {given.plates.name}"
        yield PLATES_READ, said, plates, plates_look(RapidReader(), plates)
    if given.faces:
        faces = faces_of(given.faces, given.most)
        said = f"{len(faces)} photographed faces of {given.faces.name}"
        yield FACES_MATCHED, said, faces, faces_look(DlibEmbedder(), faces)


def run(given: argparse.Namespace) -> dict[str, Any]:
    """Attack what the command line asks for, and print; return what reports/attack.json holds.

    Raises:
        AttackError: If an engine is missing or there is too little to attack.
    """
    from data.reference import frozen_taxonomy

    settings, defaults = settings_of(frozen_taxonomy(), given.strengths)
    rows: list[dict[str, Any]] = []
    said: list[str] = []
    for name, material, targets, look in materials(given):
        if not rows:
            _say(HEAD)
        said.append(material)
        for row in attacked(name, targets, look, settings, defaults):
            _say(line(row))
            rows.append(row)
    if not rows:
        raise AttackError("nothing to attack; give --drawn, --plates or --faces")
    return {
        "schema_version": SCHEMA_VERSION,
        "date": datetime.now(UTC).date().isoformat(),
        "material": ", ".join(said),
        "engines": engine_versions(),
        "obscuring": [
            {"method": s.method, "strength": s.strength, "sha256": obscuring_digest(s)}
            for s in settings
            if s.method != "none"
        ],
        "rows": rows,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Attack, keep, and exit with 1 where a default leaks."""
    from anonymization.files import write_json_rows

    given = _parser().parse_args(arguments)
    try:
        content = run(given)
    except BlurloopError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    if given.json:
        write_json_rows(given.json, content)
    leaking = [row for row in content["rows"] if row["refused"] and row["default_of"]]
    if leaking:
        sys.stderr.write("a default leaks above chance by more than noise\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
