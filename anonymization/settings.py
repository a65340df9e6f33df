"""Settings per class: what an operator changes of how a bundle detects and obscures.

From a YAML or JSON file (`--settings`) and from the command line (`--set face.method=pixelate`),
the latter last. Checked against the classes that the bundle, or the known regions, have.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anonymization.structured import SettingsError, read_structured
from anonymization.taxonomy import METHODS, SHAPES, STRENGTH_MIN, Taxonomy, TaxonomyError

if TYPE_CHECKING:
    from anonymization.card import Card

SCHEMA_VERSION = 1
_RANGES = {
    "threshold": (0.0, 1.0),
    "margin": (0.0, 4.0),
    "feather": (0.0, 4.0),
    "strength": (0.0, 4.0),
}
NEVER, UNLESS_HIDDEN, ALWAYS = "never", "unless_hidden", "always"
HEADS = (NEVER, UNLESS_HIDDEN, ALWAYS)
"""When a person's outline implies a head: never, where the person stays visible, or always."""

_CHOICES = {"method": METHODS, "shape": SHAPES, "head": HEADS}
GENERATOR_COMMAND = "python -m training.zoo.faces FOLDER"


@dataclass(frozen=True)
class ClassSettings:
    """What is changed for one class; None leaves what the bundle says. Checked when made.

    Attributes:
        enabled: False neither lists nor obscures the class's finds.
        threshold: Least score, in [0, 1].
        method: One of `taxonomy.METHODS`; `none` lists finds and leaves their pixels.
        generator: Folder of a generator, which draws what method `synthetic` puts in the place of
            faces.
        head: One of `HEADS`; for the class that has keypoints.
        shape: One of `taxonomy.SHAPES`.
        margin: Growth on each side as a share of the object's shorter side.
        feather: Width of the faded edge as a share of the same side.
        strength: Size of blur kernel or mosaic cell as a share of the same side.
    """

    enabled: bool | None = None
    threshold: float | None = None
    method: str | None = None
    shape: str | None = None
    margin: float | None = None
    feather: float | None = None
    strength: float | None = None
    generator: str | None = None
    head: str | None = None

    def __post_init__(self) -> None:
        if self.enabled is not None and not isinstance(self.enabled, bool):
            raise SettingsError(f"enabled is {self.enabled!r}; expected true or false")
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise SettingsError(f"{name} is {value!r}; expected one of {', '.join(choices)}")
        if self.generator is not None and not (
            isinstance(self.generator, str) and self.generator.strip()
        ):
            raise SettingsError(f"generator is {self.generator!r}; expected a folder")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is None:
                continue
            if not _is_number(value) or not low <= value <= high:
                raise SettingsError(
                    f"{name} is {value!r}; expected a number from {low:g} to {high:g}"
                )

    def beside(self, folder: Path) -> ClassSettings:
        """Return these settings with a relative path taken as below a folder."""
        if self.generator is None:
            return self
        return dataclasses.replace(self, generator=str(folder / self.generator))

    def given(self) -> dict[str, Any]:
        """Return what is set, by key."""
        return {key: value for key, value in asdict(self).items() if value is not None}


