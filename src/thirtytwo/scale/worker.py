"""What a worker does: classify the images of shards, and write the results of each as a whole."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from thirtytwo.data.sources.tables import image_source
from thirtytwo.errors import ClusterError, DataError, InputError, OutputError, ThirtytwoError, require
from thirtytwo.inference.classifier import Classifier, NamedImage, Prediction, UnreadableImage
from thirtytwo.scale.address import EXTRA
from thirtytwo.scale.failures import FIELDS, NO_FAILURE, as_failure
from thirtytwo.scale.job import ERRORS, JOB, PREDICTIONS, Job, Request, read_job
from thirtytwo.scale.nodes import enter_folder
from thirtytwo.scale.shards import Shard, from_table
from thirtytwo.scale.store import MISSING, Store, check_store, open_store, read_ahead
from thirtytwo.text import escape_bytes

READ_THREADS = 8
"""Files of an object store that a worker reads at once: their latency is long, and their content small."""
READ_AGAIN = 8
"""Files of a shard that are read a second time, at once, where the first attempt failed."""
PAUSES = (2.0, 10.0)
"""Seconds before each further attempt to read a shard, after an object store has failed."""
_BATCH = 64


class InterruptedStoreError(InputError):
    """An object store that failed for a time; the images that could not be read meanwhile may be good."""


class ShardClassifier:
    """Classifies shards on a worker; an actor of Ray Data."""

    def __init__(self, job: Job, model: Any) -> None:
        self._job, self._model = job, model
        self._classifier: Classifier | None = None

    def __call__(self, batch: Any) -> Any:
        """Classify the shards in an Arrow table; returns one row for each: numbers of images, and what failed."""
        arrow = require("pyarrow", EXTRA)
        rows = [self._summary(shard) for shard in from_table(batch)]
        numbers = [(name, arrow.int64()) for name in ("number", "images", "unreadable")]
        return arrow.Table.from_pylist(rows, arrow.schema([*numbers, *((name, arrow.string()) for name in FIELDS)]))

    def _summary(self, shard: Shard) -> dict[str, Any]:
        """The numbers of a shard. Errors that users can fix are returned: Ray would add its own text to them."""
        try:
            if self._classifier is None:
                self._classifier = self._open()
            good, bad = self._write(shard, *self._results(self._classifier, shard))
            return {"number": shard.number, "images": good, "unreadable": bad, **NO_FAILURE}
        except ThirtytwoError as error:
            return {"number": shard.number, "images": 0, "unreadable": 0, **as_failure(error)}

    def _results(self, classifier: Classifier, shard: Shard) -> tuple[list[Prediction], list[UnreadableImage]]:
        """Classify a shard, from the start where its store failed meanwhile."""
        predictions: list[Prediction] = []
        errors: list[UnreadableImage] = []
        for pause in (*PAUSES, None):
            predictions.clear()
            errors.clear()
            try:
                for result in _classified(classifier, images_of(self._job, shard), self._job.request):
                    if isinstance(result, Prediction):
                        predictions.append(result)
                    else:
                        errors.append(result)
                break
            except InterruptedStoreError as error:
                if pause is None:
                    raise InputError(error.message, error.fix) from error
                time.sleep(pause)
        return predictions, errors

    def _write(self, shard: Shard, predictions: list[Prediction], errors: list[UnreadableImage]) -> tuple[int, int]:
        """Write the parts of a shard: errors first, because the predictions mark it as finished.

        Raises:
            OutputError: they cannot be written, or the folder belongs to another job by now.
        """
        out = open_store(self._job.request.out)
        if read_job(out).started != self._job.started:
            raise OutputError(
                f"{out.address} holds results of another command, which was started meanwhile.", "Choose another --out."
            )
        if errors:
            _write_table(out, f"{ERRORS}/{shard.part}", error_table(errors))
        else:
            out.remove(f"{ERRORS}/{shard.part}")
        _write_table(out, f"{PREDICTIONS}/{shard.part}", prediction_table(predictions))
        return len(predictions), len(errors)

    def _open(self) -> Classifier:
        """The model, with one thread: a worker has one core."""
        ray: Any = require("ray", EXTRA)
        request = self._job.request
        out = open_store(request.out)
        if out.kind(JOB) != "file":
            raise ClusterError(
                f"The Ray worker {platform.node()} does not see the folder {out.address}.",
                "Give an --out that all machines share: a folder on network storage, or an address such as s3://….",
            )
        if request.folder:
            enter_folder(request.folder)  # so that images have the names that the user gave
        with tempfile.TemporaryDirectory(prefix="thirtytwo-model-") as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(ray.get(self._model))
            classifier = Classifier(path, threads=1)
        classifier.path = Path(request.model)  # for messages
        return classifier


def _classified(
    classifier: Classifier, images: Iterable[NamedImage | UnreadableImage | Path], request: Request
) -> Iterator[Prediction | UnreadableImage]:
    """Results in the order of the images, of which some could not be read from their store."""
    failed: list[tuple[int, UnreadableImage]] = []

    def readable() -> Iterator[NamedImage | Path]:
        for position, image in enumerate(images):
            if isinstance(image, UnreadableImage):
                failed.append((position, image))
            else:
                yield image

    position = 0
    for result in classifier.predict_iter(readable(), request.top, tta=request.tta):
        while failed and failed[0][0] == position:
            yield failed.pop(0)[1]
            position += 1
        yield result
        position += 1
    yield from (error for _, error in failed)


def images_of(job: Job, shard: Shard) -> Iterator[NamedImage | UnreadableImage | Path]:
    """The images of a shard, in order; what cannot be read from an object store comes as an error.

    Raises:
        DataError: a parquet file is damaged.
        ClusterError: this machine does not see the files.
        InputError: the store cannot be read.
    """
    if job.kind == "parquet":
        return _rows(open_store(job.root), job.column, shard)
    if job.root:
        return _stored(open_store(job.root), shard)
    if shard.files and not any(map(os.path.lexists, shard.files)):
        raise ClusterError(
            f"The Ray worker {platform.node()} does not see any of {len(shard.files)} images, such as "
            f"{escape_bytes(shard.files[0])}.",
            "Give a folder that all machines share, or an address such as s3://….",
        )
    return map(Path, shard.files)


def _stored(store: Store, shard: Shard) -> Iterator[NamedImage | UnreadableImage]:
    """The images of a shard in an object store.

    An image that could not be read is to blame itself only if the store then gives others, and still not this one.

    Raises:
        InterruptedStoreError: the store failed meanwhile.
        InputError: it cannot be read.
    """
    good = reason = ""
    failed: list[str] = []
    left = READ_AGAIN
    for name, content in read_ahead(store, list(shard.files), READ_THREADS):
        if good and left and isinstance(content, str) and content != MISSING:
            left -= 1
            content = _read(store, name)
        full = store.full_name(name)
        if isinstance(content, bytes):
            good = name
            yield NamedImage(full, content)
        else:
            reason = content
            failed += [name] if reason != MISSING else []
            yield UnreadableImage(full, f"{full} cannot be read: {reason}.")
    if not good and shard.images > 1:
        raise InterruptedStoreError(
            f"The Ray worker {platform.node()} cannot read any of {shard.images} images in {store.address}: {reason}.",
            "Check the address, the credentials and the network of the workers.",
        )
    if not good:
        check_store(store)
    if failed and (_is_readable(store, failed[0]) or (good and not _is_readable(store, good))):
        raise InterruptedStoreError(
            f"The Ray worker {platform.node()} could not read {store.full_name(failed[0])} for a time: {reason}.",
            "Check the network of the workers; the same command continues.",
        )


def _read(store: Store, name: str) -> bytes | str:
    ((_, content),) = read_ahead(store, [name], 1)
    return content


def _is_readable(store: Store, name: str) -> bool:
    return isinstance(_read(store, name), bytes)


def _rows(store: Store, column: str, shard: Shard) -> Iterator[NamedImage]:
    """The images in some rows of a parquet file, named by file and row."""
    parquet = require("pyarrow.parquet", EXTRA)
    name = shard.files[0]
    full, row = store.full_name(name), shard.start
    try:
        with store.open(name) as stream:
            opened = parquet.ParquetFile(stream)
            for cell in _cells(opened, column, shard.start, shard.start + shard.images):
                yield NamedImage(f"{full}#{row}", image_source(cell))
                row += 1
    except store.failures(ValueError, LookupError) as error:
        message = f"{full} cannot be read: {store.reason(error)}."
        if store.local or isinstance(error, ValueError | LookupError):
            raise DataError(message, "Copy it again.") from None
        raise InterruptedStoreError(message, "Check the network of the workers; the same command continues.") from None
    if row != shard.start + shard.images:
        raise DataError(f"{full} has fewer rows than at the start of the command.", "Start again with --force.")


def _cells(opened: Any, column: str, start: int, stop: int) -> Iterator[Any]:
    """The cells of a column from row `start` to `stop`, of which only the row groups are read."""
    groups: list[int] = []
    first = at = 0
    for index in range(opened.metadata.num_row_groups):
        rows = opened.metadata.row_group(index).num_rows
        if at < stop and at + rows > start:
            first = at if not groups else first
            groups.append(index)
        at += rows
    left, skip = stop - start, start - first
    for batch in opened.iter_batches(_BATCH, row_groups=groups, columns=[column]):
        cells = batch.column(0)
        if skip >= len(cells):
            skip -= len(cells)
            continue
        found = cells.slice(skip, left).to_pylist()
        skip, left = 0, left - len(found)
        yield from found
        if not left:
            return


def prediction_table(predictions: Iterable[Prediction]) -> Any:
    """Predictions as an Arrow table, with the columns of `thirtytwo predict --format json`."""
    arrow = require("pyarrow", EXTRA)
    one = arrow.struct([("class", arrow.string()), ("confidence", arrow.float64())])
    schema = arrow.schema(
        [
            ("file", arrow.string()),
            ("width", arrow.int32()),
            ("height", arrow.int32()),
            ("top", arrow.string()),
            ("confidence", arrow.float64()),
            ("known", arrow.bool_()),
            ("predictions", arrow.list_(one)),
        ]
    )
    return arrow.Table.from_pylist([_as_text(result.as_dict()) for result in predictions], schema)


def error_table(errors: Iterable[UnreadableImage]) -> Any:
    """Images that could not be read, with the reason for each."""
    arrow = require("pyarrow", EXTRA)
    schema = arrow.schema([("file", arrow.string()), ("error", arrow.string())])
    return arrow.Table.from_pylist([_as_text(result.as_dict()) for result in errors], schema)


def _as_text(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry whose file name is text; bytes that are not UTF-8 become escapes, as in other formats."""
    return {key: escape_bytes(value) if isinstance(value, str) else value for key, value in entry.items()}


def _write_table(store: Store, name: str, table: Any) -> None:
    parquet = require("pyarrow.parquet", EXTRA)
    store.write(name, lambda stream: parquet.write_table(table, stream))
