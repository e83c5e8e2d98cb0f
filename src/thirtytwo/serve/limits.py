"""Limits on waiting images, and on the memory of uploads and of decoding them, over all requests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil
from types import TracebackType

from thirtytwo.serve.schemas import Problem
from thirtytwo.serve.settings import MB


class RequestLimits:
    """Counts waiting images and the bytes of their uploads, and rejects requests over the limits.

    Args:
        queue: maximum number of waiting images.
        held_mb: maximum size of uploads in memory, in MB of 1,048,576 bytes.
        seconds_per_image: returns the model's seconds per image, from which `Retry-After` is computed.
    """

    def __init__(self, queue: int, held_mb: float, seconds_per_image: Callable[[], float] = lambda: 0.0) -> None:
        self._queue, self._held_mb = queue, held_mb
        self._seconds_per_image = seconds_per_image
        self.images = 0
        self.held = 0

    def check(self) -> None:
        """Check that the queue has room.

        Raises:
            Problem: the queue is full.
        """
        if self.images >= self._queue:
            raise self.problem("busy", f"The queue is full: {self.images} images are waiting.")

    def reservation(self) -> Reservation:
        """A context manager for what one request uses of the limits."""
        return Reservation(self)

    def problem(self, kind: str, detail: str) -> Problem:
        """A problem with a `Retry-After` header."""
        seconds = max(1, ceil(self.images * self._seconds_per_image()))
        return Problem(kind, detail, headers={"Retry-After": str(seconds)})

    def reserve(self, size: int) -> None:
        """Count `size` more bytes.

        Raises:
            Problem: uploads use more memory than allowed.
        """
        self.held += size
        if self.held > self._held_mb * MB:
            raise self.problem("busy", f"Uploads in memory exceed the limit of {self._held_mb:g} MB.")


class Reservation:
    """The images and bytes that one request has reserved; released when the context exits."""

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        self._images = 0
        self.held = 0

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._limits.images -= self._images
        self.release(self.held)

    def add_image(self) -> None:
        """Count one more image; raises like `RequestLimits.check`."""
        self._limits.check()
        self._limits.images += 1
        self._images += 1

    def reserve(self, size: int) -> None:
        """Count `size` more bytes; raises like `RequestLimits.reserve`."""
        self.held += size
        self._limits.reserve(size)

    def release(self, size: int) -> None:
        """Count `size` fewer bytes."""
        self.held -= size
        self._limits.held -= size


class DecodingMemory:
    """Memory of the images that are being decoded, in threads for small images and in one for large images.

    Small images always find room beside a large one; those that do not are to be decoded in its thread, after it.

    Args:
        largest: maximum number of bytes for a large image.
        small: number of bytes that small images may use beside it.
    """

    def __init__(self, largest: int, small: int) -> None:
        self._total, self._small = largest + small, small
        self._used = self._large = 0
        self._changed = threading.Condition()

    @contextmanager
    def small(self, size: int) -> Iterator[bool]:
        """Use `size` bytes in a thread for small images; False if there is no room beside the large image."""
        with self._changed:
            if size <= self._small:  # waits for other small images at most
                self._changed.wait_for(lambda: self._used + size <= self._total - self._large)
            fits = self._used + size <= self._total - self._large
            used = size if fits else 0
            self._used += used
        try:
            yield fits
        finally:
            with self._changed:
                self._used -= used
                self._changed.notify_all()

    @contextmanager
    def large(self, size: int) -> Iterator[None]:
        """Use `size` bytes in the thread for large images, as soon as the small ones leave room."""
        with self._changed:
            self._large = size
            self._changed.wait_for(lambda: self._used + size <= self._total)
        try:
            yield
        finally:
            with self._changed:
                self._large = 0
                self._changed.notify_all()
