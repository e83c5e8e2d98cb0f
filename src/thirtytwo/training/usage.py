"""Usage of a run: seconds over all its sessions, and peak memory."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any

import psutil

from thirtytwo.training.hardware import peak_memory_mb

SAMPLE_INTERVAL = 0.1
"""Seconds between two samples of this process's memory."""
EXACT = "peak memory of this process as reported by the system"
SAMPLED = f"sampled every {SAMPLE_INTERVAL:g} s, since this process had used more memory before the run"


class Meter:
    """Measures the time and memory of one session of a run as a context manager, and adds those of earlier sessions.

    Its state is stored in every checkpoint, so that a killed session counts up to its last complete epoch.
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
        """Seconds of all sessions so far."""
        return self._before + time.perf_counter() - self._start

    @property
    def peak_memory(self) -> tuple[float, str]:
        """Peak memory in MB over the sessions so far, and how it was measured.

        The system reports the peak since the process started, which belongs to this session if it rose during it.
        """
        self._sample()
        now = peak_memory_mb()
        risen = now is not None and self._high_water is not None and now > self._high_water
        session = (now, EXACT) if now is not None and risen else (round(self._seen, 1), SAMPLED)
        return max(session, self._peak_before or session)

    def resume(self, seconds: float, sessions: int) -> None:
        """Continue after earlier sessions that took `seconds` in total."""
        self._before = max(self._before, seconds)
        self.sessions = sessions + 1

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint."""
        return {"seconds": self.seconds, "peak_memory": list(self.peak_memory)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        self._before = max(self._before, float(state["seconds"]))
        peak, how = state["peak_memory"]
        self._peak_before = (float(peak), str(how))

    def _sample(self) -> None:
        self._seen = max(self._seen, self._process.memory_info().rss / 1e6)

    def _poll(self) -> None:
        while not self._ended.wait(SAMPLE_INTERVAL):
            self._sample()
