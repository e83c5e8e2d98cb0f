"""The models that answer, and the way of a request's images through them."""

from __future__ import annotations

import asyncio
import base64
import io
import re
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from thirtytwo.errors import ServiceError, did_you_mean
from thirtytwo.explain.overlay import overlay, to_look_at
from thirtytwo.inference.classifier import (
    DEFAULT_BUNDLED,
    Classifier,
    Prediction,
    Unreadable,
    bundled_models,
    default_model,
    find_model,
)
from thirtytwo.inference.model_file import cpu_count
from thirtytwo.serve.batching import Batcher
from thirtytwo.serve.decoding import Decoder, Seen
from thirtytwo.serve.limits import Gate, Ticket
from thirtytwo.serve.metrics import Metrics
from thirtytwo.serve.problems import Problem
from thirtytwo.serve.settings import Settings
from thirtytwo.serve.uploads import Upload

HEATMAPS = "heatmaps"

_GROUP = 16  # images a decoding thread takes at a time
_GROUP_BYTES = 256 * 1024
_NAMED = re.compile(r"(?P<name>[\w.-]+)=(?P<path>.+)", re.DOTALL)


@dataclass(frozen=True)
class Served:
    """A model under its name, with the batches that are formed for it."""

    name: str
    classifier: Classifier
    batcher: Batcher

    @property
    def has_heatmaps(self) -> bool:
        return HEATMAPS in {output.name for output in self.classifier.session.get_outputs()}


class Service:
    """Models, threads and limits behind the web interface.

    Args:
        models: model files by name; the first answers where a request names none.
        settings: limits and sizes.

    Raises:
        ModelFileError: a file that is not one of our models.
    """

    def __init__(self, models: dict[str, Path], settings: Settings) -> None:
        self._threads = settings.threads or cpu_count()
        self.settings = settings
        self.gate = Gate(settings.queue, settings.max_held_mb, self._seconds_per_image)
        self.metrics = Metrics(lambda: self.gate.images, settings.max_batch)
        self.decoder = Decoder(self._threads, settings.max_pixels, settings.max_decode_bytes)
        self.models = {name: self._open(name, path) for name, path in models.items()}
        self.default = next(iter(self.models), "")
        self.ready = False
        self._drawing = ThreadPoolExecutor(1, thread_name_prefix="thirtytwo-heatmaps")

    def start(self) -> None:
        """Run every model once, so that the first request finds it warm."""
        for served in self.models.values():
            size = served.classifier.info.input_size
            served.classifier.classify(np.zeros((1, size, size, 3), dtype=np.uint8))
        self.ready = True

    def close(self) -> None:
        """End every thread, after what it is at."""
        self.ready = False
        self.decoder.close()
        self._drawing.shutdown()
        for served in self.models.values():
            served.batcher.close()

    def find(self, name: str | None) -> Served:
        """The model of that name; None: the default.

        Raises:
            Problem: there is none.
        """
        found = self.models.get(self.default if name is None else name)
        if found is None:
            raise Problem("unknown-model", f"Unknown model {name!r}. {did_you_mean(name or '', self.models)}")
        return found

    async def answer(
        self, uploads: AsyncIterator[Upload], served: Served, ticket: Ticket, *, top: int, heatmap: bool
    ) -> list[dict[str, Any]]:
        """One entry for each upload, in order, as `thirtytwo predict --format json` writes them.

        Raises:
            Problem: no upload at all, not one that can be read, or a limit that is passed.
        """
        decoded = await self._decoded(uploads, served, ticket, heatmap)
        seen = [entry for entry in decoded if isinstance(entry, Seen)]
        unreadable = [entry for entry in decoded if isinstance(entry, Unreadable)]
        self.metrics.images.labels(served.name, "unreadable").inc(len(unreadable))
        if not seen:
            raise _nothing_readable(unreadable)
        pixels = [entry.pixels for entry in seen]
        predictions = await served.batcher.submit(pixels, top)
        answered = [_entry(entry, prediction, top) for entry, prediction in zip(seen, predictions, strict=True)]
        known = sum(prediction.known for prediction in predictions)
        self.metrics.images.labels(served.name, "known").inc(known)
        self.metrics.images.labels(served.name, "unknown").inc(len(seen) - known)
        if heatmap:
            for entry, drawn in zip(answered, await self._heatmaps(served, seen), strict=True):
                entry["heatmap"] = drawn
        readable = iter(answered)
        return [entry.as_dict() if isinstance(entry, Unreadable) else next(readable) for entry in decoded]

    async def _decoded(
        self, uploads: AsyncIterator[Upload], served: Served, ticket: Ticket, view: bool
    ) -> list[Seen | Unreadable]:
        """Every upload decoded; decoding begins while others still arrive, and few are held undecoded."""
        decoded: list[Seen | Unreadable] = []
        group: list[Upload] = []
        size = 0
        ahead: deque[asyncio.Task[list[Seen | Unreadable]]] = deque()
        try:
            async for upload in uploads:
                ticket.enter()
                group.append(upload)
                size += len(upload.data)
                if len(group) == _GROUP or size >= _GROUP_BYTES:
                    ahead.append(asyncio.create_task(self._decode(group, served, ticket, view)))
                    group, size = [], 0
                if len(ahead) > self._threads:
                    decoded += await ahead.popleft()
            for task in ahead:
                decoded += await task
        finally:
            for task in ahead:
                task.cancel()
        if group:
            decoded += await self._decode(group, served, ticket, view)
        return decoded

    async def _decode(self, group: list[Upload], served: Served, ticket: Ticket, view: bool) -> list[Seen | Unreadable]:
        decoded = await self.decoder.decode(group, served.classifier.info, view)
        ticket.release(sum(len(upload.data) for upload in group))
        return decoded

    async def _heatmaps(self, served: Served, seen: Sequence[Seen]) -> list[dict[str, Any]]:
        loop = asyncio.get_running_loop()
        drawn: list[dict[str, Any]] = []
        for start in range(0, len(seen), self.settings.max_batch):
            some = seen[start : start + self.settings.max_batch]
            drawn += await loop.run_in_executor(self._drawing, _draw, served.classifier, some)
        return drawn

    def _open(self, name: str, path: Path) -> Served:
        classifier = Classifier(path, threads=self._threads)
        sizes, seconds = self.metrics.batch_size.labels(name), self.metrics.batch_seconds.labels(name)

        def observe(size: int, took: float) -> None:
            sizes.observe(size)
            seconds.observe(took)

        settings = self.settings
        batcher = Batcher(
            classifier, max_size=settings.max_batch, max_wait=settings.max_wait_ms / 1000, observe=observe
        )
        return Served(name, classifier, batcher)

    def _seconds_per_image(self) -> float:
        return max(served.batcher.seconds_per_image for served in self.models.values())


