"""Write a page that shows a data set before training, and augment images as a recipe does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from thirtytwo.config.recipe import DataSettings
from thirtytwo.config.recommend import is_small
from thirtytwo.data.fixes import FixPlan, recipe_fixes
from thirtytwo.data.load import load_dataset, survey
from thirtytwo.data.types import DataSet
from thirtytwo.doctor.data_page import ORIGINAL_SIDE, original_positions, render_data_page
from thirtytwo.doctor.originals import load_originals
from thirtytwo.doctor.overview import survey_data
from thirtytwo.doctor.subject import Subject
from thirtytwo.doctor.together import kept_together
from thirtytwo.errors import require
from thirtytwo.io import check_writable, expand_home, write_text
from thirtytwo.text import listing

if TYPE_CHECKING:
    from thirtytwo.config.recipe import Recipe
    from thirtytwo.training.batches import Samples

PHOTOGRAPH_SIDE = 128
"""Side at which photographs are shown and measured, in pixels."""


@dataclass(frozen=True, eq=False)
class DataPage:
    """A page that was written: its path, and the data set that it shows."""

    path: Path
    data: DataSet


@dataclass(frozen=True, eq=False)
class AugmentedSamples:
    """Training images before and after the augmentation of a recipe, and the plan of fixes that it applies first."""

    data: DataSet
    recipe: Recipe
    samples: Samples
    fixes: FixPlan | None = None


def write_data_page(
    spec: str,
    out: Path | str,
    *,
    data_root: Path | None = None,
    recipe: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    force: bool = False,
    most: int | None = None,
) -> DataPage:
    """Write one self-contained HTML page that shows a data set.

    Images that cannot be read are left out and listed.

    Args:
        spec: the data set, as for `load_dataset`.
        out: file to write.
        data_root: folder where known data sets are looked for.
        recipe: name or file of a recipe, or a run, whose augmentation is shown, which needs PyTorch, and whose plan of
            fixes is applied; None: none.
        overrides: settings of the recipe that are replaced.
        force: overwrite `out`.
        most: largest number of images on the map and among the samples; None: by their size.

    Raises:
        OutputError: `out` exists, or cannot be written.
        MissingExtraError: a library of the extra `train` is not installed.
        UnknownNameError, DataError, OfflineError: as `load_dataset`.
        RecipeError: the recipe does not fit the schema.
    """
    target = expand_home(out)
    check_writable(target, force=force, format="HTML")
    for module in ("jinja2", "sklearn", "onnx", *(["torch"] if recipe else [])):
        require(module, "train")
    samples = None if recipe is None else augment_data(spec, recipe, overrides or {}, data_root=data_root)
    fixes = None if samples is None else samples.fixes
    data = load_shown(spec, data_root=data_root, fixes=fixes)
    subject = Subject(data, spec=spec, data_root=data_root)
    found = survey_data(subject, most)
    page = render_data_page(
        found,
        data.train,
        originals=load_originals(subject, original_positions(found, data.train), ORIGINAL_SIDE),
        samples=None if samples is None else samples.samples,
        recipe="" if samples is None else samples.recipe.name,
    )
    write_text(target, page)
    return DataPage(target, data)


def load_shown(spec: str, *, data_root: Path | None = None, fixes: FixPlan | None = None) -> DataSet:
    """Load a data set to be shown, with a page or without: divided as in training, photographs at `PHOTOGRAPH_SIDE`.

    Images that cannot be read are left out, and splits may lack classes that training needs; both are noted in
    `DataSet.skipped`.

    Raises:
        UnknownNameError, DataError, OfflineError: as `load_dataset`.
    """
    kept = kept_together(spec, DataSettings(skip_unreadable=True), data_root, fixes)  # as in training
    lacking: list[tuple[str, str]] = []
    data = load_dataset(
        spec,
        data_root=data_root,
        image_size=_side_of(spec, data_root),
        skip_unreadable=True,
        together=kept.together,
        fix_plan=fixes,
        lacking=lacking,
    )
    missing = {name: [label for split, label in lacking if split == name] for name, _ in lacking}
    notes = tuple(
        f"{name} has no images of {listing(labels)}, without which training stops: see thirtytwo data doctor"
        for name, labels in missing.items()
    )
    return replace(data, skipped=(*notes, *data.skipped), warnings=(*notes, *data.warnings))


def _side_of(spec: str, data_root: Path | None) -> int | Literal["auto"]:
    """Side at which a data set is loaded to be shown: photographs larger than for training from scratch."""
    side = survey(spec, data_root=data_root).side
    return "auto" if is_small(side) else min(PHOTOGRAPH_SIDE, side)


def augment_data(
    spec: str, source: str, overrides: Mapping[str, Any], *, data_root: Path | None = None
) -> AugmentedSamples:
    """Augment some training images of a data set as training with a recipe does.

    Args:
        spec: the data set.
        source: name or file of the recipe.
        overrides: settings of the recipe that are replaced.
        data_root: folder where known data sets are looked for.

    Raises:
        MissingExtraError: PyTorch is not installed.
        UnknownNameError, RecipeError: no such recipe or augmentation, or it does not fit the schema or the data.
        DataError, OfflineError: as `load_dataset`.
    """
    require("torch", "train")
    from thirtytwo.augment.augmenter import check_augment
    from thirtytwo.config.resolve import read_recipe_values, resolve_recipe
    from thirtytwo.training.batches import augment_samples

    values, where = read_recipe_values(source), f"Recipe {source!r}"
    provisional = resolve_recipe(values, overrides, classes=10, rows=50_000, where=where)
    check_augment(provisional.augment)
    fixes = recipe_fixes(provisional.data.fix_plan, source, overrides)
    kept = kept_together(spec, provisional.data, data_root, fixes)
    data = load_dataset(
        spec,
        data_root=data_root,
        image_size=provisional.data.image_size,
        resize=provisional.data.resize,
        seed=provisional.data.split_seed,
        group_by=provisional.data.group_by,
        skip_unreadable=True,  # as in `data show` without a recipe
        together=kept.together,
        fix_plan=fixes,
    )
    recipe = resolve_recipe(values, overrides, classes=len(data.classes), rows=len(data.train), where=where)
    return AugmentedSamples(data, recipe, augment_samples(recipe, data.train), fixes)
