"""Dynamic batching: images of many requests go through a model together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
import numpy.typing as npt

from thirtytwo.inference.classifier import Classifier, Prediction

_SMOOTHING = 0.1


@dataclass(slots=True)
class _Job:
    """Images that were handed in together, and what came of them so far."""

    top: int
    done: asyncio.Future[list[Prediction]]
    results: list[Prediction | None]
    arrived: float
    missing: int = field(init=False)

    def __post_init__(self) -> None:
        self.missing = len(self.results)


@dataclass(frozen=True, slots=True)
class _Waiting:
    job: _Job
    index: int
    pixels: npt.NDArray[np.uint8]


class Batcher:
    """Forms batches for one classifier, and runs them in a thread of its own.

    A batch starts when it is full or its first image has waited long enough; while one runs, the next fills. To be
    used from one event loop.

    Args:
        classifier: what runs them.
        max_size: images in a batch.
        max_wait: seconds that an image waits for others, while the model would be free.
        observe: told the size and the seconds of each batch.
    """

    def __init__(
        self,
        classifier: Classifier,
        *,
        max_size: int,
        max_wait: float,
        observe: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        self._classifier = classifier
        self._max_size, self._max_wait = max_size, max_wait
        self._observe = observe
        self._queue: deque[_Waiting] = deque()
        self._running = False
        self._timer: asyncio.TimerHandle | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="thirtytwo-model")
        self.seconds_per_image = 0.0
        """How long an image took of late, in a batch."""

    @property
    def waiting(self) -> int:
        """Images that no batch holds yet."""
        return len(self._queue)

    def submit(self, images: Sequence[npt.NDArray[np.uint8]], top: int) -> asyncio.Future[list[Prediction]]:
        """Predictions, in order, for images that have the model's input size, each uint8 `(S, S, 3)`.

        Whoever cancels the future takes the images out of the queue.
        """
        loop = asyncio.get_running_loop()
        job = _Job(top, loop.create_future(), [None] * len(images), loop.time())
        if not images:
            job.done.set_result([])
        self._queue.extend(_Waiting(job, index, pixels) for index, pixels in enumerate(images))
        self._start()
        return job.done

    def close(self) -> None:
        """Wait for the batch that runs, and end the thread."""
        self._thread.shutdown()

    def _start(self) -> None:
        """Start a batch where it is time for one, else see to it that somebody looks again."""
        while self._queue and self._queue[0].job.done.done():
            self._queue.popleft()
        if self._running or not self._queue:
            return
        loop = asyncio.get_running_loop()
        due = self._queue[0].job.arrived + self._max_wait
        if len(self._queue) < self._max_size and loop.time() < due:
            if self._timer is None:
                self._timer = loop.call_at(due, self._on_time)
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch = self._take()
        self._running = True
        running = loop.run_in_executor(self._thread, self._run, batch)
        running.add_done_callback(lambda ran: self._finish(batch, ran))

    def _on_time(self) -> None:
        self._timer = None
        self._start()

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        while self._queue and len(batch) < self._max_size:
            entry = self._queue.popleft()
            if not entry.job.done.done():
                batch.append(entry)
        return batch

    def _run(self, batch: list[_Waiting]) -> tuple[list[Prediction], float]:
        started = perf_counter()
        top = max(entry.job.top for entry in batch)
        results = self._classifier.classify(np.stack([entry.pixels for entry in batch]), top)
        return results, perf_counter() - started

    def _finish(self, batch: list[_Waiting], ran: asyncio.Future[tuple[list[Prediction], float]]) -> None:
        self._running = False
        self._start()
        error = ran.exception()
        if error is not None:
            for entry in batch:
                if not entry.job.done.done():
                    entry.job.done.set_exception(error)
            return
        results, seconds = ran.result()
        self._observe(len(batch), seconds)
        self.seconds_per_image += _SMOOTHING * (seconds / len(batch) - self.seconds_per_image)
        for entry, result in zip(batch, results, strict=True):
            job = entry.job
            job.results[entry.index] = result
            job.missing -= 1
            if not job.missing and not job.done.done():
                job.done.set_result([found for found in job.results if found is not None])
