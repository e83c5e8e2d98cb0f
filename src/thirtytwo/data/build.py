"""Build a data set from labelled, undecoded images: checks, splits, decoding."""

from __future__ import annotations

import hashlib
import logging
import shlex
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import PIL

from thirtytwo.data import cache
from thirtytwo.data.arrays import Rows, blank
from thirtytwo.data.split import SPLITS, Positions, Split, group_ids, split_off, uneven_share
from thirtytwo.data.types import DataSet, ImageSet, Request
from thirtytwo.errors import DataError, ImageError
from thirtytwo.images.content import Hashes, load_hashed
from thirtytwo.images.formats import FORMATS
from thirtytwo.images.header import read_size
from thirtytwo.images.pixels import RESIZE_RULES, Pixels
from thirtytwo.machine import cpu_count
from thirtytwo.text import listing

Source: TypeAlias = bytes | Path
Stream: TypeAlias = Callable[[Positions], Iterator[Source]]

AUTO_SIZE = 32
TEST_FRACTION = 0.2
_SMALLEST_SIDE = 8
_LARGEST_SIDE = 1024
_SIZE_SAMPLE = 256
_CHUNK = 128
_NO_PIXELS: Pixels = np.zeros((0, 1, 1, 3), dtype=np.uint8)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class UndecodedPart:
    """One split before decoding.

    Attributes:
        labels: int64 `(N,)`, indices into the classes.
        rows: increasing positions in the split as stored, int64 `(N,)`.
        stream: yields the encoded images of the given rows, in their order.
        name_of: name of a row in error messages.
        files: file of each image; None where images are not files.
        random_access: whether reading distant rows is as fast as reading consecutive ones.
        groups: group of each image, for images that must stay in one split; None: no groups.
        columns: names of the other columns of the table that lists the images.
        cells: the cells of a row in these columns, as text; they are read when first asked for.
        file_name: file name that a table gives an image of a row, or the archive that it is in; empty: none.
    """

    labels: npt.NDArray[np.int64]
    rows: Positions
    stream: Stream
    name_of: Callable[[int], str]
    files: tuple[str, ...] | None = None
    random_access: bool = False
    groups: tuple[str, ...] | None = None
    columns: tuple[str, ...] = ()
    cells: Callable[[int], tuple[str, ...]] = lambda row: ()
    file_name: Callable[[int], str] = lambda row: ""

    def place_of(self, split: str, row: int, classes: Sequence[str]) -> tuple[str, str, str]:
        """Split, file (or row, where images are not files) and class of an image, as in `ImageError.place`."""
        position = int(np.searchsorted(self.rows, row))
        return split, self.files[position] if self.files else str(row), classes[int(self.labels[position])]

    def take(self, positions: Positions) -> UndecodedPart:
        """The images at `positions`, which must be increasing."""
        return replace(
            self,
            labels=self.labels[positions],
            rows=self.rows[positions],
            files=None if self.files is None else tuple(self.files[position] for position in positions),
            groups=None if self.groups is None else tuple(self.groups[position] for position in positions),
        )


@dataclass(frozen=True, eq=False)
class UndecodedDataSet:
    """A data set before decoding.

    Attributes:
        name: name of the data set.
        where: what error messages call it, such as its folder.
        classes: class names in the order of the labels.
        parts: the splits by name.
        content: returns a key of the encoded content for the cache, or None where it has none.
        superclasses: superclass of each class, where the data has them.
        skipped: notes for the log: what was skipped and why, and what else is special, each as a phrase.
        warnings: those of `skipped` that the data's owner should know about.
        all_in_all: whether a split that lacks a class is an error instead of a note in `skipped`.
    """

    name: str
    where: str
    classes: tuple[str, ...]
    parts: Mapping[Split, UndecodedPart]
    content: Callable[[], str | None]
    superclasses: Mapping[str, str] | None = None
    skipped: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    all_in_all: bool = False


