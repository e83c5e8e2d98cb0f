"""Load a data set by the name, path or URL-like spec that the user gives."""

from __future__ import annotations

import math
import os
import re
import statistics
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import chain, islice
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import parse_qsl, urlencode

import numpy as np
import numpy.typing as npt

from thirtytwo.data.apply_fixes import apply_fixes, apply_in_memory
from thirtytwo.data.build import build_dataset, fingerprint
from thirtytwo.data.fixes import FixPlan
from thirtytwo.data.sources import cifar as cifar
from thirtytwo.data.sources import digits as digits
from thirtytwo.data.sources.csvfile import SUFFIXES
from thirtytwo.data.sources.folder import is_data_file, open_local, read_local
from thirtytwo.data.sources.hub import open_hub, open_known, read_known
from thirtytwo.data.sources.tables import KnownDataSet
from thirtytwo.data.split import sample
from thirtytwo.data.survey import Survey, survey_of
from thirtytwo.data.types import DATASETS, IMBALANCE, DataSet, Request, Together
from thirtytwo.data.undecoded import UndecodedDataSet, as_undecoded
from thirtytwo.errors import (
    ArgumentError,
    DataError,
    ImageError,
    ThirtytwoError,
    UnknownNameError,
    check_choice,
    did_you_mean,
)
from thirtytwo.images.content import load_hashed
from thirtytwo.images.discover import IMAGE_SUFFIXES, is_folder, is_junk
from thirtytwo.images.pixels import ResizeRule
from thirtytwo.images.render import png
from thirtytwo.inputs import address_error, file_error, is_address
from thirtytwo.io import expand_home
from thirtytwo.text import counted, listing

