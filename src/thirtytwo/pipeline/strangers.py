"""Pictures that a model was not trained on: which there are to try it with, and how many it takes for strangers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from thirtytwo.data.load import DATA_ROOT_VARIABLE, load_dataset
from thirtytwo.data.splits import limit
from thirtytwo.judge.metrics import wilson
from thirtytwo.judge.score import Scorer
from thirtytwo.judge.unknown import class_mean, false_alarms, measure_unknown
from thirtytwo.pipeline.scoring import CALLED_UNKNOWN
from thirtytwo.predict.modelfile import ModelInfo

Pixels = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float64]

PLAIN = 1000
"""Pictures of noise, and of plain colours."""
PHOTOS = 2000
"""Photographs of another data set, at most."""
OTHERS = {"cifar10": "cifar100", "cifar100": "cifar10"}
"""Data sets without a class in common; their test pictures are strangers to each other's models."""


def strangers_record(
    scorer: Scorer,
    means: npt.NDArray[np.float32],
    info: ModelInfo,
    *,
    val: Scores | None,
    test: Scores,
    spec: str,
    data_root: Path | None,
) -> dict[str, Any] | None:
    """The entry `unknown` of `metrics.json`: false alarms, and how well strangers are told; None without a threshold.

    `val` and `test` are the scores of the model's own pictures, `(N,)`.
    """
    threshold = info.unknown_threshold
    if threshold is None:
        return None

    def scores(images: Pixels) -> Scores:
        return class_mean(scorer.outputs(images)[1], means)

    alarms = int((test < threshold).sum())
    return {
        "score": "class_mean",
        "what": "cosine between a picture's features and the nearest class mean",
        "source": "after Techapanurak et al. 2019, arXiv 1905.10628",
        "share": CALLED_UNKNOWN,
        "threshold": threshold,
        "validation": None if val is None else {"called_unknown": false_alarms(val, threshold), "n": len(val)},
        "test": {
            "called_unknown": {"value": alarms / len(test), "ci95": list(wilson(alarms, len(test)))},
            "n": len(test),
        },
        "against": [
            {"name": name, "what": what, "n": len(images), **measure_unknown(test, scores(images), threshold)}
            for name, what, images in strangers(spec, info, data_root)
        ],
    }


def strangers(
    spec: str, info: ModelInfo, data_root: Path | None, photos: int = PHOTOS
) -> Iterator[tuple[str, str, Pixels]]:
    """Name, description and pictures uint8 `(N, S, S, 3)` of everything at hand that is none of the model's classes.

    Nothing is fetched for it: another photo data set, `photos` of it at most, only where it lies under the data root.
    """
    size, rule = info.input_size, info.resize
    name = spec.partition("?")[0]
    other, root = OTHERS.get(name), data_root or Path(os.environ.get(DATA_ROOT_VARIABLE) or os.devnull)
    if other is not None and (root / other).is_dir():
        test = load_dataset(other, data_root=root, image_size=size, resize=rule).test
        assert test is not None
        yield other, f"test pictures of {other}", (limit(test, photos, 0) if len(test) > photos else test).images
    if name != "digits":
        digits = load_dataset("digits", image_size=size, resize=rule)
        assert digits.test is not None
        yield "digits", "handwritten digits", np.concatenate([digits.train.images, digits.test.images])
    random = np.random.default_rng(0)
    yield "noise", "noise, each value drawn evenly", random.integers(0, 256, (PLAIN, size, size, 3), dtype=np.uint8)
    yield "colours", "one plain colour each", plain_colours(PLAIN, size, random)


def plain_colours(count: int, size: int, random: np.random.Generator) -> Pixels:
    """Pictures of one colour each, uint8 `(count, size, size, 3)`."""
    colours = random.integers(0, 256, (count, 1, 1, 3), dtype=np.uint8)
    return np.ascontiguousarray(np.broadcast_to(colours, (count, size, size, 3)))
