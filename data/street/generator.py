"""The street generator: seeded sequences of street scenes with exact truth.

Every sequence depends on (seed, index) alone, so that asking for more scenes never changes
those that were drawn before.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from data.street.background import gain_texture, paint_background
from data.street.canvas import Canvas
from data.street.config import StreetConfig, StreetError
from data.street.exposure import draw_exposure, expose
from data.street.layout import Driven, Walker, World, draw_world
from data.street.lookalikes import Lookalike, paint_lookalike
from data.street.person import paint_person, shadow_points
from data.street.scene import Scene, canvas_to_objects
from data.street.vehicle import HALF_LENGTH_M, HALF_WIDTH_M, is_ahead, paint_vehicle
from data.street.view import View

_NEAREST_M = 1.1
"""People and things nearer to the camera have been passed."""
_CAMERAS = 4


def sequence_count(config: StreetConfig) -> int:
    """Return how many sequences make up `config.scenes` pictures.

    >>> sequence_count(StreetConfig(scenes=5, sequence_length=2))
    3
    """
    return -(-config.scenes // config.sequence_length)


def draw_sequence(config: StreetConfig, index: int) -> list[Scene]:
    """Draw the frames of one camera sequence.

    Args:
        config: What to draw.
        index: Number of the sequence, from 0 to `sequence_count(config)`, exclusive.

    Returns:
        `sequence_length` scenes; fewer in the last sequence, where `scenes` cuts it short.

    Raises:
        StreetError: If there is no such sequence.
    """
    if not 0 <= index < sequence_count(config):
        raise StreetError(
            f"street generator: sequence {index} of {sequence_count(config)}; "
            "count from 0, or ask for more scenes in conf/collection"
        )
    world = draw_world(config, np.random.default_rng([config.seed, index]))
    frames = min(config.sequence_length, config.scenes - index * config.sequence_length)
    return [draw_frame(config, world, index=index, frame=frame) for frame in range(frames)]


def draw_frame(config: StreetConfig, world: World, *, index: int, frame: int) -> Scene:
    """Draw one frame of a world."""
    rng = np.random.default_rng([config.seed, index, frame + 1])
    view = replace(world.view, z_m=world.step_m * frame)
    canvas = paint_world(config, world, view, frame=frame)
    exposure = draw_exposure(rng, config, night=world.night)
    pixels = expose(
        canvas.finished_pixels(), exposure, rng,
        darkness=config.darkness, headlamps=_headlamps(world, view, frame),
    )  # fmt: skip
    objects = canvas_to_objects(canvas)
    return Scene(
        pixels=pixels,
        objects=objects,
        camera=f"camera-{index % _CAMERAS}",
        sequence=f"{config.seed}-{index:06d}",
        frame=frame,
        attributes={"daylight": exposure.daylight, "blur": exposure.blur, "empty": not objects},
    )


def paint_world(config: StreetConfig, world: World, view: View, *, frame: int) -> Canvas:
    """Paint street, shadows, then everything from the farthest to the nearest."""
    canvas = Canvas(config.width, config.height)
    paint_background(canvas, view, world.street)
    _paint_shadows(canvas, view, world, frame)
    texture = gain_texture(world.street.texture_seed + 1, canvas.owners.shape, strength=0.04)
    for _, thing in _by_depth(world, view, frame):
        first = len(canvas.painted)
        if isinstance(thing, Lookalike):
            paint_lookalike(canvas, view, thing)
            continue
        if isinstance(thing, Driven):
            paint_vehicle(canvas, view, thing.look, thing.at(frame))
        else:
            _paint_walker(canvas, view, thing, frame)
        canvas.complete(first)
        canvas.shade(first, texture, light=world.light)
    return canvas


def _by_depth(
    world: World, view: View, frame: int
) -> list[tuple[float, Walker | Driven | Lookalike]]:
    """Return what stands in front of the camera with its depth, farthest first."""
    found: list[tuple[float, Walker | Driven | Lookalike]] = [
        *((walker.at(frame)[1], walker) for walker in world.walkers),
        *((thing.z, thing) for thing in world.lookalikes),
    ]
    for driven in world.vehicles:
        stance = driven.at(frame)
        if is_ahead(driven.look.kind, stance, view):
            reach = HALF_LENGTH_M[driven.look.kind] * abs(float(np.cos(stance.turn)))
            found.append((stance.z - reach, driven))
    ahead = [item for item in found if item[0] - view.z_m > _NEAREST_M]
    return sorted(ahead, key=lambda item: -item[0])


def _paint_walker(canvas: Canvas, view: View, walker: Walker, frame: int) -> None:
    phase = walker.phase + 4.0 * walker.speed * frame
    paint_person(canvas, view, walker.look, place=walker.at(frame), turn=walker.turn, phase=phase)


def _paint_shadows(canvas: Canvas, view: View, world: World, frame: int) -> None:
    """Paint shadows before anything stands, so that they hide nothing."""
    color = tuple(0.55 * v for v in world.street.asphalt)
    for _, thing in _by_depth(world, view, frame):
        if isinstance(thing, Walker):
            outline = shadow_points(view, thing.at(frame), 0.28)
        elif isinstance(thing, Driven):
            half, end = HALF_WIDTH_M[thing.look.kind] + 0.1, HALF_LENGTH_M[thing.look.kind]
            corners = [[-half, 0, end], [half, 0, end], [half, 0, -end], [-half, 0, -end]]
            outline = view.project(thing.at(frame).to_street(np.array(corners, dtype=float)))
        else:
            continue
        canvas.fill(outline, (color[0], color[1], color[2]))


def _headlamps(world: World, view: View, frame: int) -> NDArray[np.float64]:
    """Return x, y and radius in pixels of the lit lamps that look at the camera, shape (N, 3)."""
    rows = []
    for driven in world.vehicles:
        stance, kind = driven.at(frame), driven.look.kind
        if not stance.shows_front or not is_ahead(kind, stance, view) or driven.speed == 0:
            continue
        half, end = 0.74 * HALF_WIDTH_M[kind], HALF_LENGTH_M[kind]
        lamps = stance.to_street(np.array([[-half, 0.72, end], [half, 0.72, end]]))
        for (x, y), z in zip(view.project(lamps), lamps[:, 2], strict=True):
            rows.append((x, y, 0.12 * view.scale(float(z))))
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def encode_scene(scene: Scene, config: StreetConfig) -> bytes:
    """Return the picture as JPEG at the configured quality."""
    bgr = cv2.cvtColor(scene.pixels, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, config.jpeg_quality])
    if not done:
        raise StreetError(f"scene {scene.sequence}, frame {scene.frame} could not be encoded")
    return data.tobytes()


def settings_digest(config: StreetConfig) -> str:
    """Return the SHA-256 of the settings and of a probe scene, without the scene count.

    A machine whose libraries draw or encode differently gets another digest, hence another
    source with a reference of its own.
    """
    settings = asdict(config)
    del settings["scenes"]
    probe = draw_sequence(replace(config, scenes=config.sequence_length), 0)[0]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(encode_scene(probe, config))
    for item in probe.objects:
        digest.update(item.class_name.encode() + np.packbits(item.mask).tobytes())
    return digest.hexdigest()


def source_id(config: StreetConfig) -> str:
    """Return the source's identity, `street-` and eight digits of the settings' digest."""
    return f"street-{settings_digest(config)[:8]}"
