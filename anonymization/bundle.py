"""The bundle: the only thing that passes from the factory to the anonymizer.

A folder with `card.json`, one ONNX graph per network, and `verdict.json` once a gate has judged
it. It is data: loading one checks every byte against the card and runs nothing. Graph bytes are
read once and kept, so that what was checked is what runs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from anonymization.card import CARD, SCHEMA_VERSION, BundleError, Card, GraphCard, is_number
from anonymization.files import FileError, folder_in_one_step, read_json, write_bytes, write_json

VERDICT = "verdict.json"
VERDICTS = "verdicts"
"""Folder beside a bundle in which the loop leaves one verdict per bundle digest."""
PROMOTED = "PROMOTED"
REFUSED = "REFUSED"


class VerdictError(BundleError):
    """A verdict stands beside a bundle that it did not judge."""


@dataclass(frozen=True)
class Verdict:
    """What the gate said about a bundle; the content of `verdict.json`.

    Attributes:
        outcome: `PROMOTED` or `REFUSED`.
        bundle_digest: Digest of the bundle that was judged.
        values: The whole file, with every criterion.
    """

    outcome: str
    bundle_digest: str
    values: Mapping[str, Any]

    def recalls(self) -> dict[str, str]:
        """Return measured recall per class as text, `detected/covered`, where it is recorded."""
        classes = self.values.get("classes")
        if not isinstance(classes, Mapping):
            return {}
        return {
            str(name): "/".join(_recall_text(senses, sense) for sense in ("detected", "covered"))
            for name, senses in classes.items()
            if isinstance(senses, Mapping)
        }


def _recall_text(senses: Mapping[str, Any], sense: str) -> str:
    value = senses.get(sense)
    recall = value.get("recall") if isinstance(value, Mapping) else value
    return f"{recall:.3f}" if is_number(recall) else "unknown"


@dataclass(frozen=True)
class Bundle:
    """A bundle whose bytes were checked.

    Attributes:
        path: Folder that it was read from.
        card: Its card.
        graphs: Checked bytes of each graph, by network name.
        verdict: What the gate said, or None where no gate has judged it.
    """

    path: Path
    card: Card
    graphs: Mapping[str, bytes] = field(repr=False)
    verdict: Verdict | None = None

    @property
    def digest(self) -> str:
        """SHA-256 that covers the card and the graphs."""
        return self.card.digest

    @property
    def warning(self) -> str | None:
        """One line for whoever uses the bundle; None where it was promoted and carries no note."""
        said = [self._verdict_warning(), self.card.note and f"Note: {self.card.note}"]
        return ". ".join(filter(None, said)) or None

    def _verdict_warning(self) -> str | None:
        if self.verdict is None:
            return (
                f"bundle {self.path} has no verdict: nobody has measured what it misses. "
                "Evaluate it (dvc repro) before you rely on it"
            )
        if self.verdict.outcome == PROMOTED:
            return None
        measured = ", ".join(f"{n} {r}" for n, r in self.verdict.recalls().items())
        return (
            f"bundle {self.path} was REFUSED by the gate"
            + (f"; measured recall (detected/covered): {measured}" if measured else "")
            + ". Do not publish what it anonymized without looking at it"
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Bundle:
        """Read a bundle and check every byte of it against its card.

        Raises:
            BundleError: If the folder or a file is missing, a digest does not match, a file is
                there that the card does not list, or the card is wrong.
            VerdictError: If the verdict names another bundle.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise BundleError(
                f"bundle {folder} is not a folder; expected one with {CARD} "
                "(the loop writes artifacts/bundle)"
            )
        try:
            card = Card.from_dict(read_json(folder / CARD))
        except FileError as error:
            raise BundleError(f"bundle {folder} has no usable card: {error}") from error
        except BundleError as error:
            raise BundleError(f"{folder / CARD}: {error}") from error
        _refuse_unlisted(folder, card)
        graphs = {name: _read_graph(folder, graph) for name, graph in card.graphs.items()}
        return cls(folder, card, MappingProxyType(graphs), read_verdict(folder, card.digest))


def _refuse_unlisted(folder: Path, card: Card) -> None:
    # ONNX graphs may point at weight files beside them, which no digest would cover.
    listed = {CARD, VERDICT, *(graph.file for graph in card.graphs.values())}
    for entry in sorted(folder.iterdir()):
        if entry.name not in listed:
            raise BundleError(
                f"bundle {folder} holds {entry.name!r}, which its card does not list; "
                "remove it, or take the bundle from where it came once more"
            )
        if entry.is_symlink() and not entry.resolve().is_file():
            raise BundleError(f"bundle {folder}: {entry.name!r} is a link to nothing")


def _read_graph(folder: Path, graph: GraphCard) -> bytes:
    path = folder / graph.file
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"graph {path} cannot be read: {error}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != graph.sha256:
        raise BundleError(
            f"graph {path} has sha256 {found}; its card says {graph.sha256}. "
            "The file was changed or damaged: take the bundle from where it came once more"
        )
    return content


def read_verdict(folder: Path, digest: str) -> Verdict | None:
    """Read the verdict on a bundle; None where there is none.

    It is `verdict.json` in the bundle, as shipped, or `verdicts/<digest>.json` beside it, where
    the loop leaves it: the bundle there is an output whose bytes must stay.

    Raises:
        VerdictError: If it cannot be read or names another digest.
    """
    shipped, beside = folder / VERDICT, folder.absolute().parent / VERDICTS / f"{digest}.json"
    path = shipped if shipped.exists() else beside
    if not path.exists():
        return None
    try:
        values = read_json(path, schema_version=SCHEMA_VERSION)
    except FileError as error:
        raise VerdictError(f"verdict beside the bundle cannot be read: {error}") from error
    outcome, named = values.get("outcome"), values.get("bundle_digest")
    if outcome not in (PROMOTED, REFUSED):
        raise VerdictError(f"{path}: outcome is {outcome!r}; expected {PROMOTED} or {REFUSED}")
    if named != digest:
        raise VerdictError(
            f"{path} judges bundle {named}; this bundle is {digest}. "
            "Remove the verdict, or take bundle and verdict together"
        )
    return Verdict(outcome, named, values)


def write_bundle(
    folder: str | os.PathLike[str], card: Card, graphs: Mapping[str, bytes | Path]
) -> Bundle:
    """Write a bundle in one step and read it back.

    Args:
        folder: Where to; an older bundle there is replaced.
        card: Its card; empty digests are filled in.
        graphs: Bytes or file of each graph that the card names.

    Raises:
        BundleError: If card and graphs name different networks, or a digest in the card is not
            that of the graph.
    """
    if set(graphs) != set(card.graphs):
        raise BundleError(
            f"graphs {sorted(graphs)} were given; the card names {sorted(card.graphs)}"
        )
    contents = {
        name: source if isinstance(source, bytes) else Path(source).read_bytes()
        for name, source in graphs.items()
    }
    listed = {}
    for name, graph in card.graphs.items():
        found = hashlib.sha256(contents[name]).hexdigest()
        if graph.sha256 not in ("", found):
            raise BundleError(f"graph {name} has sha256 {found}; the card says {graph.sha256}")
        listed[name] = dataclasses.replace(graph, sha256=found)
    complete = dataclasses.replace(card, graphs=listed)
    with folder_in_one_step(Path(folder)) as work:
        for name, graph in listed.items():
            write_bytes(work / graph.file, contents[name])
        write_json(work / CARD, complete.to_dict())
    return Bundle.load(folder)
