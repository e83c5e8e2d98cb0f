"""How much may wait, and how much memory uploads may hold, in all requests together."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from types import TracebackType

from thirtytwo.serve.problems import Problem
from thirtytwo.serve.settings import MB


class Gate:
    """Counts images that wait for their answer and the bytes of their uploads; says no where they are too many.

    Args:
        queue: most images.
        held_mb: most bytes, in MB.
        seconds_per_image: how long the model takes for one; what clients are told to wait follows from it.
    """

    def __init__(self, queue: int, held_mb: float, seconds_per_image: Callable[[], float] = lambda: 0.0) -> None:
        self._queue, self._held_mb = queue, held_mb
        self._seconds_per_image = seconds_per_image
        self.images = 0
        self.held = 0

    def check(self) -> None:
        """Raises:
        Problem: nothing more may come in.
        """
        if self.images >= self._queue:
            raise self.problem("busy", f"{self.images} images are waiting already.")

    def ticket(self) -> Ticket:
        """What one request has in the house, to be used as a context."""
        return Ticket(self)

    def problem(self, kind: str, detail: str) -> Problem:
        """One that says when to come again."""
        seconds = max(1, ceil(self.images * self._seconds_per_image()))
        return Problem(kind, detail, headers={"Retry-After": str(seconds)})

    def hold(self, size: int) -> None:
        self.held += size
        if self.held > self._held_mb * MB:
            raise self.problem("busy", f"Uploads fill the {self._held_mb:g} MB there are for them.")


class Ticket:
    """One request's share of what the gate counts; given back when the context ends."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._images = 0
        self.held = 0

    def __enter__(self) -> Ticket:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._gate.images -= self._images
        self.release(self.held)

    def enter(self) -> None:
        """One more image; raises as `Gate.check` does."""
        self._gate.check()
        self._gate.images += 1
        self._images += 1

    def hold(self, size: int) -> None:
        """So many more bytes; raises a Problem where they are too many."""
        self.held += size
        self._gate.hold(size)

    def release(self, size: int) -> None:
        self.held -= size
        self._gate.held -= size
