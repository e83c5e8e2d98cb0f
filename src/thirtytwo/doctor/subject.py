"""The data set under examination, with what several checks need of it, computed once."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from thirtytwo.config.recommend import is_small
from thirtytwo.data.load import files_folder
from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.doctor.base import Place
from thirtytwo.doctor.features import Features, dataset_features
from thirtytwo.doctor.near_duplicates import (
    FINE,
    FINE_PHOTOGRAPHS,
    LEAST_SIDE,
    find_pairs,
    grouped,
    is_enlarged,
    thumbnails,
)
from thirtytwo.doctor.out_of_fold import OutOfFold
from thirtytwo.doctor.statistics import PixelStatistics, pixel_statistics
from thirtytwo.errors import DataError, ImageError
from thirtytwo.images.header import FileFacts, read_facts
from thirtytwo.text import readable_names


class NearGroup(NamedTuple):
    """Near-duplicates: their places, the largest similarity of two unequal ones, and whether one is a mirror image."""

    places: tuple[Place, ...]
    similarity: float
    mirrored: bool


class Subject:
    """A loaded data set as checks see it.

    Attributes:
        data: the data set.
        unreadable: errors of the images that could not be read, which `data` lacks.
        spec: how the data set was named on the command line; None for data in memory.
        data_root: folder where known data sets are looked for, if not the default.
        out_of_fold: predictions of a cross-validation, if there are any.
        lacking: each split with a class that it lacks but needs for training.
        undivided: why no test set could be split off the data, which needs one for training; None: it has one.
    """

    def __init__(
        self,
        data: DataSet,
        unreadable: Sequence[ImageError] = (),
        *,
        spec: str | None = None,
        data_root: Path | None = None,
        out_of_fold: OutOfFold | None = None,
        lacking: Sequence[tuple[str, str]] = (),
        undivided: DataError | None = None,
    ) -> None:
        self.data = data
        self.unreadable = tuple(unreadable)
        self.spec, self.data_root = spec, data_root
        self.out_of_fold = out_of_fold
        self.lacking, self.undivided = frozenset(lacking), undivided

    @property
    def splits(self) -> Mapping[str, ImageSet]:
        """The existing splits by name, as stored."""
        return self.data.stored

    @property
    def side(self) -> int:
        """Side of the decoded images in pixels."""
        return int(self.data.train.images.shape[1])

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Every image: the splits in their order."""
        return tuple(Place(name, position) for name, images in self.splits.items() for position in range(len(images)))

    def places_of(self, classes: Sequence[int]) -> tuple[Place, ...]:
        """The images of some classes, given by their indices, the splits in their order."""
        return tuple(
            Place(name, position)
            for name, images in self.splits.items()
            for position in np.flatnonzero(np.isin(images.labels, classes)).tolist()
        )

    def label(self, place: Place) -> int:
        """Label of an image, an index into the classes."""
        return int(self.splits[place.split].labels[place.position])

    @cached_property
    def shown_classes(self) -> tuple[str, ...]:
        """The classes as pages show them."""
        return tuple(readable_names(self.data.classes))

    def class_of(self, place: Place) -> str:
        """Class name of an image."""
        return self.data.classes[self.label(place)]

    def name_of(self, place: Place) -> str:
        """The file of an image, or its split and row."""
        return self.splits[place.split].name_of(place.position, place.split)

    def described(self, place: Place) -> str:
        """File or row of an image, with its class: `test row 7 (bee)`."""
        return f"{self.name_of(place)} ({self.class_of(place)})"

    def examples(self, groups: Sequence[Sequence[Place]], sign: str = "=") -> str:
        """The first groups, as text that a full stop may follow; `sign` stands between the images of a group."""
        shown = [self._example(group, sign) for group in groups[:3]]
        return "; ".join(shown) + (f"; and {len(groups) - 3:,} more" if len(groups) > 3 else "")

    def _example(self, group: Sequence[Place], sign: str) -> str:
        """Up to three images of a group, as text."""
        more = f" and {len(group) - 3:,} more" if len(group) > 3 else ""
        return f" {sign} ".join(map(self.described, self.typical(group, 3))) + more

    def typical(self, group: Sequence[Place], most: int) -> tuple[Place, ...]:
        """At most `most` images of a group in their order: one of each label and split, and then the first ones."""
        if len(group) <= most:
            return tuple(group)
        first = set({(self.label(place), place.split): place for place in reversed(group)}.values())
        chosen = set(sorted(group, key=lambda place: place not in first)[:most])
        return tuple(place for place in group if place in chosen)

    @cached_property
    def folder(self) -> Path | None:
        """Folder that the files of the data set are relative to; None for data that is not files."""
        if self.spec is None or all(part.files is None for part in self.splits.values()):
            return None
        return files_folder(self.spec)

    @cached_property
    def file_facts(self) -> Mapping[str, tuple[FileFacts | None, ...]] | None:
        """What the file of each image states, by split; None for data that is not files.

        Headers are read, pixels are not decoded. A file that is gone, or whose name cannot be written, has None.
        """
        folder = self.folder
        if folder is None:
            return None
        return {
            name: tuple(_facts(folder / file) for file in part.files)
            for name, part in self.splits.items()
            if part.files is not None
        }

    @property
    def placed_facts(self) -> list[tuple[Place, FileFacts]]:
        """Every image whose file could be read, with what the file states; empty for data that is not files."""
        return [
            (Place(name, position), facts)
            for name, every in (self.file_facts or {}).items()
            for position, facts in enumerate(every)
            if facts is not None
        ]

    @cached_property
    def pixel_statistics(self) -> Mapping[str, PixelStatistics]:
        """Brightness, contrast, sharpness and mean color of the decoded images, by split."""
        return {name: pixel_statistics(part.images) for name, part in self.splits.items()}

    @cached_property
    def exact_groups(self) -> tuple[tuple[Place, ...], ...]:
        """Images with equal pixels at the decoded size, in groups of two or more."""
        groups: dict[bytes, list[Place]] = defaultdict(list)
        for name, images in self.splits.items():
            for position, image in enumerate(images.images):
                groups[hashlib.blake2b(image.tobytes(), digest_size=16).digest()].append(Place(name, position))
        return tuple(tuple(group) for group in groups.values() if len(group) > 1)

    @cached_property
    def thumbnails(self) -> npt.NDArray[np.uint8]:
        """Small copies of all images in the order of `places`, uint8 `(N, 32, 32, 3)`."""
        return np.concatenate([thumbnails(images.images) for images in self.splits.values()])

    @cached_property
    def near_groups(self) -> tuple[NearGroup, ...]:
        """Near-duplicates that are not equal, in groups of two or more.

        None among images that are too small to be compared.
        """
        if self.data.median_side < LEAST_SIDE or is_enlarged(self.thumbnails):
            return ()
        first_equal = {place: group[0] for group in self.exact_groups for place in group}
        least = FINE if is_small(self.data.median_side) else FINE_PHOTOGRAPHS
        pairs, kinds = find_pairs(self.thumbnails, least), [first_equal.get(place, place) for place in self.places]
        found: list[NearGroup] = []
        mirrored = {*pairs.first[pairs.mirrored].tolist()}
        similarity: dict[int, float] = {}
        compared = zip(pairs.first.tolist(), pairs.second.tolist(), pairs.similarity.tolist(), strict=True)
        for first, second, value in compared:
            if kinds[first] != kinds[second]:
                similarity[first] = max(value, similarity.get(first, 0.0))
        for members in grouped(pairs):
            if len({kinds[member] for member in members}) > 1:
                most = max(similarity.get(member, 0.0) for member in members)
                group = tuple(self.places[member] for member in members)
                found.append(NearGroup(group, most, not mirrored.isdisjoint(members)))
        return tuple(found)

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """Labels of all images in the order of `places`, int64 `(N,)`."""
        return np.concatenate([images.labels for images in self.splits.values()])

    def images_at(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Images by their positions in the order of `places`, uint8 `(M, S, S, 3)`."""
        places = self.places
        shown = (places[position] for position in positions.tolist())
        return np.stack([self.splits[place.split].images[place.position] for place in shown])

    @cached_property
    def features(self) -> Features:
        """Features of all images in the order of `places` by a bundled model, float32 `(N, D)`; takes minutes."""
        return dataset_features(self.data, self.spec, self.data_root)

    def labels_differ(self, group: Sequence[Place]) -> bool:
        """Whether the images of a group have different labels."""
        return len({self.label(place) for place in group}) > 1

    @staticmethod
    def splits_differ(group: Sequence[Place]) -> bool:
        """Whether the images of a group are in different splits."""
        return len({place.split for place in group}) > 1


def _facts(file: Path) -> FileFacts | None:
    try:
        return read_facts(file)
    except ImageError:
        return None
