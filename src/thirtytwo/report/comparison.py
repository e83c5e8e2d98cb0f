"""The results of a comparison of runs, for HTML page, Markdown, JSON and command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thirtytwo.data.types import ImageSet
from thirtytwo.evaluation.metrics import METRICS
from thirtytwo.evaluation.statistics import Disagreement, MeanTest, PairTest, Spread
from thirtytwo.inference.timing import Timing
from thirtytwo.predictions import Predictions
from thirtytwo.report.run_record import RunRecord
from thirtytwo.report.seeds import SECONDS
from thirtytwo.reprs import card, table
from thirtytwo.text import counted

LEVEL = 0.05
"""Significance level: p values below it count as a difference."""


@dataclass(frozen=True, eq=False)
class ComparedRun:
    """One run of a comparison; `letter` stands for it in tables, `name` is the distinct part of its path."""

    letter: str
    name: str
    record: RunRecord
    predictions: Predictions
    metrics: dict[str, Any]
    timing: Timing | None

    @property
    def accuracy(self) -> float:
        """Accuracy on the compared split, one view per image; a fraction."""
        return float(self.metrics["accuracy"]["value"])

    def metric(self, key: str) -> dict[str, Any] | None:
        """A metric with its interval; None where it does not apply."""
        found = self.metrics.get(key)
        return found if found and found.get("value") is not None else None

    @property
    def parameters(self) -> int | None:
        """Number of parameters of the network."""
        return self.record.environment.get("parameters")

    @property
    def flops(self) -> int | None:
        """Floating-point operations per image (a multiply-add counts as two)."""
        return self.record.environment.get("flops")

    @property
    def seconds(self) -> float | None:
        """Training time in seconds."""
        return (self.record.environment.get("seconds") or {}).get("train")

    @property
    def trained_on(self) -> str:
        """Description of the machine that trained it; empty where it is not recorded."""
        hardware: Mapping[str, Any] = self.record.environment.get("hardware") or {}
        if self.record.environment.get("device") == "cuda" and hardware.get("gpu"):
            return str(hardware["gpu"])
        cores = f", {hardware['cores']} cores" if hardware.get("cores") else ""
        return f"{hardware['cpu']}{cores}" if hardware.get("cpu") else ""

    @property
    def model_bytes(self) -> int | None:
        """Size of `model.onnx` in bytes."""
        return self.record.run.onnx.stat().st_size if self.record.run.onnx.is_file() else None


@dataclass(frozen=True)
class Pair:
    """Two runs by index, the better one first; `p_adjusted` is corrected for all pairs by Holm's method."""

    first: int
    second: int
    test: PairTest
    p_adjusted: float


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed, by index, and the statistics of each metric over them."""

    name: str
    members: tuple[int, ...]
    statistics: dict[str, Spread]


@dataclass(frozen=True)
class GroupPair:
    """Two groups with two or more runs each: the difference of their mean accuracies."""

    first: int
    second: int
    test: MeanTest


@dataclass(frozen=True, eq=False)
class Comparison:
    """Runs evaluated on the same images, the most accurate first.

    `pairs` holds all pairs of runs; `groups` the recipes if one of them has several seeds, else nothing; `settings` the
    settings that differ, as dotted key to one value per run; `images` are the evaluated images, None where they are not
    available; `page` is the path of the HTML page after it was written.
    """

    split: str
    runs: tuple[ComparedRun, ...]
    pairs: tuple[Pair, ...]
    groups: tuple[Group, ...]
    group_pairs: tuple[GroupPair, ...]
    disagreements: tuple[Disagreement, ...]
    settings: dict[str, list[Any]]
    notices: tuple[str, ...]
    timed_on: str | None
    images: ImageSet | None
    page: Path | None = None

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self.runs[0].predictions.truth)

    @property
    def disagreeing(self) -> int:
        """Number of images for which not all runs predict the same class."""
        return sum(len(group.positions) for group in self.disagreements)

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return self.runs[0].record.dataset

    def __repr__(self) -> str:
        names = ", ".join(f"{run.name} {run.accuracy:.4f}" for run in self.runs)
        return f"Comparison({self.dataset!r}, {self.split} accuracy: {names})"

    def _repr_html_(self) -> str:
        """The runs with their metrics, the paired tests, and where the page is."""
        from thirtytwo.report import comparison_tables as tables  # needs this module

        found = [tables.runs_table(self), tables.metrics_table(self)]
        found += [tables.pairs_table(self)] if self.pairs else []
        parts = [table(([cell.text for cell in row] for row in one.rows), one.columns) for one in found]
        note = f"The runs disagree on {counted(self.disagreeing, 'image')}."
        page = f" Page: {self.page}" if self.page else ""
        images = counted(self.count, f"{self.split} image")
        title = f"{counted(len(self.runs), 'run')} on {images} of {self.dataset}"
        return card(title, *parts, note=note + page)

    def as_dict(self) -> dict[str, Any]:
        """The content of `comparison.json`."""
        return {
            "dataset": self.dataset,
            "split": self.split,
            "n": self.count,
            "runs": [_run_record(run, self.timed_on) for run in self.runs],
            "pairs": [_pair_record(pair, self.runs) for pair in self.pairs],
            "seeds": [_group_record(group, self.runs) for group in self.groups],
            "recipes": [_group_pair_record(pair, self.groups) for pair in self.group_pairs],
            "settings": self.settings,
            "notices": list(self.notices),
        }


def _run_record(run: ComparedRun, timed_on: str | None) -> dict[str, Any]:
    timing = run.timing
    return {
        "run": run.name,
        "path": str(run.record.run.path),
        "seed": run.record.recipe.seed,
        "recipe": run.record.recipe.name,
        **{metric.key: run.metric(metric.key) for metric in METRICS},
        "parameters": run.parameters,
        "flops": run.flops,
        SECONDS: run.seconds,
        "model_bytes": run.model_bytes,
        "milliseconds": None
        if timing is None
        else {"alone": timing.alone, "batched": timing.batched, "measured_on": timed_on},
    }


def _pair_record(pair: Pair, runs: Sequence[ComparedRun]) -> dict[str, Any]:
    test = pair.test
    return {
        "first": runs[pair.first].name,
        "second": runs[pair.second].name,
        "difference": {"value": test.difference, "ci95": list(test.ci95)},
        "both_right": test.both_right,
        "only_first": test.only_first,
        "only_second": test.only_second,
        "both_wrong": test.both_wrong,
        "same_answer": test.same_answer,
        "mcnemar_mid_p": test.p_value,
        "mcnemar_exact_p": test.p_exact,
        "mcnemar_mid_p_holm": pair.p_adjusted,
    }


def _group_record(group: Group, runs: Sequence[ComparedRun]) -> dict[str, Any]:
    return {
        "recipe": group.name,
        "runs": [runs[place].name for place in group.members],
        "figures": {key: found.as_dict() for key, found in group.statistics.items()},
    }


def _group_pair_record(pair: GroupPair, groups: Sequence[Group]) -> dict[str, Any]:
    return {
        "first": groups[pair.first].name,
        "second": groups[pair.second].name,
        "difference": {"value": pair.test.difference, "ci95": list(pair.test.ci95)},
        "welch_p": pair.test.p_value,
    }
