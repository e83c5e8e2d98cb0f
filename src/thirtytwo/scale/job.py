"""A job of prediction: what is classified into an output folder, kept there so that the same command continues it."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from secrets import token_hex

from thirtytwo.errors import OutputError, require
from thirtytwo.images.lists import expand_lists
from thirtytwo.inference.views import Tta
from thirtytwo.inputs import is_address
from thirtytwo.scale.address import EXTRA
from thirtytwo.scale.shards import Plan, Shard, from_table, make_plan, root_of, to_table
from thirtytwo.scale.store import Store, check_store, is_store, is_unfinished, local_path, without_credentials
from thirtytwo.text import shorten

JOB, SHARDS = "job.json", "shards.parquet"
PREDICTIONS, ERRORS = "predictions", "errors"
"""Folders of the output: predictions, and the images that could not be read."""
KEPT_SOURCE = 20
"""Number of paths of its source that a job keeps for messages; all are compared by their hash."""
_PART = re.compile(r"part-\d{5,}\.parquet")


@dataclass(frozen=True)
class Request:
    """What a user asks for.

    Attributes:
        source: the images, as given, with lists of paths (`-` and `@FILE`) replaced by what is in them; of a planned
            job the first `KEPT_SOURCE`.
        folder: the folder in which relative paths of images are meant; empty where all are absolute or addresses.
        out: the output folder, an absolute path or an address.
        model: name of the model.
        model_sha256: hash of its file.
        top: number of classes in each prediction.
        size: number of images in a shard; None: by their number.
        tta: images that get further views, as in `Classifier.predict`.
        source_sha256: hash of the whole source without passwords; empty in jobs of earlier versions, which keep all of
            it.
    """

    source: tuple[str, ...]
    folder: str
    out: str
    model: str
    model_sha256: str
    top: int
    size: int | None = None
    tta: Tta = "off"
    source_sha256: str = ""


@dataclass(frozen=True)
class Job:
    """A planned job: the request, and what its source is (see `shards.Plan`).

    Its file has no passwords of addresses: a command that continues the job gives them again. `started` is different
    for each job, so that workers notice when another one has replaced theirs; empty in jobs of earlier versions.
    """

    request: Request
    kind: str
    root: str
    column: str
    images: int
    shards: int
    started: str = ""


def make_request(
    source: Sequence[str],
    out: str,
    model: Path,
    name: str,
    top: int,
    size: int | None = None,
    *,
    absolute: bool,
    tta: Tta = "off",
) -> Request:
    """The request for these arguments.

    Args:
        source: the images.
        out: the output folder.
        model: the model file.
        name: the model's name for messages.
        top: number of classes in each prediction.
        size: number of images in a shard.
        absolute: make the paths of images absolute, for a process with another working directory.
        tta: images that get further views.

    Raises:
        DataError: a list of paths cannot be read.
    """
    listed = _without_lists(source)
    given = tuple(map(_absolute, listed) if absolute else listed)
    place = local_path(out)
    where = out.rstrip("/") if place is None else os.path.abspath(place)  # noqa: PTH100, keeps links
    content = sha256(model.read_bytes()).hexdigest()
    folder = os.getcwd() if any(map(_is_relative, given)) else ""  # noqa: PTH109
    return Request(given, folder, where, name, content, top, size, tta, _digest(given))


def _without_lists(source: Sequence[str]) -> list[str]:
    """The source, with lists of paths (`-` and `@FILE`) replaced by what is in them."""
    return [path for text in source for path in ([text] if is_store(text) else expand_lists([text]))]


def _digest(source: Sequence[str]) -> str:
    return sha256(b"\0".join(os.fsencode(_named(text)) for text in source)).hexdigest()


def _named(text: str) -> str:
    """A source for messages and for files that others may read."""
    return without_credentials(text) if is_store(text) else text


def _is_relative(text: str) -> bool:
    path = local_path(text)
    return path is not None and not os.path.isabs(path)  # noqa: PTH117


def _absolute(text: str) -> str:
    path = local_path(text)
    return text if path is None or is_address(text) else os.path.abspath(path)  # noqa: PTH100, keeps links


def start_or_continue(store: Store, request: Request, *, force: bool = False) -> tuple[Job, list[Shard], Plan | None]:
    """Plan the job in its output folder, or read the plan that an earlier command left there.

    Args:
        store: the output folder.
        request: what to classify.
        force: start again where the folder holds another job, or this one.

    Returns:
        The job, all its shards, and the plan if it is new.

    Raises:
        OutputError: the folder holds other files, or a job of another source or model.
        DataError, InputError: there is nothing to classify; with `force`, the earlier results are still there.
    """
    _refuse_file(store)
    held = store.kind(JOB) == "file"
    if held and not force:
        job = read_job(store)
        _check_same(store, job.request, request)
        kept = replace(request, source=request.source[:KEPT_SOURCE], size=job.request.size)
        root = root_of(request.source) if job.root else ""  # the folder may have moved, and has its password again
        return replace(job, request=kept, root=root), _read_shards(store), None
    store.remove_unfinished()
    _refuse_other_files(store, held)
    plan = make_plan(request.source, request.size)
    if held:  # not before it is sure that there is something to classify
        _remove_job(store)
    kept = replace(request, source=request.source[:KEPT_SOURCE])
    job = Job(kept, plan.kind, plan.root, plan.column, plan.images, len(plan.shards), token_hex(8))
    parquet = require("pyarrow.parquet", EXTRA)
    store.write(SHARDS, lambda stream: parquet.write_table(to_table(plan.shards), stream))
    store.make_folder(PREDICTIONS)
    text = json.dumps(asdict(_without_passwords(job)), indent=1, ensure_ascii=True) + "\n"
    store.write(JOB, lambda stream: stream.write(text.encode()))  # last: what has a job has its shards
    return job, list(plan.shards), plan


def _without_passwords(job: Job) -> Job:
    request = replace(job.request, source=tuple(map(_named, job.request.source)), out=_named(job.request.out))
    return replace(job, request=request, root=_named(job.root))


def finished(store: Store) -> frozenset[str]:
    """Names of the parts that are complete."""
    names = (name.rpartition("/")[2] for name in store.names(PREDICTIONS))
    return frozenset(filter(_PART.fullmatch, names))


def count_results(store: Store, parts: Sequence[str]) -> tuple[int, int]:
    """Numbers of images in finished parts, and of those that could not be read."""
    errors = {name.rpartition("/")[2] for name in store.names(ERRORS)}
    good = sum(_rows(store, f"{PREDICTIONS}/{part}") for part in parts)
    return good, sum(_rows(store, f"{ERRORS}/{part}") for part in parts if part in errors)


def _rows(store: Store, name: str) -> int:
    parquet = require("pyarrow.parquet", EXTRA)
    try:
        with store.open(name) as stream:
            return int(parquet.ParquetFile(stream).metadata.num_rows)
    except store.failures(ValueError) as error:
        raise OutputError(
            f"{store.full_name(name)} is damaged: {store.reason(error)}.",
            "Move it elsewhere, and run the command again.",
        ) from None


def _refuse_file(store: Store) -> None:
    if check_store(store) == "file":
        raise OutputError(f"{store.address} is a file; a folder is needed.", "Choose another name.")


def _refuse_other_files(store: Store, held: bool) -> None:
    """Check that the output folder has no other files and folders than those of a job, if it holds one."""
    own = (SHARDS, ".lock", *([JOB] if held else []))
    others = [name for name in store.names() if name not in own]
    parts = (name for folder in (PREDICTIONS, ERRORS) for name in store.names(folder))
    others += [name for name in parts if not (held and _is_part(name))]
    others = [name for name in others if not is_unfinished(name)]
    others += [name for name in store.folders() if name not in (PREDICTIONS, ERRORS)]
    if others:
        raise OutputError(
            f"{store.address} holds other files ({others[0]})"
            f"{'' if held else f', and no {JOB} of an interrupted prediction'}.",
            "Choose an empty folder.",
        )


def _is_part(name: str) -> bool:
    """Whether a file has results of a shard, by its name."""
    return _PART.fullmatch(name.rpartition("/")[2]) is not None


def read_job(store: Store) -> Job:
    """The job of an output folder, as its file has it.

    Raises:
        OutputError: the file is damaged.
    """
    try:
        found = json.loads(store.read(JOB))
        request = found.pop("request")
        return Job(Request(**{**request, "source": tuple(request["source"])}), **found)
    except store.failures(ValueError, TypeError, KeyError, AttributeError) as error:
        raise OutputError(
            f"{store.full_name(JOB)} is damaged, or of another version of thirtytwo ({store.reason(error)}).",
            "Choose another folder, or start again with --force.",
        ) from None


def _read_shards(store: Store) -> list[Shard]:
    parquet = require("pyarrow.parquet", EXTRA)
    try:
        return from_table(parquet.read_table(io.BytesIO(store.read(SHARDS))))
    except store.failures(ValueError, KeyError) as error:
        raise OutputError(
            f"{store.full_name(SHARDS)} is damaged ({store.reason(error)}).",
            "Choose another folder, or start again with --force.",
        ) from None


def _check_same(store: Store, before: Request, now: Request) -> None:
    compared: list[tuple[str, object, object]] = [("--top", before.top, now.top), ("--tta", before.tta, now.tta)]
    if before.folder and now.folder:
        compared.append(("the working directory", before.folder, now.folder))
    if before.model_sha256 != now.model_sha256:
        other = now.model if now.model != before.model else f"another file {now.model}"
        compared.append(("the model", before.model, other))
    differ = [f"{what} {old}, not {new}" for what, old, new in compared if old != new]
    if (before.source_sha256 or _digest(before.source)) != now.source_sha256:
        old, new = _shown(before.source), _shown(now.source)
        differ.insert(0, f"the images {old}, not {new}" if old != new else f"other images than {new}")
    if differ:
        raise OutputError(
            f"{store.address} holds results of another command: {'; '.join(differ)}.",
            "Choose another --out, repeat the earlier command to continue it, or start again with --force.",
        )


def _shown(source: Sequence[str]) -> str:
    more = " …" if len(source) >= KEPT_SOURCE else ""
    return shorten(" ".join(map(_named, source[:KEPT_SOURCE])), 200) + more


def _remove_job(store: Store) -> None:
    """Remove the files of a job, and no others.

    The job file and the shards come last: what is left where this is interrupted is a job of which parts are missing.
    """
    parts = [name for folder in (PREDICTIONS, ERRORS) for name in store.names(folder)]
    for name in (*(name for name in parts if _is_part(name) or is_unfinished(name)), JOB, SHARDS):
        store.remove(name)
