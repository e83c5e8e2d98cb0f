"""What one looks at in a data set before training: counts, colors, spread, shapes, and a map of similar images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thirtytwo.config.recommend import is_small
from thirtytwo.data.channels import ChannelLevels
from thirtytwo.data.explore import ClassCount, CutEnds, balanced_sample, class_counts, class_means, cut_ends
from thirtytwo.doctor.data_map import DataMap, map_data
from thirtytwo.doctor.shapes import Formats, Shapes, formats_of, shapes_of
from thirtytwo.doctor.spread import Spread, spreads
from thirtytwo.doctor.statistics import pixel_statistics
from thirtytwo.doctor.subject import Subject

MOST_SMALL, MOST_PHOTOGRAPHS = 3000, 1000
"""Images on the map; the features of a photograph take longer."""


@dataclass(frozen=True, eq=False)
class Overview:
    """An overview of a data set. Positions and statistics are those of its training images.

    Attributes:
        name: name of the data set.
        classes: class names.
        superclasses: superclass of each class; empty where the data has none.
        splits: number of images of each split.
        counts: number of images of each class by split.
        side: side of the decoded images in pixels.
        levels: levels of the color channels.
        means: mean image of each class, uint8 `(C, S, S, 3)`.
        spreads: brightness, contrast and sharpness.
        shapes: sizes of all images before they were resized; None where unknown.
        formats: file formats; None for data that is not files.
        sample: images to show, int64 `(M,)`, by class and in random order within it; those on the map.
        map: similar images close together.
        notes: what was skipped while loading, and what else is special, each as a phrase.
        cut: what a central crop cuts off; None: hardly anything.
    """

    name: str
    classes: tuple[str, ...]
    superclasses: Mapping[str, str]
    splits: Mapping[str, int]
    counts: tuple[ClassCount, ...]
    side: int
    levels: ChannelLevels
    means: npt.NDArray[np.uint8]
    spreads: tuple[Spread, ...]
    shapes: Shapes | None
    formats: Formats | None
    sample: npt.NDArray[np.int64]
    map: DataMap
    notes: tuple[str, ...]
    cut: CutEnds | None = None


def survey_data(subject: Subject, most: int | None = None, seed: int = 0) -> Overview:
    """Compute the overview of a data set.

    Args:
        subject: the data set.
        most: largest number of images on the map; None: by their size.
        seed: seed of the choice of images and of the map.

    Raises:
        MissingExtraError: scikit-learn or onnx is not installed.
    """
    data, images = subject.data, subject.data.train.images
    bounded = most or (MOST_SMALL if is_small(subject.side) else MOST_PHOTOGRAPHS)
    sample = balanced_sample(data.train.labels, bounded, seed)
    return Overview(
        name=data.name,
        classes=data.classes,
        superclasses=data.superclasses or {},
        splits={name: len(part) for name, part in data.stored.items()},
        counts=tuple(class_counts(data)),
        side=subject.side,
        levels=ChannelLevels.of(images),
        means=class_means(data.train),
        spreads=spreads(pixel_statistics(images)),
        shapes=shapes_of(data.sizes),
        formats=formats_of(facts for _, facts in subject.placed_facts),
        sample=sample,
        map=map_data(data, sample, seed),
        notes=data.skipped,
        cut=cut_ends(data.sizes),
    )