HUB_PREFIX = "hf:"
DATA_ROOT_VARIABLE = "THIRTYTWO_DATA"
_ANY_SIZE = 32  # does not change the content hash
_MOST_LISTED = 1000
"""Number of entries of a folder that are looked at to see whether it may be data."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Spec:
    """A parsed data set spec: a name, `hf:owner/name`, a folder or CSV file (`folder`), and the options after `?`."""

    kind: Literal["name", "hub", "folder"]
    name: str
    options: Mapping[str, str]


def load_dataset(
    spec: str | Path,
    *,
    data_root: Path | None = None,
    image_size: int | Literal["auto"] = "auto",
    resize: ResizeRule = "crop",
    seed: int = 0,
    cache: bool = True,
    unreadable: list[ImageError] | None = None,
    group_by: str = "",
    whole: bool = False,
    large: int = 0,
    skip_unreadable: bool = False,
    together: Together | None = None,
    split_test: bool = True,
    fix_plan: FixPlan | None = None,
    lacking: list[tuple[str, str]] | None = None,
) -> DataSet:
    """Load and decode a data set.

    Args:
        spec: `cifar10`, `cifar100`, `digits`, `hf:owner/name`, a CSV file or a folder; `?label=…` selects a label,
            `?imbalance=100` a long-tailed subset of the training images.
        data_root: folder in which known names are searched first; by default the variable `THIRTYTWO_DATA`.
        image_size: side of the square images in pixels; `auto`: the size of the data set's images, at most 32.
        resize: how other shapes become square: `crop`, `pad` or `squash`.
        seed: seed of the test split, where the data has none, and of the imbalance.
        cache: store decoded images on disk and reuse them.
        unreadable: list to which errors of unreadable images are appended, which are then left out; None: they raise a
            DataError.
        group_by: keeps images of one group in the same split: a regular expression on file paths (its first capture
            group, else the whole match), or the name of a table column.
        whole: load the data as stored, for inspection or evaluation: no test set is split off, no imbalance is applied,
            and a single class, or a test split alone, is allowed.
        large: side of the larger copies of training images in pixels, for random crops (`ImageSet.large`); 0: none.
        skip_unreadable: leave out images that cannot be read, and note them in `DataSet.skipped`.
        together: training images that stay on one side where a split is cut from them; None: equal ones only. Those of
            training are found by `doctor.together.kept_together`.
        split_test: split off a test set where the data has none.
        fix_plan: images to drop, relabel or move before anything else (`fixes.read_fix_plan`); None: none.
        lacking: list to which a split and a class are appended where the split has no image of the class but needs
            some for training; None: that raises a DataError.

    Returns:
        The data set, with images uint8 `(N, H, W, 3)` in each split.

    Raises:
        ArgumentError: there is no such `resize`.
        UnknownNameError: no such data set, option or column.
        DataError: the data set or its options are not valid, or the plan of fixes does not fit it.
        OfflineError: it is not on this machine and cannot be downloaded.
    """
    check_choice("resize", resize, get_args(ResizeRule))
    spec = spec_of(spec)
    found = parse(spec, data_root=data_root)
    root, options = _root(data_root), _own_options(found)
    ratio = ratio_of(found.options)
    left_out: list[ImageError] | None = [] if skip_unreadable and unreadable is None else unreadable
    request = Request(
        data_root=root,
        image_size=image_size,
        resize=resize,
        seed=seed,
        cache=cache,
        options=options,
        unreadable=left_out,
        group_by=group_by,
        whole=whole,
        large=large,
        spec=spec,
        together=together,
        split_test=split_test,
        lacking=lacking,
    )
    data = _reader(found)(request) if fix_plan is None else _with_fixes(found, request, fix_plan)
    if left_out and unreadable is None:
        data = _with_left_out(data, left_out, whole=whole)
    return data if ratio is None else long_tailed(data, ratio, seed, only_named=whole)


def _with_left_out(data: DataSet, causes: list[ImageError], *, whole: bool) -> DataSet:
    """The data with a note on the images that were left out because they cannot be read.

    Raises:
        DataError: a class has no training images left.
    """
    reasons = listing((cause.message.rstrip(".") for cause in causes), quoted=False, separator="; ")
    lost = [data.classes[index] for index in np.flatnonzero(data.train.counts == 0)]
    if lost and not whole:
        raise DataError(
            f"{data.name}: no training image of {listing(lost)} can be read: {reasons}.", "Copy the data again."
        )
    note = f"skipped {counted(len(causes), 'image')} that cannot be read: {reasons}"
    return replace(data, skipped=(note, *data.skipped), warnings=(note, *data.warnings))


def _with_fixes(spec: Spec, request: Request, plan: FixPlan) -> DataSet:
    """The data set after the fixes of a plan; the hashes of the dropped images are in its `thinned`."""
    if _in_memory(spec):
        return apply_in_memory(DATASETS.get(spec.name)(request), plan)
    stored = _open(spec, request)
    fixed = apply_fixes(stored, plan)
    hashes: list[int] = []
    for name, positions in fixed.dropped.items():
        for source in stored.parts[name].stream(stored.parts[name].rows[positions]):
            with suppress(ImageError):
                hashes.append(load_hashed(source, _ANY_SIZE)[1])
    data = build_dataset(fixed.data, request)
    return replace(data, thinned=np.array(hashes, dtype=np.uint64), fixes=fixed.counts)


def open_undecoded(spec: str, *, data_root: Path | None = None, skip_unreadable: bool = True) -> UndecodedDataSet:
    """Open a data set as stored, without decoding its images; one that is made in memory has PNG files in their place.

    Folders that cannot be read are left out with `skip_unreadable`, else they raise a DataError.

    Raises:
        UnknownNameError, DataError, OfflineError: as `load_dataset`.
    """
    found = parse(spec, data_root=data_root)
    unreadable: list[ImageError] | None = [] if skip_unreadable else None
    request = Request(_root(data_root), options=_own_options(found), whole=True, spec=spec, unreadable=unreadable)
    return _open(found, request)


def _open(spec: Spec, request: Request) -> UndecodedDataSet:
    if spec.kind == "folder":
        return open_local(expand_home(spec.name), request)
    if known := _known(spec):
        return open_known(known, request)
    if spec.kind == "hub":
        return open_hub(spec.name, request)
    return as_undecoded(DATASETS.get(spec.name)(request), lambda images, position: png(images.images[position]))


def _known(spec: Spec) -> KnownDataSet | None:
    return cifar.KNOWN.get(spec.name) or next((one for one in cifar.KNOWN.values() if one.name == spec.name), None)


def _in_memory(spec: Spec) -> bool:
    """Whether a data set is made in memory, without files or a table."""
    return spec.kind == "name" and _known(spec) is None


def _root(data_root: Path | None) -> Path | None:
    """The data root, which is by default that of the environment."""
    chosen = data_root or os.environ.get(DATA_ROOT_VARIABLE)
    return expand_home(chosen) if chosen else None


def _own_options(spec: Spec) -> dict[str, str]:
    return {key: value for key, value in spec.options.items() if key != IMBALANCE}


def survey(spec: str, *, data_root: Path | None = None) -> Survey:
    """Count images and classes of a data set, and measure its images by their headers; folders are not decoded.

    Raises:
        UnknownNameError, DataError, OfflineError: as `load_dataset`.
    """
    found = parse(spec, data_root=data_root)
    request = Request(_root(data_root), options=_own_options(found))
    if found.kind == "folder":
        # a folder that cannot be read is for the reader to report
        return survey_of(open_local(expand_home(found.name), replace(request, unreadable=[])))
    if found.kind == "hub" and found.name not in cifar.KNOWN:
        return survey_of(open_hub(found.name, request))
    data = _reader(found)(request)
    sides = [min(size) for size, count in data.sizes.items() for _ in range(count)]
    side = int(statistics.median(sides)) if sides else int(data.train.images.shape[1])
    return Survey(side, sum(len(part) for part in data.stored.values()), len(data.classes))


def is_known(spec: str) -> bool:
    """Whether a spec names a data set that thirtytwo knows by name, such as `cifar10` or `hf:uoft-cs/cifar10`."""
    found = parse(spec)
    return found.kind == "name" or (found.kind == "hub" and found.name in cifar.KNOWN)


def spec_of(data: object, name: str = "data") -> str:
    """The text that names a data set, of an argument of this name that may be a path.

    Raises:
        ArgumentError: it is neither text nor a path.
    """
    if isinstance(data, str):
        return data
    if isinstance(data, os.PathLike) and isinstance(text := os.fspath(data), str):
        return text
    raise ArgumentError(
        f"{name} must be the name of a data set, or the path of a folder or file; found {type(data).__name__}.",
        "Save arrays as .npz file with x_train and y_train, or files and their labels as a CSV file.",
    )


def absolute(spec: str) -> str | None:
    """The spec of a folder with its absolute path; None if `spec` is not a folder."""
    found = parse(spec)
    if found.kind != "folder":
        return None
    place = str(expand_home(found.name).resolve())
    options = f"?{urlencode(found.options)}" if found.options else ""
    return place + options


def parse(spec: str, *, data_root: Path | None = None) -> Spec:
    """Parse a data set spec and check that a folder exists.

    A known name takes precedence over a folder of that name; `./cifar10` is the folder.

    Args:
        spec: as for `load_dataset`.
        data_root: folder in which only known names are looked up; an error says if it has what `spec` may mean.

    Raises:
        UnknownNameError: neither a known name nor a folder.
        DataError: a file, or options that are not `key=value`.
    """
    if spec and is_folder(expand_home(spec)) and spec not in DATASETS:
        return Spec("folder", spec, {})
    if is_address(spec):
        raise address_error(spec, folder=True)
    name, _, query = spec.partition("?")
    try:
        options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=True)) if query else {}
    except ValueError:
        raise DataError(f"The options {query!r} are not valid.", f"Expected {name}?label=NAME.") from None
    if name.startswith(HUB_PREFIX):
        hub_id = name.removeprefix(HUB_PREFIX).strip("/")
        if len(hub_id.split("/")) > 2 or not all(hub_id.split("/")):
            raise UnknownNameError(f"{name!r} is not the name of a data set on the hub.", "Expected hf:owner/name.")
        return Spec("hub", hub_id, options)
    if name in DATASETS:
        return Spec("name", name, options)
    path = expand_home(name)
    if name and (is_folder(path) or is_data_file(path)):
        return Spec("folder", name, options)
    if name and os.path.exists(path):  # noqa: PTH110, False without permission
        folder = path.parent.resolve()
        such = f", such as {str(folder)!r}" if _has_images(folder) else ""
        raise file_error(path, then=f"Give a folder of images{such}, a CSV file or a known name.")
    raise _unknown(name, path, _root(data_root))


def _has_images(folder: Path) -> bool:
    """Whether a folder, or a folder in it, has a file with the suffix of an image; only a part is looked at."""
    with suppress(OSError):
        paths = [path for path in islice(folder.iterdir(), _MOST_LISTED) if not is_junk(path.name)]
        below = chain.from_iterable(path.iterdir() for path in paths if is_folder(path))
        every = islice(chain(paths, below), _MOST_LISTED)
        return any(path.suffix.lower() in IMAGE_SUFFIXES for path in every)
    return False


def files_folder(spec: str) -> Path | None:
    """Folder that the files of a data set are relative to; None for data that is not files, or not there."""
    try:
        found = parse(spec)
    except ThirtytwoError:
        return None
    if found.kind != "folder":
        return None
    place = expand_home(found.name)
    return place if place.is_dir() else place.parent


def _reader(spec: Spec) -> Callable[[Request], DataSet]:
    if spec.kind == "name":
        return DATASETS.get(spec.name)
    if spec.kind == "folder":
        return lambda request: read_local(expand_home(spec.name), request)
    if spec.name in cifar.KNOWN:
        return lambda request: read_known(cifar.KNOWN[spec.name], request)
    return lambda request: build_dataset(open_hub(spec.name, request), request)


def _unknown(name: str, path: Path, root: Path | None = None) -> UnknownNameError:
    """The error for a path that does not exist, or for a mistyped name; `root` is the data root."""
    is_table = path.suffix.lower() in SUFFIXES
    if root is not None and name and not path.is_absolute() and (is_folder(root / name) or is_data_file(root / name)):
        return UnknownNameError(
            f"Unknown data set {name!r}: neither a known name nor {'a file' if is_table else 'a folder'} here.",
            f"The data root, in which known data sets are looked up, has it: give the path {str(root / name)!r}.",
        )
    if not is_table and not (name.startswith((".", "~")) or "/" in name or os.sep in name or path.is_absolute()):
        close = _close(name, [*DATASETS.names(), *_folders(Path())]) or _close(name, _folders(root), root)
        fix = f"Did you mean {close}?" if close else did_you_mean("", DATASETS.names())
        return UnknownNameError(
            f"Unknown data set {name!r}: neither a known name nor a folder.",
            f"{fix} Otherwise use the path of a folder, or hf:owner/name.",
        )
    if os.path.islink(path):  # noqa: PTH114, False without permission
        found = f"{name} is a link to {os.readlink(path)}, which does not exist."  # noqa: PTH115
        return UnknownNameError(found, "Correct or remove the link.")
    if is_table:
        close = _close(path.name, _tables(path.parent), path.parent)
        return UnknownNameError(f"There is no file {name!r}.", f"Did you mean {close}?" if close else "Check the path.")
    parent = path.parent
    while not is_folder(parent):
        path, parent = parent, parent.parent
    try:
        os.stat(path)  # noqa: PTH116
    except PermissionError:
        return UnknownNameError(f"{parent} cannot be read: permission denied.", "Check its permissions.")
    except OSError:
        pass
    hints = []
    if close := _close(path.name, _folders(parent), parent):
        hints.append(f"Did you mean {close}?")
    if _HUB_ID.fullmatch(name) and path.name == name.split("/")[0]:
        hints.append(f"For the data set on the hub, write {HUB_PREFIX}{name}.")
    where = "this folder" if parent == Path() else str(parent)
    return UnknownNameError(
        f"There is no folder {name!r}: {where} has no {path.name!r}.", " ".join(hints) or "Check the path."
    )


def _close(name: str, known: Iterable[str], parent: Path | None = None) -> str:
    """The names closest to `name`, ignoring case, joined by `or`."""
    folded = {one.casefold(): one for one in known}
    close = get_close_matches(name.casefold(), folded, n=3, cutoff=0.6)
    return " or ".join(repr(str((parent or Path()) / folded[one])) for one in close)


def _folders(parent: Path | None) -> list[str]:
    if parent is None:
        return []
    try:
        return [entry.name for entry in parent.iterdir() if is_folder(entry) and not entry.name.startswith(".")]
    except OSError:
        return []


def _tables(parent: Path) -> list[str]:
    try:
        return [entry.name for entry in parent.iterdir() if entry.suffix.lower() in SUFFIXES]
    except OSError:
        return []


def ratio_of(options: Mapping[str, str]) -> float | None:
    """The requested ratio of the most frequent class to the rarest, or None where the options have none.

    Raises:
        DataError: not a number of at least 1.
    """
    text = options.get(IMBALANCE)
    if text is None:
        return None
    try:
        ratio = float(text)
    except ValueError:
        ratio = math.nan
    if not (math.isfinite(ratio) and ratio >= 1):
        raise DataError(
            f"{IMBALANCE} is {text!r}; expected a number of at least 1.", f"Write, for example, ?{IMBALANCE}=100"
        )
    return ratio


def long_tailed(data: DataSet, ratio: float, seed: int, *, only_named: bool = False) -> DataSet:
    """A long-tailed subset of the training images; validation and test stay unchanged.

    The exponential profile of Cao et al. (2019, arXiv 1906.07413): class c of C keeps the largest class's count times
    ratio^(-c / (C - 1)), rounded down, or all its images where it has fewer.

    Args:
        data: the data set.
        ratio: ratio of the first class's count to the last's.
        seed: seed of the choice of images.
        only_named: change only the name of the data set and keep all images.
    """
    name = f"{data.name}{'&' if '?' in data.name else '?'}{IMBALANCE}={ratio:g}"
    if only_named:
        return replace(data, name=name)
    chosen = sample(data.train, profile(data.train.counts, ratio), seed)
    kept = data.train.take(chosen)
    splits = {"train": kept, "val": data.val, "test": data.test}
    remark = (
        f"skipped {len(data.train) - len(kept):,} of {len(data.train):,} training images for {IMBALANCE} {ratio:g}: "
        f"the most frequent class keeps {kept.counts.max():,}, the rarest {kept.counts.min():,} (seed {seed})"
    )
    return replace(
        data,
        name=name,
        train=kept,
        fingerprint=fingerprint(
            data.classes, [(name, part.images, part.labels) for name, part in splits.items() if part is not None]
        ),
        skipped=(*data.skipped, remark),
        thinned=np.concatenate([data.thinned, np.delete(data.train.hashes, chosen)]),
    )


def profile(counts: npt.NDArray[np.int64], ratio: float) -> npt.NDArray[np.int64]:
    """Number of images to keep of each class, int64 `(C,)`; at least 1 for classes that are not empty."""
    places = np.arange(len(counts)) / max(1, len(counts) - 1)
    wanted = np.floor(counts.max() * ratio**-places + 1e-9).astype(np.int64)
    kept: npt.NDArray[np.int64] = np.minimum(counts, np.maximum(wanted, 1))
    return kept
