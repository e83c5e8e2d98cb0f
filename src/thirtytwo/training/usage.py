"""What a run costs: seconds over all its sessions, and the most memory."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any

import psutil

from thirtytwo.training.hardware import peak_memory_mb

SAMPLE_INTERVAL = 0.1
"""Seconds between two looks at this process's memory."""
EXACT = "the system's high-water mark of this process"
SAMPLED = f"looked at every {SAMPLE_INTERVAL:g} s, since this process had held more before"


class Meter:
    """Measures one session of a run while it is entered, and goes on from what sessions before it left.

    It is kept in every checkpoint, so that a session that was killed counts up to its last whole epoch.
    """

    def __init__(self) -> None:
        self.sessions = 1
        self._before = 0.0
        self._start = time.perf_counter()
        self._peak_before: tuple[float, str] | None = None
        self._process = psutil.Process()
        self._high_water = peak_memory_mb()
        self._seen = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="thirtytwo memory", daemon=True)

    def __enter__(self) -> Meter:
        self._sample()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def seconds(self) -> float:
        """Of all sessions so far."""
        return self._before + time.perf_counter() - self._start

    @property
    def peak_memory(self) -> tuple[float, str]:
        """The most memory in MB that the process held in a session so far, and how that was measured.

        The system knows the most since the process began, which is this session's where it has risen in it.
        """
        self._sample()
        now = peak_memory_mb()
        risen = now is not None and self._high_water is not None and now > self._high_water
        session = (now, EXACT) if now is not None and risen else (round(self._seen, 1), SAMPLED)
        return max(session, self._peak_before or session)

    def resume(self, seconds: float, sessions: int) -> None:
        """Go on from sessions that took this long together."""
        self._before = max(self._before, seconds)
        self.sessions = sessions + 1

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"seconds": self.seconds, "peak_memory": list(self.peak_memory)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        self._before = max(self._before, float(state["seconds"]))
        peak, how = state["peak_memory"]
        self._peak_before = (float(peak), str(how))

    def _sample(self) -> None:
        self._seen = max(self._seen, self._process.memory_info().rss / 1e6)

    def _poll(self) -> None:
        while not self._ended.wait(SAMPLE_INTERVAL):
            self._sample()
