"""What `anonymize` costs, measured in one run on the photographs that it is given.

    python -m benchmarks.anonymizing BUNDLE PICTURES [--faces SET] [--deface PYTHON]

    large       8192x4096 with 50 objects, all but the network, against libjpeg-turbo; memory
    panorama    the network runs of one panorama, side by side and one after the other
    folder      wall time of a folder against the network alone and decoding + encoding alone
    obscuring   share of decoding + encoding that obscuring adds, of the picture as it comes out and
                of the same unchanged: all finds; faces and plates
    growth      time to obscure the same objects in a larger picture, and larger objects in the same
    workers     two workers against one, where the network has one thread
    deface      pictures a second of both programs on the same photographs of about a megapixel,
                and recall and finds per face of both on a labelled set (IoU 0.5)

SET is a folder with `annotations.json` (COCO) and its pictures. PYTHON is that of an environment
of its own in which deface is installed, as its licence and libraries stay out of ours:

    python -m venv DEFACE && DEFACE/bin/pip install deface==1.5.0 onnx onnxruntime

Each comparison is measured in turns, so that whatever else the machine does hits both sides.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import cv2

from anonymization.bundle import Bundle
from anonymization.memory import keep_freed_memory
from anonymization.pipeline import cores
from benchmarks.anonymizing.deface import measure_deface
from benchmarks.anonymizing.folder import measure_folder, measure_workers
from benchmarks.anonymizing.large import measure_large
from benchmarks.anonymizing.obscuring import measure_growth, measure_obscuring
from benchmarks.anonymizing.panorama import measure_panorama
from benchmarks.anonymizing.timing import Setting


def chosen_pictures(folder: Path, count: int) -> tuple[Path, ...]:
    """Return some pictures of a folder, spread evenly over the order of their names."""
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    if not found:
        raise SystemExit(f"{folder} holds no JPEG pictures")
    step = max(1, len(found) // count)
    by_name = {path.name: path for path in found[::step][:count]}
    return tuple(by_name.values())


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.anonymizing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--count", type=int, default=48, help="pictures that are measured")
    parser.add_argument("--faces", type=Path, help="COCO set with labelled faces")
    parser.add_argument("--deface", type=Path, help="Python in which deface is installed")
    parser.add_argument("--only", nargs="*", default=[], help="names of measures")
    options = parser.parse_args()
    keep_freed_memory()  # as the command does
    setting = Setting(Bundle.load(options.bundle), chosen_pictures(options.pictures, options.count))
    cv2.setNumThreads(1)
    print(f"load {os.getloadavg()[0]:.1f} on {cores()} cores")
    measures: dict[str, Callable[[], None]] = {
        "large": lambda: measure_large(setting),
        "panorama": lambda: measure_panorama(setting),
        "folder": lambda: measure_folder(setting),
        "obscuring": lambda: measure_obscuring(setting),
        "growth": lambda: measure_growth(setting),
        "workers": lambda: measure_workers(setting),
    }
    if options.deface and options.faces:
        measures["deface"] = lambda: measure_deface(
            setting, options.deface, options.faces, options.count * 4
        )
    for name in options.only or measures:
        if name not in measures:
            needs = "; it needs --faces and --deface" if name == "deface" else ""
            raise SystemExit(f"no measure {name!r}{needs}; there are {', '.join(measures)}")
        measures[name]()


if __name__ == "__main__":
    main()
