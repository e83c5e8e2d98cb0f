"""Decisions on suggested fixes of a data set, kept on disk: reloading, reopening and checking again go on with them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from re import fullmatch
from threading import Lock

from pydantic import BaseModel, ConfigDict, ValidationError

from thirtytwo.data.fixes import Fix
from thirtytwo.data.types import DATASETS
from thirtytwo.errors import InputError, OutputError
from thirtytwo.io import expand_home, write_json

MAX_KEPT = 100
"""Number of data sets whose decisions are kept; those that were decided on longest ago go first."""
_IDENTITY = r"[0-9a-f]{16}"
_writing = Lock()


class Decisions(BaseModel):
    """What was suggested for a data set when it was last checked, and all decisions on it.

    Fixes are named by `fingerprint`, so that a decision holds for the same suggestion with the same evidence only.
    """

    model_config = ConfigDict(frozen=True)

    identity: str
    """Name of its file."""
    spec: str
    """The data set as it was entered."""
    place: str
    """Absolute path of the data, or its name."""
    thorough: bool = False
    """Whether the last check also looked for wrong labels."""
    changed: float = 0.0
    """Time of the last check or decision, in seconds since 1970."""
    suggested: tuple[str, ...] = ()
    decided: dict[str, bool] = {}
    """Whether a fix is accepted, also of fixes that an earlier check suggested."""

    @property
    def source(self) -> str:
        """What to check to open the same data again, whatever the current directory is."""
        return self.spec if place_of(self.spec) == self.place else self.place

    def of(self, fixes: Iterable[Fix]) -> dict[Fix, bool]:
        """The decisions on these fixes."""
        named = ((fix, fingerprint(fix)) for fix in fixes)
        return {fix: self.decided[name] for fix, name in named if name in self.decided}


@dataclass(frozen=True)
class Changes:
    """How suggestions differ from those of the check before: numbers of new ones, and of decided ones that are gone."""

    new: int = 0
    gone: int = 0
    gone_decided: int = 0

    def __bool__(self) -> bool:
        return bool(self.new or self.gone)


def changes(before: Decisions, fixes: Iterable[Fix]) -> Changes:
    """How the suggestions have changed since the last check."""
    now, then = {fingerprint(fix) for fix in fixes}, set(before.suggested)
    return Changes(len(now - then), len(then - now), sum(name in before.decided for name in then - now))


def fingerprint(fix: Fix) -> str:
    """A short name of a fix, by everything that people saw when they decided on it."""
    seen = asdict(fix)
    del seen["line"]
    return blake2b(repr(sorted(seen.items())).encode(errors="surrogatepass"), digest_size=8).hexdigest()


def place_of(spec: str) -> str:
    """The absolute path of a data set on this computer with its options; the specification of any other."""
    path, mark, options = spec.partition("?")
    if path in DATASETS.names():
        return spec
    with suppress(OSError, ValueError):
        found = expand_home(path)
        if found.exists():
            return f"{found.resolve()}{mark}{options}"
    return spec


def identity_of(spec: str, owner: str = "") -> str:
    """The identity of the decisions of an owner on a data set."""
    return blake2b(repr((place_of(spec), owner)).encode(errors="surrogatepass"), digest_size=8).hexdigest()


@dataclass(frozen=True)
class DecisionStore:
    """The decisions in a folder, one file for each data set."""

    folder: Path

    def read(self, identity: str) -> Decisions | None:
        """The decisions of this identity, which may come from an address; None where there are none."""
        if not fullmatch(_IDENTITY, identity):
            return None
        with suppress(OSError, ValidationError):
            return Decisions.model_validate_json(self._path(identity).read_bytes())
        return None

    def all(self) -> list[Decisions]:
        """All that can be read, the last changed one first."""
        found = (self.read(path.stem) for path in self.folder.glob("*.json"))
        return sorted((one for one in found if one is not None), key=lambda one: -one.changed)

    def _by_worth(self, current: str) -> list[Decisions]:
        """All that can be read: the current one first, then those with decisions, then the last changed ones."""
        return sorted(self.all(), key=lambda one: (one.identity != current, not one.decided, -one.changed))

    def put(self, found: Decisions) -> None:
        """Store what a check suggests; decisions that are stored already stay.

        Raises:
            OutputError: it cannot be written.
        """
        with _writing:
            before = self.read(found.identity)
            decided = {} if before is None else before.decided
            self._write(found.model_copy(update={"decided": decided | found.decided}))
        for old in self._by_worth(found.identity)[MAX_KEPT:]:
            self.forget(old.identity)

    def decide(self, identity: str, decided: Mapping[str, bool | None]) -> None:
        """Store decisions by fingerprint, None to take one back; others, as of another tab, stay.

        Raises:
            InputError: there are none of this identity any more.
            OutputError: they cannot be written.
        """
        with _writing:
            before = self.read(identity)
            if before is None:
                raise InputError("Your decisions on this data were deleted in another tab.", "Check the data again.")
            merged: dict[str, bool | None] = {**before.decided, **decided}
            after = {key: value for key, value in merged.items() if value is not None}
            if after != before.decided:
                self._write(before.model_copy(update={"decided": after}))

    def forget(self, identity: str) -> None:
        """Delete the decisions of this identity."""
        if fullmatch(_IDENTITY, identity):
            with suppress(OSError):
                self._path(identity).unlink(missing_ok=True)

    def _write(self, found: Decisions) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"Decisions cannot be kept in {self.folder}: {error.strerror}.") from None
        content = found.model_copy(update={"changed": time.time()}).model_dump(mode="json")
        write_json(self._path(found.identity), content)

    def _path(self, identity: str) -> Path:
        return self.folder / f"{identity}.json"
