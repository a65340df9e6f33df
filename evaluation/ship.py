"""Copies a judged bundle with its verdict into a folder to hand over: `python -m evaluation.ship`.

What is handed over states by itself what the gate said of it: `anonymize` reads the verdict beside
the graphs and warns of a bundle that was refused.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from anonymization.bundle import PROMOTED, VERDICT, Bundle, write_bundle
from anonymization.errors import BlurloopError
from anonymization.files import write_json
from data.layout import BUNDLE


class ShipError(BlurloopError):
    """A bundle must not be handed over."""

    exit_code = 2


def ship(source: Path, folder: Path, *, refused: bool = False) -> Bundle:
    """Copy a bundle and the verdict on it.

    Args:
        source: Bundle that the gate has judged.
        folder: Where to; a bundle there is replaced.
        refused: Hand over also what the gate refused.

    Raises:
        ShipError: If no gate has judged the bundle, or it refused and that was not allowed.
        BundleError: If the bundle is not what its card says.
    """
    bundle = Bundle.load(source)
    if bundle.verdict is None:
        raise ShipError(f"{source} has no verdict: turn the loop first (dvc repro)")
    if bundle.verdict.outcome != PROMOTED and not refused:
        raise ShipError(
            f"{source} was {bundle.verdict.outcome}; --refused hands it over all the same, "
            "with the verdict"
        )
    write_bundle(folder, bundle.card, bundle.graphs)
    write_json(folder / VERDICT, dict(bundle.verdict.values))
    return Bundle.load(folder)


def main(arguments: Sequence[str] | None = None) -> None:
    """Copy the bundle of the last turn."""
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.ship",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="folder to write")
    parser.add_argument("--bundle", type=Path, default=BUNDLE, help="bundle (default: %(default)s)")
    parser.add_argument("--refused", action="store_true", help="also if the gate refused it")
    given = parser.parse_args(arguments)
    try:
        shipped = ship(given.bundle, given.folder, refused=given.refused)
    except BlurloopError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    size = sum(path.stat().st_size for path in given.folder.iterdir())
    sys.stdout.write(f"{given.folder}: {size / 1e6:.1f} MB, bundle {shipped.digest[:12]}\n")
    if shipped.warning:
        sys.stdout.write(f"{shipped.warning}\n")


if __name__ == "__main__":
    main()
