"""A statement for one use of a bundle: `python -m evaluation.certificate --use "..."`.

Markdown or PDF from what evaluation, promotion and attack left: what was measured, on what, with
which bound, valid for which classes and conditions, and what was not measured. It holds no picture.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from anonymization.errors import BlurloopError
from anonymization.taxonomy import Taxonomy
from evaluation.measures.leaks import read_attack
from evaluation.measures.unmeasured import not_measured
from evaluation.report.page import ratio, ratio_up
from evaluation.statement import (
    BAD,
    GOOD,
    Block,
    Bullets,
    Heading,
    Paragraph,
    Table,
    one_line,
    to_markdown,
)

KEPT = "Share of pixels without an object that the written files leave exactly as they were"


class CertificateError(BlurloopError):
    """A statement would not be true."""

    exit_code = 2


def certificate(
    use: str,
    evaluation: Mapping[str, Any],
    promotion: Mapping[str, Any],
    taxonomy: Taxonomy,
    attack: Mapping[str, Any] | None = None,
    *,
    issued: date | None = None,
) -> list[Block]:
    """Return the statement.

    Args:
        use: What the bundle is to be used for, in the words of who uses it.
        evaluation: Content of reports/evaluation.json.
        promotion: Content of reports/promotion.json.
        taxonomy: The classes.
        attack: Content of reports/attack.json, where it was measured.
        issued: Day on which it is written; None leaves it out.

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
    return [
        Heading(f"Anonymization: statement for {one_line(use)}", 1),
        *_outcome(evaluation, promotion),
        *_recalls(evaluation, promotion),
        *_conditions(evaluation, taxonomy),
        *_attack(attack),
        Heading("What was not measured"),
        Bullets(tuple(not_measured(evaluation, taxonomy, attack))),
        *_provenance(evaluation, issued),
    ]


def _outcome(evaluation: Mapping[str, Any], promotion: Mapping[str, Any]) -> Iterator[Block]:
    outcome = str(promotion.get("outcome"))
    if evaluation["split"] != "reference":
        yield Paragraph(
            "Measured on pictures that the thresholds were chosen on: this certifies nothing.",
            f"{outcome} as a forecast.",
            BAD,
        )
    elif outcome == "PROMOTED":
        yield Paragraph("Every criterion of the gate is met.", "PROMOTED.", GOOD)
    else:
        said = "This bundle must not be used to anonymize. Reasons:"
        yield Paragraph(said, "REFUSED.", BAD)
    if promotion.get("reasons"):
        yield Bullets(tuple(str(reason) for reason in promotion["reasons"]))
    for warning in promotion.get("warnings", ()):
        yield Paragraph(str(warning), "Warning:")


def _recalls(evaluation: Mapping[str, Any], promotion: Mapping[str, Any]) -> Iterator[Block]:
    yield Heading("What was measured")
    yield Paragraph(
        "Recall of identifiable objects. Detected: found by its class at IoU 0.5. Covered: at "
        "least 90 % of its pixels obscured in the written file. The bound is the lower one at "
        f"{100 * evaluation['confidence']:g} % confidence, one-sided; the gate asks it for 0.95."
    )
    head = ("class", "detected", "bound", "covered", "bound", "objects", "clusters", "worst slice")
    yield Table(head, tuple(_recall_row(evaluation, name) for name in evaluation["classes"]))
    finds = evaluation["false_finds_per_picture"]["value"]
    hidden = evaluation["non_object_share_obscured"]["value"]
    kept = evaluation.get("utility_kept", {}).get("unchanged")
    yield Bullets(
        (
            f"{evaluation['pictures']} pictures of the {evaluation['split']} set.",
            f"False finds a picture: {ratio_up(finds, 2)}.",
            f"Share of pixels without an object that is hidden all the same: {ratio_up(hidden)}.",
            *([] if kept is None else [f"{KEPT}: {ratio(kept)}."]),
            "Models that this reference set has judged, this one included: "
            f"{promotion.get('models_judged')}.",
        )
    )