def as_undecoded(data: DataSet, encode: Callable[[ImageSet, int], Source]) -> UndecodedDataSet:
    """A data set in memory as if it had not been decoded.

    Args:
        data: the data set.
        encode: makes what is read of an image, from its split and its position there.
    """

    def part(name: str, images: ImageSet) -> UndecodedPart:
        def stream(rows: Positions) -> Iterator[Source]:
            return (encode(images, int(position)) for position in np.searchsorted(images.rows, rows))

        return UndecodedPart(
            labels=images.labels,
            rows=images.rows,
            stream=stream,
            name_of=lambda row: images.name_of(int(np.searchsorted(images.rows, row)), name),
            files=images.files,
            random_access=True,
        )

    return UndecodedDataSet(
        name=data.name,
        where=data.name,
        classes=data.classes,
        parts={name: part(name, data.stored[name]) for name in SPLITS if name in data.stored},
        content=lambda: None,
        superclasses=data.superclasses,
        skipped=data.skipped,
        warnings=data.warnings,
    )


class UnreadableImagesError(DataError):
    """Images of a data set that cannot be read; names the first few."""

    def __init__(self, where: str, total: int, causes: Mapping[tuple[Split, int], ImageError], spec: str) -> None:
        self.causes = causes
        messages = [cause.message.rstrip(".") for cause in causes.values()]
        causes_text = listing(messages, quoted=False, separator="; ")
        super().__init__(
            f"{where}: {len(messages)} of {total} images cannot be read: {causes_text}.",
            "Copy them again, or move them away; thirtytwo train leaves them out with --skip-unreadable. All of them "
            "are listed by: " + shlex.join(["thirtytwo", "data", "doctor", spec]),
        )


def build_dataset(undecoded: UndecodedDataSet, request: Request) -> DataSet:
    """Check a data set, decode it or load it from the cache, and split off a test set where it has none.

    Raises:
        DataError: it does not form a valid data set, or images cannot be read.
    """
    check_request(request)
    undecoded = _without_empty_splits(undecoded) if request.whole else _with_all_classes(undecoded)
    if not request.whole and request.split_test and "test" not in undecoded.parts:
        _check_divisible(undecoded)
    try:
        entry, large = _load_or_decode(undecoded, request)
    except UnreadableImagesError as error:
        if request.unreadable is None:
            raise
        for (name, row), cause in error.causes.items():
            cause.place = undecoded.parts[name].place_of(name, row, undecoded.classes)
            request.unreadable.append(cause)
        undecoded = _without(undecoded, error.causes)
        entry, large = _load_or_decode(undecoded, request)
    sets = {name: _image_set(undecoded, name, entry, large) for name in undecoded.parts}
    found = DataSet(
        name=undecoded.name,
        train=sets.get("train") or _empty_like(undecoded.classes, next(iter(sets.values()))),
        val=sets.get("val"),
        test=sets.get("test"),
        fingerprint=entry.fingerprint,
        superclasses=undecoded.superclasses,
        skipped=undecoded.skipped,
        warnings=undecoded.warnings,
        sizes=entry.sizes,
    )
    if request.together is not None:
        near = request.together.of(found.train.hashes)
        found = replace(found, train=replace(found.train, near=near))
    split = not request.whole and request.split_test and found.test is None
    return split_off_test(found, request.seed) if split else found


def split_off_test(data: DataSet, seed: int) -> DataSet:
    """Split off a test set from the training images of `data`, which has none.

    Raises:
        DataError: a class that cannot be in both sets.
    """
    kept, held = split_off(data.train, TEST_FRACTION, seed, "testing")
    train, test = data.train.take(kept), data.train.take(held)
    parts = [(name, part) for name, part in (("train", train), ("val", data.val), ("test", test)) if part is not None]
    remark = f"no test split: {len(held):,} of {len(data.train):,} images were split off as test (seed {seed})"
    uneven = uneven_share(data.train, len(held), TEST_FRACTION, "test")
    return replace(
        data,
        train=train,
        test=test,
        fingerprint=fingerprint(data.classes, [(name, part.images, part.labels) for name, part in parts]),
        skipped=(*data.skipped, remark, *uneven),
        warnings=(*data.warnings, *uneven),
        test_is_cut=True,
    )


def _image_set(undecoded: UndecodedDataSet, name: Split, entry: cache.Entry, large: cache.Entry | None) -> ImageSet:
    part = undecoded.parts[name]
    copies = None if large is None else large.images.get(name)
    groups = None if part.groups is None else group_ids(part.groups, entry.hashes[name])
    return ImageSet(
        entry.images[name],
        part.labels,
        undecoded.classes,
        part.rows,
        part.files,
        hashes=entry.hashes[name],
        groups=groups,
        large=None if copies is None else Rows.all_of(copies),
    )