KEYS = tuple(f.name for f in dataclasses.fields(ClassSettings))
_OF_SPEC = ("method", "shape", "margin", "feather", "strength")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class Settings:
    """What is changed, by class name.

    >>> Settings.of(["face.method=solid"]).classes["face"].method
    'solid'
    """

    classes: Mapping[str, ClassSettings] = field(default_factory=dict)

    @classmethod
    def of(cls, assignments: Iterable[str]) -> Settings:
        """Read `CLASS.KEY=VALUE` texts; a later one wins.

        Raises:
            SettingsError: If one is not of that form, or has an unknown key or a wrong value.
        """
        found = cls()
        for text in assignments:
            target, equals, raw = text.partition("=")
            name, dot, key = target.strip().rpartition(".")
            if not (equals and dot and name):
                raise SettingsError(
                    f"--set is {text!r}; expected CLASS.KEY=VALUE, as in face.method=pixelate"
                )
            found = found.updated(cls({name: _class_settings(name, {key: _value(raw.strip())})}))
        return found

    @classmethod
    def read(cls, path: Path) -> Settings:
        """Read a settings file, YAML or JSON.

        Raises:
            SettingsError: If it cannot be read, or holds an unknown key or a wrong value.
        """
        values = read_structured(path, schema_version=SCHEMA_VERSION, keys=("classes",))
        classes = values.get("classes") or {}
        if not isinstance(classes, Mapping):
            raise SettingsError(f"{path}: classes is {classes!r}; expected settings by class name")
        try:
            found = cls({str(n): _class_settings(str(n), v) for n, v in classes.items()})
        except SettingsError as error:
            raise SettingsError(f"{path}: {error}") from error
        # As masks of regions: a file and what it names can be moved together.
        return cls({name: change.beside(path.parent) for name, change in found.classes.items()})

    def updated(self, other: Settings) -> Settings:
        """Return these settings with those of another on top."""
        merged = dict(self.classes)
        for name, changes in other.classes.items():
            before = merged.get(name, ClassSettings())
            merged[name] = dataclasses.replace(before, **changes.given())
        return Settings(merged)

    @property
    def disabled(self) -> frozenset[str]:
        """Names of the classes that are off."""
        return frozenset(n for n, change in self.classes.items() if change.enabled is False)

    @property
    def generators(self) -> dict[str, Path]:
        """Folder of the generator of each class that is replaced by what one draws."""
        return {
            name: Path(change.generator)
            for name, change in self.classes.items()
            if change.generator is not None and change.method == "synthetic"
        }

    def implying_head(self, taxonomy: Taxonomy) -> bool:
        """Tell whether a person's outline implies a head.

        Args:
            taxonomy: With these settings.
        """
        person = taxonomy.keypoint_class
        if person is None:
            return False
        asked = self.classes.get(person, ClassSettings()).head or NEVER
        visible = taxonomy[person].method == "none" or person in self.disabled
        return asked == ALWAYS or (asked == UNLESS_HIDDEN and visible)

    def taxonomy(self, taxonomy: Taxonomy) -> Taxonomy:
        """Return a taxonomy with these settings.

        A class that a generator replaces has method `solid`, which keeps as little of the source
        and hides it even where nothing draws.

        Raises:
            SettingsError: If a class is unknown, or a class cannot have the method.
        """
        classes = dict(taxonomy.classes)
        for name, change in self.classes.items():
            if name not in classes:
                raise SettingsError(
                    f"settings name class {name!r}; known classes: {', '.join(taxonomy.names)}"
                )
            values = {k: v for k, v in change.given().items() if k in _OF_SPEC}
            if change.method == "synthetic" and classes[name].geometry == "ellipse":
                values["method"] = _by_generator(name, change)
            if change.generator is not None and classes[name].geometry != "ellipse":
                raise SettingsError(
                    f"{name}.generator: a generator draws faces, for classes of geometry ellipse; "
                    f"{name} has geometry {classes[name].geometry}"
                )
            if change.head not in (None, NEVER):
                _check_head(name, taxonomy)
            try:
                classes[name] = dataclasses.replace(classes[name], **values)
            except TaxonomyError as error:
                raise SettingsError(f"settings of class {name}: {error}") from error
        return dataclasses.replace(taxonomy, classes=classes)

    def card(self, card: Card) -> Card:
        """Return a bundle's card with these settings: taxonomy and thresholds.

        Raises:
            SettingsError: As `taxonomy`.
        """
        thresholds = {
            name: float(change.threshold)
            for name, change in self.classes.items()
            if change.threshold is not None
        }
        changed = dataclasses.replace(card, taxonomy=self.taxonomy(card.taxonomy))
        return changed.with_thresholds(thresholds)

    def resolved(self, taxonomy: Taxonomy) -> Settings:
        """Return these settings with the names of a taxonomy in place of their aliases.

        A class that the taxonomy lacks keeps its name; `taxonomy` refuses it.

        Raises:
            SettingsError: If one class is given two values for one key, under two names.
        """
        merged = Settings()
        for given, change in self.classes.items():
            name = taxonomy.resolve(given) or given
            before = merged.classes.get(name, ClassSettings()).given()
            for key, value in change.given().items():
                if before.get(key, value) != value:
                    raise SettingsError(
                        f"{given}.{key} is {value!r}, and {before[key]!r} under another name of "
                        f"{name}; leave one out"
                    )
            merged = merged.updated(Settings({name: change}))
        return merged

    def warnings(self, taxonomy: Taxonomy) -> list[str]:
        """Return one line for each setting that does not do what it says, or hides nothing.

        Args:
            taxonomy: With these settings.
        """
        generators = [
            f"{name}.generator is not used: it draws for {name}.method synthetic alone"
            for name, change in self.classes.items()
            if change.generator is not None and change.method != "synthetic"
        ]
        strengths = [
            f"{name}.strength is {change.strength:g}; {STRENGTH_MIN:g} is used, below which faces "
            "and characters stay readable"
            for name, change in self.classes.items()
            if change.strength is not None and change.strength < STRENGTH_MIN
        ]
        shapes = [
            f"{name}.shape is {change.shape}; finds of {name} have no outline and are hidden by "
            "their box, what a person drew by itself"
            for name, change in self.classes.items()
            if change.shape in ("outline", "rotated_box") and taxonomy[name].geometry != "mask"
        ]
        hidden = [
            name
            for name in taxonomy.names
            if name not in self.disabled and taxonomy[name].method != "none"
        ]
        nothing = [] if hidden else ["nothing is hidden: every class is off or has method none"]
        return [*nothing, *generators, *strengths, *shapes, *self._unhidden_heads(taxonomy)]

    def _unhidden_heads(self, taxonomy: Taxonomy) -> list[str]:
        person, head = taxonomy.keypoint_class, taxonomy.head_class
        if not self.implying_head(taxonomy) or head is None:
            return []
        if head not in self.disabled and taxonomy[head].method != "none":
            return []
        return [f"{person}.head hides no head: class {head}, which heads get, is not hidden"]

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, for reports."""
        return {name: change.given() for name, change in sorted(self.classes.items())}


def _by_generator(name: str, change: ClassSettings) -> str:
    """Return the method of a class whose faces a generator draws."""
    if change.generator is None:
        raise SettingsError(
            f"{name}.method=synthetic needs a generator of faces: make one with "
            f"`{GENERATOR_COMMAND}` and add --set {name}.generator=FOLDER"
        )
    return "solid"


def _check_head(name: str, taxonomy: Taxonomy) -> None:
    person = taxonomy.keypoint_class
    if person is None or taxonomy.head_class is None:
        raise SettingsError(f"{name}.head: the model has no persons whose heads could be hidden")
    if name != person:
        raise SettingsError(
            f"{name}.head: head is a setting of {person}: --set {person}.head=always"
        )


def _class_settings(name: str, values: Any) -> ClassSettings:
    if not isinstance(values, Mapping):
        raise SettingsError(f"settings of class {name} are {values!r}; expected KEY: VALUE pairs")
    for key in values:
        if key not in KEYS:
            raise SettingsError(f"class {name} has setting {key!r}; known: {', '.join(KEYS)}")
    try:
        return ClassSettings(**values)
    except SettingsError as error:
        raise SettingsError(f"settings of class {name}: {error}") from error


def _value(raw: str) -> Any:
    """Read the right side of an assignment: true, false, a number, or text."""
    if raw.lower() in ("true", "false", "on", "off", "yes", "no"):
        return raw.lower() in ("true", "on", "yes")
    try:
        return float(raw)
    except ValueError:
        return raw
