"""Memory that one picture gave back, for the next.

glibc returns large blocks to the system as soon as they are freed, and the system clears each page
again before it hands it out: for pictures of 33 megapixels a sixth of the time of everything but
the network (docs/performance.md).
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Numbers of `mallopt` (malloc.h of glibc)."""

_ALWAYS_KEPT = 2**31 - 1
_MAPPED_FROM = 2**30


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, in one pool for all threads.

    For a command that works on one picture after the other and then ends; call it before threads
    start. The process stays as large as it ever was.

    Returns:
        Whether the C library can do so; where it cannot, nothing changes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or another system
        return False
    mallopt.argtypes, mallopt.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
    # The threshold first: an older glibc refuses one so high, and is then left as it was.
    wanted = (_MMAP_THRESHOLD, _MAPPED_FROM), (_TRIM_THRESHOLD, _ALWAYS_KEPT), (_ARENA_MAX, 1)
    return all(mallopt(*one) == 1 for one in wanted)
