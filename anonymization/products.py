"""Products of matrices that stay in the thread that asks for them.

Pictures are worked on side by side, one thread each. OpenBLAS spreads a product over all cores as
soon as it is larger than `ONE_THREAD`, and its threads wait by spinning: on cores that are busy
with other pictures that takes many times as long as the product itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

ONE_THREAD = 2**18
"""Multiplications up to which OpenBLAS keeps to one thread (interface/gemm.c: SMP_THRESHOLD_MIN
times GEMM_MULTITHREAD_THRESHOLD)."""


def product(left: Floats, right: Floats) -> Floats:
    """Return `left @ right`, worked out in strips of rows.

    Args:
        left: float32, shape (N, K).
        right: float32, shape (K, M).

    Returns:
        float32, shape (N, M).

    >>> product(np.ones((3, 2), np.float32), np.eye(2, dtype=np.float32)).tolist()
    [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]
    """
    rows = max(1, ONE_THREAD // max(right.size, 1))
    if len(left) <= rows:
        return np.asarray(left @ right)
    whole = len(left) - len(left) % rows
    out = np.empty((len(left), right.shape[1]), np.float32)
    strips = left[:whole].reshape(-1, rows, left.shape[1])
    np.matmul(strips, right, out=out[:whole].reshape(-1, rows, right.shape[1]))
    np.matmul(left[whole:], right, out=out[whole:])
    return out
