"""The request that every data source receives, and the registry of named data sets."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from thirtytwo.data.types import DataSet
from thirtytwo.errors import ImageError, UnknownNameError, did_you_mean
from thirtytwo.images.decode import ResizeRule
from thirtytwo.registry import Registry


@dataclass(frozen=True)
class Request:
    """How to load a data set; see `load.load_dataset` for the other fields.

    Attributes:
        options: options of the spec (`?label=…`).
        unreadable: list to which errors of unreadable images are appended, which are then left out; None: they raise a
            DataError.
        group_by: regular expression on file paths, or the name of a table column; a group stays in one split.
        whole: load the data as stored: no test set is split off, and a single class, or a test split alone, is allowed.
    """

    data_root: Path | None = None
    image_size: int | Literal["auto"] = "auto"
    resize: ResizeRule = "crop"
    seed: int = 0
    cache: bool = True
    options: Mapping[str, str] = field(default_factory=dict)
    unreadable: list[ImageError] | None = None
    group_by: str = ""
    whole: bool = False


IMBALANCE = "imbalance"
"""Option of every data set: `cifar10?imbalance=100`."""

Factory: TypeAlias = Callable[[Request], DataSet]

DATASETS: Registry[Factory] = Registry("data set")


def refuse_options(request: Request, where: str, known: Collection[str]) -> None:
    """Check the options of a spec.

    Raises:
        UnknownNameError: an option that this source does not support.
    """
    for option in request.options:
        if option not in known:
            raise UnknownNameError(f"{where} has no option {option!r}.", did_you_mean(option, {*known, IMBALANCE}))
