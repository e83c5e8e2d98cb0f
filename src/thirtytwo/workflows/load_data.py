"""Load a data set to look at it in Python, divided as training divides it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from thirtytwo.arguments import optional_path
from thirtytwo.config.recipe import DataSettings, KeepTogether
from thirtytwo.config.settings import parse_settings
from thirtytwo.data import load
from thirtytwo.data.types import DataSet
from thirtytwo.doctor.together import kept_together
from thirtytwo.errors import check_choice, check_least
from thirtytwo.images.pixels import ResizeRule


def load_dataset(
    spec: str | Path,
    *,
    data_root: Path | str | None = None,
    image_size: int | Literal["auto"] = "auto",
    resize: ResizeRule = "crop",
    seed: int = 0,
    group_by: str = "",
    keep_together: KeepTogether = "auto",
    whole: bool = False,
    skip_unreadable: bool = False,
) -> DataSet:
    """Load and decode a data set. Its test split is the one that training evaluates on, with the same settings.

    Args:
        spec: `cifar10`, `cifar100`, `digits`, `hf:owner/name`, or a folder, table, `.npz` file or archive, as for
            training; `?label=…` selects a label, `?imbalance=100` a long-tailed subset of the training images.
        data_root: folder in which known names are searched first; by default the variable `THIRTYTWO_DATA`.
        image_size: side of the square images in pixels; `auto`: the size of the data set's images, at most 32.
        resize: how other shapes become square: `crop`, `pad` or `squash`.
        seed: seed of the test split, where the data has none, and of the imbalance; `data.split_seed` of a recipe.
        group_by: keeps images of one group in the same split: a regular expression on file paths (its first capture
            group, else the whole match), or the name of a table column.
        keep_together: images that stay on one side where a test split is cut: `near-duplicates`, `copies`, or `auto`,
            the former for photographs; `data.keep_together` of a recipe.
        whole: load the data as stored, for inspection or evaluation: no test set is split off, no imbalance is applied,
            and a single class, or a test split alone, is allowed.
        skip_unreadable: leave out images that cannot be read, and note them in `DataSet.skipped`.

    Returns:
        The data set, with images uint8 `(N, H, W, 3)` in each split.

    Raises:
        ArgumentError: there is no such `resize` or `keep_together`, `seed` is negative, or `spec` is no text or path.
        UnknownNameError: no such data set, option or column.
        DataError: the data set or its options are not valid.
        RecipeError: another argument has a value that a recipe does not allow.
        OfflineError: it is not on this machine and cannot be downloaded.
    """
    check_choice("resize", resize, get_args(ResizeRule))
    check_choice("keep_together", keep_together, get_args(KeepTogether))
    check_least("seed", seed, 0, optional=False)
    spec, root = load.spec_of(spec), optional_path("data_root", data_root)
    chosen = {
        "split_seed": seed,
        "group_by": group_by,
        "keep_together": keep_together,
        "skip_unreadable": skip_unreadable,
    }
    settings = parse_settings(DataSettings, chosen, "load_dataset")
    return load.load_dataset(
        spec,
        data_root=root,
        image_size=image_size,
        resize=resize,
        seed=seed,
        group_by=group_by,
        whole=whole,
        skip_unreadable=skip_unreadable,
        together=None if whole else kept_together(spec, settings, root).together,
    )
