"""The labelling configuration that annotators work in, made from the taxonomy; pure.

The project's own configuration is also where it stands since when each class is asked for
(attribute `since` of its labels): an annotation that was begun earlier says nothing of that class.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from xml.etree import ElementTree  # our own text, or that of a server that we trust with pictures

from annotation.labels import CHOICES, CROWD, IDENTIFIABLE, IMAGE, OCCLUDED, TAGS, TOOLS
from anonymization.errors import BlurloopError
from anonymization.taxonomy import KEYPOINT_NAMES, Taxonomy

DOUBT = "doubt"
"""Field of a task that says what validation doubts; empty where it doubts nothing."""
SINCE = "since"
EDITOR_KEYS = frozenset("behkmopruvw")
"""Letters by which Label Studio's editor takes its own tools: no label may have one."""
_FIRST_KEYS = "123456789"
_SECOND_KEYS = "asdfgjlqyz"
_CHOICE_KEYS = {IDENTIFIABLE: ("i", "n"), OCCLUDED: ("c", "x"), CROWD: ("t",)}
_NOSE_KEY, _LEFT_KEYS, _RIGHT_KEYS = "n", "qwetyuio", "asdghjkl"
"""With shift, left above right on the keyboard, from the eyes down; shift+r is the editor's."""
_DRAWN_FIRST = ("polygon", "ellipse", "rectangle", "brush")
"""Order on the screen; the first is what an annotator has in hand."""
_STYLE = (
    # No child selectors: the editor reads the text of the tag with its > still escaped.
    # What people choose from stays above the picture, and in sight when a tall one is scrolled.
    ".blurloop-strip { position: sticky; top: 0; z-index: 5; padding-bottom: 4px; "
    "background: var(--color-neutral-background, #fff); } "
    ".blurloop-row { display: flex; flex-wrap: wrap; align-items: center; gap: 0 12px; } "
    ".blurloop-tool { display: flex; align-items: center; gap: 6px; } "
    # The editor writes its margins into the elements.
    ".blurloop-strip h4, .blurloop-strip .lsf-labels, .blurloop-strip .lsf-choices "
    "{ margin: 0 !important; } "
    ".blurloop-tool h4 { font-size: 13px !important; font-weight: 400 !important; } "
    ".blurloop-doubt h4 { color: #b3261e !important; font-size: 15px !important; } "
    ".blurloop-doubt h4:not(:empty)::before { content: 'Look again: '; } "
    ".blurloop-strip .lsf-label { margin: 2px 4px 2px 0; padding: 0 6px; font-size: 13px; } "
    ".blurloop-strip .lsf-label__hotkey { margin-left: 6px; } "
    ".blurloop-points .lsf-label, .blurloop-points .lsf-label__hotkey { font-size: 11px; } "
    ".blurloop-points .lsf-label { height: 20px; margin: 1px 3px 1px 0; } "
    # Nothing moves when a region is selected.
    ".blurloop-said { min-height: 40px; } "
    ".lsf-header:empty { display: none; }"
)
Pair = tuple[str, str]
"""Type of region and class."""


class LabellingError(BlurloopError):
    """The project cannot be changed to the taxonomy without losing work."""


@dataclass(frozen=True)
class Labelling:
    """What a project asks for.

    Attributes:
        xml: The labelling configuration.
        since: ISO 8601 time since when each class is asked for; None where it always was.
    """

    xml: str
    since: dict[str, str | None]


def wanted_pairs(taxonomy: Taxonomy) -> list[Pair]:
    """Return the tools of each class: all usual ones, then all others, each in class order."""
    tools = [(name, TOOLS[spec.geometry]) for name, spec in taxonomy.classes.items()]
    # Brushes come for every outline class, as predictions with holes need them.
    return [(kinds[rank], name) for rank in (0, 1) for name, kinds in tools]


def labelling(
    taxonomy: Taxonomy,
    *,
    keypoints: bool = True,
    kept: Iterable[Pair] = (),
    since: Mapping[str, str | None] | None = None,
) -> Labelling:
    """Write the configuration.

    Args:
        taxonomy: Classes, their geometry and colours.
        keypoints: Whether persons get keypoints.
        kept: Further tools that existing work uses.
        since: Time since when a class is asked for, where it was not from the start.
    """
    pairs = wanted_pairs(taxonomy)
    pairs += [pair for pair in sorted(set(kept)) if pair not in pairs and pair[0] != "keypoint"]
    moments = {name: (since or {}).get(name) for name in taxonomy.names}
    keys = dict(zip(pairs, _keys(pairs, taxonomy), strict=True))
    root = ElementTree.Element("View")
    ElementTree.SubElement(root, "Style").text = _STYLE
    strip = ElementTree.SubElement(root, "View", className="blurloop-strip")
    doubt = ElementTree.SubElement(strip, "View", className="blurloop-doubt")
    ElementTree.SubElement(doubt, "Header", value=f"${DOUBT}", size="5")
    tools = ElementTree.SubElement(strip, "View", className="blurloop-row")
    for kind in _DRAWN_FIRST:
        labels = [name for tool, name in pairs if tool == kind]
        if labels:
            _add_tool(tools, kind, labels, taxonomy, keys, moments)
    _add_keypoints(strip, taxonomy, wanted=keypoints)
    _add_choices(strip)
    ElementTree.SubElement(
        root, "Image", name=IMAGE, value=f"${IMAGE}", zoom="true", zoomControl="true",
        brightnessControl="true", contrastControl="true", crosshair="true",
    )  # fmt: skip
    ElementTree.indent(root)
    return Labelling(ElementTree.tostring(root, encoding="unicode"), moments)


