"""Batches of uploads for replicas."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from thirtytwo.scale.dispatch import Batch, Dispatcher, Entry
from thirtytwo.serve.uploads import Upload


class Replicas:
    """Stands at the end of the dispatcher: records batches, and answers when `go` is set."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.go = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self, batch: Batch) -> list[Entry]:
        self.batches.append(batch)
        await self.go.wait()
        if self.error is not None:
            raise self.error
        classes = [{"class": f"{number}"} for number in range(batch.top)]
        return [{"file": upload.name, "predictions": classes} for upload in batch.uploads]

    def names(self) -> list[list[str]]:
        return [[upload.name for upload in batch.uploads] for batch in self.batches]


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 20))


def make(replicas: Replicas, **options: Any) -> Dispatcher:
    return Dispatcher(replicas, **{"max_size": 2, "max_wait": 0.0, "parallel": 1, **options})


def upload(name: str, size: int = 1) -> Upload:
    return Upload(name, b"x" * size)


def test_uploads_of_several_requests_share_batches_while_replicas_are_busy() -> None:
    async def test() -> None:
        replicas = Replicas()
        dispatcher = make(replicas)
        done = [
            dispatcher.submit(upload(name), "", top=top, heatmap=False)
            for name, top in zip("abcd", (1, 3, 2, 2), strict=True)
        ]
        await asyncio.sleep(0.01)
        assert replicas.names() == [["a"]], "the first one does not wait, the others fill the next batch"
        replicas.go.set()
        entries = await asyncio.gather(*done)
        assert replicas.names() == [["a"], ["b", "c"], ["d"]]
        assert [batch.top for batch in replicas.batches] == [1, 3, 2]
        assert [entry["file"] for entry in entries] == list("abcd")
        assert [len(entry["predictions"]) for entry in entries] == [1, 3, 2, 2], "as many as each asked for"

    run(test())


def test_an_upload_waits_for_others_for_a_while() -> None:
    async def test() -> None:
        replicas = Replicas()
        replicas.go.set()
        dispatcher = make(replicas, max_size=3, max_wait=0.05)
        loop = asyncio.get_running_loop()
        started = loop.time()
        first = dispatcher.submit(upload("a"), "", top=1, heatmap=False)
        await asyncio.sleep(0.01)
        second = dispatcher.submit(upload("b"), "", top=1, heatmap=False)
        await asyncio.gather(first, second)
        assert replicas.names() == [["a", "b"]]
        assert loop.time() - started >= 0.04

    run(test())


def test_batches_have_one_model_and_go_out_in_parallel() -> None:
    async def test() -> None:
        replicas = Replicas()
        dispatcher = make(replicas, parallel=2)
        keys = [("x", False), ("y", False), ("x", False), ("x", True)]
        done = [
            dispatcher.submit(upload(f"{number}"), model, top=1, heatmap=heatmap)
            for number, (model, heatmap) in enumerate(keys)
        ]
        await asyncio.sleep(0.01)
        assert replicas.names() == [["0"], ["1"]], "no more than two at a time"
        replicas.go.set()
        await asyncio.gather(*done)
        assert sorted(replicas.names()) == [["0"], ["1"], ["2"], ["3"]]

    run(test())


def test_large_files_form_small_batches() -> None:
    async def test() -> None:
        replicas = Replicas()
        dispatcher = make(replicas, max_size=8)
        done = [dispatcher.submit(upload(f"{number}", 7 * 2**20), "", top=1, heatmap=False) for number in range(4)]
        replicas.go.set()
        await asyncio.gather(*done)
        assert replicas.names() == [["0"], ["1", "2"], ["3"]]

    run(test())


def test_canceled_uploads_are_not_sent() -> None:
    async def test() -> None:
        replicas = Replicas()
        dispatcher = make(replicas)
        done = [dispatcher.submit(upload(name), "", top=1, heatmap=False) for name in "abc"]
        await asyncio.sleep(0.01)
        done[1].cancel()
        replicas.go.set()
        await asyncio.gather(done[0], done[2])
        assert replicas.names() == [["a"], ["c"]]

    run(test())


def test_an_error_reaches_every_request_of_its_batch_and_no_other() -> None:
    async def test() -> None:
        replicas = Replicas()
        dispatcher = make(replicas)
        done = [dispatcher.submit(upload(name), "", top=1, heatmap=False) for name in "abc"]
        replicas.error = RuntimeError("lost")
        replicas.go.set()
        found = await asyncio.gather(*done, return_exceptions=True)
        assert all(isinstance(one, RuntimeError) for one in found)
        replicas.error = None
        assert (await dispatcher.submit(upload("d"), "", top=1, heatmap=False))["file"] == "d"

    run(test())


@pytest.mark.parametrize("count", [0, 1, 5, 64])
def test_every_upload_gets_its_own_entry(count: int) -> None:
    async def test() -> None:
        replicas = Replicas()
        replicas.go.set()
        dispatcher = make(replicas, max_size=16, parallel=3)
        done = [dispatcher.submit(upload(f"{number}"), "", top=1, heatmap=False) for number in range(count)]
        assert [(await one)["file"] for one in done] == [f"{number}" for number in range(count)]

    run(test())
