"""The camera of the page Add classes: bursts of frames into a class, and live answers of the taught model.

The browser takes the frames (camera.js) and sends them as JPEG: a burst when it ends, at most 4 frames a second of 640
pixels; for live answers one frame of 320 pixels at a time, and the next one only after the answer.
"""

from __future__ import annotations

import base64
from datetime import datetime
from pathlib import Path
from typing import Any

import streamlit as st

from thirtytwo.app import session
from thirtytwo.app.certainty import certainty
from thirtytwo.app.components import with_errors
from thirtytwo.app.library import Entry, load_classifier, taught_entry
from thirtytwo.app.problems import explained
from thirtytwo.app.project import Project
from thirtytwo.errors import ThirtytwoError
from thirtytwo.inference.classifier import Prediction
from thirtytwo.text import as_markdown, percent, readable

_KEY, _STORED, _ADDED, _FRAME, _ANSWER = "camera", "camera-stored", "camera-added", "camera-frame", "camera-answer"
_PROBLEM = "camera-problem"
MAX_FRAMES, MAX_FRAME_BYTES = 60, 1 << 20
"""Bounds of what is accepted of a browser: frames of a burst, and the size of each."""
_CLASSES_SHOWN = 5
_START = "data:image/jpeg;base64,"


@st.fragment
@with_errors
def camera() -> None:
    """Show the camera; bursts are added to the project, and live answers given by its model."""
    project = session.current()
    entry = taught_entry(project)
    frame = st.session_state.pop(_FRAME, None)
    if frame is not None and entry is not None:
        st.session_state[_ANSWER] = answer(entry, *frame)
    with st.container(border=True, key="camera-box"):
        _component()(
            key=_KEY,
            data=_data(project, live=entry is not None),
            on_burst_change=_take_burst,
            on_frame_change=_take_frame,
        )
    if problem := st.session_state.pop(_PROBLEM, ""):
        st.error(as_markdown(problem), icon=":material/error:")
    elif st.session_state.pop(_ADDED, False):
        st.rerun()  # the page shows the new images


def answer(entry: Entry, identity: str, frame: bytes) -> dict[str, Any]:
    """The answer to a frame: headline, and the classes as name, share in percent and share."""
    result = load_classifier(entry).predict([frame], _CLASSES_SHOWN)[0]
    if not isinstance(result, Prediction):
        return {"id": identity, "top": "The frame cannot be read.", "shares": []}
    doubt = "" if (words := certainty(result)) == "sure" else f" ({words})"
    shares = [(readable(name), percent(value), value) for name, value in result.predictions]
    return {"id": identity, "top": readable(result.top) + doubt, "shares": shares}


def decode_frame(text: object) -> bytes | None:
    """A frame from its data URI; None if it is none, or too large."""
    if not isinstance(text, str) or not text.startswith(_START) or len(text) > 2 * MAX_FRAME_BYTES:
        return None
    try:
        return base64.b64decode(text[len(_START) :], validate=True)
    except ValueError:
        return None


def _data(project: Project, *, live: bool) -> dict[str, Any]:
    return {
        "classes": [
            {"number": one.number, "name": one.name or f"class {position}", "count": len(one.readable)}
            for position, one in enumerate(project.classes, start=1)
        ],
        "stored": st.session_state.get(_STORED, ""),
        "answer": st.session_state.get(_ANSWER),
        "live": live,
    }


def _take_burst() -> None:
    """Add the frames of a burst to its class; one that was sent twice is added once."""
    burst = st.session_state[_KEY].get("burst")
    if not isinstance(burst, dict) or burst["id"] == st.session_state.get(_STORED):
        return
    frames = [found for one in burst["frames"][:MAX_FRAMES] if (found := decode_frame(one)) is not None]
    time = datetime.now().strftime("%H-%M-%S")
    files = [(f"camera {time} {number}.jpg", frame) for number, frame in enumerate(frames, start=1)]
    st.session_state[_STORED], st.session_state[_ADDED] = str(burst["id"]), True
    try:
        session.add_photos(session.target(), int(burst["number"]), files)
    except ThirtytwoError as error:
        st.session_state[_PROBLEM] = explained(error)


def _take_frame() -> None:
    found = st.session_state[_KEY].get("frame")
    frame = decode_frame(found["frame"]) if isinstance(found, dict) else None
    if isinstance(found, dict) and frame is not None:
        st.session_state[_FRAME] = (str(found["id"]), frame)


@st.cache_resource(show_spinner=False)
def _component() -> Any:
    html, css, js = (Path(__file__).with_name(f"camera.{kind}").read_text("utf-8") for kind in ("html", "css", "js"))
    return st.components.v2.component("thirtytwo_camera", html=html, css=css, js=js, isolate_styles=False)