def _empty_like(classes: tuple[str, ...], like: ImageSet) -> ImageSet:
    """An empty set with images of the same size as `like`."""
    return replace(like.take(np.zeros(0, dtype=np.int64)), classes=classes)


def fingerprint(classes: Sequence[str], splits: Iterable[tuple[str, Pixels, npt.NDArray[np.int64]]]) -> str:
    """Hash of a data set's content: class names, and name, pixels and labels of each split."""
    found = hashlib.blake2b("\0".join(classes).encode(), digest_size=16)
    for name, images, labels in splits:
        found.update(f"{name} {images.shape}".encode())
        found.update(np.ascontiguousarray(images).data)
        found.update(np.ascontiguousarray(labels, dtype="<i8").data)
    return found.hexdigest()


def check_request(request: Request) -> None:
    """Check image size and resize rule.

    Raises:
        DataError: either is invalid.
    """
    if request.resize not in RESIZE_RULES:
        raise DataError(f"Unknown resize rule {request.resize!r}.", f"Expected one of: {', '.join(RESIZE_RULES)}.")
    if request.image_size != "auto" and not _SMALLEST_SIDE <= request.image_size <= _LARGEST_SIDE:
        raise DataError(
            f"The image size is {request.image_size}; expected {_SMALLEST_SIDE} to {_LARGEST_SIDE} pixels, or 'auto'."
        )


def _with_all_classes(undecoded: UndecodedDataSet) -> UndecodedDataSet:
    """The data set without classes that no split has, and with a note on each split without some of the others.

    Raises:
        DataError: no images, only one class, or a split that lacks a class that it must have.
    """
    undecoded = _with_training_images(undecoded)
    counts = {
        name: np.bincount(part.labels, minlength=len(undecoded.classes)) for name, part in undecoded.parts.items()
    }
    present = np.flatnonzero(sum(counts.values()))
    if len(present) < 2:
        reasons = f" ({'; '.join(undecoded.warnings[:3])})" if undecoded.warnings else ""
        raise DataError(
            f"{undecoded.where} has images of only one class, {undecoded.classes[present[0]]!r}{reasons}; expected at "
            "least 2.",
            "Put the images of each class into a folder of its own.",
        )
    remarks = _check_missing_classes(undecoded, counts, present)
    undecoded = replace(undecoded, skipped=(*undecoded.skipped, *remarks))
    return undecoded if len(present) == len(undecoded.classes) else _renumbered(undecoded, present)


def _with_training_images(undecoded: UndecodedDataSet) -> UndecodedDataSet:
    """The data set without splits that have no images, which are noted.

    Raises:
        DataError: no images, or no training images.
    """
    filled = _without_empty_splits(undecoded)
    if "train" not in filled.parts:
        raise DataError(
            f"{undecoded.where} has no training images; found {', '.join(filled.parts)}.", "Add a train split."
        )
    empty = tuple(f"skipped split {name!r}: no images" for name in undecoded.parts if name not in filled.parts)
    return replace(filled, skipped=(*filled.skipped, *empty))


def _check_missing_classes(
    undecoded: UndecodedDataSet, counts: Mapping[Split, npt.NDArray[np.int64]], present: Positions
) -> list[str]:
    """Notes on the splits that lack some of the classes `present` in others.

    Raises:
        DataError: such a split must have all classes.
    """
    missing = {name: [undecoded.classes[index] for index in present if not own[index]] for name, own in counts.items()}
    sentences = {name: f"{name} has no images of {listing(classes)}" for name, classes in missing.items() if classes}
    problems = [sentence for name, sentence in sentences.items() if name == "train" or undecoded.all_in_all]
    if problems:
        raise DataError(
            f"{undecoded.where}: {'; '.join(problems)}, which other splits have.",
            "Every split needs images of every class: add them, or remove the class from all splits.",
        )
    return list(sentences.values())


def _renumbered(undecoded: UndecodedDataSet, present: Positions) -> UndecodedDataSet:
    """The data set with only the classes `present`, and the labels as indices into these."""
    absent = np.setdiff1d(np.arange(len(undecoded.classes)), present)
    remark = f"skipped classes without images in any split: {listing(undecoded.classes[i] for i in absent)}"
    index = np.zeros(len(undecoded.classes), dtype=np.int64)
    index[present] = np.arange(len(present))
    return replace(
        undecoded,
        classes=tuple(undecoded.classes[i] for i in present),
        parts={name: replace(part, labels=index[part.labels]) for name, part in undecoded.parts.items()},
        skipped=(*undecoded.skipped, remark),
    )


