"""Settings of the street generator: how many scenes, how large, and how difficult."""

from __future__ import annotations

from dataclasses import dataclass, fields

from anonymization.errors import BlurloopError


class StreetError(BlurloopError):
    """A setting of the street generator is out of range."""


@dataclass(frozen=True)
class StreetConfig:
    """What the generator draws; every field but `scenes` is part of the source's identity.

    Shares lie in [0, 1]; counts are means of a Poisson-like draw per scene that is not empty.

    Attributes:
        scenes: Pictures in all. Growing it never changes earlier ones.
        sequence_length: Frames of a camera sequence.
        width: Pixels of a picture.
        height: Pixels of a picture.
        seed: Seed of everything; a sequence depends on (seed, index) alone.
        near_people: Mean number of people near enough for a face of 20 px.
        far_people: Mean number of people farther away.
        near_vehicles: Mean number of vehicles near enough for a plate of 12 px.
        far_vehicles: Mean number of vehicles farther away.
        far_m: Distance of the farthest object in metres.
        near_scale: Distance of near objects relative to the default; above 1 they are smaller.
        lookalikes: Mean number of things that must not be found.
        empty_share: Share of sequences with nobody and nothing to find.
        occlusion: Share of objects that are placed without regard to what they hide.
        edge_cut_share: Share of objects that may be cut by the picture's edge.
        profile_share: Share of people seen from the side.
        away_share: Share of people who turn their back.
        hidden_face_share: Share of people with helmet, mask, scarf or sunglasses.
        motorcycle_share: Share of motorcycles among vehicles; thin outlines under a rider.
        people_in_vehicles_share: Share of windscreens with somebody behind them.
        side_view_share: Share of vehicles seen from the side, without a plate.
        night_share: Share of sequences at night.
        darkness: How dark night is; 0 leaves day, 1 leaves only what lamps light.
        blur_share: Share of pictures with motion blur or defocus.
        blur_px: Largest radius of the blur in pixels at 512 pixels of width.
        noise: Standard deviation of the sensor noise by day, in grey levels of 255.
        jpeg_quality: Quality at which pictures are saved, 1 to 100.
    """

    scenes: int = 720
    sequence_length: int = 2
    width: int = 512
    height: int = 320
    seed: int = 0
    near_people: float = 2.6
    far_people: float = 1.0
    near_vehicles: float = 2.4
    far_vehicles: float = 0.7
    far_m: float = 45.0
    near_scale: float = 1.0
    lookalikes: float = 5.0
    empty_share: float = 0.08
    occlusion: float = 0.05
    edge_cut_share: float = 0.15
    profile_share: float = 0.15
    away_share: float = 0.15
    hidden_face_share: float = 0.12
    people_in_vehicles_share: float = 0.3
    side_view_share: float = 0.12
    motorcycle_share: float = 0.03
    night_share: float = 0.2
    darkness: float = 0.55
    blur_share: float = 0.2
    blur_px: float = 1.5
    noise: float = 4.0
    jpeg_quality: int = 90

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if not low <= value <= high:
                raise StreetError(
                    f"street generator: {name} is {value}; expected {low} to {high}. "
                    "Correct it in conf/collection"
                )
        if self.profile_share + self.away_share > 1:
            raise StreetError(
                f"street generator: profile_share {self.profile_share} and away_share "
                f"{self.away_share} add up to more than 1. Lower one in conf/collection"
            )


_COUNTS = ("near_people", "far_people", "near_vehicles", "far_vehicles", "lookalikes")
_RANGES: tuple[tuple[str, float, float], ...] = (
    ("scenes", 1, 10_000_000),
    ("sequence_length", 1, 1000),
    ("width", 64, 8192),
    ("height", 64, 8192),
    ("seed", 0, 2**63 - 1),
    ("far_m", 10, 200),
    ("near_scale", 0.5, 5),
    ("darkness", 0, 1),
    ("blur_px", 0, 20),
    ("noise", 0, 60),
    ("jpeg_quality", 1, 100),
    *((name, 0, 30) for name in _COUNTS),
    *((f.name, 0, 1) for f in fields(StreetConfig) if f.name.endswith("_share")),
    ("occlusion", 0, 1),
)
