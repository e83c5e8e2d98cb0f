"""Names of the files in a run directory, and of directories that hold runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from thirtytwo.io import RUNS, expand_home, is_file, slug

FIXES = "fixes.csv"
"""The plan of fixes that was applied to data, in a run directory and in a fixed copy of the data."""
SEEDS_SUMMARY = "summary.json"
"""Summary of the runs of several seeds or folds, in the directory that holds them."""
OUT_OF_FOLD = "out-of-fold"
"""Predictions of every training image by the run of a cross-validation that was not trained on it, like a split."""
EVALUATED = ("test", "val")
"""Splits that runs are evaluated on."""


@dataclass(frozen=True)
class RunPaths:
    """Paths of the artifacts of a run, in its directory `path`; creating the object reads and writes nothing."""

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", expand_home(self.path))

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.toml"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def split(self) -> Path:
        return self.path / "split.json"

    @property
    def fixes(self) -> Path:
        """The plan of fixes that was applied to the data, as it was read; absent without one."""
        return self.path / FIXES

    @property
    def history(self) -> Path:
        return self.path / "history.csv"

    @property
    def weights(self) -> Path:
        return self.path / "weights.safetensors"

    @property
    def class_means(self) -> Path:
        """Class means that `known_score` compares features with (`evaluation.ood`), for exporting the model again."""
        return self.path / "class_means.safetensors"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.json"

    @property
    def onnx(self) -> Path:
        return self.path / "model.onnx"

    @property
    def exports(self) -> Path:
        """Agreement of each file written by `thirtytwo export` with the model."""
        return self.path / "exports.json"

    @property
    def tracking(self) -> Path:
        """Names of the run's entries in experiment trackers; absent without any."""
        return self.path / "tracking.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def paper(self) -> Path:
        """The report as PDF, where it was asked for."""
        return self.path / "report.pdf"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    @property
    def card(self) -> Path:
        return self.path / "README.md"

    def predictions(self, split: str) -> Path:
        """`predictions-<split>.parquet`."""
        return self.path / f"predictions-{split}.parquet"

    @property
    def corruptions(self) -> Path:
        return self.path / "corruptions.json"

    def metrics_on(self, name: str) -> Path:
        """Metrics on other data (`metrics-<data>-<split>.json`)."""
        return self.path / f"metrics-{name}.json"

    def evaluation_on(self, key: str, name: str) -> Path:
        """What one evaluator measured: `<key>.json` for the run's test split, or a file for other data by name."""
        return self.path / (f"{key}.json" if name == "test" else f"{key}-{name}.json")


def default_path(*parts: str | Path) -> Path:
    """The directory in `RUNS` of a result that is not named: each part as a valid file name, joined by hyphens."""
    return RUNS / "-".join(slug(str(part)) for part in parts)


def holds_seeds(path: Path) -> bool:
    """Whether a directory holds the runs of several seeds or folds, rather than being a run itself."""
    return is_file(path / SEEDS_SUMMARY) and not is_file(path / "recipe.toml")
