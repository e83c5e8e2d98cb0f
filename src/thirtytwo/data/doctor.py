"""Find problems in a data set before training on it."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from thirtytwo.data.load import load_dataset, parse
from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.errors import DataError, ImageError, OfflineError
from thirtytwo.images.decode import ResizeRule
from thirtytwo.text import capitalized, listing, quote

Severity: TypeAlias = Literal["error", "warning", "note"]

FEW_IMAGES = 20
IMBALANCE = 10.0
LONG_SIDE_RATIO = 2.0
_SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """A finding: its severity, what was found, and how to fix it."""

    severity: Severity
    what: str
    fix: str = ""


def diagnose(
    spec: str,
    *,
    data_root: Path | None = None,
    image_size: int | Literal["auto"] = "auto",
    resize: ResizeRule = "crop",
    seed: int = 0,
    cache: bool = True,
) -> tuple[DataSet | None, list[Finding]]:
    """Load a data set and examine it; the arguments are those of `load_dataset`.

    Returns:
        The data set, None if it cannot be loaded, and all findings, most severe first.

    Raises:
        UnknownNameError: no such data set.
        OfflineError: it is not on this machine and cannot be downloaded.
    """
    parse(spec)
    unreadable: list[ImageError] = []
    try:
        dataset = load_dataset(
            spec,
            data_root=data_root,
            image_size=image_size,
            resize=resize,
            seed=seed,
            cache=cache,
            unreadable=unreadable,
        )
    except OfflineError:
        raise
    except DataError as error:
        return None, [*_unreadable(unreadable), Finding("error", error.message, error.fix or "")]
    return dataset, sorted(
        [*_unreadable(unreadable), *examine(dataset)], key=lambda finding: _SEVERITIES.index(finding.severity)
    )


def examine(dataset: DataSet) -> list[Finding]:
    """All findings in a loaded data set, most severe first."""
    found = [
        *_counts(dataset),
        *_missing(dataset),
        *_sizes(dataset),
        *_duplicates(dataset),
        *_uniform_images(dataset),
        *_similar_names(dataset),
        *_skipped(dataset),
    ]
    return sorted(found, key=lambda finding: _SEVERITIES.index(finding.severity))


def splits(dataset: DataSet) -> Mapping[str, ImageSet]:
    """The existing splits by name."""
    return dataset.stored


def _unreadable(causes: list[ImageError]) -> Iterator[Finding]:
    for cause in causes:
        yield Finding("error", cause.message, cause.fix or "")


def _counts(dataset: DataSet) -> Iterator[Finding]:
    counts = dataset.train.counts
    few = [dataset.classes[index] for index in np.flatnonzero(counts < FEW_IMAGES)]
    if few:
        yield Finding(
            "warning",
            f"{len(few)} of {len(counts)} classes have fewer than {FEW_IMAGES} training images: {listing(few)}.",
            "Add images; metrics for such classes are not reliable.",
        )
    most, least = int(counts.argmax()), int(counts.argmin())
    if counts[least] and counts[most] > IMBALANCE * counts[least]:
        yield Finding(
            "warning",
            f"Classes are imbalanced: {quote(dataset.classes[most])} has {counts[most]} training images, "
            f"{quote(dataset.classes[least])} has {counts[least]}.",
            "Add images of the rare classes, and compare per-class metrics rather than accuracy.",
        )


def _missing(dataset: DataSet) -> Iterator[Finding]:
    for name, images in dataset.stored.items():
        missing = [dataset.classes[index] for index in np.flatnonzero(images.counts == 0)]
        if missing:
            yield Finding(
                "error" if name == "train" else "warning", f"{name} has no images of {listing(missing)}.", "Add some."
            )


def _similar_names(dataset: DataSet) -> Iterator[Finding]:
    """Classes whose names differ only in case, in spaces around them, or in how letters are encoded."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in dataset.classes:
        groups[unicodedata.normalize("NFKC", name).casefold().strip()].append(name)
    for names in groups.values():
        if len(names) > 1:
            yield Finding(
                "warning",
                f"The classes {' and '.join(map(quote, names))} have almost the same name.",
                "If they are the same class, put their images into one folder.",
            )


