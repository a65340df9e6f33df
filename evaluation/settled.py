"""Whether promotion has anything to do: what a verdict rests on, and what the last run saw.

It spares `dvc repro` with nothing to do the two seconds that MLflow takes to start.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from anonymization.files import FileError, read_json, sha256_of_file, sha256_of_json, write_json
from data.layout import BUNDLE, PREPARED, REFERENCE, REPORTS, SPLITS, VALIDATED, WORK
from data.tracking.revisions import changed_code, digest_of
from data.tracking.store import database_file, experiment_name, tracking_uri
from evaluation.binding import OBJECTS, evaluated_code
from evaluation.measures.leaks import ATTACK
from evaluation.record import recorded_outputs
from evaluation.turn import EVALUATION, REPORT, VALIDATION, Settings

STATE = WORK / "promotion.json"


def input_digest(settings: Settings) -> str:
    """Return the digest of all that the verdict rests on."""
    splits = [PREPARED / f"{split}.json" for split in SPLITS]
    checked = (VALIDATION, VALIDATED, REPORTS / "queue.json")
    paths = (EVALUATION, OBJECTS, ATTACK, BUNDLE, REFERENCE, *checked, *splits)
    code = sorted(Path(__file__).parent.rglob("*.py"))
    changed = changed_code(evaluated_code(read_json(EVALUATION))) if EVALUATION.is_file() else []
    values = {
        "settings": [
            asdict(settings.promotion),
            asdict(settings.evaluation),
            settings.taxonomy.to_dict(),
            asdict(settings.tracking),
            settings.seed,
        ],
        "experiment": experiment_name(),
        "uri": tracking_uri(),
        "code": [sha256_of_file(path) for path in code],
        "changed": changed,
        "recorded": [recorded_outputs(), recorded_outputs(stage="validation")],
        **{str(path): digest_of(path) if path.exists() else None for path in paths},
    }
    return sha256_of_json(values)


def _registry_state() -> list[int] | None:
    """Return size and time of the database, which every write changes; None for a server."""
    database = database_file(tracking_uri())
    if database is None or not database.is_file():
        return None
    stat = database.stat()
    return [stat.st_size, stat.st_mtime_ns]


def is_settled(inputs: str) -> bool:
    """Return whether the last run saw just this, and nobody has written to the registry since."""
    if not STATE.is_file() or not REPORT.is_file():
        return False
    try:
        state = read_json(STATE)
    except FileError:
        return False
    expected = {"inputs": inputs, "registry": _registry_state(), "report": sha256_of_file(REPORT)}
    return expected["registry"] is not None and bool(state == expected)


def settle(inputs: str) -> None:
    """Remember what this run saw and left."""
    write_json(
        STATE,
        {"inputs": inputs, "registry": _registry_state(), "report": sha256_of_file(REPORT)},
    )
