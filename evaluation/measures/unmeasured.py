"""What an evaluation did not measure, in words: a reader must not take silence for success."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from anonymization.taxonomy import Taxonomy
from evaluation.measures.leaks import not_attacked


def not_measured(
    summary: Mapping[str, Any], taxonomy: Taxonomy, attack: Mapping[str, Any] | None = None
) -> list[str]:
    """Return one sentence for each thing that was asked and could not be answered.

    Args:
        summary: Content of reports/evaluation.json.
        taxonomy: The classes.
        attack: Content of reports/attack.json; None where nothing was attacked.
    """
    return [*_of_classes(summary, taxonomy), *_of_pictures(summary), *_of_attack(attack, taxonomy)]


def _of_classes(summary: Mapping[str, Any], taxonomy: Taxonomy) -> Iterator[str]:
    for name, values in summary["classes"].items():
        if not values["detected"]["total"]:
            yield f"Recall of {name}: the set holds no identifiable object of it."
        if not values["labelled_pictures"]:
            yield f"Precision and false finds of {name}: no picture labels it completely."
        if not taxonomy[name].gated:
            yield f"{name} is reported, but the gate does not ask for it."
        if values["not_counted"]:
            yield (
                f"{values['not_counted']} objects of {name} that are crowds or not identifiable "
                "do not count; those with a size stand in the table by size."
            )


def _of_pictures(summary: Mapping[str, Any]) -> Iterator[str]:
    if summary["non_object_share_obscured"]["value"] is None:
        yield "Hiding too much: no picture labels every gated class completely."
    if "slices" in summary:
        sliced = {row["slicing"] for row in summary["slices"]}
        absent = [name for name in summary.get("slicings", ()) if name not in sliced]
        if absent:
            said = ", ".join(absent)
            yield f"Slices by {said}: the pictures carry no such field, or one value only."
    if not summary.get("written_output_verified", {}).get("thumbnails"):
        yield "Embedded thumbnails: no picture of this set carries one."
    if not summary.get("tracks"):
        yield "Tracks: no object of this set carries a track, so no leak over time is known."


def _of_attack(attack: Mapping[str, Any] | None, taxonomy: Taxonomy) -> Iterator[str]:
    yield from not_attacked(attack, taxonomy)
    yield "People known by clothing, gait or place: no measure here covers it."
