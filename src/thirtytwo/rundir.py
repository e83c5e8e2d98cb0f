"""The run directory: every artefact's name, and how it is read and written.

Training writes it; evaluation, report, comparison and the app read it. No artefact needs pickle.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import wraps
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from thirtytwo.config.recipe import Recipe, read_recipe
from thirtytwo.errors import RunError, require
from thirtytwo.io import write_json, write_text, written_whole
from thirtytwo.lock import LOCK, lock_directory

P = ParamSpec("P")
R = TypeVar("R")

PROBABILITY_PREFIX = "p_"
SEEDS_SUMMARY = "summary.json"
"""Beside the runs of several seeds, in the directory that holds them all."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model said of labelled pictures.

    `truth` int64 `(N,)`; `probabilities` float32 `(N, C)`, rows sum to 1; `rows` int64 `(N,)`, positions in the split
    of the data set; `files` names where the pictures came from files, else None.
    """

    classes: tuple[str, ...]
    truth: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]
    rows: npt.NDArray[np.int64]
    files: tuple[str, ...] | None = None

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """Index of the most probable class, int64 `(N,)`."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @property
    def confidence(self) -> npt.NDArray[np.float32]:
        """Probability of the most probable class, float32 `(N,)`."""
        return np.asarray(self.probabilities.max(axis=1), dtype=np.float32)


