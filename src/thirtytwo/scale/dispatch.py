"""Batches of uploads from several requests, each sent to a replica as one call."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from thirtytwo.serve.uploads import Upload

_BATCH_BYTES = 16 * 1024 * 1024  # a batch of larger files than that has one file


@dataclass(frozen=True, slots=True)
class Batch:
    """Uploads for one call: `model` is empty for the default, `top` the most classes that any of them needs."""

    model: str
    heatmap: bool
    top: int
    uploads: Sequence[Upload]


Entry = dict[str, Any]
"""One file's part of a response, as `Service.classify` returns it."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    upload: Upload
    top: int
    arrived: float
    done: asyncio.Future[Entry]


class Dispatcher:
    """Forms batches of uploads and sends them, some in parallel.

    A batch is sent when it is full or its first upload has waited for `max_wait`, and fewer than `parallel` batches are
    under way; meanwhile the next one fills. Use it from one event loop only.

    Args:
        call: sends a batch; returns one entry per upload, in order.
        max_size: maximum number of uploads per batch.
        max_wait: maximum seconds that an upload waits for others while a replica is free.
        parallel: maximum number of batches under way.
    """

    def __init__(
        self, call: Callable[[Batch], Awaitable[list[Entry]]], *, max_size: int, max_wait: float, parallel: int
    ) -> None:
        self._call = call
        self._max_size, self._max_wait, self._parallel = max_size, max_wait, parallel
        self._queues: dict[tuple[str, bool], deque[_Waiting]] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def submit(self, upload: Upload, model: str, *, top: int, heatmap: bool) -> asyncio.Future[Entry]:
        """Queue an upload; canceling the future of its entry removes it from the queue."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(upload, top, loop.time(), loop.create_future())
        self._queues.setdefault((model, heatmap), deque()).append(waiting)
        self._start_batches()
        return waiting.done

    def _start_batches(self) -> None:
        """Start the batches that are due; set a timer for the next one if there is room for it."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while len(self._running) < self._parallel and (due := self._first_due()) is not None:
            when, key = due
            if when > loop.time():
                self._timer = loop.call_at(when, self._start_batches)
                return
            model, heatmap = key
            waiting = self._take(key)
            task = loop.create_task(self._send(model, heatmap, waiting))
            self._running.add(task)
            task.add_done_callback(self._finish)

    def _first_due(self) -> tuple[float, tuple[str, bool]] | None:
        """The queue whose next batch is due first, and when; full ones are due since their first upload arrived."""
        due = []
        for key, queue in list(self._queues.items()):
            while queue and queue[0].done.done():
                queue.popleft()
            if not queue:
                del self._queues[key]
                continue
            full = len(queue) >= self._max_size
            due.append((queue[0].arrived + (0 if full else self._max_wait), key))
        return min(due, default=None)

    def _take(self, key: tuple[str, bool]) -> list[_Waiting]:
        queue, taken, size = self._queues[key], list[_Waiting](), 0
        while queue and len(taken) < self._max_size:
            size += len(queue[0].upload.data)
            if taken and size > _BATCH_BYTES:
                break
            waiting = queue.popleft()
            if not waiting.done.done():
                taken.append(waiting)
        return taken

    async def _send(self, model: str, heatmap: bool, batch: list[_Waiting]) -> None:
        top = max(waiting.top for waiting in batch)
        try:
            entries = await self._call(Batch(model, heatmap, top, [waiting.upload for waiting in batch]))
        except Exception as error:
            for waiting in batch:
                if not waiting.done.done():
                    waiting.done.set_exception(error)
            return
        for waiting, entry in zip(batch, entries, strict=True):
            if not waiting.done.done():
                waiting.done.set_result(_cut(entry, waiting.top))

    def _finish(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            self._start_batches()


def _cut(entry: Entry, top: int) -> Entry:
    """The entry with as many classes as its request asked for; those of a batch may have more."""
    return entry | {"predictions": entry["predictions"][:top]} if "predictions" in entry else entry
