"""The run directory: names of all artifacts, and functions to read and write them.

Training writes it; evaluation, report, comparison and the app read it. No artifact uses pickle.
"""

from __future__ import annotations

import csv
import json
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from thirtytwo.config.recipe import Recipe
from thirtytwo.config.resolve import read_recipe
from thirtytwo.errors import RunError, require
from thirtytwo.io import (
    RUNS,
    atomic_write,
    create_directory,
    expand_home,
    is_directory,
    is_file,
    is_unused,
    lock_directory,
    numbered,
    slug,
    write_json,
    write_text,
)
from thirtytwo.run_schema import find_problem
from thirtytwo.text import first_line

P = ParamSpec("P")
R = TypeVar("R")

PROBABILITY_PREFIX = "p_"
FIXES = "fixes.csv"
"""The plan of fixes that was applied to data, in a run directory and in a fixed copy of the data."""
SEEDS_SUMMARY = "summary.json"
"""Summary of the runs of several seeds or folds, in the directory that holds them."""
OUT_OF_FOLD = "out-of-fold"
"""Predictions of every training image by the run of a cross-validation that was not trained on it, like a split."""
_CONTENT_KEY = b"thirtytwo_content"


def _is_special(path: Path) -> bool:
    """Whether a path is a folder or something, such as a named pipe, that cannot be read like a file."""
    return path.exists() and not path.is_file()


