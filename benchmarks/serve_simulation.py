"""Simulation of one process of `thirtytwo serve`, for the plan of `benchmarks/scale_model.py`.

The process has three threads: the event loop, which reads requests, submits images and writes responses; one that
decodes; and one that runs the model on batches as `thirtytwo.serve.batching` forms them. All but ONNX Runtime needs
Python's lock (GIL), also decoding, since the images are small: a thread keeps the lock while it has work, for at most
`SWITCH` if another one waits. The threads, and the clients if they run on the same machine, share its cores.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TypeAlias

import numpy as np

SIMULATED = 20_000
"""Requests of a simulation."""
STAGGER = 0.001
"""Seconds between the first requests of two clients: they connect one after the other."""
SWITCH = 0.005
"""Seconds after which Python takes the lock from a thread for another one, as `sys.getswitchinterval()`."""
Then: TypeAlias = Callable[[], None]
Segment: TypeAlias = tuple[float, bool]
"""Seconds of one core, and whether the thread has to hold the lock."""


@dataclass(frozen=True)
class Costs:
    """Seconds of one core that has nothing else to do.

    `receive`, `submit` and `respond` are the event loop's work on a request: before its image is decoded, after that,
    and after its batch. `model` has the sizes of batches with the seconds of ONNX Runtime, and `python` those of the
    model's thread around it. `client` is the client's for a request; 0 where clients have machines of their own.
    A thread that slept first needs `wake_work` of a core, which is for the kernel, and because its data has left the
    caches. `wake` passes before, while nothing runs, and `late` until a timer that is due runs.
    """

    receive: float
    decode: float
    submit: float
    model: tuple[tuple[int, float], ...]
    python: tuple[tuple[int, float], ...]
    respond: float
    client: float = 0.0
    wake_work: float = 0.0
    wake: float = 0.0
    late: float = 0.0
    spread: float = 0.0
    """Standard deviation of each step as a share of its mean."""
    max_batch: int = 32
    max_wait: float = 0.002

    def locked(self) -> float:
        """Seconds that a request needs the lock, in full batches."""
        python = seconds_of(self.python, self.max_batch) / self.max_batch
        return self.receive + self.decode + self.submit + python + self.respond

    def unlocked(self) -> float:
        """Seconds of ONNX Runtime for a request, in full batches."""
        return seconds_of(self.model, self.max_batch) / self.max_batch


def seconds_of(measured: Sequence[tuple[int, float]], size: int) -> float:
    """Seconds of a batch of any size, from those of measured sizes."""
    sizes, seconds = zip(*measured, strict=True)
    return float(np.interp(size, sizes, seconds))


@dataclass(frozen=True)
class Machine:
    """Cores of a machine; `both` is the speed of each where all are busy, `others` how many other programs use."""

    cores: int = 2
    both: float = 1.0
    others: float = 0.0

    def speed(self, threads: int) -> float:
        """How fast each of so many threads runs, where 1 is a core to itself on an idle machine."""
        busy = min(self.cores, threads + self.others)
        slowed = 1 - (1 - self.both) * max(0.0, busy - 1) / max(1, self.cores - 1)
        return min(1.0, max(0.05, self.cores - self.others) / threads) * slowed


@dataclass(frozen=True)
class Load:
    """Requests per second, milliseconds of their latency, images in a batch, and threads that wake up per request."""

    rate: float
    p50: float
    p99: float
    batch: float = 0.0
    wakes: float = 0.0


class _Thread:
    """Does one job after the other; a job is segments of work, then a call."""

    def __init__(self, process: _Process, *, shares_lock: bool = True) -> None:
        self._process, self._shares_lock = process, shares_lock
        self._jobs: deque[tuple[Sequence[Segment], Then]] = deque()
        self._segments: deque[Segment] = deque()
        self._then: Then = _nothing
        self._awake = self.locks = self._keeps = False
        self.left = 0.0

    def put(self, segments: Sequence[Segment], then: Then) -> None:
        """Add a job; a sleeping thread has to wake up first."""
        if not self._awake:
            self._awake = True
            self._process.wakes += self._shares_lock
            segments = [(self._process.costs.wake_work, True), *segments]
            self._process.after(self._process.costs.wake, self._next_job)
        self._jobs.append((segments, then))

    def _next_job(self) -> None:
        if not self._jobs:
            self._awake = False
            self._release()
            return
        segments, self._then = self._jobs.popleft()
        self._segments = deque(segments)
        self._next_segment()

    def _next_segment(self) -> None:
        seconds, locked = self._segments.popleft()
        self.left = seconds * self._process.variation()
        self.locks = locked and self._shares_lock
        if self.locks and self._keeps:
            self._process.running.append(self)
        elif self.locks:
            self._process.lock(self)
        else:
            self._release()
            self._process.running.append(self)
        self._keeps = False

    def _release(self) -> None:
        """Give up the lock, if it was kept for a next segment that does not need it."""
        if self._keeps:
            self._keeps = False
            self._process.unlock()

    def finish_segment(self) -> None:
        """The current segment is done."""
        self._process.running.remove(self)
        self._keeps = self.locks and not self._process.must_unlock()
        if self.locks and not self._keeps:
            self._process.unlock()
        if self._segments:
            self._next_segment()
            return
        self._then()
        self._next_job()


class _Process:
    """The threads, the lock and the clock. Threads that run share the cores equally."""

    def __init__(self, costs: Costs, machine: Machine, seed: int) -> None:
        self.costs, self._machine = costs, machine
        self._random = random.Random(seed)
        self.now, self.wakes, self._asked = 0.0, 0, 0.0
        self.running: list[_Thread] = []
        self._events: list[tuple[float, int, Then]] = []
        self._order = count()
        self._holder: _Thread | None = None
        self._lock_queue: deque[_Thread] = deque()

    def variation(self) -> float:
        """Factor on the seconds of a step, 1 on average."""
        if not self.costs.spread:
            return 1.0
        shape = 1 / self.costs.spread**2
        return self._random.gammavariate(shape, 1 / shape)

    def after(self, seconds: float, what: Then) -> None:
        """Call something in so many seconds."""
        heapq.heappush(self._events, (self.now + seconds, next(self._order), what))

    def lock(self, thread: _Thread) -> None:
        """Let a thread run once it has the lock, in the order of asking."""
        if self._holder is None:
            self._holder = thread
            self.running.append(thread)
        else:
            if not self._lock_queue:
                self._asked = self.now
            self._lock_queue.append(thread)

    def must_unlock(self) -> bool:
        """Whether another thread has waited for the lock for so long that Python takes it from the one that has it."""
        return bool(self._lock_queue) and self.now - self._asked >= SWITCH

    def unlock(self) -> None:
        self._holder = None
        self._asked = self.now
        if self._lock_queue:
            self.lock(self._lock_queue.popleft())

    def step(self) -> bool:
        """Go on to what happens next; False if nothing does."""
        event = self._events[0][0] if self._events else None
        if self.running:
            speed = self._machine.speed(len(self.running))
            first = min(self.running, key=lambda thread: thread.left)
            end = self.now + first.left / speed
            if event is None or end <= event:
                self._work((end - self.now) * speed, end)
                first.finish_segment()
                return True
            self._work((event - self.now) * speed, event)
        elif event is None:
            return False
        else:
            self.now = event
        heapq.heappop(self._events)[2]()
        return True

    def _work(self, done: float, now: float) -> None:
        for thread in self.running:
            thread.left = max(0.0, thread.left - done)
        self.now = now


class _Service:
    """Takes requests, and calls `answered` with the number of each one that is done."""

    def __init__(self, process: _Process, answered: Callable[[int], None]) -> None:
        self._process, self._costs, self._answered = process, process.costs, answered
        self._loop, self._decoder, self._model = _Thread(process), _Thread(process), _Thread(process)
        self._waiting: deque[tuple[int, float]] = deque()
        self._busy = self._timed = False
        self.batches: list[int] = []

    def receive(self, number: int) -> None:
        self._loop.put([(self._costs.receive, True)], lambda: self._decode(number))

    def _decode(self, number: int) -> None:
        def decoded() -> None:
            self._loop.put([(self._costs.submit, True)], lambda: self._submit(number))

        self._decoder.put([(self._costs.decode, True)], decoded)

    def _submit(self, number: int) -> None:
        self._waiting.append((number, self._process.now))
        self._start_batch()

    def _start_batch(self) -> None:
        """As `Batcher._start_batch`."""
        if self._busy or not self._waiting:
            return
        due = self._waiting[0][1] + self._costs.max_wait
        if len(self._waiting) < self._costs.max_batch and self._process.now < due:
            if not self._timed:
                self._timed = True
                self._process.after(due - self._process.now + self._costs.late, self._time_is_up)
            return
        self._busy = True
        size = min(len(self._waiting), self._costs.max_batch)
        batch = [self._waiting.popleft()[0] for _ in range(size)]
        self.batches.append(size)
        python = seconds_of(self._costs.python, size) / 2
        segments = [(python, True), (seconds_of(self._costs.model, size), False), (python, True)]
        self._model.put(segments, lambda: self._loop.put([(0.0, True)], lambda: self._finish(batch)))

    def _time_is_up(self) -> None:
        def started() -> None:
            self._timed = False
            self._start_batch()

        self._loop.put([(0.0, True)], started)

    def _finish(self, batch: list[int]) -> None:
        self._busy = False
        self._start_batch()
        for number in batch:
            self._loop.put([(self._costs.respond, True)], lambda number=number: self._answered(number))  # type: ignore[misc]


def _nothing() -> None:
    """What a thread without a job does."""


def simulate(
    costs: Costs,
    machine: Machine | None = None,
    *,
    clients: int = 0,
    rate: float = 0,
    requests: int = SIMULATED,
    seed: int = 0,
) -> Load:
    """Simulate `clients` that send without pause, or `rate` requests a second at random times.

    The first tenth of the requests is left out of the result.
    """
    process = _Process(costs, machine or Machine(), seed)
    sender = _Thread(process, shares_lock=False)  # one process for all clients
    numbers = count()
    sent: dict[int, float] = {}
    done: list[tuple[float, float]] = []  # when, latency

    def send() -> None:
        number = next(numbers)
        sent[number] = process.now
        if costs.client:
            sender.put([(costs.client / 2, False)], lambda: service.receive(number))
        else:
            service.receive(number)

    def answered(number: int) -> None:
        if costs.client:
            sender.put([(costs.client / 2, False)], lambda: finished(number))
        else:
            finished(number)

    def finished(number: int) -> None:
        done.append((process.now, process.now - sent.pop(number)))
        if clients:
            send()

    service = _Service(process, answered)
    if clients:
        for number in range(clients):
            process.after(number * STAGGER, send)
    else:
        for when in np.cumsum(np.random.default_rng(seed).exponential(1 / rate, requests)):
            process.after(float(when), send)
    while len(done) < requests and process.step():
        pass
    kept = done[len(done) // 10 :]
    latencies = np.array([latency for _, latency in kept]) * 1000
    p50, p99 = (float(np.quantile(latencies, share)) for share in (0.5, 0.99))
    seconds = kept[-1][0] - kept[0][0]
    return Load((len(kept) - 1) / seconds, p50, p99, float(np.mean(service.batches)), process.wakes / len(done))


def highest_rate(costs: Costs, machine: Machine, latency_ms: float, requests: int = SIMULATED) -> float:
    """The highest rate of requests at random times whose 99th percentile stays below a latency."""
    low, high = 0.0, machine.cores / (costs.locked() + costs.unlocked())
    for _ in range(10):
        middle = (low + high) / 2
        found = simulate(costs, machine, rate=middle, requests=requests)
        low, high = (middle, high) if found.p99 <= latency_ms else (low, middle)
    return low