def choose_models(wanted: Iterable[str]) -> dict[str, Path]:
    """Model files by the names they are served under.

    Each of `wanted` is what `thirtytwo predict --model` takes, or that with a name of its own as `NAME=…`. Without any,
    all bundled models, the default first; where there are none, the newest run.

    Raises:
        ServiceError: two models of the same name.
        UnknownNameError: no such file, directory or bundled model.
        ModelFileError: nothing to serve.
        RunError: a run directory without a model.
    """
    chosen: dict[str, Path] = {}
    for text in wanted:
        named = None if Path(text).exists() else _NAMED.fullmatch(text)
        path = find_model(named["path"] if named else text)
        name = named["name"] if named else name_of(path)
        if name in chosen:
            raise ServiceError(
                f"Two models are called {name!r}: {chosen[name]} and {path}.",
                f"Give one a name of its own: --model other={text}",
            )
        chosen[name] = path
    if chosen:
        return chosen
    bundled = bundled_models()
    if not bundled:
        path = default_model()
        return {name_of(path): path}
    return dict(sorted(bundled.items(), key=lambda item: (item[0] != DEFAULT_BUNDLED, item[0])))


def name_of(path: Path) -> str:
    """What a model file is served as: its run's name for a `model.onnx`, else its own."""
    return path.resolve().parent.name if path.name == "model.onnx" else path.stem


def _entry(seen: Seen, prediction: Prediction, top: int) -> dict[str, Any]:
    """The contract's entry for an upload; a batch's predictions may hold more classes than this request asked for."""
    told = prediction.as_dict() | {"file": seen.file, "width": seen.width, "height": seen.height}
    told["predictions"] = told["predictions"][:top]
    return told


def _nothing_readable(unreadable: Sequence[Unreadable]) -> Problem:
    if not unreadable:
        return Problem("no-picture", "The request holds no file.")
    errors = [entry.as_dict() for entry in unreadable]
    if len(unreadable) == 1:
        return Problem("unreadable", unreadable[0].error, file=unreadable[0].file, errors=errors)
    detail = f"None of the {len(unreadable)} files could be read. The first: {unreadable[0].error}"
    return Problem("unreadable", detail, errors=errors)


def _draw(classifier: Classifier, seen: Sequence[Seen]) -> list[dict[str, Any]]:
    """Heatmaps of the top class, 0 to 1, and the images they are laid over."""
    maps = classifier.run(np.stack([entry.pixels for entry in seen]), [HEATMAPS])[HEATMAPS]  # (N, h, w)
    drawn = []
    for entry, evidence in zip(seen, maps.astype(np.float64), strict=True):
        positive = np.maximum(evidence, 0)
        heat = (positive / max(positive.max(), 1e-12)).astype(np.float32)
        assert entry.view is not None
        values = [[round(float(value), 4) for value in row] for row in heat]
        drawn.append({"values": values, "overlay": _png(overlay(to_look_at(entry.view), heat))})
    return drawn


def _png(pixels: npt.NDArray[np.uint8]) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode("ascii")
