"""Build a data set from labelled, undecoded images: checked, decoded or loaded from the cache, with a test set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import PIL

from thirtytwo.data import cache
from thirtytwo.data.arrays import Rows
from thirtytwo.data.decoding import (
    LARGE_SPLITS,
    Decoded,
    UnreadableImagesError,
    check_still_unreadable,
    decode_all,
    side_of,
    without_rows,
)
from thirtytwo.data.split import SPLITS, TEST_FRACTION, Split, group_ids, split_off, uneven_share
from thirtytwo.data.types import DataSet, ImageSet, Request
from thirtytwo.data.undecoded import UndecodedDataSet
from thirtytwo.data.validate import (
    check_class_names,
    check_divisible,
    check_request,
    with_all_classes,
    without_empty_splits,
)
from thirtytwo.images.jpeg import SCALES
from thirtytwo.images.open import max_pixels
from thirtytwo.images.pixels import Pixels

_NO_PIXELS: Pixels = np.zeros((0, 1, 1, 3), dtype=np.uint8)


def build_dataset(undecoded: UndecodedDataSet, request: Request) -> DataSet:
    """Check a data set, decode it or load it from the cache, and split off a test set where it has none.

    Raises:
        DataError: it does not form a valid data set, or images cannot be read.
    """
    check_request(request)
    check_class_names(undecoded)
    undecoded = without_empty_splits(undecoded) if request.whole else with_all_classes(undecoded, request.lacking)
    if not request.whole and request.split_test and "test" not in undecoded.parts:
        check_divisible(undecoded)
    undecoded, entry, large = _load_readable(undecoded, request)
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
    uneven = uneven_share(data.train, test.counts, TEST_FRACTION, "test", seed)
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


def _load_readable(
    undecoded: UndecodedDataSet, request: Request
) -> tuple[UndecodedDataSet, cache.Entry, cache.Entry | None]:
    """`_load_or_decode`, without unreadable images where the request collects them, and the data set without them.

    Raises:
        UnreadableImagesError: some cannot be read, and the request does not collect them.
    """
    content = undecoded.content() if request.cache else None
    others: Decoded | None = None
    while True:
        try:
            return undecoded, *_load_or_decode(undecoded, request, content, others)
        except UnreadableImagesError as error:
            if request.unreadable is None:
                raise
            for (name, row), cause in error.causes.items():
                cause.place = undecoded.parts[name].place_of(name, row, undecoded.classes)
                request.unreadable.append(cause)
            undecoded, others = without_rows(undecoded, error.causes), error.others


def _load_or_decode(
    undecoded: UndecodedDataSet, request: Request, content: str | None, given: Decoded | None
) -> tuple[cache.Entry, cache.Entry | None]:
    """The decoded images, and the larger copies of training images if there are any; both from one decoding.

    Args:
        undecoded: the data set.
        request: the sizes, and whether decoded images are stored.
        content: hash of the content of its files; None: nothing is stored.
        given: the images where they were decoded before.

    Raises:
        UnreadableImagesError: some cannot be read. The cache remembers which, so that the next time only these are
            decoded to find out.
    """
    if content is None:
        return _decode(undecoded, request, given)
    decoded: list[tuple[cache.Entry, cache.Entry | None]] = []
    key = _key(undecoded, request, content, request.image_size, undecoded.parts)
    note = cache.digest([key, "unreadable", request.large])

    def decode(which: int) -> cache.Entry:
        if not decoded:
            if given is None:
                check_still_unreadable(undecoded, request, cache.read_rows(note))
            try:
                decoded.append(_decode(undecoded, request, given))
            except UnreadableImagesError as error:
                cache.write_rows(note, error.causes)
                raise
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
            "decoder": [PIL.__version__, SCALES, max_pixels()],
            "content": content,
            "size": size,
            "resize": request.resize,
            "classes": undecoded.classes,
            "splits": {name: fingerprint((), [(name, _NO_PIXELS, part.rows)]) for name, part in parts.items()},
            "labels": {name: fingerprint((), [(name, _NO_PIXELS, part.labels)]) for name, part in parts.items()},
        }
    )


def _decode(
    undecoded: UndecodedDataSet, request: Request, given: Decoded | None = None
) -> tuple[cache.Entry, cache.Entry | None]:
    """Decode all images to an entry of the cache, and their larger copies to another if there are any.

    Images that are `given` in the requested size are not decoded again.

    Raises:
        UnreadableImagesError: some cannot be read.
    """
    found = given
    if found is None or found.side != side_of(undecoded, request):
        found = decode_all(undecoded, request)
    parts = [(name, found.images[name], undecoded.parts[name].labels) for name in SPLITS if name in found.images]
    entry = cache.Entry(found.images, found.hashes, found.sizes, fingerprint(undecoded.classes, parts))
    if not found.copies:
        return entry, None
    hashes = {name: found.hashes[name] for name in found.copies}
    return entry, cache.Entry(found.copies, hashes, found.sizes, entry.fingerprint)
