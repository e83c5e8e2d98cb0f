"""`thirtytwo data show DATA --recipe R`: a figure of augmented training images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thirtytwo.cli.console import log, show
from thirtytwo.errors import OutputError, require

if TYPE_CHECKING:
    from thirtytwo.training.samples import Samples

MAX_LABELS = 2  # classes listed below a mixed image


def show_augmented(
    spec: str, data_root: Path | None, recipe_source: str, overrides: Mapping[str, Any], sheet: Path | None
) -> None:
    """Write a PNG of training images with the recipe's augmentation, and print its path.

    Raises:
        OutputError: the file already exists.
    """
    path = sheet or Path(f"{_as_file_name(spec)}-{_as_file_name(Path(recipe_source).stem)}-augmented.png")
    if path.exists():
        raise OutputError(f"{path} already exists.", "Delete it or choose another name with --sheet.")
    require("torch", "train")
    from thirtytwo.augment.augmenter import check_augment
    from thirtytwo.config.recipe import read_recipe_values, resolve_recipe
    from thirtytwo.data.explore import augmented_sheet, write_picture
    from thirtytwo.data.load import load_dataset
    from thirtytwo.training.samples import draw_samples

    values, where = read_recipe_values(recipe_source), f"Recipe {recipe_source!r}"
    provisional = resolve_recipe(values, overrides, classes=10, rows=50_000, where=where)
    check_augment(provisional.augment)
    data = load_dataset(
        spec,
        data_root=data_root,
        image_size=provisional.data.image_size,
        resize=provisional.data.resize,
        seed=provisional.data.split_seed,
        group_by=provisional.data.group_by,
    )
    recipe = resolve_recipe(values, overrides, classes=len(data.classes), rows=len(data.train), where=where)
    samples = draw_samples(recipe, data.train)
    names = [data.classes[label] for label in samples.labels]
    write_picture(augmented_sheet(samples.originals, samples.augmented, names, _captions(samples, data.classes)), path)
    log(f"Images of {data.name} (original on the left) augmented with the recipe {recipe.name}:")
    show(str(path))


def _captions(samples: Samples, classes: tuple[str, ...]) -> list[list[list[str]]] | None:
    """Label shares of each augmented image, largest first; None if no image is mixed with another."""
    if (samples.targets.max(axis=2) == 1).all():
        return None
    return [
        [
            [f"{target[index]:.0%} {classes[index]}" for index in (-target).argsort()[:MAX_LABELS] if target[index] > 0]
            for target in row
        ]
        for row in samples.targets
    ]


def _as_file_name(name: str) -> str:
    """A data set's name as part of a file name: `hf:owner/name` becomes `hf-owner-name`."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name).strip("-.") or "data"
