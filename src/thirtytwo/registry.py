"""Registries map names to factories of data sets, models, augmentations and export formats; plug-ins extend them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from thirtytwo.errors import ThirtytwoError, UnknownNameError, did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """Factories by name; other packages add entries through the entry-point group `thirtytwo.<kind>s`, or `group`."""

    def __init__(self, kind: str, group: str | None = None) -> None:
        self.kind = kind
        self.group = group or f"thirtytwo.{kind.replace(' ', '_')}s"
        self._entries: dict[str, T] = {}
        self._plugins: dict[str, EntryPoint] | None = None

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that registers an object under `name`; a ValueError where the name is taken."""

        def add(entry: T) -> T:
            if name in self._entries:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._entries[name] = entry
            return entry

        return add

    def get(self, name: str) -> T:
        """The object registered under `name`.

        Raises:
            UnknownNameError: no such name; suggests close matches.
            ThirtytwoError: the name belongs to another package, which could not be imported.
        """
        if name not in self._entries:
            self._entries[name] = self._load(name)
        return self._entries[name]

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted({*self._entries, *self._entry_points()})

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._entry_points()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def _entry_points(self) -> dict[str, EntryPoint]:
        """Entry points of other packages by name; a package is imported only when its entry is used."""
        if self._plugins is None:
            self._plugins = {point.name: point for point in entry_points(group=self.group)}
        return self._plugins

    def _load(self, name: str) -> T:
        point = self._entry_points().get(name)
        if point is None:
            raise UnknownNameError(f"Unknown {self.kind} {name!r}.", did_you_mean(name, self.names()))
        try:
            entry: T = point.load()
        except Exception as error:
            package = point.dist.name if point.dist else point.value
            raise ThirtytwoError(
                f"{self.kind.capitalize()} {name!r} of the package {package!r} could not be loaded: {error}.",
                f"Update or uninstall {package!r}.",
            ) from error
        return entry
