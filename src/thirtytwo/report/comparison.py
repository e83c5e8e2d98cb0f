"""What a comparison of runs holds: all that its page, its Markdown and the command line tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thirtytwo.data.types import ImageSet
from thirtytwo.evaluation.statistics import Disagreement, MeanTest, PairTest, Spread
from thirtytwo.inference.timing import Timing
from thirtytwo.report.page import FIGURES
from thirtytwo.report.run_record import Facts
from thirtytwo.report.seeds import SECONDS
from thirtytwo.rundir import Predictions

LEVEL = 0.05
"""P values below this are called a difference."""


@dataclass(frozen=True, eq=False)
class Contender:
    """One run of a comparison: `letter` stands for it in tables, `name` tells it from the others."""

    letter: str
    name: str
    facts: Facts
    predictions: Predictions
    metrics: dict[str, Any]
    timing: Timing | None

    @property
    def accuracy(self) -> float:
        """Accuracy on the split compared, one view a picture."""
        return float(self.metrics["accuracy"]["value"])

    def figure(self, key: str) -> dict[str, Any] | None:
        """A figure with its interval; None where it does not apply."""
        found = self.metrics.get(key)
        return found if found and found.get("value") is not None else None

    @property
    def parameters(self) -> int | None:
        """Numbers the network learnt."""
        return self.facts.environment.get("parameters")

    @property
    def flops(self) -> int | None:
        """Floating-point operations of one picture (a multiply-add counts as two)."""
        return self.facts.environment.get("flops")

    @property
    def seconds(self) -> float | None:
        """Seconds to train."""
        return (self.facts.environment.get("seconds") or {}).get("train")

    @property
    def trained_on(self) -> str:
        """The machine that trained it, in words; empty where that is not recorded."""
        hardware: Mapping[str, Any] = self.facts.environment.get("hardware") or {}
        if self.facts.environment.get("device") == "cuda" and hardware.get("gpu"):
            return str(hardware["gpu"])
        cores = f", {hardware['cores']} cores" if hardware.get("cores") else ""
        return f"{hardware['cpu']}{cores}" if hardware.get("cpu") else ""

    @property
    def model_bytes(self) -> int | None:
        """Size of `model.onnx`."""
        return self.facts.run.onnx.stat().st_size if self.facts.run.onnx.is_file() else None


@dataclass(frozen=True)
class Pair:
    """Two runs by their places, the better one first; `p_adjusted` is Holm's over all pairs."""

    first: int
    second: int
    test: PairTest
    p_adjusted: float


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seed, by their places, and the spread of each figure over them."""

    name: str
    members: tuple[int, ...]
    figures: dict[str, Spread]


@dataclass(frozen=True)
class GroupPair:
    """Two groups of two runs or more: the difference of their mean accuracies."""

    first: int
    second: int
    test: MeanTest


@dataclass(frozen=True, eq=False)
class Comparison:
    """Runs on the same pictures, the most accurate first.

    `pairs` holds every two of them; `groups` the recipes with several seeds (every recipe once there is one such);
    `settings` what their recipes set differently, dotted key to one value a run; `pictures` are those that were scored,
    None where they are not at hand; `page` is the HTML page once it is written.
    """

    split: str
    runs: tuple[Contender, ...]
    pairs: tuple[Pair, ...]
    groups: tuple[Group, ...]
    group_pairs: tuple[GroupPair, ...]
    disagreements: tuple[Disagreement, ...]
    settings: dict[str, list[Any]]
    notices: tuple[str, ...]
    timed_on: str | None
    pictures: ImageSet | None
    page: Path | None = None

    @property
    def count(self) -> int:
        """Pictures compared on."""
        return len(self.runs[0].predictions.truth)

    @property
    def dataset(self) -> str:
        """Name of the data."""
        return self.runs[0].facts.dataset

    def as_dict(self) -> dict[str, Any]:
        """The content of `comparison.json`."""
        names = [run.name for run in self.runs]
        return {
            "dataset": self.dataset,
            "split": self.split,
            "n": self.count,
            "runs": [
                {
                    "run": run.name,
                    "path": str(run.facts.run.path),
                    "seed": run.facts.recipe.seed,
                    "recipe": run.facts.recipe.name,
                    **{key: run.figure(key) for key, _, _ in FIGURES},
                    "parameters": run.parameters,
                    "flops": run.flops,
                    SECONDS: run.seconds,
                    "model_bytes": run.model_bytes,
                    "milliseconds": None
                    if run.timing is None
                    else {"alone": run.timing.alone, "batched": run.timing.batched, "measured_on": self.timed_on},
                }
                for run in self.runs
            ],
            "pairs": [
                {
                    "first": names[pair.first],
                    "second": names[pair.second],
                    "difference": {"value": pair.test.difference, "ci95": list(pair.test.ci95)},
                    "both_right": pair.test.both_right,
                    "only_first": pair.test.only_first,
                    "only_second": pair.test.only_second,
                    "both_wrong": pair.test.both_wrong,
                    "same_answer": pair.test.same_answer,
                    "mcnemar_mid_p": pair.test.p_value,
                    "mcnemar_exact_p": pair.test.p_exact,
                    "mcnemar_mid_p_holm": pair.p_adjusted,
                }
                for pair in self.pairs
            ],
            "seeds": [
                {
                    "recipe": group.name,
                    "runs": [names[place] for place in group.members],
                    "figures": {key: found.as_dict() for key, found in group.figures.items()},
                }
                for group in self.groups
            ],
            "recipes": [
                {
                    "first": self.groups[pair.first].name,
                    "second": self.groups[pair.second].name,
                    "difference": {"value": pair.test.difference, "ci95": list(pair.test.ci95)},
                    "welch_p": pair.test.p_value,
                }
                for pair in self.group_pairs
            ],
            "settings": self.settings,
            "notices": list(self.notices),
        }