def _keys(pairs: list[Pair], taxonomy: Taxonomy) -> list[str]:
    """Digits for the usual tool of each class, letters for the others, as far as they go."""
    count = len(taxonomy.names)
    first = [*_FIRST_KEYS[:count], *[""] * (count - len(_FIRST_KEYS))]
    others = len(pairs) - count
    return [*first, *_SECOND_KEYS[:others], *([""] * (others - len(_SECOND_KEYS)))]


def _add_tool(
    parent: ElementTree.Element,
    kind: str,
    labels: list[str],
    taxonomy: Taxonomy,
    keys: Mapping[Pair, str],
    since: Mapping[str, str | None],
) -> None:
    box = ElementTree.SubElement(parent, "View", className="blurloop-tool")
    ElementTree.SubElement(box, "Header", value=kind, size="6")
    values = {"name": kind, "toName": IMAGE}
    values |= {"canRotate": "true"} if kind == "rectangle" else {}
    values |= {"strokeWidth": "2"} if kind != "brush" else {}
    tag = ElementTree.SubElement(box, TAGS[kind], values)
    for name in labels:
        about = {"value": name, "background": taxonomy[name].color}
        key, moment = keys[kind, name], since[name]
        about |= {"hotkey": key} if key else {}
        about |= {SINCE: moment} if moment else {}
        ElementTree.SubElement(tag, "Label", about)


def _add_keypoints(root: ElementTree.Element, taxonomy: Taxonomy, *, wanted: bool) -> None:
    if not (wanted and taxonomy.keypoint_class):
        return
    box = ElementTree.SubElement(root, "View", className="blurloop-points")
    tag = ElementTree.SubElement(
        box, TAGS["keypoint"], name="keypoint", toName=IMAGE, strokeWidth="3"
    )
    keys = [_NOSE_KEY, *(key for pair in zip(_LEFT_KEYS, _RIGHT_KEYS, strict=True) for key in pair)]
    for name, key in zip(KEYPOINT_NAMES, keys, strict=True):
        # Left and right differ, so that a swapped pair is seen.
        color = "#f58231" if name.startswith("left") else "#42d4f4"
        color = "#911eb4" if name == "nose" else color
        about = {"value": name, "background": color, "hotkey": f"shift+{key}"}
        ElementTree.SubElement(tag, "Label", about)


def _add_choices(root: ElementTree.Element) -> None:
    box = ElementTree.SubElement(root, "View", className="blurloop-row blurloop-said")
    for name, meanings in CHOICES.items():
        tag = ElementTree.SubElement(
            box, "Choices", name=name, toName=IMAGE, perRegion="true",
            choice="multiple" if len(meanings) == 1 else "single", showInline="true",
        )  # fmt: skip
        for (word, _), key in zip(meanings, _CHOICE_KEYS[name], strict=True):
            ElementTree.SubElement(tag, "Choice", value=word, hotkey=key)


def read_pairs(xml: str) -> tuple[set[Pair], dict[str, str | None]]:
    """Return the tools of a project's configuration, and since when each class is asked for.

    Raises:
        LabellingError: If the configuration is no XML.
    """
    try:
        root = ElementTree.fromstring(xml)  # noqa: S314
    except ElementTree.ParseError as error:
        raise LabellingError(f"the project's labelling configuration is no XML: {error}") from error
    pairs: set[Pair] = set()
    since: dict[str, str | None] = {}
    for kind, tag in TAGS.items():
        for element in root.iter(tag):
            for label in element.iter("Label"):
                name = label.get("value", "")
                pairs.add((kind, name))
                if kind != "keypoint":
                    since[name] = label.get(SINCE)
    return pairs, since


