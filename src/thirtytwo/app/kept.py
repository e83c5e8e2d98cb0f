"""Lists of images that outlive their session, so that reloading a page shows them again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from secrets import token_hex
from threading import Lock, Timer
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thirtytwo.app.photos import InputImage

KEPT_SECONDS = 3600.0
"""Time for which a list is kept after its page was closed."""
MAX_LISTS, MAX_IMAGES = 16, 4000
"""Bounds of the lists of closed pages, without those of open ones; a thumbnail takes about 6 kB of memory."""
_CHECK_SECONDS = 60.0


@dataclass
class Kept:
    """A list of images with their predictions, the session that shows it, and when that was last open."""

    session: str
    images: tuple[InputImage, ...]
    results: dict[Any, Any]
    used: float


class KeptImages:
    """The lists of images of all sessions, by an identity that only the address of the page names.

    A list is forgotten, and with it its files deleted, `KEPT_SECONDS` after its page was closed, or earlier to keep
    the bounds, the longest closed one first.

    Args:
        is_active: whether a session is open.
        seconds: time for which a list is kept.
    """

    def __init__(self, is_active: Callable[[str], bool], seconds: float = KEPT_SECONDS) -> None:
        self._is_active, self._seconds = is_active, seconds
        self._lists: dict[str, Kept] = {}
        self._lock = Lock()
        self._timer: Timer | None = None

    def take(self, identity: str, session: str) -> tuple[str, Kept | None]:
        """The list of this identity for a new session, and the identity that it has from now on.

        If another session has it open, as when a tab is duplicated, the new session gets a copy with its own identity.
        """
        with self._lock:
            found = self._lists.get(identity)
            if found is None:
                return token_hex(8), None
            if not self._is_active(found.session):
                found.session, found.used = session, monotonic()
                return identity, found
            return token_hex(8), Kept(session, found.images, dict(found.results), monotonic())

    def put(self, identity: str, session: str, images: Sequence[InputImage], results: dict[Any, Any]) -> None:
        """Store the list of a session; an empty one is forgotten."""
        with self._lock:
            if not images:
                self._lists.pop(identity, None)
                return
            self._lists[identity] = Kept(session, tuple(images), results, monotonic())
            self._forget_some()
            self._check_later()

    def __len__(self) -> int:
        return len(self._lists)

    def _forget_some(self) -> None:
        """Forget lists that were closed for too long, or that are too many."""
        now = monotonic()
        closed = []
        for identity, one in self._lists.items():
            if self._is_active(one.session):
                one.used = now
            else:
                closed.append(identity)
        closed.sort(key=lambda identity: self._lists[identity].used)
        images = sum(len(self._lists[identity].images) for identity in closed)
        count = len(closed)
        for identity in closed:
            one = self._lists[identity]
            if now - one.used >= self._seconds or count > MAX_LISTS or images > MAX_IMAGES:
                images, count = images - len(one.images), count - 1
                del self._lists[identity]

    def _check_later(self) -> None:
        if self._timer is None and self._lists:
            self._timer = Timer(min(_CHECK_SECONDS, self._seconds), self._check)
            self._timer.daemon = True
            self._timer.start()

    def _check(self) -> None:
        with self._lock:
            self._timer = None
            self._forget_some()
            self._check_later()
