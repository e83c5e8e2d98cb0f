"""Whether a network and a data set go together, and which images of other data are scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from thirtytwo.config.recipe import Recipe
from thirtytwo.data.parts import Parts
from thirtytwo.data.run_data import RunData, recorded_hashes, trained_on
from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.errors import DataError, RecipeError
from thirtytwo.inference.model_file import ModelInfo
from thirtytwo.rundir import RunDir
from thirtytwo.training.fit import build_net


def check_fits(dataset: DataSet, parts: Parts, recipe: Recipe, twin: ModelInfo | None) -> None:
    """The network can take these pictures, and the twin tells these classes apart.

    Raises:
        RecipeError: it cannot.
    """
    full = int(parts.train.images.shape[1])
    net = build_net(recipe, len(dataset.classes)).eval()
    for size in sorted({full, *(min(stage.size, full) for stage in recipe.schedule.resolution)}):
        try:
            with torch.inference_mode():
                net(torch.zeros((1, 3, size, size)))
        except (RuntimeError, IndexError):
            raise RecipeError(
                f"Pictures of {size}×{size} pixels are too small for this {recipe.model.name}: nothing remains.",
                "Set data.image_size or schedule.resolution larger, or give model.options fewer groups.",
            ) from None
    if twin is not None and twin.classes != dataset.classes:
        raise RecipeError(
            f"data.calibrate_from names a run on {twin.dataset} with other classes than {dataset.name}.",
            "Name a run of the same recipe on the same data with train_on = 'train'.",
        )


def own_images(found: RunData, split: str, run: RunDir) -> ImageSet:
    """The images of a part of a finished run that are still there.

    Raises:
        DataError: the run has no such part, or nothing of it is left.
    """
    recorded = run.read_json(run.split)
    if split == "val" and recorded["train_on"] == "all":
        raise DataError(
            f"{run.path} was trained on all of {found.dataset.name}, so no validation pictures are left to score.",
            "Score its twin, or --split test.",
        )
    images = found.parts.val if split == "val" else found.parts.test
    if images is None:
        raise DataError(f"{run.path} has no split {split!r}.", "Choose the other one with --split.")
    if not len(images):
        raise DataError(
            f"None of the {recorded.get(f'n_{split}', 0):,} {split} images of {run.path} is left in "
            f"{found.dataset.name}.",
            "Put them back, or score other images with --data.",
        )
    return images


@dataclass(frozen=True)
class Scorable:
    """Images of other data that a run may be scored on, and how many were left out since the run knows them.

    `excluded` counts what was `trained_on` and what was in `validation`; None where the run recorded no content.
    `own_test` counts the images that are in the run's own test set.
    """

    images: ImageSet
    excluded: Mapping[str, int] | None
    own_test: int = 0


def other_images(dataset: DataSet, split: str, classes: tuple[str, ...], run: RunDir) -> Scorable:
    """The images of a split of other data than the run's, or all of them where the data has no splits.

    Labels are in the order of `classes`. What the run was trained on, or used for validation, is left out.

    Raises:
        DataError: no such split, other classes, or nothing is left.
    """
    stored = dataset.stored
    images = stored.get(split)
    if images is None and split == "test" and "val" not in stored:
        images = dataset.train
    if images is None or not len(images):
        raise DataError(f"{dataset.name} has no split {split!r}.", "Choose the other one with --split.")
    seen, held = trained_on(run), recorded_hashes(run, "val")
    excluded, own_test = None, 0
    if seen is not None and held is not None:
        trained = np.isin(images.hashes, seen)
        validation = np.isin(images.hashes, held) & ~trained
        excluded = {"trained_on": int(trained.sum()), "validation": int(validation.sum())}
        if (trained | validation).all():
            raise DataError(
                f"{run.path} was trained on {excluded['trained_on']:,} of the {len(images):,} images of {dataset.name} "
                f"and chosen on {excluded['validation']:,}; none is left to score.",
                "Score it on images that it has not seen.",
            )
        images = images.take(np.flatnonzero(~(trained | validation)))
        tested = recorded_hashes(run, "test")
        own_test = 0 if tested is None else int(np.isin(images.hashes, tested).sum())
    return Scorable(_relabelled(images, dataset.name, classes), excluded, own_test)


def _relabelled(images: ImageSet, name: str, classes: tuple[str, ...]) -> ImageSet:
    """The images with labels in the order of the model's `classes`.

    Raises:
        DataError: some are of other classes.
    """
    if images.classes == classes:
        return images
    unknown = sorted(
        images.classes[index] for index in np.flatnonzero(images.counts) if images.classes[index] not in classes
    )
    if unknown:
        raise DataError(
            f"{name} has classes the model was not trained on: {', '.join(unknown[:10])}.",
            f"The model knows: {', '.join(list(classes)[:20])}.",
        )
    place = np.array([classes.index(one) if one in classes else -1 for one in images.classes], dtype=np.int64)
    return replace(images, labels=place[images.labels], classes=classes)
