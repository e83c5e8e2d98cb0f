"""Where tuning keeps its trials: an Optuna study in an SQLite file, with what was asked for at first."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thirtytwo.errors import RunError, require
from thirtytwo.process import quiet_loggers

if TYPE_CHECKING:
    import optuna

    from thirtytwo.workflows.search_space import Space

FILE = "study.db"
NAME = "thirtytwo"
ASKED = "asked"
MENDED = "Resume as it was begun, or start anew with another --run."


@dataclass(frozen=True)
class Asked:
    """How tuning was called at first; JSON throughout."""

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
        """Whether it is called alike now, as far as something is said.

        Raises:
            RunError: names what differs.
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
            raise RunError(f"{path} was begun otherwise: {', '.join(differ)}.", MENDED)

    def check_data(self, path: Path, fingerprint: str) -> None:
        """Whether the pictures are the same as at first.

        Raises:
            RunError: they are not.
        """
        if fingerprint != self.fingerprint:
            raise RunError(f"{path} was begun on other data: {self.data!r} as it was then.", MENDED)


def begin_study(path: Path, asked: Asked) -> optuna.Study:
    """A new study in `path`."""
    direction = "minimize" if asked.metric == "val_loss" else "maximize"
    study: optuna.Study = _optuna().create_study(storage=_storage(path / FILE), study_name=NAME, direction=direction)
    study.set_user_attr(ASKED, asdict(asked))
    return study


def open_study(path: Path) -> tuple[optuna.Study, Asked]:
    """The study in `path`, and how it was begun.

    Raises:
        RunError: it is damaged, or it is not one of tuning.
    """
    misfit = RunError(
        f"{path / FILE} is damaged, or holds another program's study.",
        "Start anew with another --run, without --resume.",
    )
    optuna = _optuna()
    try:
        study = optuna.load_study(study_name=NAME, storage=_storage(path / FILE))
        asked = Asked(**study.user_attrs[ASKED])
    except Exception as error:  # a file of something else fails in many ways
        raise misfit from error
    if not (path / "base.toml").is_file():
        raise RunError(f"{path} has no base.toml, the recipe it was begun with.", MENDED)
    return study, asked


def check_there(path: Path) -> None:
    """Whether `path` is a directory of tuning.

    Raises:
        RunError: it holds no study.
    """
    if not (path / FILE).is_file():
        raise RunError(
            f"{path} holds no tuning to resume: it has no {FILE}.", "Give the directory tuning was to write."
        )


def close(study: optuna.Study) -> None:
    """Let go of the file."""
    storage: Any = study._storage
    storage.remove_session()
    getattr(storage, "_backend", storage).engine.dispose()


def quiet_optuna() -> AbstractContextManager[None]:
    """Without Optuna's notes on every trial, which are told here in other words."""
    _optuna()  # sets its own level when it is imported
    return quiet_loggers("optuna", level=logging.WARNING)


def _optuna() -> Any:
    return require("optuna", "train")


def _storage(file: Path) -> Any:
    """SQLite in `file`, whatever characters its path has."""

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(file, timeout=60)

    return _optuna().storages.RDBStorage(f"sqlite:///{FILE}", engine_kwargs={"creator": connect})
