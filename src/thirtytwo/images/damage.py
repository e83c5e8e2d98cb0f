"""Pillow's errors and warnings on damaged images, as one error or one line of the log with the image's name."""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, Any

from thirtytwo.errors import ImageError
from thirtytwo.images.tiff import channel_count
from thirtytwo.process import changed
from thirtytwo.text import as_printable

_UNSUPPORTED = re.compile(
    r"unknown pixel mode|unknown data organization|not supported|unsupported|cannot (handle|read this)|not available",
    re.I,
)
_DAMAGES = (
    (r"EXIF|Tag data|Skipping tag|tag \d+|File Read", "its tags (EXIF) are damaged."),
    (r"MPO", "its list of further images is damaged."),
)
"""Patterns of Pillow's warnings on data beside the pixels, and what they mean."""
_reading = threading.local()
"""`name`: the image that a thread decodes."""
_reporting = threading.Lock()
_reported_warnings: set[str] = set()

logger = logging.getLogger(__name__)


def damaged(name: str, error: Exception, stream: IO[bytes] | None = None, kind: str = "") -> ImageError:
    """The error for an image that cannot be decoded: of an unsupported kind, else damaged."""
    reason = (" ".join(str(error).split()) or type(error).__name__).rstrip(".")
    channels = channel_count(stream) if stream is not None and kind == "TIFF" else 0
    if channels > 4 or _UNSUPPORTED.search(reason):
        found = f"has {channels} channels" if channels > 4 else f"is of an unsupported kind ({reason})"
        return ImageError(f"{name} {found}.", "Save it as an RGB or grayscale image with 8 bits per channel.")
    logger.debug("%s: %s", name, reason)
    return ImageError(f"{name} is damaged or truncated, and cannot be decoded.", "Copy it again or leave it out.")


class _WarningLog:
    """Logs the warnings of images that this thread decodes, with their names; `show` shows all others.

    A warning is logged once for each text apart from its numbers, not for each of thousands of images.
    """

    def __init__(self, show: Callable[..., object]) -> None:
        self._show = show

    def __call__(self, message: Warning | str, *details: Any, **more: Any) -> None:
        name = getattr(_reading, "name", None)
        if name is None:
            self._show(message, *details, **more)
            return
        text = " ".join(str(message).split()).rstrip(".")
        about = next((words for pattern, words in _DAMAGES if re.search(pattern, text)), f"{text}.")
        kind = re.sub(r"\d+", "0", about)
        with _reporting:
            if kind in _reported_warnings:
                return
            _reported_warnings.add(kind)
        logger.warning("%s: %s The image is used all the same; so are others like it.", as_printable(name), about)


@contextmanager
def named_warnings(name: str) -> Iterator[None]:
    """Log Pillow's warnings in this thread in one sentence with the image's name, instead of a line of its code."""
    before, current = getattr(_reading, "name", None), warnings.showwarning
    hook = current if isinstance(current, _WarningLog) else _WarningLog(current)
    _reading.name = name
    try:
        with changed(
            "showwarning", partial(getattr, warnings, "showwarning"), partial(setattr, warnings, "showwarning"), hook
        ):
            yield
    finally:
        _reading.name = before
