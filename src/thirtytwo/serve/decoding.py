"""Uploads become the pixels that a model sees, in threads, with a bound on what decoding may hold in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thirtytwo.errors import ImageError
from thirtytwo.explain.overlay import LEAST
from thirtytwo.images.decode import load_image, read_header
from thirtytwo.inference.classifier import Unreadable
from thirtytwo.inference.model_file import ModelInfo
from thirtytwo.serve.settings import MB
from thirtytwo.serve.uploads import Upload

_AT_ONCE = (
    112 * MB
)  # what decoding may hold in all threads together; an image that needs more than a share waits its turn
_MANY = 25_000_000  # pixels that take long however little memory they need; such an image waits its turn too


@dataclass(frozen=True, slots=True)
class Seen:
    """An upload as the model sees it: uint8 `(S, S, 3)`, its name and upright size, and a larger view if asked for."""

    file: str
    width: int
    height: int
    pixels: npt.NDArray[np.uint8]
    view: npt.NDArray[np.uint8] | None


class Decoder:
    """Decodes uploads in a few threads, and images that take much memory one at a time in a thread of their own.

    Args:
        threads: those for all but the huge images.
        max_pixels: images with more are refused.
        max_bytes: images that need more memory to be decoded are refused.
    """

    def __init__(self, threads: int, max_pixels: int, max_bytes: int) -> None:
        self._max_pixels, self._max_bytes = max_pixels, max_bytes
        self._huge = _AT_ONCE // threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="thirtytwo-decode")
        self._one = ThreadPoolExecutor(1, thread_name_prefix="thirtytwo-decode-huge")

    async def decode(self, uploads: Sequence[Upload], info: ModelInfo, view: bool) -> list[Seen | Unreadable]:
        """One result for each upload, in order; `view` asks for the larger one too."""
        loop = asyncio.get_running_loop()
        first = await loop.run_in_executor(self._pool, self._decode_all, uploads, info, view)
        return [
            await loop.run_in_executor(self._one, _decode, upload, info, view) if result is None else result
            for upload, result in zip(uploads, first, strict=True)
        ]

    def close(self) -> None:
        self._pool.shutdown()
        self._one.shutdown()

    def _decode_all(self, uploads: Sequence[Upload], info: ModelInfo, view: bool) -> list[Seen | Unreadable | None]:
        return [self._decode_unless_huge(upload, info, view) for upload in uploads]

    def _decode_unless_huge(self, upload: Upload, info: ModelInfo, view: bool) -> Seen | Unreadable | None:
        """The result, or None for an image that takes long, or much memory by its format, mode and size."""
        try:
            header = read_header(upload.data, upload.name)
        except ImageError as error:
            return Unreadable(upload.name, str(error))
        width, height = header.width, header.height
        if width * height > self._max_pixels:
            most = f"the {self._max_pixels:,} that are read"
            return Unreadable(upload.name, f"{upload.name} has {width}×{height} pixels, more than {most}.")
        memory = header.memory(max(info.input_size, LEAST if view else 0))
        if memory > self._max_bytes:
            needed = f"needs about {memory / MB:,.0f} MB to be decoded"
            most = f"more than the {self._max_bytes / MB:g} MB there are"
            found = f"{upload.name}, a {header.format} file of {width}×{height} pixels, {needed}, {most}."
            return Unreadable(upload.name, f"{found} Send it smaller, or as a plain (not progressive) JPEG.")
        huge = memory > self._huge or width * height > _MANY
        return None if huge else _decode(upload, info, view)


def _decode(upload: Upload, info: ModelInfo, view: bool) -> Seen | Unreadable:
    try:
        loaded = load_image(upload.data, info.input_size, info.resize, upload.name)
        side = min(LEAST, max(loaded.width, loaded.height))
        larger = load_image(upload.data, side, info.resize, upload.name).pixels if view else None
    except ImageError as error:
        return Unreadable(upload.name, str(error))
    return Seen(upload.name, loaded.width, loaded.height, loaded.pixels, larger)
