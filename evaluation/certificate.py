"""A statement for one use of a bundle: `python -m evaluation.certificate --use "..."`.

Markdown from what evaluation, promotion and attack left: what was measured, on what, with which
bound, valid for which classes and conditions, and what was not measured. For a PDF, print it from
any Markdown viewer, or the report from a browser.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from anonymization.errors import BlurloopError
from anonymization.taxonomy import Taxonomy
from evaluation.measures.leaks import read_attack
from evaluation.measures.unmeasured import not_measured
from evaluation.report.page import ratio, ratio_up


class CertificateError(BlurloopError):
    """A statement would not be true."""

    exit_code = 2


def certificate(
    use: str,
    evaluation: Mapping[str, Any],
    promotion: Mapping[str, Any],
    taxonomy: Taxonomy,
    attack: Mapping[str, Any] | None = None,
) -> str:
    """Return the statement as Markdown.

    Args:
        use: What the bundle is to be used for, in the words of who uses it.
        evaluation: Content of reports/evaluation.json.
        promotion: Content of reports/promotion.json.
        taxonomy: The classes.
        attack: Content of reports/attack.json, where it was measured.

    Raises:
        CertificateError: If the verdict is not on this evaluation, or no use is named.
    """
    if not use.strip():
        raise CertificateError('name the use that the statement is for: --use "street level map"')
    for key in ("bundle_digest", "reference_digest", "objects_sha256"):
        judged, measured = promotion.get(key), evaluation.get(key)
        if judged != measured:
            raise CertificateError(
                f"the verdict is on {key} {judged}, the evaluation on {measured}; run dvc repro"
            )
    parts = (
        _head(use, evaluation, promotion),
        _recalls(evaluation, promotion),
        _conditions(evaluation, taxonomy),
        _attack(attack),
        ["## What was not measured", "", *_list(not_measured(evaluation, taxonomy, attack))],
        _provenance(evaluation),
    )
    return "\n".join(line for part in parts for line in [*part, ""])


def _list(lines: Sequence[str]) -> list[str]:
    return [f"- {line}" for line in lines]


def _head(use: str, evaluation: Mapping[str, Any], promotion: Mapping[str, Any]) -> Iterator[str]:
    yield f"# Anonymization: statement for {use.strip()}"
    yield ""
    outcome = str(promotion.get("outcome"))
    if evaluation["split"] != "reference":
        yield (
            f"**{outcome} as a forecast.** Measured on pictures that the thresholds were chosen "
            "on: this certifies nothing."
        )
    elif outcome == "PROMOTED":
        yield "**PROMOTED.** Every criterion of the gate is met."
    else:
        yield "**REFUSED.** This bundle must not be used to anonymize. Reasons:"
    if promotion.get("reasons"):
        yield ""
        yield from _list([str(reason) for reason in promotion["reasons"]])
    for warning in promotion.get("warnings", ()):
        yield ""
        yield f"Warning: {warning}"


def _recalls(evaluation: Mapping[str, Any], promotion: Mapping[str, Any]) -> Iterator[str]:
    yield "## What was measured"
    yield ""
    yield (
        "Recall of identifiable objects. Detected: found by its class at IoU 0.5. Covered: at "
        "least 90 % of its pixels obscured in the written file. The bound is the lower one at "
        f"{evaluation['confidence']:.0%} confidence, one-sided; the gate asks it for 0.95."
    )
    yield ""
    yield "| class | detected | bound | covered | bound | objects | clusters | worst slice |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for name, values in evaluation["classes"].items():
        cells = [name]
        for sense in ("detected", "covered"):
            bound = values[sense]["lower_bound"]
            cells += [ratio(values[sense]["recall"]), ratio(bound["bound"] if bound else None)]
        cells += [str(values["detected"]["total"]), str(values["clusters"])]
        yield f"| {' | '.join([*cells, _worst_slice(evaluation, name)])} |"
    yield ""
    finds = evaluation["false_finds_per_picture"]["value"]
    hidden = evaluation["non_object_share_obscured"]["value"]
    yield f"False finds a picture: {ratio(finds, 2)}."
    yield f"Share of pixels without an object that is hidden all the same: {ratio(hidden)}."
    tries = promotion.get("models_judged")
    yield f"Models that this reference set has judged, this one included: {tries}."


def _worst_slice(evaluation: Mapping[str, Any], name: str) -> str:
    """Return the flagged slice of least covered recall, else the one of least recall at all."""
    own = [row for row in evaluation.get("slices", ()) if row["class"] == name]
    if not own:
        return "–"
    worst = min(own, key=lambda row: (not row["flagged"], row["covered"]["recall"]))
    flag = ", flagged" if worst["flagged"] else ""
    covered = worst["covered"]
    return (
        f"{worst['slicing']} {worst['slice']}: {ratio(covered['recall'])} covered of "
        f"{covered['total']}{flag}"
    )


def _conditions(evaluation: Mapping[str, Any], taxonomy: Taxonomy) -> Iterator[str]:
    yield "## What it is valid for"
    yield ""
    for name, spec in taxonomy.classes.items():
        threshold = evaluation["thresholds"].get(name)
        yield (
            f"- {name}: {spec.identifiable_side} from {spec.identifiable_px:g} px on (or as an "
            f"annotator said), obscured by {spec.method} over its {spec.shape}, found at score "
            f"{threshold}"
        )
    seen: dict[str, set[str]] = {}
    for row in evaluation.get("slices", ()):
        if row["slicing"] not in ("size", "occlusion"):
            seen.setdefault(row["slicing"], set()).add(row["slice"])
    for slicing, values in sorted(seen.items()):
        yield f"- {slicing} seen in the reference set: {', '.join(sorted(values))}"
    yield (
        "- Pictures like those of the reference set. Other cameras, countries, seasons or "
        "resolutions need a reference set of their own."
    )


def _attack(attack: Mapping[str, Any] | None) -> Iterator[str]:
    yield "## Attack on what is obscured"
    yield ""
    if attack is None:
        yield "Not measured."
        return
    yield f"Measured {attack['date']} on {attack['material']}."
    yield ""
    yield "| attack | method | strength | leaked | bounds | chance | |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for row in attack["rows"]:
        default = f"default of {', '.join(row['default_of'])}" if row["default_of"] else ""
        said = ", ".join(filter(None, ["above chance" if row["refused"] else "", default]))
        bounds = f"{ratio(row['lower'])} to {ratio_up(row['upper'])}"
        yield (
            f"| {row['attack']} | {row['method']} | {row['strength']:g} | "
            f"{row['leaked']} of {row['total']} | {bounds} | {ratio(row['chance'])} | {said} |"
        )


def _provenance(evaluation: Mapping[str, Any]) -> Iterator[str]:
    yield "## What it rests on"
    yield ""
    for key in ("bundle_digest", "reference_digest", "objects_sha256", "code_revision", "run_id"):
        yield f"- {key.replace('_', ' ')}: `{evaluation.get(key)}`"


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the statement on what the last turn left."""
    from anonymization.files import read_json
    from data.layout import REPORTS
    from data.reference import frozen_taxonomy

    parser = argparse.ArgumentParser(
        prog="python -m evaluation.certificate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--use", required=True, help="what the bundle is to be used for")
    parser.add_argument("--output", type=Path, help="file to write; standard output without")
    given = parser.parse_args(arguments)
    try:
        taxonomy = frozen_taxonomy()
        text = certificate(
            given.use,
            read_json(REPORTS / "evaluation.json", schema_version=1),
            read_json(REPORTS / "promotion.json"),
            taxonomy,
            read_attack(taxonomy),
        )
    except BlurloopError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    if given.output:
        given.output.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
