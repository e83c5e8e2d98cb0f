"""Which pictures a run trains on, holds out and scores."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from thirtytwo.data.imageset import DataSet, ImageSet
from thirtytwo.data.load import load_dataset
from thirtytwo.data.splits import hold_out, limit
from thirtytwo.errors import DataError, RecipeError
from thirtytwo.fit.train import build_net
from thirtytwo.predict.modelfile import ModelInfo
from thirtytwo.recipe import Recipe
from thirtytwo.rundir import RunDir


@dataclass(frozen=True)
class Parts:
    """The pictures of one run: trained on, held out for choices, and scored once."""

    train: ImageSet
    val: ImageSet | None
    test: ImageSet


def dataset_of(spec: str, info: ModelInfo, recipe: Recipe, data_root: Path | None) -> DataSet:
    """The data named by `spec` as a trained model sees pictures, divided as its recipe divides."""
    return load_dataset(
        spec, data_root=data_root, image_size=info.input_size, resize=info.resize, seed=recipe.data.split_seed
    )


def divide(dataset: DataSet, recipe: Recipe) -> Parts:
    """Training, validation and test pictures as the recipe says."""
    settings = recipe.data
    if dataset.test is None or not len(dataset.test):
        raise DataError(f"{dataset.name} has no test pictures to score.", "Add a folder test/ with the same classes.")
    train = limit(dataset.train, settings.limit_train, settings.split_seed) if settings.limit_train else dataset.train
    if dataset.val is not None:
        val = dataset.val if len(dataset.val) else None
    else:
        train, held = hold_out(train, settings.val_fraction, settings.split_seed)
        val = held if len(held) else None
    if settings.train_on == "all" and val is not None:
        train = joined(train, val)
        val = None
    return Parts(train, val, dataset.test)


def joined(first: ImageSet, second: ImageSet) -> ImageSet:
    """Both sets as one, `first` before `second`."""
    files = None
    if first.files is not None and second.files is not None:
        files = first.files + second.files
    return replace(
        first,
        images=np.concatenate([first.images, second.images]),
        labels=np.concatenate([first.labels, second.labels]),
        rows=np.concatenate([first.rows, second.rows]),
        files=files,
    )


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


def check_unseen(spec: str, dataset: DataSet, parts: Parts, recipe: Recipe) -> None:
    """No picture of validation, cut from the data `spec`, was trained on by a run that is the start or the teacher.

    Raises:
        RecipeError: some were; names the settings of that run.
    """
    origins = {
        "starts from (transfer.pretrained)": recipe.transfer.pretrained,
        "learns from (train.distill.run)": recipe.train.distill.run,
    }
    for relation, named in origins.items():
        run = RunDir(Path(named))
        if parts.val is not None and named and run.recipe.is_file() and run.environment.is_file():
            _check_unseen_by(run, relation, spec, dataset, parts.val, recipe)


def _check_unseen_by(run: RunDir, relation: str, spec: str, dataset: DataSet, held: ImageSet, recipe: Recipe) -> None:
    theirs, data = run.read_recipe(), run.read_json(run.environment)["data"]
    same_division = theirs.data.split_seed == recipe.data.split_seed
    if data["fingerprint"] != dataset.fingerprint and (same_division or data["spec"] != spec):
        return
    if same_division:
        seen = _trained_on(dataset, held, theirs)
        if not seen:
            return
        found = f"{seen} of {len(held)} pictures of validation were trained on by {run.path}"
    else:
        found = f"{run.path} divided the same pictures otherwise (data.split_seed)"
    keys = ("split_seed", "val_fraction", "limit_train")
    wanted = " ".join(
        f"--set data.{key}={getattr(theirs.data, key)}"
        for key in keys
        if getattr(theirs.data, key) != getattr(recipe.data, key)
    )
    raise RecipeError(
        f"{found}, which this run {relation}: its figures would flatter.",
        f"Divide as it did: {wanted}" if wanted else "Name a run that held the same pictures out.",
    )


def _trained_on(dataset: DataSet, held: ImageSet, theirs: Recipe) -> int:
    """How many of the pictures `held` out of the data a run with the recipe `theirs` trains on."""
    if dataset.val is not None:  # a split of its own, whose rows have numbers of their own
        return len(held) if theirs.data.train_on == "all" else 0
    return int(np.isin(held.rows, divide(dataset, theirs).train.rows).sum())


def pictures_of(dataset: DataSet, split: str, info: ModelInfo, own: RunDir | None) -> ImageSet:
    """The pictures of a split with labels in the model's order of classes.

    Raises:
        DataError: no such split, or other classes.
    """
    if split == "val" and own is not None and own.read_json(own.split)["train_on"] == "all":
        raise DataError(
            f"{own.path} was trained on all of {dataset.name}, so no validation pictures are left to score.",
            "Score its twin, or --split test.",
        )
    if split == "val" and dataset.val is None and own is not None:
        rows = np.asarray(own.read_json(own.split)["val_rows"], dtype=np.int64)
        pictures = dataset.train.take(np.flatnonzero(np.isin(dataset.train.rows, rows)))
    else:
        found = {"val": dataset.val, "test": dataset.test}.get(split)
        if found is None:
            raise DataError(f"{dataset.name} has no split {split!r}.", "Choose the other one with --split.")
        pictures = found
    if not len(pictures):
        raise DataError(f"The split {split!r} of {dataset.name} is empty.", "Choose another with --split.")
    if dataset.classes == tuple(info.classes):
        return pictures
    missing = sorted(set(dataset.classes) - set(info.classes))
    if missing:
        raise DataError(
            f"{dataset.name} has classes the model was not trained on: {', '.join(missing[:10])}.",
            f"The model knows: {', '.join(list(info.classes)[:20])}.",
        )
    place = np.array([info.classes.index(name) for name in dataset.classes], dtype=np.int64)
    return replace(pictures, labels=place[pictures.labels], classes=tuple(info.classes))
