"""`thirtytwo data show DATA --recipe R`: what training sees, as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thirtytwo.cli.console import say, show
from thirtytwo.errors import OutputError, require

if TYPE_CHECKING:
    from thirtytwo.training.samples import Samples

SHARES = 2  # classes told under a mixed picture


def show_augmented(
    spec: str, data_root: Path | None, recipe_source: str, overrides: Mapping[str, Any], sheet: Path | None
) -> None:
    """Write a picture of training pictures as the recipe augments them, and print where it is.

    Raises:
        OutputError: the file exists already.
    """
    path = sheet or Path(f"{_plain(spec)}-{_plain(Path(recipe_source).stem)}-augmented.png")
    if path.exists():
        raise OutputError(f"{path} exists already.", "Delete it, or choose another name with --sheet.")
    require("torch", "train")
    from thirtytwo.augment.augmenter import check_augment
    from thirtytwo.config.recipe import read_recipe_values, resolve_recipe
    from thirtytwo.data.explore import augmented_sheet, write_picture
    from thirtytwo.data.load import load_dataset
    from thirtytwo.training.samples import draw_samples

    values, where = read_recipe_values(recipe_source), f"Recipe {recipe_source!r}"
    early = resolve_recipe(values, overrides, classes=10, rows=50_000, where=where)
    check_augment(early.augment)
    data = load_dataset(
        spec,
        data_root=data_root,
        image_size=early.data.image_size,
        resize=early.data.resize,
        seed=early.data.split_seed,
        group_by=early.data.group_by,
    )
    recipe = resolve_recipe(values, overrides, classes=len(data.classes), rows=len(data.train), where=where)
    samples = draw_samples(recipe, data.train)
    names = [data.classes[label] for label in samples.labels]
    write_picture(augmented_sheet(samples.originals, samples.augmented, names, _captions(samples, data.classes)), path)
    say(f"Pictures of {data.name} as {recipe.name} augments them, each on the left as it is:")
    show(str(path))


def _captions(samples: Samples, classes: tuple[str, ...]) -> list[list[list[str]]] | None:
    """Under each picture the classes it counts as, most first; None where every picture is of its own class alone."""
    if (samples.targets.max(axis=2) == 1).all():
        return None
    return [
        [
            [f"{target[place]:.0%} {classes[place]}" for place in (-target).argsort()[:SHARES] if target[place] > 0]
            for target in row
        ]
        for row in samples.targets
    ]


def _plain(name: str) -> str:
    """`hf:owner/name` as a part of a file name."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name).strip("-.") or "data"
