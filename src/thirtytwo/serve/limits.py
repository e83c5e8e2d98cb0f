"""Limits on waiting images and on the memory of uploads, over all requests."""

from __future__ import annotations

from collections.abc import Callable
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
