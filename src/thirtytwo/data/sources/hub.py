"""Data sets of the Hugging Face hub: from the data root, else downloaded and cached by the `datasets` library."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from thirtytwo.data import cache
from thirtytwo.data.build import build_dataset
from thirtytwo.data.sources.cifar_archive import find_cifar
from thirtytwo.data.sources.folder import open_local
from thirtytwo.data.sources.tables import OPTIONS, KnownDataSet, has_names, open_tables
from thirtytwo.data.split import Split, split_of
from thirtytwo.data.types import DataSet, Request, refuse_options
from thirtytwo.data.undecoded import UndecodedDataSet
from thirtytwo.errors import DataError, OfflineError, OutputError, ThirtytwoError, UnknownNameError, require
from thirtytwo.process import hub_connection_errors, hub_is_reachable, hub_offline, library_attribute, quiet_loggers

_BATCH = 256


class HubTable:
    """One split of the `datasets` library, with encoded images."""

    def __init__(self, split: Any) -> None:
        self._split = split.with_format("arrow")
        self.schema = split.features.arrow_schema

    def column(self, name: str) -> Any:
        return self._split.select_columns([name])[:][name]

    def batches(self, name: str) -> Iterator[Any]:
        for table in self._split.select_columns([name]).iter(_BATCH):
            yield table[name]

    def file_names(self, name: str) -> list[str]:
        if not has_names(self.schema.field(name).type):
            return []
        return [file or "" for chunk in self.column(name).chunks for file in chunk.field("path").to_pylist()]


def read_known(known: KnownDataSet, request: Request) -> DataSet:
    """Load a well-known data set; see `open_known`, and `build_dataset` for the errors."""
    return build_dataset(open_known(known, request), request)


def open_known(known: KnownDataSet, request: Request) -> UndecodedDataSet:
    """Open a well-known data set from the data root or the hub.

    A cached copy is used without contacting the hub, since the data does not change.

    Raises:
        OfflineError: not on this machine, and the hub cannot be reached; says where to put the files.
    """
    refuse_options(request, known.name, OPTIONS)
    place = under_root(request, known.name, known.hub_id)
    if place is None and request.data_root is not None:
        place = find_cifar(request.data_root, tuple(known.classes))
    if place is not None:
        return open_local(place, request, known)
    try:
        splits = _fetch(known.hub_id, request, offline=True)
    except ThirtytwoError:
        splits = _fetch(known.hub_id, request, offline=not hub_is_reachable(), known=known)
    return _open(known.name, known.name, splits, request, known)


def open_hub(hub_id: str, request: Request) -> UndecodedDataSet:
    """Open any image data set of the hub that has a label column.

    Raises:
        UnknownNameError: the hub has no such data set, or it is private.
        OfflineError: not on this machine, and the hub cannot be reached; says where to put the files.
        DataError: it contains no labelled images.
    """
    refuse_options(request, f"hf:{hub_id}", OPTIONS)
    place = under_root(request, hub_id)
    if place is not None:
        return open_local(place, request)
    return _open(f"hf:{hub_id}", hub_id, _fetch(hub_id, request, offline=not hub_is_reachable()), request)


def under_root(request: Request, *names: str) -> Path | None:
    """The first existing folder of these names in the data root, or None.

    Raises:
        DataError: the data root is not a folder, or cannot be read.
    """
    root = request.data_root
    if root is None:
        return None
    if not root.is_dir():
        raise DataError(f"The data root {root} is not a folder.", "Correct --data-root or THIRTYTWO_DATA.")
    try:
        return next((root / name for name in names if (root / name).is_dir()), None)
    except OSError as error:
        raise DataError(f"The data root {root} cannot be read: {error.strerror}.", "Check its permissions.") from None


def _open(
    where: str, name: str, splits: dict[str, Any], request: Request, known: KnownDataSet | None = None
) -> UndecodedDataSet:
    chosen: dict[Split, Any] = {}
    others = []
    for found in splits:
        split = split_of(found)
        if split is None or split in chosen:
            others.append(found)
        else:
            chosen[split] = splits[found]
    if not chosen and len(splits) == 1:
        chosen, others = {"train": next(iter(splits.values()))}, []
    files = [Path(file["filename"]) for split in chosen.values() for file in split.cache_files]
    return open_tables(
        where=where,
        name=name,
        tables={split: HubTable(found) for split, found in chosen.items()},
        request=request,
        content=lambda: (
            cache.content_key(Path(os.path.commonpath([f.parent for f in files])), files) if files else None
        ),
        known=known,
        skipped=tuple(f"skipped split {found!r}: not one of train, validation, test" for found in others),
    )


def _fetch(hub_id: str, request: Request, offline: bool, known: KnownDataSet | None = None) -> dict[str, Any]:
    """All splits by their names on the hub."""
    datasets = require("datasets", "train")
    try:
        with _quiet(datasets, offline):
            found = datasets.load_dataset(hub_id, name=request.options.get("config"))
    except datasets.exceptions.DatasetNotFoundError:
        if offline:
            raise _offline_error(hub_id, request, known) from None
        raise UnknownNameError(
            f"The hub has no data set {hub_id!r}, or it is private.",
            "Check the name (owner/name); for a private or gated data set, run: hf auth login",
        ) from None
    except datasets.exceptions.DatasetsError as error:
        raise _unusable(hub_id, error) from error
    except hub_connection_errors() as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise OutputError(
                "The disk is full; the data could not be downloaded.", "Free disk space, then run the command again."
            ) from error
        raise _offline_error(hub_id, request, known) from error
    except (ValueError, RuntimeError, NotImplementedError) as error:
        if offline:
            raise _offline_error(hub_id, request, known) from error
        raise _unusable(hub_id, error) from error
    return dict(found)


@contextmanager
def _quiet(datasets: Any, offline: bool) -> Iterator[None]:
    """Disable download counts (telemetry) and warnings of the library, and its network access if `offline`."""
    with quiet_loggers("datasets", "huggingface_hub"), ExitStack() as stack:
        stack.enter_context(library_attribute(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", False))
        if offline:
            stack.enter_context(hub_offline())
        yield


def _offline_error(hub_id: str, request: Request, known: KnownDataSet | None) -> OfflineError:
    name = known.name if known else hub_id
    root = request.data_root
    place = f"{root if root else '<data root>'}/{name}/data"
    setting = (
        "" if root else f", and set the data root (the folder that contains {name}) with --data-root or THIRTYTWO_DATA"
    )
    searched = f"searched {root} and the hub's cache" if root else "no data root is set"
    return OfflineError(
        f"{name} is not on this machine ({searched}), and the hub cannot be reached.",
        f"Connect to the network, or copy {hub_id}'s parquet files to {place}/train-*.parquet and "
        f"{place}/test-*.parquet{setting}.",
    )


def _unusable(hub_id: str, error: Exception) -> DataError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if "config" in str(error).casefold() and "pick one" in str(error).casefold():
        return DataError(f"{hub_id} has several configurations: {' '.join(lines[:2])}", "Choose one: ?config=NAME")
    reason = lines[0].rstrip(".") if lines else type(error).__name__
    return DataError(f"{hub_id} cannot be loaded: {reason}.", "Choose another data set, or a folder of images.")
