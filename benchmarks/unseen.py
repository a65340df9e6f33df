"""Recall of a bundle on what nothing was tuned on: drawn scenes of other seeds, or other COCO sets.

    python -m benchmarks.unseen artifacts/bundle --seeds 101 102 103 --setting street
    python -m benchmarks.unseen artifacts/bundle --sets FOLDER

Brings the scenes of each seed, or each set, into a temporary folder and evaluates them as the loop
evaluates its reference set. A promotion needs the loop; this tells how far its verdict carries.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from anonymization.bundle import Bundle
from anonymization.taxonomy import Taxonomy
from conf import compose
from data.coco import Dataset
from data.collection import collect
from data.layout import ANNOTATIONS, COLLECTED
from data.sources.coco import CocoSource, coco_folders
from data.sources.protocol import Source
from data.sources.street import StreetSource
from data.street import StreetConfig
from evaluation.__main__ import evaluate, summarized
from evaluation.config import EvaluationConfig


def measure(bundle: Bundle, source: Source, taxonomy: Taxonomy) -> dict[str, Any]:
    """Collect, detect, judge; return the summary that evaluation writes."""
    config = EvaluationConfig()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        survey = {"sources": [{"id": source.id, "survey": source.survey()}]}
        collect([source], survey, taxonomy)
        dataset = Dataset.read(COLLECTED / ANNOTATIONS, taxonomy)
        results = list(evaluate(bundle, dataset, taxonomy, config, seed=1, groups={}))
    return summarized(results, taxonomy, config, 1)


def rows(title: str, summary: dict[str, Any]) -> list[str]:
    """Return one line of a Markdown table per class."""
    lines = []
    for name, figures in summary["classes"].items():
        if not figures["detected"]["total"]:
            continue
        cells = [title, name]
        for sense in ("detected", "covered"):
            value = figures[sense]
            bound = value["lower_bound"]["bound"] if value["lower_bound"] else float("nan")
            cells.append(f"{value['recalled']}/{value['total']} = {value['recall']:.3f}")
            cells.append(f"{bound:.3f}")
        precision = figures["precision"]
        cells.append("unknown" if precision is None else f"{precision:.3f}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 102, 103])
    parser.add_argument("--scenes", type=int, default=120)
    parser.add_argument("--setting", default="street", help="file under conf/collection")
    parser.add_argument("--sets", type=Path, help="COCO sets in place of drawn scenes")
    options = parser.parse_args()
    tree = compose([f"collection={options.setting}"])
    bundle = Bundle.load(options.bundle.absolute())
    street = StreetConfig(**tree["collection"]["street"])
    title = "set" if options.sets else "seed"
    print(f"| {title} | class | detected | bound | covered | bound | precision |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    sources: dict[str, Source] = (
        {folder.name: CocoSource(folder.absolute()) for folder in coco_folders(options.sets)}
        if options.sets
        else {
            str(seed): StreetSource(replace(street, seed=seed, scenes=options.scenes))
            for seed in options.seeds
        }
    )
    for name, source in sources.items():
        print(*rows(name, measure(bundle, source, bundle.card.taxonomy)), sep="\n", flush=True)


if __name__ == "__main__":
    main()
