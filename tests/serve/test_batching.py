from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from thirtytwo.inference.classifier import Prediction
from thirtytwo.serve.batching import Batcher


class FakeClassifier:
    """Predicts each image's first value, records the batches, and waits for the event `go`."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.tops: list[int] = []
        self.go = threading.Event()
        self.go.set()
        self.fails = False

    def classify(self, pixels: npt.NDArray[np.uint8], top: int, *, tta: str = "off") -> list[Prediction]:
        self.batches.append(pixels[:, 0].tolist())
        self.tops.append(top)
        assert self.go.wait(10)
        if self.fails:
            raise RuntimeError("no memory")
        return [Prediction(None, 1, 1, str(value), 1.0, True, ()) for value in pixels[:, 0]]


def images(*numbers: int) -> list[npt.NDArray[np.uint8]]:
    return [np.array([number], dtype=np.uint8) for number in numbers]


def run(
    work: Callable[[FakeClassifier, Batcher], Coroutine[Any, Any, None]],
    max_size: int = 4,
    max_wait: float = 0.02,
    threads: int = 1,
) -> FakeClassifier:
    fake = FakeClassifier()

    async def main() -> None:
        batcher = Batcher(fake, max_size=max_size, max_wait=max_wait, threads=threads)  # type: ignore[arg-type]
        try:
            await work(fake, batcher)
        finally:
            fake.go.set()
            batcher.close()

    asyncio.run(main())
    return fake


def tops(results: list[Prediction]) -> list[int]:
    return [int(result.top) for result in results]


def test_requests_share_a_batch_and_get_their_own_results() -> None:
    async def work(fake: FakeClassifier, batcher: Batcher) -> None:
        found = await asyncio.gather(
            batcher.submit(images(1), 1), batcher.submit(images(2, 3), 5), batcher.submit(images(), 1)
        )
        assert [tops(results) for results in found] == [[1], [2, 3], []]

    fake = run(work)
    assert fake.batches == [[1, 2, 3]]
    assert fake.tops == [5], "the largest number of classes requested"


def test_a_full_batch_does_not_wait() -> None:
    async def work(fake: FakeClassifier, batcher: Batcher) -> None:
        started = time.perf_counter()
        await batcher.submit(images(1, 2, 3, 4), 1)
        assert time.perf_counter() - started < 5

    run(work, max_wait=10)


def test_single_image_waits_for_max_wait() -> None:
    async def work(fake: FakeClassifier, batcher: Batcher) -> None:
        started = time.perf_counter()
        await batcher.submit(images(1), 1)
        assert time.perf_counter() - started >= 0.05

    assert run(work, max_wait=0.05).batches == [[1]]


@pytest.mark.parametrize(("count", "batches"), [(3, [3]), (4, [4]), (5, [4, 1]), (9, [4, 4, 1])])
def test_no_batch_is_larger_than_allowed(count: int, batches: list[int]) -> None:
    async def work(fake: FakeClassifier, batcher: Batcher) -> None:
        assert tops(await batcher.submit(images(*range(count)), 1)) == list(range(count))

    assert [len(batch) for batch in run(work).batches] == batches


def test_while_a_batch_runs_the_next_one_fills() -> None:
    async def work(fake: FakeClassifier, batcher: Batcher) -> None:
        fake.go.clear()
        first = batcher.submit(images(0), 1)
        while not fake.batches:
            await asyncio.sleep(0.001)
        others = [batcher.submit(images(number), 1) for number in (1, 2, 3)]
        await asyncio.sleep(0.05)
        assert len(fake.batches) == 1
        fake.go.set()
        assert [tops(results) for results in await asyncio.gather(first, *others)] == [[0], [1], [2], [3]]

    assert run(work, max_wait=0.005).batches == [[0], [1, 2, 3]]


def test_as_many_batches_run_at_once_as_there_are_threads() -> None:
    async def work(fake: FakeClassifier, batcher: Batcher) -> None:
        fake.go.clear()
        waiting = [batcher.submit(images(number), 1) for number in range(10)]
        while len(fake.batches) < 2:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        assert len(fake.batches) == 2, "the third waits for a thread"
        fake.go.set()
        assert [tops(results) for results in await asyncio.gather(*waiting)] == [[number] for number in range(10)]

    assert sorted(run(work, threads=2).batches) == [[0, 1], [2, 3, 4, 5], [6, 7, 8, 9]]


def test_free_threads_share_the_images_of_a_request() -> None:
    async def work(fake: FakeClassifier, batcher: Batcher) -> None:
        assert tops(await batcher.submit(images(*range(7)), 1)) == list(range(7))

    assert sorted(run(work, max_size=8, threads=2).batches) == [[0, 1, 2, 3], [4, 5, 6]]


def test_cancelled_images_leave_the_queue() -> None:
    async def work(fake: FakeClassifier, batcher: Batcher) -> None:
        fake.go.clear()
        first = batcher.submit(images(0), 1)
        while not fake.batches:
            await asyncio.sleep(0.001)
        cancelled, other = batcher.submit(images(1, 2), 1), batcher.submit(images(3), 1)
        cancelled.cancel()
        fake.go.set()
        assert tops(await first) == [0]
        assert tops(await other) == [3]

    assert run(work, max_wait=0).batches == [[0], [3]]


def test_a_failed_batch_fails_only_those_in_it() -> None:
    async def work(fake: FakeClassifier, batcher: Batcher) -> None:
        fake.fails = True
        first = await asyncio.gather(batcher.submit(images(1), 1), batcher.submit(images(2), 1), return_exceptions=True)
        assert [str(error) for error in first] == ["no memory"] * 2
        fake.fails = False
        assert tops(await batcher.submit(images(3), 1)) == [3]

    run(work)


def test_many_requests_at_once_lose_nothing() -> None:
    async def work(fake: FakeClassifier, batcher: Batcher) -> None:
        async def ask(number: int) -> None:
            for turn in range(20):
                mine = [(number + turn + index) % 256 for index in range(1 + number % 7)]
                assert tops(await batcher.submit(images(*mine), 1)) == mine

        await asyncio.gather(*(ask(number) for number in range(50)))

    fake = run(work, max_size=8, max_wait=0.001)
    assert sum(map(len, fake.batches)) == 20 * sum(1 + number % 7 for number in range(50))
    assert max(map(len, fake.batches)) == 8


def test_observe_gets_size_and_seconds() -> None:
    seen: list[tuple[int, float]] = []

    async def main() -> None:
        fake = FakeClassifier()
        batcher = Batcher(fake, max_size=4, max_wait=0, observe=lambda *what: seen.append(what))  # type: ignore[arg-type]
        await batcher.submit(images(1, 2, 3), 1)
        assert batcher.seconds_per_image > 0
        batcher.close()

    asyncio.run(main())
    ((size, seconds),) = seen
    assert size == 3
    assert 0 < seconds < 5
