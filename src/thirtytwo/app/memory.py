"""Holding no more memory than is used: what C libraries free goes back to the system, and so do pages of files."""

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


def give_back() -> None:
    """Have glibc give large blocks back when they are freed; without it, opening a model leaves twice its size behind.

    By itself glibc raises its bound for such blocks whenever one is freed, and keeps a heap for each thread. Elsewhere
    than on Linux nothing is done.
    """
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        for parameter, value in ((_MMAP_THRESHOLD, _LARGE), (_TRIM_THRESHOLD, _LARGE), (_ARENA_MAX, _ARENAS)):
            library.mallopt(parameter, value)


def let_go(images: npt.NDArray[np.uint8]) -> None:
    """Let go of the pages of a mapped file that were read; they are read again when they are looked at."""
    mapped: object = images.base
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
