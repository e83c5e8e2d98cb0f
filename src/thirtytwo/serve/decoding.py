"""Decode uploads to model inputs in threads, with bounded memory."""

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

_TOTAL_MEMORY = 112 * MB
"""Memory for decoding in all threads; an image that needs more than a thread's share gets a separate thread."""
_SLOW_PIXELS = 25_000_000
"""Images with more pixels are slow to decode and are also decoded in the separate thread."""


@dataclass(frozen=True, slots=True)
class DecodedUpload:
    """A decoded upload: name, upright size, the model's input uint8 `(S, S, 3)`, and a larger view if requested."""

    file: str
    width: int
    height: int
    pixels: npt.NDArray[np.uint8]
    view: npt.NDArray[np.uint8] | None


class Decoder:
    """Decodes uploads in a few threads, and images that need much memory one at a time in a separate thread.

    Args:
        threads: number of threads, without the one for large images.
        max_pixels: images with more pixels are rejected.
        max_bytes: images that need more memory to decode are rejected.
    """

    def __init__(self, threads: int, max_pixels: int, max_bytes: int) -> None:
        self._max_pixels, self._max_bytes = max_pixels, max_bytes
        self._large_bytes = _TOTAL_MEMORY // threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="thirtytwo-decode")
        self._large_pool = ThreadPoolExecutor(1, thread_name_prefix="thirtytwo-decode-large")

    async def decode(self, uploads: Sequence[Upload], info: ModelInfo, view: bool) -> list[DecodedUpload | Unreadable]:
        """Decode uploads, in order; `view` requests the larger view too."""
        loop = asyncio.get_running_loop()
        first = await loop.run_in_executor(self._pool, self._decode_all, uploads, info, view)
        return [
            await loop.run_in_executor(self._large_pool, _decode, upload, info, view) if result is None else result
            for upload, result in zip(uploads, first, strict=True)
        ]

    def close(self) -> None:
        self._pool.shutdown()
        self._large_pool.shutdown()

    def _decode_all(
        self, uploads: Sequence[Upload], info: ModelInfo, view: bool
    ) -> list[DecodedUpload | Unreadable | None]:
        return [self._decode_unless_large(upload, info, view) for upload in uploads]

    def _decode_unless_large(self, upload: Upload, info: ModelInfo, view: bool) -> DecodedUpload | Unreadable | None:
        """The result, or None for an image that is slow or needs much memory, by its format, mode and size."""
        try:
            header = read_header(upload.data, upload.name)
        except ImageError as error:
            return Unreadable(upload.name, str(error))
        width, height = header.width, header.height
        if width * height > self._max_pixels:
            limit = f"the limit of {self._max_pixels:,}"
            return Unreadable(upload.name, f"{upload.name} has {width}×{height} pixels, more than {limit}.")
        memory = header.memory(max(info.input_size, LEAST if view else 0))
        if memory > self._max_bytes:
            needed = f"needs about {memory / MB:,.0f} MB of memory to decode"
            limit = f"more than the limit of {self._max_bytes / MB:g} MB"
            found = f"{upload.name}, a {header.format} file of {width}×{height} pixels, {needed}, {limit}."
            return Unreadable(upload.name, f"{found} Send a smaller image, or a baseline (not progressive) JPEG.")
        large = memory > self._large_bytes or width * height > _SLOW_PIXELS
        return None if large else _decode(upload, info, view)


def _decode(upload: Upload, info: ModelInfo, view: bool) -> DecodedUpload | Unreadable:
    try:
        loaded = load_image(upload.data, info.input_size, info.resize, upload.name)
        side = min(LEAST, max(loaded.width, loaded.height))
        larger = load_image(upload.data, side, info.resize, upload.name).pixels if view else None
    except ImageError as error:
        return Unreadable(upload.name, str(error))
    return DecodedUpload(upload.name, loaded.width, loaded.height, loaded.pixels, larger)