@dataclass(frozen=True)
class RunDir:
    """A run directory by name; nothing is touched until a method says so."""

    path: Path

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
    def history(self) -> Path:
        return self.path / "history.csv"

    @property
    def weights(self) -> Path:
        return self.path / "weights.safetensors"

    @property
    def class_means(self) -> Path:
        """What `known_score` compares with (`evaluation.ood`), for exporting the model again."""
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
        """How far each file that `thirtytwo export` made of the model agrees with it."""
        return self.path / "exports.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

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

    def corruptions_on(self, name: str) -> Path:
        """Accuracy under corruptions of the run's own test (`corruptions.json`), or of something else by name."""
        return self.corruptions if name == "test" else self.path / f"corruptions-{name}.json"

    @classmethod
    def create(cls, path: Path) -> RunDir:
        """A new run directory.

        Raises:
            RunError: something is there already; names both ways out.
        """
        cls.refuse_used(path)
        _create_directory(path)  # or an empty one
        return cls(path)

    @classmethod
    @contextmanager
    def begun(cls, path: Path | str | None, unnamed: Path) -> Iterator[RunDir]:
        """A new run directory that nobody else writes to; where nothing was written, none is left behind.

        Without a `path` it is the first of `unnamed`, `unnamed-2`, `unnamed-3`, … that is not there yet.

        Raises:
            RunError: something is there already, or another process begins a run there.
        """
        if path is not None:
            made = not Path(path).exists()
            found = cls.create(Path(path))
        else:
            made, found = True, cls(next(filter(_create_directory, _numbered(unnamed))))
        with found._claim(made):
            yield found

    @contextmanager
    def _claim(self, made: bool) -> Iterator[None]:
        try:
            with self.writing():
                self.refuse_used(self.path)  # once more: it may have been written to before the lock was ours
                yield
        finally:
            if made:
                with suppress(OSError):  # what is not empty stays
                    self.path.rmdir()

    def writing(self) -> AbstractContextManager[None]:
        """Be the only one who writes to this run.

        Raises:
            RunError: another process does.
        """
        return lock_directory(self.path)

    @staticmethod
    def refuse_used(path: Path) -> None:
        """Look whether `path` is free for a new run; nothing is made.

        Raises:
            RunError: something is there already; names both ways out.
        """
        try:
            if path.exists() and not path.is_dir():
                raise RunError(f"{path} is a file, and a run needs a directory.", "Choose another place with --run.")
            used = path.is_dir() and any(entry.name != LOCK for entry in path.iterdir())
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error.strerror}.", "Choose another place with --run.") from None
        if used:
            raise RunError(
                f"{path} exists and is not empty.",
                "Continue that run with --resume, or choose another directory with --run.",
            )

    @classmethod
    def open(cls, path: Path | str) -> RunDir:
        """An existing run directory.

        Raises:
            RunError: not there, or no recipe inside.
        """
        run = cls(Path(path))
        if not run.path.is_dir():
            raise RunError(f"There is no run directory {str(run.path)!r}.", "Give the path that training printed last.")
        if holds_seeds(run.path):
            raise RunError(f"{run.path} holds the runs of several seeds.", "Give one of them.")
        if not run.recipe.is_file():
            raise RunError(
                f"{run.path} is not a run directory: it has no recipe.toml.",
                "Give the path that training printed last.",
            )
        return run

    def read_recipe(self) -> Recipe:
        """The resolved recipe."""
        return read_recipe(self.recipe)

    def write_recipe(self, recipe: Recipe, head: str = "") -> None:
        """Write the resolved recipe, `head` above it as comment lines."""
        comment = "".join(f"# {line}\n" for line in head.splitlines())
        write_text(self.recipe, comment + recipe.to_toml())

    def read_json(self, artefact: Path) -> Any:
        """A JSON artefact of this run.

        Raises:
            RunError: missing or damaged.
        """
        try:
            return json.loads(artefact.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunError(
                f"{self.path} has no {artefact.name}.", "The run may not have finished; continue it with --resume."
            ) from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise RunError(f"{artefact} is damaged: {error}.", "Write it anew with: thirtytwo evaluate RUN") from None

    def write_json(self, artefact: Path, value: Any) -> None:
        """Write a JSON artefact whole."""
        write_json(artefact, value)

    def read_history(self) -> list[dict[str, float]]:
        """One row an epoch; empty cells are left out of their row; no rows where there is no history.

        Raises:
            RunError: not a table of numbers.
        """
        if not self.history.is_file():
            return []
        try:
            with self.history.open(newline="", encoding="utf-8") as file:
                return [{key: float(cell) for key, cell in row.items() if cell} for row in csv.DictReader(file)]
        except (ValueError, TypeError) as error:
            raise RunError(f"{self.history} is damaged: {error}.", "Delete it, or train again with --run.") from None

    def write_history(self, rows: Iterable[Mapping[str, float]], columns: Iterable[str]) -> None:
        """Write all rows anew; a missing column becomes an empty cell."""
        with written_whole(self.history) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(columns), restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    def write_predictions(self, split: str, predictions: Predictions) -> None:
        """Columns `row`, `file` (where there are files), `true`, `predicted` (class names), `p_<class>` each."""
        arrow, parquet = require("pyarrow", "train"), require("pyarrow.parquet", "train")
        names = np.asarray(predictions.classes, dtype=object)
        columns: dict[str, Any] = {"row": predictions.rows}
        if predictions.files is not None:
            columns["file"] = list(predictions.files)
        columns["true"] = names[predictions.truth]
        columns["predicted"] = names[predictions.predicted]
        for index, name in enumerate(predictions.classes):
            columns[PROBABILITY_PREFIX + name] = predictions.probabilities[:, index]
        with written_whole(self.predictions(split)) as temporary:
            parquet.write_table(arrow.table(columns), temporary)

    def read_predictions(self, split: str) -> Predictions:
        """What `write_predictions` wrote.

        Raises:
            RunError: no such file, or not one of ours.
        """
        parquet = require("pyarrow.parquet", "train")
        path = self.predictions(split)
        if not path.is_file():
            raise RunError(
                f"{self.path} has no predictions for {split!r}.",
                f"Make them with: thirtytwo evaluate {self.path} --split {split}",
            )
        try:
            table = parquet.read_table(path)
        except (OSError, ValueError) as error:
            raise RunError(
                f"{path} is damaged: {error}.", f"Delete it and run: thirtytwo evaluate {self.path}"
            ) from None
        columns = [name for name in table.column_names if name.startswith(PROBABILITY_PREFIX)]
        classes = tuple(name.removeprefix(PROBABILITY_PREFIX) for name in columns)
        index = {name: number for number, name in enumerate(classes)}
        fits = (
            bool(classes)
            and {"row", "true"} <= set(table.column_names)
            and index.keys() >= set(table["true"].to_pylist())
        )
        if not fits:
            raise RunError(f"{path} does not hold predictions.", f"Delete it and run: thirtytwo evaluate {self.path}")
        return Predictions(
            classes=classes,
            truth=np.array([index[name] for name in table["true"].to_pylist()], dtype=np.int64),
            probabilities=np.stack([table[name].to_numpy() for name in columns], axis=1).astype(np.float32),
            rows=table["row"].to_numpy().astype(np.int64),
            files=tuple(table["file"].to_pylist()) if "file" in table.column_names else None,
        )


def holds_seeds(path: Path) -> bool:
    """Whether a directory holds the runs of several seeds, rather than being a run itself."""
    return (path / SEEDS_SUMMARY).is_file() and not (path / "recipe.toml").is_file()


def _numbered(path: Path) -> Iterator[Path]:
    """`path`, `path-2`, `path-3`, …"""
    yield path
    yield from (path.with_name(f"{path.name}-{number}") for number in count(2))


def writing_at(path: Path) -> AbstractContextManager[None]:
    """Be the only one who writes to the run directory that `path` lies in; nothing is lock_directory where it lies in none.

    Raises:
        RunError: another process writes to that run.
    """
    found = next((RunDir(place) for place in (path, *path.absolute().parents) if RunDir(place).recipe.is_file()), None)
    if found is None or not find_spec("filelock"):  # without it nothing here trains
        return nullcontext()
    return found.writing()


def alone(work: Callable[P, R]) -> Callable[P, R]:
    """Have `work`, whose first argument is a run directory, be the only one who writes to it.

    Raises:
        RunError: there is no such run, or another process writes to it.
    """

    @wraps(work)
    def locking(*args: P.args, **kwargs: P.kwargs) -> R:
        run: Any = args[0] if args else kwargs["run"]
        with RunDir.open(run).writing():
            return work(*args, **kwargs)

    return locking


def _create_directory(path: Path) -> bool:
    """Make a directory; whether it was not there before.

    Raises:
        RunError: it cannot be made.
    """
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        return False
    except OSError as error:
        raise RunError(f"{path} cannot be made: {error.strerror}.", "Choose another place with --run.") from None
    return True
