"""Taking in uploaded images step by step: where another page is opened meanwhile, the rest is taken in there.

A click ends a run of Streamlit's script, and with it any loop in it; what a browser uploaded is then forgotten. Here
the loop is a generator, which the next run of the script continues.
"""

from __future__ import annotations

from collections.abc import Iterator

import streamlit as st

from thirtytwo.text import counted

_STEPS = "images that are taken in"
_PROGRESS_FROM = 12
"""Number of images from which progress is shown."""

Steps = Iterator[tuple[int, int]]
"""Takes in some images at each step, and yields how many were taken in and how many there are; it draws nothing."""


def take_in(steps: Steps) -> None:
    """Take in images to the end of `steps`, or to the next click; shows the progress.

    Raises:
        ThirtytwoError: as the steps; the rest is then left out.
    """
    st.session_state[_STEPS] = steps
    go_on()


def go_on() -> None:
    """Take in the images that a click left waiting; raises as `take_in`. Called at the start of a run."""
    steps: Steps | None = st.session_state.get(_STEPS)
    if steps is None:
        return
    bar = None
    try:
        for done, total in steps:
            if total >= _PROGRESS_FROM:
                text = f"Read {done} of {counted(total, 'image')}"
                bar = st.progress(done / total, text) if bar is None else bar.progress(done / total, text)
    except Exception:
        st.session_state.pop(_STEPS, None)
        raise
    st.session_state.pop(_STEPS, None)
    if bar is not None:
        bar.empty()
