"""The run directory: create, lock and open it, and read and write its artifacts.

Training writes it; evaluation, report, comparison and the app read it. No artifact uses pickle.
"""

from __future__ import annotations

import csv
import json
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from thirtytwo.arguments import given_path
from thirtytwo.config.recipe import Recipe
from thirtytwo.config.resolve import read_recipe
from thirtytwo.errors import RunError, require
from thirtytwo.io import (
    atomic_write,
    create_directory,
    expand_home,
    is_directory,
    is_file,
    is_unused,
    lock_directory,
    numbered,
    write_json,
    write_text,
)
from thirtytwo.predictions import Predictions, read_predictions_file, write_predictions_file
from thirtytwo.run_paths import holds_seeds
from thirtytwo.run_schema import find_problem
from thirtytwo.run_state import RunState, is_special
from thirtytwo.text import first_line

P = ParamSpec("P")
R = TypeVar("R")


def _parse_int(text: str) -> int:
    """An integer of a JSON file; larger ones than any that thirtytwo writes overflow where they are used."""
    value = int(text)
    if abs(value) >= 2**63:
        raise ValueError(f"the integer {text[:20]}… is too large")
    return value


class RunDir(RunState):
    """Paths of a run directory and access to its artifacts; creating the object reads and writes nothing."""

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
        if used and combining and not RunDir(path).is_interrupted_combination():
            raise RunError(f"{path} exists and is not empty.", "Choose another directory with --run.")
        if used and not combining:
            raise RunError(f"{path} exists and is not empty.", RunDir(path).how_to_continue())

    @classmethod
    def open(cls, path: Path | str) -> RunDir:
        """Open an existing run directory.

        Raises:
            RunError: it does not exist, is a file, or holds no recipe.
            ArgumentError: it is not a path, or empty.
        """
        run = cls(given_path("run", path))
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
            RunError: missing, damaged, no file, without permission, or not of the shape of `run_schema`.
        """
        if is_special(artifact):
            raise RunError(f"{artifact} is not a file.", self.restore_hint_for(artifact))
        try:
            content = json.loads(artifact.read_text(encoding="utf-8"), parse_int=_parse_int)
        except FileNotFoundError:
            raise RunError(f"{self.path} has no {artifact.name}.", self.restore_hint_for(artifact, "W")) from None
        except OSError as error:
            raise _unreadable(artifact, error) from None
        except (ValueError, RecursionError) as error:
            raise RunError(f"{artifact} is damaged: {first_line(error)}.", self.restore_hint_for(artifact)) from None
        if problem := find_problem(artifact.name, content):
            raise RunError(f"{artifact} is damaged, at {problem}.", self.restore_hint_for(artifact))
        return content

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
                f"{self.class_means} is missing or damaged: {error}.", self.restore_hint_for(self.class_means)
            ) from None
        return means

    def read_history(self) -> list[dict[str, float]]:
        """Read the metrics of each epoch, without empty cells; an empty list where there is no history.

        Raises:
            RunError: the file cannot be read, or is not a table of numbers.
        """
        if not self.history.is_file():
            return []
        try:
            with self.history.open(newline="", encoding="utf-8") as file:
                return [{key: float(cell) for key, cell in row.items() if cell} for row in csv.DictReader(file)]
        except OSError as error:
            raise _unreadable(self.history, error) from None
        except (ValueError, TypeError) as error:
            raise RunError(f"{self.history} is damaged: {error}.", "Move it away; reports then lack curves.") from None

    def write_history(self, rows: Iterable[Mapping[str, float]], columns: Iterable[str]) -> None:
        """Replace the history by these rows; a missing column becomes an empty cell."""
        with atomic_write(self.history) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(columns), restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    def write_predictions(self, split: str, predictions: Predictions, content: str = "") -> None:
        """Write the predictions for a split; see `write_predictions_file`."""
        write_predictions_file(self.predictions(split), predictions, content)

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


def _unreadable(artifact: Path, error: OSError) -> RunError:
    """The error for a file that is there and cannot be read."""
    return RunError(f"{artifact} cannot be read: {error.strerror}.", "Check its permissions.")


def _file_error(path: Path) -> RunError:
    """The error for a file where a run directory is expected: which directory to give, and what its model is for."""
    if path.suffix.lower() != ".onnx":
        return RunError(f"{path} is a file, not a run directory.", "Use the path printed at the end of training.")
    found = f"{path} is a model file, not a run directory."
    if RunDir(path.parent).recipe.is_file():
        return RunError(found, f"Give the directory of its run: {shlex.quote(str(path.parent))}")
    use = f"thirtytwo predict IMAGES --model {shlex.quote(str(path))}"
    return RunError(found, f"Give the run directory that training wrote. A model file alone can classify images: {use}")


def lock_run_of(path: Path) -> AbstractContextManager[None]:
    """Lock the run directory that contains `path`; without such a directory, nothing is locked.

    Raises:
        RunError: another process has locked that run.
    """
    found = next((RunDir(place) for place in (path, *path.absolute().parents) if _is_run(RunDir(place))), None)
    if found is None or not find_spec("filelock"):  # not installed with the `predict` dependencies alone
        return nullcontext()
    return found.writing()


def _is_run(run: RunDir) -> bool:
    """Whether training or combining wrote a folder; one that holds a recipe alone may be a project of the user's."""
    return run.recipe.is_file() and (run.environment.is_file() or run.split.is_file())


def exclusive(work: Callable[P, R]) -> Callable[P, R]:
    """Decorator that locks the run directory given as first argument, or as `run`, while `work` runs.

    Raises:
        RunError: there is no such run, or another process has locked it.
    """

    @wraps(work)
    def locking(*args: P.args, **kwargs: P.kwargs) -> R:
        if not args and "run" not in kwargs:
            return work(*args, **kwargs)  # Python says which argument is missing
        run: Any = args[0] if args else kwargs["run"]
        with RunDir.open(run).writing():
            return work(*args, **kwargs)

    return locking


def _create(path: Path) -> bool:
    """Create a run directory; returns whether it did not exist before."""
    return create_directory(path, RunError, "Choose another directory with --run.")
