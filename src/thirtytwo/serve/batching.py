"""Dynamic batching: images of several requests are classified in one batch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import ceil
from time import perf_counter

import numpy as np
import numpy.typing as npt

from thirtytwo.inference.classifier import Classifier, Prediction
from thirtytwo.inference.views import Tta

_SMOOTHING = 0.1  # weight of the latest batch in the moving average of seconds per image


@dataclass(slots=True)
class _Job:
    """Images that were submitted together, and their results so far."""

    top: int
    tta: Tta
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
    """Forms batches for one classifier and runs them in separate threads.

    A batch starts when there are enough images for a full one or the first has waited for `max_wait`; while all threads
    are busy, the next one fills. Free threads share the images that wait. Use it from one event loop only.

    Args:
        classifier: model that classifies the batches.
        max_size: maximum number of images per batch.
        max_wait: maximum seconds an image waits for others while a thread is free.
        threads: number of batches that may run at the same time.
        tta: images that get further views, as in `Classifier.predict`.
        observe: called with the size and the duration in seconds of each batch.
    """

    def __init__(
        self,
        classifier: Classifier,
        *,
        max_size: int,
        max_wait: float,
        threads: int = 1,
        tta: Tta = "off",
        observe: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        self._classifier = classifier
        self._max_size, self._max_wait = max_size, max_wait
        self._tta = tta
        self._observe = observe
        self._queue: deque[_Waiting] = deque()
        self._running, self._threads = 0, threads
        self._timer: asyncio.TimerHandle | None = None
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="thirtytwo-model")
        self.seconds_per_image = 0.0
        """Moving average of the seconds per image, if all threads are busy."""

    def submit(
        self, images: Sequence[npt.NDArray[np.uint8]], top: int, *, one_view: bool = False
    ) -> asyncio.Future[list[Prediction]]:
        """Queue images for classification.

        Args:
            images: images of the model's input size, each uint8 `(S, S, 3)`.
            top: number of classes per prediction.
            one_view: classify from one view in any case, for results that heatmaps of that view explain.

        Returns:
            A future of the predictions, in order; cancelling it removes the images from the queue.
        """
        loop = asyncio.get_running_loop()
        job = _Job(top, "off" if one_view else self._tta, loop.create_future(), [None] * len(images), loop.time())
        if not images:
            job.done.set_result([])
        self._queue.extend(_Waiting(job, index, pixels) for index, pixels in enumerate(images))
        self._start_batches()
        return job.done

    def close(self) -> None:
        """Wait for the running batches and stop the threads."""
        self._pool.shutdown()

    def _start_batches(self) -> None:
        """Start the batches that are due, and set a timer for the next one."""
        while self._start_batch():
            pass

    def _start_batch(self) -> bool:
        """Start a batch if one is due and a thread is free; else set a timer for it."""
        while self._queue and self._queue[0].job.done.done():
            self._queue.popleft()
        if self._running == self._threads or not self._queue:
            return False
        loop = asyncio.get_running_loop()
        due = self._queue[0].job.arrived + self._max_wait
        if len(self._queue) < self._max_size and loop.time() < due:
            if self._timer is None:
                self._timer = loop.call_at(due, self._on_time)
            return False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch = self._next_batch()
        self._running += 1
        running = loop.run_in_executor(self._pool, self._run, batch)
        running.add_done_callback(lambda finished: self._finish(batch, finished))
        return True

    def _on_time(self) -> None:
        self._timer = None
        self._start_batches()

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size = min(self._max_size, ceil(len(self._queue) / (self._threads - self._running)))
        while self._queue and len(batch) < size:
            entry = self._queue.popleft()
            if not entry.job.done.done():
                batch.append(entry)
        return batch

    def _run(self, batch: list[_Waiting]) -> tuple[list[Prediction], float]:
        started = perf_counter()
        top = max(entry.job.top for entry in batch)
        results: list[Prediction | None] = [None] * len(batch)
        for tta in {entry.job.tta for entry in batch}:
            rows = [row for row, entry in enumerate(batch) if entry.job.tta == tta]
            found = self._classifier.classify(np.stack([batch[row].pixels for row in rows]), top, tta=tta)
            for row, result in zip(rows, found, strict=True):
                results[row] = result
        return [result for result in results if result is not None], perf_counter() - started

    def _finish(self, batch: list[_Waiting], finished: asyncio.Future[tuple[list[Prediction], float]]) -> None:
        self._running -= 1
        self._start_batches()
        error = finished.exception()
        if error is not None:
            for entry in batch:
                if not entry.job.done.done():
                    entry.job.done.set_exception(error)
            return
        results, seconds = finished.result()
        self._observe(len(batch), seconds)
        self.seconds_per_image += _SMOOTHING * (seconds / len(batch) / self._threads - self.seconds_per_image)
        for entry, result in zip(batch, results, strict=True):
            job = entry.job
            job.results[entry.index] = result
            job.missing -= 1
            if not job.missing and not job.done.done():
                job.done.set_result([found for found in job.results if found is not None])
