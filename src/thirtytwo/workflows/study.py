"""Storage of tuning: an Optuna study in an SQLite file, with the arguments of the first call."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomlkit

from thirtytwo.errors import RunError, require
from thirtytwo.io import atomic_write, is_unused, write_text
from thirtytwo.process import quiet_loggers

if TYPE_CHECKING:
    import optuna

    from thirtytwo.workflows.search_space import Space

FILE = "study.db"
NAME = "thirtytwo"
ASKED = "asked"
HOW_TO_RESUME = "Resume with the same arguments, or start a new tuning with another --run."


@dataclass(frozen=True)
class TuningRequest:
    """The arguments of the first call; JSON values only."""

    data: str
    fingerprint: str
    recipe: dict[str, Any]
    changes: dict[str, Any]
    metric: str
    pruner: str
    space: dict[str, Any]

    def check_same(
        self,
        path: Path,
        data: str,
        recipe: Mapping[str, Any] | None,
        changes: Mapping[str, Any],
        metric: str | None,
        pruner: str | None,
        space: Space | None,
    ) -> None:
        """Check that the arguments given now are the same; None is not compared.

        Raises:
            RunError: some differ; the message names them.
        """
        differ = [
            f"{what} (was {before!r}, now {now!r})"
            for what, before, now in (
                ("DATA", self.data, data),
                ("--metric", self.metric, metric),
                ("--pruner", self.pruner, pruner),
                *((key, self.changes.get(key), value) for key, value in changes.items()),
            )
            if now is not None and before != now
        ]
        differ += ["--recipe"] if recipe is not None and recipe != self.recipe else []
        differ += ["--space"] if space is not None and space.to_dict() != self.space else []
        if differ:
            raise RunError(f"{path} was started with other arguments: {', '.join(differ)}.", HOW_TO_RESUME)

    def check_data(self, path: Path, fingerprint: str) -> None:
        """Check that the data is the same.

        Raises:
            RunError: its fingerprint differs.
        """
        if fingerprint != self.fingerprint:
            raise RunError(
                f"{path} was started on other data: the content of {self.data!r} has changed.", HOW_TO_RESUME
            )


def create_study(
    path: Path, request: TuningRequest, attributes: Mapping[str, Any], first: Mapping[str, Any] | None
) -> optuna.Study:
    """Create a study in `path`, complete or not at all.

    Args:
        path: the tuning directory.
        request: the arguments of the first call.
        attributes: further attributes of the study.
        first: parameters of the first trial; None: sampled.
    """
    direction = "minimize" if request.metric == "val_loss" else "maximize"
    with atomic_write(path / FILE) as temporary:
        storage = _storage(temporary, "PRAGMA journal_mode = MEMORY")  # without a second temporary file
        study: optuna.Study = _optuna().create_study(storage=storage, study_name=NAME, direction=direction)
        for name, value in {ASKED: asdict(request), **attributes}.items():
            study.set_user_attr(name, value)
        if first is not None:
            study.enqueue_trial(dict(first))
        close(study)
    return open_study(path)[0]


def open_study(path: Path) -> tuple[optuna.Study, TuningRequest]:
    """Load the study in `path`, and the arguments of the first call.

    Raises:
        RunError: it is damaged, or of another program.
    """
    damaged = RunError(
        f"{path / FILE} is damaged, or holds another program's study.",
        "Start a new tuning with another --run, without --resume.",
    )
    optuna = _optuna()
    try:
        study = optuna.load_study(study_name=NAME, storage=_storage(path / FILE))
        request = TuningRequest(**study.user_attrs[ASKED])
    except Exception as error:  # a file of another kind fails in many ways
        raise damaged from error
    if not base_recipe(path).is_file():  # killed before it was written
        write_text(base_recipe(path), tomlkit.dumps(request.recipe))
    return study, request


def base_recipe(path: Path) -> Path:
    """The recipe that a tuning was started with."""
    return path / "base.toml"


def check_study(path: Path) -> None:
    """Check that `path` is a tuning directory.

    Raises:
        RunError: it has no study.
    """
    if (path / FILE).is_file():
        return
    missing = f"it has no {FILE}"
    if path.is_dir() and is_unused(path):
        raise RunError(f"{path} holds no tuning yet: {missing}.", "Start it without --resume.")
    raise RunError(f"{path} is not a tuning directory: {missing}.", "Give the directory of the tuning run to resume.")


def close(study: optuna.Study) -> None:
    """Close the database file."""
    storage: Any = study._storage
    storage.remove_session()
    getattr(storage, "_backend", storage).engine.dispose()


def quiet_optuna() -> AbstractContextManager[None]:
    """Silence Optuna's log of every trial; tuning logs its own."""
    _optuna()  # sets its own level when it is imported
    return quiet_loggers("optuna", level=logging.WARNING)


def _optuna() -> Any:
    return require("optuna", "train")


def _storage(file: Path, setup: str = "") -> Any:
    """SQLite storage in `file`; the path may hold any characters. `setup` is executed in every connection."""

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(file, timeout=60)
        connection.execute(setup)
        return connection

    return _optuna().storages.RDBStorage(f"sqlite:///{FILE}", engine_kwargs={"creator": connect})
