"""A progress bar where someone can see one: on a terminal or in a notebook; none elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from thirtytwo.text import SPACE, as_html, duration

T = TypeVar("T")

_BAR_WIDTH, _BESIDE = 20, len("  100 %  00:00:00")
"""Width of a bar on a terminal, and of its share, the time left and the gaps between them, in characters."""
NOTEBOOK_SECONDS = 0.25
"""Least time between two updates of a page, each of which is a message to the browser."""


class Bar(Protocol):
    """A progress bar that is shown until it is closed."""

    def update(self, done: int, *, title: str, text: str = "") -> None:
        """Show `done` steps, a title before the bar, and a text behind it."""

    def close(self) -> None:
        """Leave the bar as it is, or remove it if it is transient."""


def in_notebook() -> bool:
    """Whether this runs in a kernel of IPython, whose output is a page: Jupyter, Colab and the like."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


_hidden = False


@contextmanager
def hidden() -> Iterator[None]:
    """Show no bars while the block runs, as in a process that works along with another one."""
    global _hidden
    before, _hidden = _hidden, True
    try:
        yield
    finally:
        _hidden = before


def open_bar(title: str, total: int, *, done: int = 0, transient: bool = False) -> Bar | None:
    """A bar in a notebook, or on standard error if that is a terminal; None elsewhere.

    Args:
        title: text before the bar.
        total: number of steps.
        done: number of steps that are done already.
        transient: remove the bar when it is closed.
    """
    if _hidden:
        return None
    if in_notebook():
        return NotebookBar(title, total, done=done, transient=transient)
    return TerminalBar(title, total, done=done, transient=transient) if sys.stderr.isatty() else None


def tracked(items: Sequence[T], title: str) -> Iterator[T]:
    """Iterate over items and show a transient bar, if there are several."""
    bar = open_bar(title, len(items), transient=True) if len(items) > 1 else None
    try:
        for number, item in enumerate(items, 1):
            yield item
            if bar is not None:
                bar.update(number, title=title)
    finally:
        if bar is not None:
            bar.close()


class TerminalBar:
    """Rich's bar on standard error."""

    def __init__(self, title: str, total: int, *, done: int = 0, transient: bool = False) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=_BAR_WIDTH),
            TextColumn(f"{{task.percentage:>3.0f}}{SPACE}%"),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=transient,
        )
        self._bar.start()
        self._task = self._bar.add_task(title, total=total, completed=done, text="")

    def update(self, done: int, *, title: str, text: str = "") -> None:
        """As `Bar` says."""
        # cut off here: Rich would shrink the title and the bar as well
        room = max(0, self._bar.console.width - len(title) - _BAR_WIDTH - _BESIDE)
        self._bar.update(self._task, completed=done, description=title, text=_fitting(text, room))

    def close(self) -> None:
        """As `Bar` says."""
        self._bar.stop()


def _fitting(text: str, room: int) -> str:
    """The first parts of a text, which two spaces divide, that fit in so many characters."""
    parts = text.split("  ")
    while parts and len("  ".join(parts)) > room:
        parts.pop()
    return "  ".join(parts)


class NotebookBar:
    """A bar in the output of a notebook's cell; needs no widgets, so that it is also in the saved notebook."""

    def __init__(self, title: str, total: int, *, done: int = 0, transient: bool = False) -> None:
        self._display: Any = import_module("IPython.display")
        self._total, self._first, self._transient = max(total, 1), done, transient
        self._shown = self._start = time.monotonic()
        self._last = (done, title, "")
        self._handle = self._display.display(self._html(*self._last), display_id=True)

    def update(self, done: int, *, title: str, text: str = "") -> None:
        """As `Bar` says."""
        self._last = (done, title, text)
        if done >= self._total or time.monotonic() - self._shown >= NOTEBOOK_SECONDS:
            self._shown = time.monotonic()
            self._handle.update(self._html(*self._last))

    def close(self) -> None:
        """As `Bar` says."""
        self._handle.update(self._display.HTML("") if self._transient else self._html(*self._last))

    def _html(self, done: int, title: str, text: str) -> Any:
        share = min(1.0, done / self._total)
        left = self._left(done)
        parts = (f"{100 * share:.0f}{SPACE}%", text, f"about {duration(left)} left" if left else "")
        behind = " · ".join(as_html(part) for part in parts if part)
        return self._display.HTML(
            f'<div style="font:13px sans-serif">{as_html(title)} '
            f'<progress value="{share:.3f}" max="1" style="width:16em;vertical-align:middle"></progress> {behind}</div>'
        )

    def _left(self, done: int) -> float:
        """Seconds left at the mean rate so far; 0 where there is none yet, or nothing is left."""
        new = done - self._first
        elapsed = time.monotonic() - self._start
        return elapsed / new * (self._total - done) if new > 0 and elapsed > 1 and done < self._total else 0.0
