"""Return unused memory to the system: blocks freed by C libraries, and pages of mapped files."""

from __future__ import annotations

import ctypes
import mmap
import sys
from contextlib import suppress

import numpy as np
import numpy.typing as npt

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Parameters of glibc's mallopt(3)."""
_LARGE = 1 << 20
_ARENAS = 2


def release_memory() -> None:
    """Make glibc return large blocks to the system when they are freed (Linux only).

    By default glibc raises its threshold for such blocks whenever one is freed and keeps a heap per thread, so that
    loading a model leaves memory of twice its size allocated.
    """
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        for parameter, value in ((_MMAP_THRESHOLD, _LARGE), (_TRIM_THRESHOLD, _LARGE), (_ARENA_MAX, _ARENAS)):
            library.mallopt(parameter, value)


def release_pages(images: npt.NDArray[np.uint8]) -> None:
    """Release the pages of a memory-mapped array that were read; they are read again on access."""
    mapped: object = images.base
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
