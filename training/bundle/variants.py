"""Variants of a bundle: the same networks, stored in fewer bits or counting in fewer.

What follows in the loop calibrates and judges a variant as any other bundle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from anonymization.card import FP32, GraphCard

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from anonymization.bundle import Bundle

Inputs = Callable[[GraphCard], "Iterable[NDArray[np.float32]]"]


def as_variant(
    bundle: Bundle,
    variant: str,
    folder: Path,
    *,
    inputs: Inputs,
    keep_float: Sequence[str] = (),
    float_first: int = 0,
) -> Bundle:
    """Return a variant of a float32 bundle, written into a folder; thresholds stay as they are.

    Args:
        bundle: Bundle to start from.
        variant: One of `anonymization.card.VARIANTS`.
        folder: Where to write it.
        inputs: Gives what a graph is shown of some pictures, each float32 (1, 3, H, W), to observe
            the ranges of `int8` on.
        keep_float: Parts of names of layers that stay float32 in `int8`.
        float_first: Number of first layers that stay float32 in `int8`.
    """
    from anonymization.bundle import write_bundle
    from training.bundle.compact import store_fp16, store_int8
    from training.bundle.quantization import to_int8_arithmetic

    if variant == FP32:
        return bundle
    cards = bundle.card.graphs
    graphs = {}
    for name, content in bundle.graphs.items():
        if variant == "int8":
            seen = inputs(cards[name])
            graphs[name] = to_int8_arithmetic(
                content, seen, keep_float=keep_float, float_first=float_first
            )
        else:
            graphs[name] = store_fp16(content) if variant == "fp16" else store_int8(content)
    unsigned = {name: replace(graph, sha256="") for name, graph in cards.items()}
    return write_bundle(folder, replace(bundle.card, graphs=unsigned, variant=variant), graphs)


def inputs_of(pictures: Sequence[Path]) -> Inputs:
    """Return what graphs are shown of picture files, read one after the other."""
    from anonymization.detection.preparing import prepare
    from anonymization.formats.picture import read_picture

    return lambda graph: (prepare(read_picture(path).pixels, graph).image for path in pictures)


def evenly(items: Sequence[Path], count: int) -> list[Path]:
    """Return at most so many items, spread over all of them.

    >>> evenly([Path(c) for c in "abcdefg"], 3)
    [PosixPath('a'), PosixPath('c'), PosixPath('e')]
    """
    step = max(1, len(items) // count)
    return list(items[::step][:count])