def updated(
    old_xml: str,
    taxonomy: Taxonomy,
    *,
    keypoints: bool,
    used: Mapping[Pair, int],
    now: str,
    found_in: Mapping[Pair, str] | None = None,
) -> Labelling:
    """Return the configuration that an existing project gets.

    A tool that existing work uses stays; a class that the project did not ask for is asked for
    from now on. Where only moments differ, the old text comes back as it was.

    Args:
        old_xml: What the project has.
        taxonomy: What it shall ask for.
        keypoints: Whether persons get keypoints.
        used: Number of regions in annotations and drafts, per tool and class.
        now: ISO 8601 time.
        found_in: Where the first region of each tool and class stands; of others, in drafts.

    Raises:
        LabellingError: If regions carry a label that the taxonomy lacks, or are keypoints where it
            asks for none; the message counts them and names the first.
    """
    _, since = read_pairs(old_xml)
    for (kind, name), count in sorted(used.items()):
        if kind != "keypoint" and name not in taxonomy.classes and count:
            raise LabellingError(
                f"the taxonomy has no class {name!r}, but {count} {kind} regions in the project "
                f"carry it ({_first(found_in, kind, name)}) and would lose their label. Keep the "
                "class in conf/taxonomy, or give these regions another label in Label Studio first"
            )
    moments = {name: since.get(name, None if not since else now) for name in taxonomy.names}
    in_use = [pair for pair, count in used.items() if count]
    points = sorted(name for kind, name in in_use if kind == "keypoint")
    if points and taxonomy.keypoint_class is None:
        raise LabellingError(
            "the taxonomy has no keypoint_class, but the project has keypoints "
            f"({_first(found_in, 'keypoint', points[0])}), which would be lost. Keep it in "
            "conf/taxonomy, or delete the keypoints in Label Studio first"
        )
    return labelling(taxonomy, keypoints=keypoints or bool(points), kept=in_use, since=moments)


def _first(found_in: Mapping[Pair, str] | None, kind: str, name: str) -> str:
    where = (found_in or {}).get((kind, name))
    return f"first in {where}" if where else "in drafts"


def covered_classes(
    taxonomy: Taxonomy, since: Mapping[str, str | None], begun: str
) -> tuple[str, ...]:
    """Return the classes that an annotation begun at a time was asked for.

    >>> from anonymization.taxonomy import ClassSpec
    >>> face = Taxonomy({"face": ClassSpec(geometry="ellipse", shape="ellipse")})
    >>> covered_classes(face, {"face": "2026-05-01T00:00:00Z"}, "2026-04-30T10:00:00Z")
    ()
    """
    return tuple(
        name
        for name in taxonomy.names
        if name in since and ((moment := since[name]) is None or moment <= begun)
    )


def instructions(taxonomy: Taxonomy, pictures: Mapping[str, tuple[str, str]]) -> str:
    """Write what annotators read first, as HTML.

    Args:
        taxonomy: Classes and their limits of what is identifiable.
        pictures: Addresses of an example that is identifiable and one that is not, per class.
    """
    rows = []
    for name, spec in taxonomy.classes.items():
        tools = " or ".join(TOOLS[spec.geometry])
        side = {"width": "wide", "height": "high"}[spec.identifiable_side]
        shown = "".join(
            f'<td><img src="{address}" alt="{name}: {word}" width="110"></td>'
            for address, word in zip(
                pictures.get(name, ()), ("identifiable", "not identifiable"), strict=False
            )
        )
        rows.append(
            f"<tr><td><b>{name}</b></td><td>{tools}</td>"
            f"<td>{spec.identifiable_px:g} px {side}</td>{shown}</tr>"
        )
    points = (
        f"<p>A {taxonomy.keypoint_class}'s keypoints belong to it: with the person selected, "
        "group them under it in the list of regions; a point inside of one person alone needs no "
        "grouping. Say <i>occluded</i> of points that something hides.</p>"
        if taxonomy.keypoint_class
        else ""
    )
    return (
        "<h3>Mark everything that could single somebody out</h3>"
        "<p>A miss is a person exposed: mark small, cut, mirrored and half hidden ones, too. "
        "What is drawn already was found by a model: correct it, delete what is wrong, and above "
        "all add what it missed.</p>"
        '<table cellpadding="6"><tr><th>class</th><th>draw with</th><th>counts from</th>'
        "<th>identifiable</th><th>not identifiable</th></tr>" + "".join(rows) + "</table>"
        "<p>Say <i>identifiable</i> or <i>not identifiable</i> of a region where its size alone "
        "would say something else: a sharp small face, a large one that is blurred or turned "
        "away.</p>"
        "<p>Pieces of one object are one object: draw the pieces and put them under the first in "
        "the list of regions, or link them by a relation. <i>Several objects</i> is for a crowd "
        "that cannot be told apart.</p>"
        + points
        + "<p>Skip pictures that you cannot judge. A picture "
        "that shows nothing of all this is submitted as it is.</p>"
        "<p><b>Keys</b> stand on the labels. ctrl+enter submits, ctrl+space skips, ctrl+z takes "
        "back. v selects and moves, h pans, u lets a region go, ctrl+h hides all regions to see "
        "the picture under them, [ and ] change the brush, e erases.</p>"
    )
