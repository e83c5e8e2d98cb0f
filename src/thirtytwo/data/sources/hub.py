"""Data sets of the Hugging Face hub: the data root first, then what the `datasets` library fetches and keeps."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from thirtytwo.data import cache
from thirtytwo.data.source import Request, refuse_options
from thirtytwo.data.sources.place import read_local
from thirtytwo.data.sources.tables import OPTIONS, KnownDataSet, read_tables
from thirtytwo.data.split import Split, split_of
from thirtytwo.data.types import DataSet
from thirtytwo.errors import DataError, OfflineError, OutputError, ThirtytwoError, UnknownNameError, require
from thirtytwo.process import hub_offline, library_attribute, quiet_loggers

_REACH_SECONDS = 5.0
_BATCH = 256


class HubTable:
    """One split as the `datasets` library holds it, pictures left encoded."""

    def __init__(self, split: Any) -> None:
        self._split = split.with_format("arrow")
        self.schema = split.features.arrow_schema

    def column(self, name: str) -> Any:
        return self._split.select_columns([name])[:][name]

    def batches(self, name: str) -> Iterator[Any]:
        for table in self._split.select_columns([name]).iter(_BATCH):
            yield table[name]


def read_known(known: KnownDataSet, request: Request) -> DataSet:
    """A data set everybody knows, from the data root or the hub.

    What was fetched once is used without asking the hub again: it does not change.

    Raises:
        OfflineError: neither here nor to be fetched; says what to put where.
    """
    refuse_options(request, known.name, OPTIONS)
    place = under_root(request, known.name, known.hub_id)
    if place is not None:
        return read_local(place, request, known)
    try:
        splits = _fetch(known.hub_id, request, offline=True)
    except ThirtytwoError:
        splits = _fetch(known.hub_id, request, offline=not _reachable(), known=known)
    return _read(known.name, known.name, splits, request, known)


def read_hub(hub_id: str, request: Request) -> DataSet:
    """Any picture data set of the hub with a label column.

    Raises:
        UnknownNameError: the hub has no such data set, or shows it to others only.
        OfflineError: neither here nor to be fetched; says what to put where.
        DataError: it holds no labelled pictures.
    """
    refuse_options(request, f"hf:{hub_id}", OPTIONS)
    place = under_root(request, hub_id)
    if place is not None:
        return read_local(place, request)
    return _read(f"hf:{hub_id}", hub_id, _fetch(hub_id, request, offline=not _reachable()), request)


def under_root(request: Request, *names: str) -> Path | None:
    """The folder of one of these names below the data root, or None.

    Raises:
        DataError: a data root that is not there.
    """
    root = request.data_root
    if root is None:
        return None
    if not root.is_dir():
        raise DataError(f"The data root {root} is not a folder.", "Correct --data-root or THIRTYTWO_DATA.")
    return next((root / name for name in names if (root / name).is_dir()), None)


def _read(
    where: str, name: str, splits: dict[str, Any], request: Request, known: KnownDataSet | None = None
) -> DataSet:
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
    return read_tables(
        where=where,
        name=name,
        tables={split: HubTable(found) for split, found in chosen.items()},
        request=request,
        content=lambda: (
            cache.content_key(Path(os.path.commonpath([f.parent for f in files])), files) if files else None
        ),
        known=known,
        skipped=tuple(f"split {found!r} is none of train, validation, test" for found in others),
    )


def _fetch(hub_id: str, request: Request, offline: bool, known: KnownDataSet | None = None) -> dict[str, Any]:
    """Every split, by the hub's names."""
    datasets = require("datasets", "train")
    try:
        with _quiet(datasets, offline):
            found = datasets.load_dataset(hub_id, name=request.options.get("config"))
    except datasets.exceptions.DatasetNotFoundError:
        if offline:
            raise _offline_error(hub_id, request, known) from None
        raise UnknownNameError(
            f"The hub has no data set {hub_id!r}, or does not show it to you.",
            "Check the name as owner/name; for a closed one run: hf auth login",
        ) from None
    except datasets.exceptions.DatasetsError as error:
        raise _unusable(hub_id, error) from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise OutputError("The disk is full while fetching data.", "Free some space, then run it again.") from error
        raise _offline_error(hub_id, request, known) from error
    except (ValueError, RuntimeError, NotImplementedError) as error:
        if offline:
            raise _offline_error(hub_id, request, known) from error
        raise _unusable(hub_id, error) from error
    return dict(found)


@contextmanager
def _quiet(datasets: Any, offline: bool) -> Iterator[None]:
    """The library without counting downloads for others, and without asking the network when there is none."""
    with ExitStack() as stack:
        stack.enter_context(library_attribute(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", False))
        if offline:
            stack.enter_context(hub_offline())
            stack.enter_context(quiet_loggers("datasets"))
        yield


def _reachable() -> bool:
    """Whether the hub answers at once; HF_HUB_OFFLINE and HF_DATASETS_OFFLINE forbid asking.

    The library alone would try for half a minute.
    """
    hub: Any = require("huggingface_hub", "train")
    constants: Any = require("huggingface_hub.constants", "train")
    datasets: Any = require("datasets", "train")
    if constants.HF_HUB_OFFLINE or datasets.config.HF_HUB_OFFLINE:
        return False
    try:
        hub.utils.get_session().head(constants.ENDPOINT, timeout=_REACH_SECONDS)
    except Exception:  # whatever the network does, the answer is no
        return False
    return True


def _offline_error(hub_id: str, request: Request, known: KnownDataSet | None) -> OfflineError:
    name = known.name if known else hub_id
    root = request.data_root
    place = f"{root if root else '<data root>'}/{name}/data"
    library_attribute = (
        "" if root else f", and give the data root (the folder that holds {name}) with --data-root or THIRTYTWO_DATA"
    )
    looked = f"{root} and the hub's cache were looked into" if root else "no data root is set"
    return OfflineError(
        f"{name} is not on this machine ({looked}), and the hub cannot be reached.",
        f"Get online, or copy {hub_id}'s parquet files to {place}/train-*.parquet and {place}/test-*.parquet{library_attribute}.",
    )


def _unusable(hub_id: str, error: Exception) -> DataError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if "config" in str(error).casefold() and "pick one" in str(error).casefold():
        return DataError(f"{hub_id} has several configurations: {' '.join(lines[:2])}", "Choose one: ?config=NAME")
    reason = lines[0].rstrip(".") if lines else type(error).__name__
    return DataError(f"{hub_id} cannot be loaded: {reason}.", "Choose another data set, or a folder of pictures.")
