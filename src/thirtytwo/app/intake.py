"""Taking in uploaded images in portions: where another page is opened meanwhile, the rest is taken in there.

A click ends a run of Streamlit's script wherever it is, and what a browser uploaded is then forgotten. Here the
portions that are left are kept in the session, and the next run of the script takes them in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from threading import Lock

import streamlit as st

from thirtytwo.text import counted

_INTAKE = "images that are taken in"
_PROGRESS_FROM = 12
"""Number of images from which progress is shown."""


@dataclass(frozen=True)
class Portion:
    """A number of images, and the function that takes them in; it is called again where a click ended it."""

    images: int
    take: Callable[[], None]


@dataclass(eq=False)
class _Intake:
    """Portions that are left, and the number of images of all; the run that a click ended may not have ended yet."""

    portions: deque[Portion]
    total: int
    lock: Lock = field(default_factory=Lock)


def take_in(portions: Iterable[Portion]) -> None:
    """Take in all portions, or those until the next click; shows the progress.

    Raises:
        ThirtytwoError: as the portions; the rest is then left out.
    """
    waiting = deque(portions)
    st.session_state[_INTAKE] = _Intake(waiting, sum(one.images for one in waiting))
    go_on()


def go_on() -> None:
    """Take in the portions that a click left waiting; raises as `take_in`. Called at the start of a run."""
    found: _Intake | None = st.session_state.get(_INTAKE)
    if found is None:
        return
    bar = None
    try:
        while found.portions:
            done = found.total - sum(one.images for one in found.portions)
            if found.total >= _PROGRESS_FROM:
                text = f"Read {done} of {counted(found.total, 'image')}"
                bar = st.progress(done / found.total, text) if bar is None else bar.progress(done / found.total, text)
            with found.lock:
                if found.portions:
                    found.portions[0].take()
                    found.portions.popleft()
    except Exception:
        st.session_state.pop(_INTAKE, None)
        raise
    st.session_state.pop(_INTAKE, None)
    if bar is not None:
        bar.empty()
