"""The served models, and the path of a request's images through decoding, batching and heatmaps."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
from base64 import b64encode
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from thirtytwo.errors import ServiceError, did_you_mean
from thirtytwo.explain.overlay import overlay
from thirtytwo.images.render import for_display, png
from thirtytwo.inference.classifier import Classifier, Prediction, UnreadableImage
from thirtytwo.inference.library import bundled_models, default_model, find_model, model_name
from thirtytwo.inference.session import BATCHES, MOST_THREADS
from thirtytwo.machine import cpu_count
from thirtytwo.serve.batching import Batcher
from thirtytwo.serve.limits import RequestLimits, Reservation
from thirtytwo.serve.metrics import Metrics
from thirtytwo.serve.schemas import Problem
from thirtytwo.serve.settings import ServeSettings
from thirtytwo.serve.uploads import DecodedUpload, Decoder, Upload

HEATMAPS = "heatmaps"

_GROUP = 16  # maximum number of images a decoding thread takes at a time
_GROUP_BYTES = 256 * 1024
_NAMED = re.compile(r"(?P<name>[\w.-]+)=(?P<path>.+)", re.DOTALL)


@dataclass(frozen=True)
class Served:
    """A served model: its name, classifier and batcher."""

    name: str
    classifier: Classifier
    batcher: Batcher

    @property
    def has_heatmaps(self) -> bool:
        return HEATMAPS in {output.name for output in self.classifier.session.get_outputs()}


class Backend(Protocol):
    """What the HTTP interface needs: `Service` in this process, or another one in front of replicas elsewhere."""

    settings: ServeSettings
    limits: RequestLimits
    metrics: Metrics
    ready: bool

    @property
    def names(self) -> list[str]: ...

    def start(self) -> None: ...

    def close(self) -> None: ...

    async def list_models(self) -> list[dict[str, Any]]: ...

    async def find(self, name: str | None, *, heatmap: bool) -> str: ...

    async def predict(
        self, uploads: AsyncIterator[Upload], model: str, reservation: Reservation, *, top: int, heatmap: bool
    ) -> list[dict[str, Any]]: ...


class Service:
    """Models, threads and limits behind the HTTP interface.

    Args:
        models: model files by name; the first is the default.
        settings: limits and sizes.

    Raises:
        ModelFileError: a file is not a thirtytwo model.
    """

    def __init__(self, models: dict[str, Path], settings: ServeSettings) -> None:
        self._threads = settings.threads or cpu_count(MOST_THREADS)
        self.settings = settings
        self.limits = RequestLimits(settings.queue, settings.max_held_mb, self._seconds_per_image)
        self.metrics = Metrics(lambda: self.limits.images, settings.max_batch)
        self.decoder = Decoder(self._threads, settings.max_pixels, settings.max_decode_bytes)
        self.models = {name: self._open(name, path) for name, path in models.items()}
        self.default = next(iter(self.models), "")
        self._entries = [_model_entry(served, default=name == self.default) for name, served in self.models.items()]
        self.ready = False
        self._heatmap_thread = ThreadPoolExecutor(1, thread_name_prefix="thirtytwo-heatmaps")

    def start(self) -> None:
        """Warm up every model, so that the first request is fast.

        Raises:
            ModelFileError: a model cannot predict.
        """
        for served in self.models.values():
            size = served.classifier.info.input_size
            served.classifier.classify(np.zeros((1, size, size, 3), dtype=np.uint8))
        self.ready = True

    def close(self) -> None:
        """Finish running work and stop all threads."""
        self.ready = False
        self.decoder.close()
        self._heatmap_thread.shutdown()
        for served in self.models.values():
            served.batcher.close()

    @property
    def names(self) -> list[str]:
        """Names of the models, the default first."""
        return list(self.models)

    async def list_models(self) -> list[dict[str, Any]]:
        """One entry per model, the default first."""
        return self._entries

    async def find(self, name: str | None, *, heatmap: bool) -> str:
        """The name of the model to use; None means the default.

        Raises:
            Problem: there is no such model, or it has no heatmaps and they are requested.
        """
        return str(find_entry(self._entries, name, heatmap=heatmap)["name"])

    async def predict(
        self, uploads: AsyncIterator[Upload], model: str, reservation: Reservation, *, top: int, heatmap: bool
    ) -> list[dict[str, Any]]:
        """Classify uploads; one entry per upload, in order, as written by `thirtytwo predict --format json`.

        Raises:
            Problem: there is no upload, none can be read, or a limit is exceeded.
        """
        served = self.models[model]
        decoded = await self._decode_uploads(uploads, served, reservation, heatmap)
        entries = await self._classify(decoded, served, top, heatmap)
        self.metrics.count_images(model, entries)
        check_readable(entries)
        return entries

    async def classify(self, uploads: Sequence[Upload], model: str, *, top: int, heatmap: bool) -> list[dict[str, Any]]:
        """Entries for uploads that are in memory, outside the limits of requests; those of unreadable ones too."""
        served = self.models[model]
        groups = [uploads[start : start + _GROUP] for start in range(0, len(uploads), _GROUP)]
        decoding = [self.decoder.decode(group, served.classifier.info, heatmap) for group in groups]
        decoded = [entry for group in await asyncio.gather(*decoding) for entry in group]
        return await self._classify(decoded, served, top, heatmap)

    async def _classify(
        self, decoded: Sequence[DecodedUpload | UnreadableImage], served: Served, top: int, heatmap: bool
    ) -> list[dict[str, Any]]:
        readable = [entry for entry in decoded if isinstance(entry, DecodedUpload)]
        predictions = await served.batcher.submit([entry.pixels for entry in readable], top, one_view=heatmap)
        entries = [_entry(entry, prediction, top) for entry, prediction in zip(readable, predictions, strict=True)]
        if heatmap:
            for entry, heatmap_entry in zip(entries, await self._heatmaps(served, readable), strict=True):
                entry["heatmap"] = heatmap_entry
        remaining = iter(entries)
        return [entry.as_dict() if isinstance(entry, UnreadableImage) else next(remaining) for entry in decoded]

    async def _decode_uploads(
        self, uploads: AsyncIterator[Upload], served: Served, reservation: Reservation, view: bool
    ) -> list[DecodedUpload | UnreadableImage]:
        """Decode all uploads; decoding starts while others still arrive, and few undecoded ones are kept in memory."""
        decoded: list[DecodedUpload | UnreadableImage] = []
        group: list[Upload] = []
        size = 0
        tasks: deque[asyncio.Task[list[DecodedUpload | UnreadableImage]]] = deque()
        try:
            async for upload in uploads:
                reservation.add_image()
                group.append(upload)
                size += len(upload.data)
                if len(group) == _GROUP or size >= _GROUP_BYTES:
                    tasks.append(asyncio.create_task(self._decode(group, served, reservation, view)))
                    group, size = [], 0
                if len(tasks) > self._threads:
                    decoded += await tasks.popleft()
            if group and tasks:  # if nothing else is being decoded, it needs no task
                tasks.append(asyncio.create_task(self._decode(group, served, reservation, view)))
                group = []
            for task in tasks:
                decoded += await task
        finally:
            for task in tasks:
                task.cancel()
        if group:
            decoded += await self._decode(group, served, reservation, view)
        return decoded

    async def _decode(
        self, group: list[Upload], served: Served, reservation: Reservation, view: bool
    ) -> list[DecodedUpload | UnreadableImage]:
        decoded = await self.decoder.decode(group, served.classifier.info, view)
        reservation.release(sum(len(upload.data) for upload in group))
        return decoded

    async def _heatmaps(self, served: Served, decoded: Sequence[DecodedUpload]) -> list[dict[str, Any]]:
        loop = asyncio.get_running_loop()
        heatmaps: list[dict[str, Any]] = []
        size = self._batch_size(served.classifier)
        for start in range(0, len(decoded), size):
            batch = decoded[start : start + size]
            heatmaps += await loop.run_in_executor(self._heatmap_thread, _heatmap_entries, served.classifier, batch)
        return heatmaps

    def _open(self, name: str, path: Path) -> Served:
        batches = min(BATCHES, self._threads)
        classifier = Classifier(path, threads=self._threads // batches)
        sizes, seconds = self.metrics.batch_size.labels(name), self.metrics.batch_seconds.labels(name)

        def observe(size: int, duration: float) -> None:
            sizes.observe(size)
            seconds.observe(duration)

        wait = self.settings.max_wait_ms / 1000
        size, tta = self._batch_size(classifier), self.settings.tta
        batcher = Batcher(classifier, max_size=size, max_wait=wait, threads=batches, tta=tta, observe=observe)
        return Served(name, classifier, batcher)

    def _batch_size(self, classifier: Classifier) -> int:
        """Maximum number of images per batch: as set, and fewer where they are large."""
        return min(self.settings.max_batch, max(1, classifier.largest_batch // min(BATCHES, self._threads)))

    def _seconds_per_image(self) -> float:
        return max(served.batcher.seconds_per_image for served in self.models.values())


def choose_models(wanted: Iterable[str]) -> dict[str, Path]:
    """Model files by the name they are served under.

    Each of `wanted` is a value of `thirtytwo predict --model`, optionally with a name as `NAME=…`. Without any, all
    bundled models, that of `default_model` first; if there are none, the newest run.

    Raises:
        ServiceError: two models have the same name.
        UnknownNameError: there is no such file, directory or bundled model.
        ModelFileError: there is no model to serve.
        RunError: a run directory has no model.
    """
    chosen: dict[str, Path] = {}
    for text in wanted:
        named = None if os.path.exists(text) else _NAMED.fullmatch(text)  # noqa: PTH110, False where it cannot exist
        place = named["path"] if named else text
        path = find_model(place)
        name = named["name"] if named else model_name(path)
        if name in chosen:
            plain = re.sub(r"[^\w.-]", "-", name)
            other = next(one for number in count(2) if (one := f"{plain}-{number}") not in chosen)
            raise ServiceError(
                f"Two models have the name {name!r}: {chosen[name]} and {path}.",
                f"Set another name for one of them, for example: --model {shlex.quote(f'{other}={place}')}",
            )
        chosen[name] = path
    if chosen:
        return chosen
    if bundled := bundled_models():
        return bundled
    path = default_model()
    return {model_name(path): path}


def _entry(upload: DecodedUpload, prediction: Prediction, top: int) -> dict[str, Any]:
    """The entry for an upload; predictions of a batch may contain more than the `top` classes of this request."""
    entry = prediction.as_dict() | {"file": upload.file, "width": upload.width, "height": upload.height}
    entry["predictions"] = entry["predictions"][:top]
    return entry


def _model_entry(served: Served, *, default: bool) -> dict[str, Any]:
    info = served.classifier.info
    return {
        "name": served.name,
        "default": default,
        "dataset": info.dataset,
        "architecture": info.architecture,
        "accuracy": info.accuracy,
        "classes": info.classes,
        "input_size": info.input_size,
        "resize": info.resize,
        "heatmaps": served.has_heatmaps,
        "version": info.version,
    }


def find_entry(models: Sequence[dict[str, Any]], name: str | None, *, heatmap: bool) -> dict[str, Any]:
    """The entry of `list_models` with that name; None means the default.

    Raises:
        Problem: there is no such model, or it has no heatmaps and they are requested.
    """
    found = next((entry for entry in models if (entry["default"] if name is None else entry["name"] == name)), None)
    if found is None:
        known = [entry["name"] for entry in models]
        raise Problem("unknown-model", f"Unknown model {name!r}. {did_you_mean(name or '', known)}")
    if heatmap and not found["heatmaps"]:
        raise Problem("no-heatmaps", f"The architecture of model {found['name']} has no heatmaps.")
    return found


def check_readable(entries: Sequence[dict[str, Any]]) -> None:
    """Check that at least one entry is a prediction.

    Raises:
        Problem: there are no entries, or all are errors.
    """
    if not entries:
        raise Problem("no-image", "The request contains no file.")
    if not all("error" in entry for entry in entries):
        return
    first, errors = entries[0], list(entries)
    if len(entries) == 1:
        raise Problem("unreadable", first["error"], file=first["file"], errors=errors)
    detail = f"None of the {len(entries)} files could be read. The first: {first['error']}"
    raise Problem("unreadable", detail, errors=errors)


def _heatmap_entries(classifier: Classifier, decoded: Sequence[DecodedUpload]) -> list[dict[str, Any]]:
    """Heatmaps of the top class, 0 to 1, with their overlays as PNG."""
    maps = classifier.run(np.stack([entry.pixels for entry in decoded]), [HEATMAPS])[HEATMAPS]  # (N, h, w)
    entries = []
    for entry, evidence in zip(decoded, maps.astype(np.float64), strict=True):
        positive = np.maximum(evidence, 0)
        heat = (positive / max(positive.max(), 1e-12)).astype(np.float32)
        assert entry.view is not None
        values = [[round(float(value), 4) for value in row] for row in heat]
        overlay_png = png(overlay(for_display(entry.view), heat))
        entries.append({"values": values, "overlay": b64encode(overlay_png).decode("ascii")})
    return entries