def _without_empty_splits(undecoded: UndecodedDataSet) -> UndecodedDataSet:
    """The data set without splits that have no images, otherwise unchecked.

    Raises:
        DataError: no images at all.
    """
    filled = {name: part for name, part in undecoded.parts.items() if len(part.labels)}
    if not filled:
        raise DataError(f"{undecoded.where} contains no images.", f"Expected {FORMATS} files in one folder per class.")
    return replace(undecoded, parts=filled)


def _check_divisible(undecoded: UndecodedDataSet) -> None:
    """Check before decoding that a test set can be split off afterwards.

    Raises:
        DataError: a class with a single image.
    """
    train = undecoded.parts["train"]
    blank = np.zeros((len(train.labels), 1, 1, 3), dtype=np.uint8)
    distinct = np.arange(len(train.labels), dtype=np.uint64)
    split_off(
        ImageSet(blank, train.labels, undecoded.classes, train.rows, hashes=distinct), TEST_FRACTION, 0, "testing"
    )


def _without(undecoded: UndecodedDataSet, rows: Iterable[tuple[Split, int]]) -> UndecodedDataSet:
    """The data set without the given rows."""
    gone = set(rows)
    parts = {
        name: part.take(
            np.array([i for i, row in enumerate(part.rows) if (name, int(row)) not in gone], dtype=np.int64)
        )
        for name, part in undecoded.parts.items()
    }
    if "train" in parts and not len(parts["train"].labels):
        raise DataError(f"{undecoded.where}: no training image can be read.", "Copy the data again.")
    return replace(undecoded, parts={name: part for name, part in parts.items() if len(part.labels)})


LARGE_SPLITS = ("train", "val")
"""Splits that may be trained on, so that larger copies of their images are decoded where training crops them."""


def _load_or_decode(undecoded: UndecodedDataSet, request: Request) -> tuple[cache.Entry, cache.Entry | None]:
    """The decoded images, and the larger copies of training images if there are any; both from one decoding."""
    content = undecoded.content() if request.cache else None
    if content is None:
        return _decode_all(undecoded, request)
    decoded: list[tuple[cache.Entry, cache.Entry | None]] = []

    def decode(which: int) -> cache.Entry:
        if not decoded:
            decoded.append(_decode_all(undecoded, request))
        found = decoded[0][which]
        assert found is not None
        return found

    def load(which: int, size: int | str) -> cache.Entry:
        splits = [name for name in undecoded.parts if not which or name in LARGE_SPLITS]
        key = _key(undecoded, request, content, size, splits)
        if which:
            key = cache.digest([key, "larger copies", request.image_size])
        return cache.cached(key, lambda: decode(which), undecoded.where)

    entry = load(0, request.image_size)
    return entry, load(1, request.large) if _wants_large(request, entry) else None


def _wants_large(request: Request, entry: cache.Entry) -> bool:
    """Whether larger copies are wanted, and are larger than the images."""
    return bool(request.large > next(iter(entry.images.values())).shape[1])


def _key(undecoded: UndecodedDataSet, request: Request, content: str, size: int | str, splits: Iterable[Split]) -> str:
    parts = {name: undecoded.parts[name] for name in splits}
    return cache.digest(
        {
            "format": cache.FORMAT,
            "decoder": PIL.__version__,
            "content": content,
            "size": size,
            "resize": request.resize,
            "classes": undecoded.classes,
            "splits": {name: fingerprint((), [(name, _NO_PIXELS, part.rows)]) for name, part in parts.items()},
            "labels": {name: fingerprint((), [(name, _NO_PIXELS, part.labels)]) for name, part in parts.items()},
        }
    )


