"""Evaluators: what is measured beside the metrics, one class each, registered by the key of its result.

Training, `thirtytwo evaluate`, the report and the model card go through `evaluators()`, which finds them in all
modules of this package: a new evaluator needs no change elsewhere.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt

from thirtytwo.data.types import ImageSet
from thirtytwo.evaluation.sections import Section
from thirtytwo.images.pixels import Pixels
from thirtytwo.inference.model_file import ModelInfo
from thirtytwo.predictions import Predictions
from thirtytwo.registry import Registry

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Option:
    """An option of an evaluator: a keyword of `thirtytwo.evaluate`, and `--name` on the command line.

    `kind` is the type of one value; with a tuple as `default` the option may be repeated.
    """

    name: str
    kind: type
    default: Any
    help: str
    metavar: str | None = None
    least: float | None = None


class Outputs(Protocol):
    """Computes a network's outputs (`thirtytwo.evaluation.scoring.Scorer`)."""

    def logits(self, images: Pixels) -> Floats:
        """Logits `(N, C)` of images uint8 `(N, H, W, 3)`."""

    def outputs(self, images: Pixels) -> tuple[Floats, Floats]:
        """Logits `(N, C)` and features `(N, D)` of images uint8 `(N, H, W, 3)`."""

    def known_scores(self, features: Floats, means: Floats) -> npt.NDArray[np.float64]:
        """OOD scores `(N,)` of features `(N, D)` and class means `(C, D)`."""


@dataclass(frozen=True)
class Validation:
    """What is known from the validation images of a run.

    `count` images; `predictions` reads the predictions on them; `temperature_only` is the best temperature without a
    curvature; `false_alarms` is their false alarm rate; `selection` says what else they were used to choose.
    """

    count: int
    predictions: Callable[[], Predictions]
    temperature_only: float | None
    false_alarms: dict[str, Any] | None
    selection: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be evaluated, before anything is scored.

    `own`: the images belong to the data of the run; `class_means` loads the class means `(C, D)`; `options` holds the
    values of the evaluators' options by name.
    """

    run: Path
    dataset: str
    split: str
    own: bool
    images: ImageSet
    info: ModelInfo
    network: Outputs
    class_means: Callable[[], Floats]
    validation: Validation
    seed: int
    log: Callable[[str], None]
    options: Mapping[str, Any] = field(default_factory=dict)
    data_root: Path | None = None

    def scored(self, predictions: Predictions, logits: Floats, features: Floats, prepared: Any) -> Context:
        """The same with the model's outputs, and what `Evaluator.check` returned."""
        outputs = {"predictions": predictions, "logits": logits, "features": features, "prepared": prepared}
        return Context(**vars(self), **outputs)


@dataclass(frozen=True, kw_only=True)
class Context(Request):
    """A request with the outputs for its images: calibrated predictions, logits `(N, C)` and features `(N, D)`."""

    predictions: Predictions
    logits: Floats
    features: Floats
    prepared: Any = None


@dataclass(frozen=True)
class Results:
    """The stored results of a run: `metrics.json`, files of evaluators by key, and predictions by split.

    `predictions` are of images that were not trained on; `split_names` are the displayed names of splits.
    """

    split: str
    metrics: Mapping[str, Any]
    files: Mapping[str, Mapping[str, Any]]
    predictions: Mapping[str, Predictions]
    split_names: Mapping[str, str]


class Evaluator(ABC):
    """One kind of evaluation.

    `key` names the result, `title` is its heading, `order` its place in the report. `default`: training measures it.
    `options` are those of `thirtytwo evaluate`; the first one requests the evaluator, one without options is always
    measured. `store` is where the result goes: to the entry `key` of `metrics.json`, to the file `<key>.json`, or
    nowhere, where `read` computes it from predictions.
    """

    key: ClassVar[str]
    title: ClassVar[str]
    order: ClassVar[float] = math.inf
    default: ClassVar[bool] = False
    options: ClassVar[tuple[Option, ...]] = ()
    store: ClassVar[Literal["metrics", "file", "nothing"]] = "metrics"

    def check(self, request: Request) -> Any:
        """Check that this can be measured, before test images are used; the result becomes `Context.prepared`.

        Raises:
            ThirtytwoError: the evaluator cannot be used here.
        """
        return None

    @abstractmethod
    def measure(self, context: Context) -> dict[str, Any] | None:
        """Measure; the result is stored as JSON, None where it does not apply."""

    def read(self, results: Results) -> Mapping[str, Any] | None:
        """The stored result of a run, for `describe`; None where there is none."""
        return (results.files if self.store == "file" else results.metrics).get(self.key)

    @abstractmethod
    def describe(self, record: Mapping[str, Any], split: str) -> Section:
        """Describe a result of `read` on `split`, as a report section with unescaped text."""

    def requested(self, options: Mapping[str, Any]) -> bool:
        """Whether `thirtytwo evaluate` measures it with these options."""
        if not self.options:
            return self.default
        first = self.options[0]
        return bool(options.get(first.name, first.default) != first.default)


EVALUATORS: Registry[Evaluator] = Registry("evaluator")
_WITHOUT_EVALUATOR = {"thirtytwo.evaluation.scoring"}
"""Not imported to find evaluators: reports are written without PyTorch."""


def evaluators() -> list[Evaluator]:
    """All evaluators in their `order`, those of equal order by name."""
    package = import_module("thirtytwo.evaluation")
    for module in iter_modules(package.__path__, f"{package.__name__}."):
        if module.name not in _WITHOUT_EVALUATOR:
            import_module(module.name)
    return sorted(map(EVALUATORS.get, EVALUATORS), key=lambda one: one.order)


def register(evaluator: type[Evaluator]) -> type[Evaluator]:
    """Class decorator that registers an evaluator under its key."""
    EVALUATORS.register(evaluator.key)(evaluator())
    return evaluator
