"""Long-tailed subsets of a data set, for experiments on class imbalance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from thirtytwo.data.build import fingerprint
from thirtytwo.data.source import IMBALANCE
from thirtytwo.data.split import sample
from thirtytwo.data.types import DataSet
from thirtytwo.errors import DataError


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
        f"{len(data.train) - len(kept):,} of {len(data.train):,} training images left out for {IMBALANCE} {ratio:g}: "
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
        thinned=np.delete(data.train.hashes, chosen),
    )


def profile(counts: npt.NDArray[np.int64], ratio: float) -> npt.NDArray[np.int64]:
    """Number of images to keep of each class, int64 `(C,)`; at least 1 for classes that are not empty."""
    places = np.arange(len(counts)) / max(1, len(counts) - 1)
    wanted = np.floor(counts.max() * ratio**-places + 1e-9).astype(np.int64)
    kept: npt.NDArray[np.int64] = np.minimum(counts, np.maximum(wanted, 1))
    return kept
