"""Components shared by several pages."""

from __future__ import annotations

import streamlit as st

from thirtytwo.app.library import Entry, entries, index_of_selected, info_of, select_model
from thirtytwo.app.markup import percent
from thirtytwo.errors import ThirtytwoError
from thirtytwo.inference.model_file import ModelInfo
from thirtytwo.text import as_markdown

NO_MODEL = """
This page needs a model, and there is none yet. Either

- train one on bundled images in a few minutes: `thirtytwo demo`, then open the app again,
- train one on your own images: `thirtytwo train FOLDER`, with one folder per class,
- or add a `model.onnx` file made by thirtytwo:
"""


def title(text: str, description: str) -> None:
    """Show the title and the description of a page."""
    st.title(text, anchor=False)
    st.markdown(description)


def choose_model(label: str = "Model", *, key: str = "model") -> Entry:
    """Show a selection of the available models; without any, show how to get one and stop the page."""
    found = entries()
    if not found:
        require_model()
    names = [entry.name for entry in found]
    if st.session_state.get(key) not in names:
        st.session_state.pop(key, None)
    name = st.selectbox(label, names, index=index_of_selected(found), key=key)
    entry = found[names.index(name)]
    select_model(entry)
    st.caption(describe(info_of(entry)))
    return entry


def require_model() -> None:
    """Show how to get a model, offer an upload, and stop the page."""
    from thirtytwo.app.views.models import upload

    with st.container(border=True):
        st.markdown(NO_MODEL)
        upload()
    st.stop()


def describe(info: ModelInfo) -> str:
    """Describe a model in one line of Markdown."""
    accuracy = "" if info.accuracy is None else f" · {percent(info.accuracy)} test accuracy"
    size, dataset, architecture = info.input_size, as_markdown(info.dataset), as_markdown(info.architecture)
    return f"{len(info.classes)} classes of {dataset}{accuracy} · input {size}×{size} pixels · {architecture}"


def show_error(error: ThirtytwoError) -> None:
    """Show an error and how to fix it."""
    st.error(as_markdown(f"{error.message} {error.fix or ''}"), icon=":material/error:")