def _decode_all(undecoded: UndecodedDataSet, request: Request) -> tuple[cache.Entry, cache.Entry | None]:
    """Decode all images and resize them to one size, and those of `LARGE_SPLITS` also to the larger size, if any.

    Raises:
        UnreadableImagesError: some cannot be read.
    """
    total = sum(len(part.rows) for part in undecoded.parts.values())
    logger.info("Decoding %s images of %s.", f"{total:,}", undecoded.where)
    side = _auto_size(undecoded) if request.image_size == "auto" else request.image_size
    images: dict[str, Pixels] = {}
    copies: dict[str, Pixels] = {}
    hashes: dict[str, Hashes] = {}
    sizes: Counter[tuple[int, int]] = Counter()
    causes: dict[tuple[Split, int], ImageError] = {}
    for name in SPLITS:
        if name in undecoded.parts:
            large = request.large if name in LARGE_SPLITS and request.large > side else 0
            done = _decode_part(undecoded.parts[name], side, large, request, sizes)
            images[name], hashes[name] = done.images, done.hashes
            if done.copies is not None:
                copies[name] = done.copies
            causes |= {(name, row): cause for row, cause in done.causes.items()}
    if causes:
        raise UnreadableImagesError(undecoded.where, total, causes, request.spec or undecoded.where)
    found = [(name, images[name], undecoded.parts[name].labels) for name in SPLITS if name in images]
    seen = dict(sizes.most_common())
    entry = cache.Entry(images, hashes, seen, fingerprint(undecoded.classes, found))
    if not copies:
        return entry, None
    return entry, cache.Entry(copies, {name: hashes[name] for name in copies}, seen, entry.fingerprint)


@dataclass(frozen=True, eq=False)
class _DecodedPart:
    """A decoded split: images uint8 `(N, S, S, 3)`, larger copies if any, hashes uint64 `(N,)`, and errors by row."""

    images: Pixels
    copies: Pixels | None
    hashes: Hashes
    causes: dict[int, ImageError]


def _decode_part(
    part: UndecodedPart, side: int, large: int, request: Request, sizes: Counter[tuple[int, int]]
) -> _DecodedPart:
    """Decode a split; `large` is the side of the larger copies, 0: none."""
    images = blank((len(part.rows), side, side, 3))
    copies = blank((len(part.rows), large, large, 3)) if large else None
    hashes = np.zeros(len(part.rows), dtype=np.uint64)
    causes: dict[int, ImageError] = {}

    def work(items: Sequence[tuple[int, Source]]) -> None:
        for position, source in items:
            row = int(part.rows[position])
            try:
                loaded, content = load_hashed(source, side, request.resize, part.name_of(row), large)
            except ImageError as cause:
                causes[row] = cause
                continue
            images[position] = loaded.pixels
            if copies is not None and loaded.large is not None:
                copies[position] = loaded.large
            hashes[position] = content
            found.append((loaded.width, loaded.height))

    found: list[tuple[int, int]] = []
    workers = cpu_count(8)
    waiting = enumerate(part.stream(part.rows))
    with ThreadPoolExecutor(workers) as pool:
        while items := list(islice(waiting, _CHUNK * workers)):
            list(pool.map(work, [items[start::workers] for start in range(workers)]))
    sizes.update(found)
    return _DecodedPart(images, copies, hashes, dict(sorted(causes.items())))


@dataclass(frozen=True)
class Survey:
    """What is known of a data set before its images are decoded.

    `side` is the median of their shorter sides in pixels, `images` and `classes` are their numbers in all splits.
    """

    side: int
    images: int
    classes: int


def survey_of(undecoded: UndecodedDataSet) -> Survey:
    """Survey a data set by the headers of a sample of its images.

    Raises:
        DataError: it has no images, or none that can be read.
    """
    side = _median_side(_without_empty_splits(undecoded))
    if side is None:
        raise DataError(f"{undecoded.where}: no image can be read.", f"Expected {FORMATS} files.")
    return Survey(side, sum(len(part.rows) for part in undecoded.parts.values()), len(undecoded.classes))


def _auto_size(undecoded: UndecodedDataSet) -> int:
    """Median of the shorter sides of a sample of training images, at most `AUTO_SIZE`."""
    side = _median_side(undecoded)
    return AUTO_SIZE if side is None else max(_SMALLEST_SIDE, min(AUTO_SIZE, side))


def _median_side(undecoded: UndecodedDataSet) -> int | None:
    """Median of the shorter sides of a sample of training images; None where none of them can be read."""
    part = undecoded.parts["train"] if "train" in undecoded.parts else next(iter(undecoded.parts.values()))
    step = max(1, len(part.rows) // _SIZE_SAMPLE) if part.random_access else 1
    sides = []
    for source in part.stream(part.rows[::step][:_SIZE_SAMPLE]):
        try:
            sides.append(min(read_size(source)))
        except ImageError:  # reported on decoding
            continue
    return int(statistics.median(sides)) if sides else None