def _skipped(dataset: DataSet) -> Iterator[Finding]:
    for left in dataset.skipped:
        yield Finding("warning" if left in dataset.warnings else "note", f"{capitalized(left)}.")


def _sizes(dataset: DataSet) -> Iterator[Finding]:
    if not dataset.sizes:
        return
    total = sum(dataset.sizes.values())
    side = dataset.train.images.shape[1]
    widths, heights = zip(*dataset.sizes, strict=True)
    checked = f"checked at {side}×{side}. The recipe sets the size for training."
    if len(dataset.sizes) == 1:
        yield Finding("note", f"All images have {widths[0]}×{heights[0]} pixels; {checked}")
    else:
        yield Finding(
            "note",
            f"Images are {min(widths)} to {max(widths)} pixels wide and {min(heights)} to {max(heights)} high; "
            f"{checked}",
        )
    small = sum(count for (width, height), count in dataset.sizes.items() if min(width, height) < side)
    if small and small < total:
        yield Finding("note", f"{small} of {total} images are smaller than {side}×{side} and are enlarged.")
    long = sum(
        count
        for (width, height), count in dataset.sizes.items()
        if max(width, height) > LONG_SIDE_RATIO * min(width, height)
    )
    if long:
        yield Finding(
            "warning",
            f"{long} of {total} images have an aspect ratio above {LONG_SIDE_RATIO:g}.",
            "A central crop discards most of such an image; try --set data.resize=pad.",
        )


def _duplicates(dataset: DataSet) -> Iterator[Finding]:
    """Images with equal pixels at the training resolution."""
    groups: dict[bytes, list[tuple[str, int]]] = defaultdict(list)
    sets = dataset.stored
    for name, images in sets.items():
        for position, image in enumerate(images.images):
            groups[hashlib.blake2b(image.tobytes(), digest_size=16).digest()].append((name, position))
    same = [group for group in groups.values() if len(group) > 1]
    labels = [{int(sets[name].labels[position]) for name, position in group} for group in same]
    conflicts = [group for group, found in zip(same, labels, strict=True) if len(found) > 1]
    across = [group for group in same if len({name for name, _ in group}) > 1]
    within = [group for group in same if len({name for name, _ in group}) < len(group)]
    if conflicts:
        yield Finding(
            "warning",
            f"{len(conflicts)} groups of duplicate images have different labels: {_examples(sets, conflicts)}.",
            "Correct the labels or remove the images.",
        )
    if across:
        yield Finding(
            "warning",
            f"{len(across)} groups of duplicate images are in more than one split: {_examples(sets, across)}.",
            "Remove them from one split; test images that are also training images make test metrics optimistic.",
        )
    if within:
        extra = sum(len(group) - len({name for name, _ in group}) for group in within)
        yield Finding(
            "note", f"{extra} images are duplicates within their split: {_examples(sets, within)}.", "Remove them."
        )


def _uniform_images(dataset: DataSet) -> Iterator[Finding]:
    for name, images in dataset.stored.items():
        flat = [position for position, image in enumerate(images.images) if (image == image[0, 0]).all()]
        if flat:
            shown = ", ".join(_image_name(images, name, position) for position in flat[:3])
            yield Finding("warning", f"{len(flat)} images of {name} have a single color: {shown}.", "Check them.")


def _examples(sets: Mapping[str, ImageSet], groups: list[list[tuple[str, int]]]) -> str:
    shown = [
        " = ".join(_image_name(sets[name], name, position) for name, position in group[:3]) for group in groups[:3]
    ]
    return "; ".join(shown) + ("; …" if len(groups) > 3 else "")


def _image_name(images: ImageSet, name: str, position: int) -> str:
    return f"{images.name_of(position, name)} ({images.classes[images.labels[position]]})"
