"""What every source of data is asked, and the table of named data sets."""

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
    """How a data set is wanted.

    `options` are those of the spec (`?label=…`). `unreadable` collects what is wrong with pictures that cannot be read,
    which are then left out; None makes them an error. `group_by` says what must stay together when the data is divided:
    a regular expression on files' paths, or a column. `whole` asks for the data as it is stored, not to be trained on:
    nothing is set aside as test, and one class, or a test split alone, will do.
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
"""The option that every data set has: `cifar10?imbalance=100`."""

Factory: TypeAlias = Callable[[Request], DataSet]

DATASETS: Registry[Factory] = Registry("data set")


def refuse_options(request: Request, where: str, known: Collection[str]) -> None:
    """Check the options of a spec.

    Raises:
        UnknownNameError: an option that this source does not have.
    """
    for option in request.options:
        if option not in known:
            raise UnknownNameError(f"{where} has no option {option!r}.", did_you_mean(option, {*known, IMBALANCE}))
