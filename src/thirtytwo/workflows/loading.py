"""Load a finished run: its network, data and predictions; and which images it is evaluated on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from thirtytwo.config.recipe import Recipe
from thirtytwo.data.run_data import RunData, load_run_data, recorded_hashes, trained_on
from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.errors import DataError, ModelFileError, RunError
from thirtytwo.inference.model_file import ModelInfo, read_info
from thirtytwo.models import Network
from thirtytwo.models.base import load_network
from thirtytwo.predictions import Predictions
from thirtytwo.rundir import RunDir


@dataclass(frozen=True)
class LoadedRun:
    """A finished run: its trained network in evaluation mode, and the records of its training.

    `info` is the metadata of its model file, `environment` and `split` are the contents of the files of these names.
    """

    directory: RunDir
    recipe: Recipe
    network: Network
    info: ModelInfo
    environment: dict[str, Any]
    split: dict[str, Any]
    data_root: Path | None = None

    @cached_property
    def data(self) -> RunData:
        """The run's data divided as in its training, read when it is first used.

        Raises:
            DataError: the data is missing or cannot be read.
        """
        return load_run_data(self.directory, self.data_root, image_size=self.info.input_size)

    def predictions(self, split: str) -> Predictions:
        """The run's predictions on its images of `split`, `val` or `test`.

        Raises:
            RunError: the predictions are missing or damaged.
        """
        return self.directory.read_predictions(split)


def load_run(run: RunDir | Path | str, data_root: Path | None = None) -> LoadedRun:
    """Load a finished run.

    Args:
        run: the run directory.
        data_root: directory searched first for known data sets.

    Raises:
        RunError: the run is missing or damaged, or its training did not finish.
        ModelFileError: its model file is damaged.
    """
    directory = run if isinstance(run, RunDir) else RunDir.open(run)
    if not directory.onnx.is_file():
        raise RunError(
            f"{directory.path} has no {directory.onnx.name}: its training did not finish.",
            directory.resume_hint(),
        )
    try:
        info = read_info(directory.onnx)
    except ModelFileError as error:
        raise ModelFileError(error.message, directory.restore_hint()) from None
    return LoadedRun(
        directory,
        directory.read_recipe(),
        load_network(directory, len(info.classes)),
        info,
        directory.read_json(directory.environment),
        directory.read_json(directory.split),
        data_root,
    )


def own_images(found: RunData, split: str, run: RunDir) -> ImageSet:
    """The images of a split of a finished run that still exist.

    Raises:
        DataError: the run has no such split, or none of its images is left.
    """
    recorded = run.read_json(run.split)
    if split == "val" and recorded["train_on"] == "all":
        raise DataError(
            f"{run.path} was trained on all of {found.dataset.name}, so it has no validation images.",
            "Evaluate its calibration run (data.calibrate_from), or use --split test.",
        )
    images = found.parts.val if split == "val" else found.parts.test
    if images is None:
        raise DataError(f"{run.path} has no split {split!r}.", "Choose the other split with --split.")
    if not len(images):
        raise DataError(
            f"None of the {recorded.get(f'n_{split}', 0):,} {split} images of {run.path} is left in "
            f"{found.dataset.name}.",
            "Restore the files, or evaluate on other images with --data.",
        )
    return images


@dataclass(frozen=True)
class OtherImages:
    """Images of other data to evaluate a run on, and how many were excluded because the run used them.

    `excluded` counts images that were `trained_on` and in `validation`; None where the run recorded no hashes.
    `own_test` counts the images that are in the run's own test set.
    """

    images: ImageSet
    excluded: Mapping[str, int] | None
    own_test: int = 0


def other_images(dataset: DataSet, split: str, classes: tuple[str, ...], run: RunDir) -> OtherImages:
    """The images of a split of other data than the run's, or all of them where the data has no splits.

    Labels are in the order of `classes`. Images that the run was trained on or validated on are excluded.

    Raises:
        DataError: no such split, other classes, or nothing is left.
    """
    stored = dataset.stored
    images = stored.get(split)
    if images is None and split == "test" and "val" not in stored:
        images = dataset.train
    if images is None or not len(images):
        raise DataError(f"{dataset.name} has no split {split!r}.", "Choose the other split with --split.")
    seen, held = trained_on(run), recorded_hashes(run, "val")
    excluded, own_test = None, 0
    if seen is not None and held is not None:
        trained = np.isin(images.hashes, seen)
        validation = np.isin(images.hashes, held) & ~trained
        excluded = {"trained_on": int(trained.sum()), "validation": int(validation.sum())}
        if (trained | validation).all():
            raise DataError(
                f"{run.path} was trained on {excluded['trained_on']:,} of the {len(images):,} images of {dataset.name} "
                f"and validated on {excluded['validation']:,}; none is left to evaluate on.",
                "Use images that were not part of its training or validation.",
            )
        images = images.take(np.flatnonzero(~(trained | validation)))
        tested = recorded_hashes(run, "test")
        own_test = 0 if tested is None else int(np.isin(images.hashes, tested).sum())
    return OtherImages(_relabelled(images, dataset.name, classes), excluded, own_test)


def _relabelled(images: ImageSet, name: str, classes: tuple[str, ...]) -> ImageSet:
    """The images with labels in the order of the model's `classes`.

    Raises:
        DataError: some images have a class that the model does not have.
    """
    if images.classes == classes:
        return images
    unknown = sorted(
        images.classes[index] for index in np.flatnonzero(images.counts) if images.classes[index] not in classes
    )
    if unknown:
        raise DataError(
            f"{name} has classes the model was not trained on: {', '.join(unknown[:10])}.",
            f"Classes of the model: {', '.join(list(classes)[:20])}.",
        )
    new_index = np.array([classes.index(name) if name in classes else -1 for name in images.classes], dtype=np.int64)
    return replace(images, labels=new_index[images.labels], classes=classes)