def _parse_int(text: str) -> int:
    """An integer of a JSON file; larger ones than any that thirtytwo writes overflow where they are used."""
    value = int(text)
    if abs(value) >= 2**63:
        raise ValueError(f"the integer {text[:20]}… is too large")
    return value


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions of a model for labelled images.

    Attributes:
        classes: C class names.
        truth: true class of each image, int64 `(N,)`, indices into `classes`.
        probabilities: float32 `(N, C)`; each row sums to 1.
        rows: positions of the images in the split of the data set, int64 `(N,)`.
        files: file of each image; None where images are not files.
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

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether the most probable class is the true one, bool `(N,)`."""
        return np.asarray(self.predicted == self.truth)

    def name_of(self, position: int) -> str:
        """The file of an image, or its row (`row 7`) where it did not come from a file."""
        return self.files[position] if self.files else f"row {int(self.rows[position])}"


@dataclass(frozen=True)
class RunDir:
    """Paths of a run directory and access to its artifacts; creating the object reads and writes nothing."""

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

    @classmethod
    def create(cls, path: Path, *, combining: bool = False) -> RunDir:
        """Create a new run directory; `combining` as in `create_locked`.

        Raises:
            RunError: `path` exists and is not an empty directory.
        """
        path = expand_home(path)
        cls.refuse_used(path, combining=combining)
        _create(path)  # or an empty one
        return cls(path)

    @classmethod
    @contextmanager
    def create_locked(cls, path: Path | str | None, unnamed: Path, *, combining: bool = False) -> Iterator[RunDir]:
        """Create and lock a new run directory while the block runs; removed at the end if nothing was written to it.

        Args:
            path: the directory; None: the first of `unnamed`, `unnamed-2`, `unnamed-3`, … that does not exist.
            unnamed: default path.
            combining: whether runs are combined in it; it may then hold an interrupted combination, to be overwritten.

        Raises:
            RunError: `path` exists and is not an empty directory, or another process has locked it.
        """
        if path is not None:
            made = not os.path.lexists(expand_home(path))
            found = cls.create(Path(path), combining=combining)
        else:
            made, found = True, cls(next(filter(_create, numbered(unnamed))))
        with found._claim(made, combining):
            yield found

    @contextmanager
    def _claim(self, made: bool, combining: bool) -> Iterator[None]:
        try:
            with self.writing():
                # again: it may have been written to before the lock was acquired
                self.refuse_used(self.path, combining=combining)
                yield
        finally:
            if made:
                with suppress(OSError):  # a directory that is not empty stays
                    self.path.rmdir()

    def writing(self) -> AbstractContextManager[None]:
        """Lock this run for writing.

        Raises:
            RunError: another process has locked it.
        """
        return lock_directory(self.path)

    @staticmethod
    def refuse_used(path: Path, *, combining: bool = False) -> None:
        """Check that `path` can become a new run directory; creates nothing. `combining` as in `create_locked`.

        Raises:
            RunError: `path` exists and is not an empty directory.
        """
        path = expand_home(path)
        try:
            if path.exists() and not path.is_dir():
                raise RunError(f"{path} is a file, not a directory.", "Choose another directory with --run.")
            used = path.is_dir() and not is_unused(path)
        except OSError as error:
            raise RunError(
                f"{path} cannot be read: {error.strerror}.", "Choose another directory with --run."
            ) from None
        if used and combining and not RunDir(path)._is_interrupted_combination():
            raise RunError(f"{path} exists and is not empty.", "Choose another directory with --run.")
        if used and not combining:
            raise RunError(f"{path} exists and is not empty.", RunDir(path)._how_to_continue())

    @classmethod
    def open(cls, path: Path | str) -> RunDir:
        """Open an existing run directory.

        Raises:
            RunError: it does not exist, is a file, or holds no recipe.
        """
        run = cls(Path(path))
        if is_file(run.path):
            raise _file_error(run.path)
        if not is_directory(run.path):
            raise RunError(
                f"There is no run directory {str(run.path)!r}.", "Use the path printed at the end of training."
            )
        if holds_seeds(run.path):
            raise RunError(f"{run.path} holds the runs of several seeds or folds.", "Use the path of one of them.")
        if not is_file(run.recipe):
            raise RunError(
                f"{run.path} is not a run directory: it has no recipe.toml.",
                "Use the path printed at the end of training.",
            )
        return run

    def _is_interrupted_combination(self) -> bool:
        """Whether combining runs in this directory was interrupted."""
        return self.is_combined() and not self.is_finished()

    def _how_to_continue(self) -> str:
        if self.is_combined():
            return "Choose another directory with --run."
        return "Continue that run with --resume, or choose another directory with --run."

    def is_combined(self) -> bool:
        """Whether this run combines others (an ensemble or a soup); False where the record is damaged."""
        return bool(self._recorded("members"))

    def is_finished(self) -> bool:
        """Whether this run has every file that a finished one needs, and that resuming it would write again."""
        return not self._missing()

    def _missing(self) -> list[str]:
        """Names of the files that this run lacks to be finished."""
        written = (self.weights, self.class_means, self.onnx, self.metrics, self.report)
        return [artifact.name for artifact in (self.environment, self.split, *written) if not artifact.is_file()]

    def check_resumable(self) -> None:
        """Check that this run can be continued.

        Raises:
            RunError: it combines other runs, or it is finished, but lacks a file and the checkpoint to write it from.
        """
        if self.is_finished():
            return
        if self.is_combined():
            raise RunError(f"{self.path} combines other runs, so it cannot be trained.", self.resume_hint())
        if self.weights.is_file() and self.metrics.is_file() and not any(self.checkpoints.glob("last.ckpt")):
            raise RunError(
                f"{self.path} is finished, but {self._missing()[0]} is missing, and the checkpoint to write it from.",
                self.restore_hint(),
            )

    def resume_hint(self) -> str:
        """How to continue the training of this run, or to combine its members again, as a sentence for errors."""
        return f"Continue it with: {self.resume_command()}"

    def resume_command(self, data: str | None = None, data_root: Path | str | None = None) -> str:
        """The command that continues this run, quoted for a shell.

        Of a run of several seeds, it continues all of them; a combination of runs is started again.

        Args:
            data: the run's data; by default as recorded in `environment.json`, or `DATA` where it is not recorded.
            data_root: directory searched first for known data sets; left out by default.
        """
        if self.is_combined():
            return f"{self._recorded('command')} --run {shlex.quote(str(self.path))}"
        path = self.path.parent if holds_seeds(self.path.parent) else self.path
        words = ["thirtytwo", "train", data or self.recorded_data() or "DATA", "--resume", "--run", str(path)]
        words += ["--data-root", str(data_root)] if data_root is not None else []
        for name in ("devices", "nodes"):
            count = self._recorded("processes", name)
            words += [f"--{name}", str(count)] if isinstance(count, int) and count > 1 else []
        return shlex.join(words)

    def recorded_data(self) -> str | None:
        """The data that the run was started on; None where it is not recorded or the record is damaged."""
        return spec if isinstance(spec := self._recorded("data", "spec"), str) else None

    def _recorded(self, *keys: str) -> Any:
        """A value of `environment.json`; None where it is not recorded or the file is damaged."""
        if _is_special(self.environment):
            return None
        try:
            value = json.loads(self.environment.read_text(encoding="utf-8"))
            for key in keys:
                value = value[key]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return value

    def read_recipe(self) -> Recipe:
        """Read the resolved recipe; runs that were written before `data.keep_together` existed kept copies together."""
        recipe = read_recipe(self.recipe)
        if recipe.data.keep_together != "auto":
            return recipe
        return recipe.model_copy(update={"data": recipe.data.model_copy(update={"keep_together": "copies"})})

    def write_recipe(self, recipe: Recipe, head: str = "") -> None:
        """Write the resolved recipe, with the lines of `head` as comments above it."""
        comment = "".join(f"# {line}\n" for line in head.splitlines())
        write_text(self.recipe, comment + recipe.to_toml())

    def read_json(self, artifact: Path) -> Any:
        """Read a JSON artifact of this run.

        Raises:
            RunError: missing, damaged, no file, or not of the shape of `run_schema`.
        """
        if _is_special(artifact):
            raise RunError(f"{artifact} is not a file.", self._restore_hint(artifact))
        try:
            content = json.loads(artifact.read_text(encoding="utf-8"), parse_int=_parse_int)
        except FileNotFoundError:
            raise RunError(f"{self.path} has no {artifact.name}.", self._restore_hint(artifact, "W")) from None
        except (ValueError, RecursionError) as error:
            raise RunError(f"{artifact} is damaged: {first_line(error)}.", self._restore_hint(artifact)) from None
        if problem := find_problem(artifact.name, content):
            raise RunError(f"{artifact} is damaged, at {problem}.", self._restore_hint(artifact))
        return content

    def _restore_hint(self, artifact: Path, start: str = "Move it away and w") -> str:
        """How to write a damaged or missing file again; `start` begins the sentence and ends in a w."""
        if artifact in (self.environment, self.split, self.weights, self.class_means):
            return self.restore_hint(start)
        if not self.onnx.is_file():
            return self.resume_hint()
        if artifact == self.exports:
            return "Move it away; exporting writes a new one."
        options = ["--corruptions"] if artifact == self.corruptions else []
        return f"{start}rite it again with: {shlex.join(['thirtytwo', 'evaluate', str(self.path), *options])}"

    def restore_hint(self, start: str = "Move it away and w") -> str:
        """How to write a file of this run that only training or combining writes, as a sentence for errors.

        A trained run is continued from its last checkpoint, and a combination is made again.
        """
        if self.is_combined() or any(self.checkpoints.glob("last.ckpt")):
            return f"{start}rite it again with: {self.resume_command()}"
        return "Restore it from a copy, or make the run again with another --run."

    def write_json(self, artifact: Path, value: Any) -> None:
        """Write a JSON artifact, atomically."""
        write_json(artifact, value)

    def read_class_means(self) -> npt.NDArray[np.float32]:
        """Read the class means that `known_score` is computed from, float32 `(C, D)`.

        Raises:
            RunError: missing or damaged.
        """
        load = require("safetensors.numpy", "train").load
        try:
            means: npt.NDArray[np.float32] = load(self.class_means.read_bytes())["class_means"]
        except (OSError, KeyError, require("safetensors", "train").SafetensorError) as error:
            raise RunError(
                f"{self.class_means} is missing or damaged: {error}.", self._restore_hint(self.class_means)
            ) from None
        return means

    def read_history(self) -> list[dict[str, float]]:
        """Read the metrics of each epoch, without empty cells; an empty list where there is no history.

        Raises:
            RunError: the file is not a table of numbers.
        """
        if not self.history.is_file():
            return []
        try:
            with self.history.open(newline="", encoding="utf-8") as file:
                return [{key: float(cell) for key, cell in row.items() if cell} for row in csv.DictReader(file)]
        except (ValueError, TypeError) as error:
            raise RunError(f"{self.history} is damaged: {error}.", "Move it away; reports then lack curves.") from None

    def write_history(self, rows: Iterable[Mapping[str, float]], columns: Iterable[str]) -> None:
        """Replace the history by these rows; a missing column becomes an empty cell."""
        with atomic_write(self.history) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(columns), restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    def write_predictions(self, split: str, predictions: Predictions, content: str = "") -> None:
        """Write predictions as parquet: `row`, `file` (if known), `true`, `predicted` (class names), `p_<class>`.

        `content` is a hash of the images (`data.run_data.content_of`), kept in the metadata.
        """
        arrow, parquet = require("pyarrow", "train"), require("pyarrow.parquet", "train")
        names = np.asarray(predictions.classes, dtype=object)
        columns: dict[str, Any] = {"row": predictions.rows}
        if predictions.files is not None:
            columns["file"] = list(predictions.files)
        columns["true"] = names[predictions.truth]
        columns["predicted"] = names[predictions.predicted]
        for index, name in enumerate(predictions.classes):
            columns[PROBABILITY_PREFIX + name] = predictions.probabilities[:, index]
        table = arrow.table(columns)
        if content:
            table = table.replace_schema_metadata({_CONTENT_KEY: content.encode()})
        # as a stream: pyarrow takes a path such as a:b/c for an address
        with atomic_write(self.predictions(split)) as temporary, temporary.open("wb") as stream:
            parquet.write_table(table, stream)

    def read_predictions(self, split: str) -> Predictions:
        """Read what `write_predictions` wrote.

        Raises:
            RunError: the file is missing or damaged.
        """
        path = self.predictions(split)
        if not path.is_file():
            raise RunError(
                f"{self.path} has no predictions for {split!r}.",
                f"Create them with: thirtytwo evaluate {shlex.quote(str(self.path))} --split {split}",
            )
        option = f" --split {split}" if split != "test" else ""
        again = f"Move it away and run: thirtytwo evaluate {shlex.quote(str(self.path))}{option}"
        return read_predictions_file(path, again)[0]


def read_predictions_file(path: Path, fix: str) -> tuple[Predictions, str]:
    """Read a file that `RunDir.write_predictions` wrote: the predictions, and the hash of their images if it has one.

    Raises:
        RunError: the file is damaged, or holds no predictions; `fix` says what to do.
    """
    parquet = require("pyarrow.parquet", "train")
    try:
        with path.open("rb") as stream:
            table = parquet.read_table(stream)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise RunError(f"{path} cannot be read: {os.strerror(error.errno)}.", "Check its permissions.") from None
        raise RunError(f"{path} is damaged, or not a parquet file.", fix) from None
    columns = [name for name in table.column_names if name.startswith(PROBABILITY_PREFIX)]
    classes = tuple(name.removeprefix(PROBABILITY_PREFIX) for name in columns)
    index = {name: number for number, name in enumerate(classes)}
    fits = (
        bool(classes) and {"row", "true"} <= set(table.column_names) and index.keys() >= set(table["true"].to_pylist())
    )
    if not fits:
        raise RunError(f"{path} does not hold predictions.", fix)
    found = Predictions(
        classes=classes,
        truth=np.array([index[name] for name in table["true"].to_pylist()], dtype=np.int64),
        probabilities=np.stack([table[name].to_numpy() for name in columns], axis=1).astype(np.float32),
        rows=table["row"].to_numpy().astype(np.int64),
        files=tuple(table["file"].to_pylist()) if "file" in table.column_names else None,
    )
    return found, (table.schema.metadata or {}).get(_CONTENT_KEY, b"").decode()


def default_path(*parts: str | Path) -> Path:
    """The directory in `RUNS` of a result that is not named: each part as a valid file name, joined by hyphens."""
    return RUNS / "-".join(slug(str(part)) for part in parts)


def _file_error(path: Path) -> RunError:
    """The error for a file where a run directory is expected: which directory to give, and what its model is for."""
    if path.suffix.lower() != ".onnx":
        return RunError(f"{path} is a file, not a run directory.", "Use the path printed at the end of training.")
    found = f"{path} is a model file, not a run directory."
    if RunDir(path.parent).recipe.is_file():
        return RunError(found, f"Give the directory of its run: {shlex.quote(str(path.parent))}")
    use = f"thirtytwo predict IMAGES --model {shlex.quote(str(path))}"
    return RunError(found, f"Give the run directory that training wrote. A model file alone can classify images: {use}")


def holds_seeds(path: Path) -> bool:
    """Whether a directory holds the runs of several seeds or folds, rather than being a run itself."""
    return is_file(path / SEEDS_SUMMARY) and not is_file(path / "recipe.toml")


def lock_run_of(path: Path) -> AbstractContextManager[None]:
    """Lock the run directory that contains `path`; without such a directory, nothing is locked.

    Raises:
        RunError: another process has locked that run.
    """
    found = next((RunDir(place) for place in (path, *path.absolute().parents) if RunDir(place).recipe.is_file()), None)
    if found is None or not find_spec("filelock"):  # not installed with the `predict` dependencies alone
        return nullcontext()
    return found.writing()


def exclusive(work: Callable[P, R]) -> Callable[P, R]:
    """Decorator that locks the run directory given as first argument, or as `run`, while `work` runs.

    Raises:
        RunError: there is no such run, or another process has locked it.
    """

    @wraps(work)
    def locking(*args: P.args, **kwargs: P.kwargs) -> R:
        run: Any = args[0] if args else kwargs["run"]
        with RunDir.open(run).writing():
            return work(*args, **kwargs)

    return locking


def _create(path: Path) -> bool:
    """Create a run directory; returns whether it did not exist before."""
    return create_directory(path, RunError, "Choose another directory with --run.")
