"""Pieces that several pages share."""

from __future__ import annotations

import streamlit as st

from thirtytwo.app.library import Entry, choose, chosen, entries, info_of
from thirtytwo.app.markup import percent
from thirtytwo.errors import ThirtytwoError
from thirtytwo.inference.model_file import ModelInfo
from thirtytwo.text import as_markdown

NO_MODEL = """
There is no model yet, and this page needs one. Either

- train one on images that come along, in a few minutes: `thirtytwo demo`, then open the app again,
- train one on your own: `thirtytwo train FOLDER`, with one folder of images for each class,
- or, if you have a `model.onnx` of thirtytwo already, add it here:
"""


def title(text: str, lead: str) -> None:
    """The head of a page and, below it, what can be done there."""
    st.title(text, anchor=False)
    st.markdown(lead)


def choose_model(label: str = "Model", *, key: str = "model") -> Entry:
    """Ask for one of the models at hand; without any, the page says how to get one and ends there."""
    found = entries()
    if not found:
        no_model()
    names = [entry.name for entry in found]
    if st.session_state.get(key) not in names:
        st.session_state.pop(key, None)
    name = st.selectbox(label, names, index=chosen(found), key=key)
    entry = found[names.index(name)]
    choose(entry)
    st.caption(describe(info_of(entry)))
    return entry


def no_model() -> None:
    """Say how to get a model, take one, and end the page."""
    from thirtytwo.app.views.models import upload

    with st.container(border=True):
        st.markdown(NO_MODEL)
        upload()
    st.stop()


def describe(info: ModelInfo) -> str:
    """A model in a line of Markdown."""
    tested = "" if info.accuracy is None else f" · {percent(info.accuracy)} right on test"
    size, dataset, architecture = info.input_size, as_markdown(info.dataset), as_markdown(info.architecture)
    return f"{len(info.classes)} classes of {dataset}{tested} · sees {size}×{size} pixels · {architecture}"


def mistake(error: ThirtytwoError) -> None:
    """Tell a mistake and what to do about it."""
    st.error(as_markdown(f"{error.message} {error.fix or ''}"), icon=":material/error:")
