"""Names to factories: how data sets, models, augmentations and export formats are found and extended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from thirtytwo.errors import ThirtytwoError, UnknownNameError, did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """A table of names; other packages add rows through the entry-point group `thirtytwo.<kind>s`."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._rows: dict[str, T] = {}
        self._outside: dict[str, EntryPoint] | None = None

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that adds a row."""

        def add(row: T) -> T:
            if name in self._rows:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._rows[name] = row
            return row

        return add

    def get(self, name: str) -> T:
        """The row called `name`.

        Raises:
            UnknownNameError: no such row; names close matches.
            ThirtytwoError: another package's row, and that package is broken.
        """
        if name not in self._rows:
            self._rows[name] = self._load(name)
        return self._rows[name]

    def names(self) -> list[str]:
        """Every name, sorted."""
        return sorted({*self._rows, *self._points()})

    def __contains__(self, name: object) -> bool:
        return name in self._rows or name in self._points()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def _points(self) -> dict[str, EntryPoint]:
        """What other packages offer; nothing of theirs is imported before it is asked for."""
        if self._outside is None:
            group = f"thirtytwo.{self.kind.replace(' ', '_')}s"
            self._outside = {point.name: point for point in entry_points(group=group)}
        return self._outside

    def _load(self, name: str) -> T:
        point = self._points().get(name)
        if point is None:
            raise UnknownNameError(f"Unknown {self.kind} {name!r}.", did_you_mean(name, self.names()))
        try:
            row: T = point.load()
        except Exception as error:
            package = point.dist.name if point.dist else point.value
            raise ThirtytwoError(
                f"{self.kind.capitalize()} {name!r} of the package {package!r} could not be loaded: {error}.",
                f"Update or uninstall {package!r}.",
            ) from error
        return row