def _recall_row(evaluation: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = evaluation["classes"][name]
    cells = [name]
    for sense in ("detected", "covered"):
        bound = values[sense]["lower_bound"]
        cells += [ratio(values[sense]["recall"]), ratio(bound["bound"] if bound else None)]
    cells += [str(values["detected"]["total"]), str(values["clusters"])]
    return (*cells, _worst_slice(evaluation, name))


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


def _conditions(evaluation: Mapping[str, Any], taxonomy: Taxonomy) -> Iterator[Block]:
    yield Heading("What it is valid for")
    conditions = [
        f"{name}: {spec.identifiable_side} from {spec.identifiable_px:g} px on (or as an "
        f"annotator said), obscured by {spec.method} over its {spec.shape.replace('_', ' ')}, "
        f"found from score {ratio(evaluation['thresholds'].get(name))} on"
        for name, spec in taxonomy.classes.items()
    ]
    seen: dict[str, set[str]] = {}
    for row in evaluation.get("slices", ()):
        if row["slicing"] not in ("size", "occlusion"):
            seen.setdefault(row["slicing"], set()).add(row["slice"])
    conditions += [
        f"{slicing} seen in the reference set: {', '.join(sorted(values))}"
        for slicing, values in sorted(seen.items())
    ]
    conditions.append(
        "Pictures like those of the reference set. Other cameras, countries, seasons or "
        "resolutions need a reference set of their own."
    )
    yield Bullets(tuple(conditions))


def _attack(attack: Mapping[str, Any] | None) -> Iterator[Block]:
    """Show what was measured of the ways that this bundle obscures, and what the engines can."""
    yield Heading("Attack on what is obscured")
    if attack is None:
        yield Paragraph("Not measured.")
        return
    own = [row for row in attack["rows"] if row["default_of"] and row["method"] != "none"]
    able = [row for row in attack["rows"] if row["method"] == "none"]
    others = len(attack["rows"]) - len(own) - len(able)
    left = f" {others} rows on other ways stand in reports/attack.json." if others else ""
    yield Paragraph(
        f"Measured {attack['date']} on {attack['material']}, each wholly hidden: plates read "
        "again, faces matched again. Above chance means by more than noise." + left
    )
    head = ("attack", "method", "strength", "leaked", "bounds", "chance", "says", "hides")
    if able or own:
        yield Table(head, tuple(_attack_row(row) for row in [*able, *own]))


def _attack_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    plain = row["method"] == "none"
    said = "what the engine can" if plain else "above chance" if row["refused"] else "holds"
    return (
        str(row["attack"]),
        "as they are" if plain else str(row["method"]),
        f"{row['strength']:g}" if row["strength"] else "–",
        f"{row['leaked']} of {row['total']}",
        f"{ratio(row['lower'])} to {ratio_up(row['upper'])}",
        ratio(row["chance"]),
        said,
        "–" if plain else ", ".join(row["default_of"]) or "–",
    )


def _provenance(evaluation: Mapping[str, Any], issued: date | None) -> Iterator[Block]:
    yield Heading("What it rests on")
    keys = ("bundle_digest", "reference_digest", "objects_sha256", "code_revision", "run_id")
    named = [f"{key.replace('_', ' ')}: `{evaluation.get(key)}`" for key in keys]
    yield Bullets((*named, *([f"issued: {issued.isoformat()}"] if issued else [])))


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
    parser.add_argument(
        "--output",
        type=Path,
        help="file to write: a PDF if it ends in .pdf, else Markdown; standard output without",
    )
    given = parser.parse_args(arguments)
    try:
        taxonomy = frozen_taxonomy()
        evaluation = read_json(REPORTS / "evaluation.json", schema_version=1)
        blocks = certificate(
            given.use,
            evaluation,
            read_json(REPORTS / "promotion.json"),
            taxonomy,
            read_attack(taxonomy),
            issued=datetime.now(UTC).date(),
        )
        write(blocks, given.output, bundle=str(evaluation["bundle_digest"]))
    except BlurloopError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)


def write(blocks: Sequence[Block], path: Path | None, *, bundle: str) -> None:
    """Write a statement in the form that the file's name asks for; to standard output without."""
    from anonymization.files import write_bytes
    from evaluation.statement_pdf import to_pdf

    if path is None:
        sys.stdout.write(to_markdown(blocks))
    elif path.suffix.lower() == ".pdf":
        write_bytes(path, to_pdf(blocks, footer=f"Blurloop, bundle {bundle[:12]}"))
    else:
        write_bytes(path, to_markdown(blocks).encode())


if __name__ == "__main__":
    main()
