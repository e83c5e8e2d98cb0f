"""What is in the images?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import streamlit as st

from thirtytwo.app.components import choose_model, title
from thirtytwo.app.display import drawn, heat_method
from thirtytwo.app.images import InputImage, image_input
from thirtytwo.app.library import Entry, opened
from thirtytwo.app.markup import card
from thirtytwo.app.results import Result, as_csv, as_json, as_zip, tell
from thirtytwo.inference.classifier import Prediction, Unreadable
from thirtytwo.text import as_markdown

ON_A_PAGE = 8


def show() -> None:
    """The page."""
    title("What is in the image?", "Drop images below, or paste one with Ctrl+V. Nothing leaves this computer.")
    entry = choose_model()
    images = image_input()
    if not images:
        st.info(
            "Add an image to see what the model makes of it, or try the samples.",
            icon=":material/add_photo_alternate:",
        )
        return
    results = tell(entry, images)
    classes = len(opened(entry).classes)
    top, heat = _options(entry, classes)
    if len(results) > 1:
        _summary(results)
    cards(entry, images, results, top, heat=heat)
    if len(results) > 1:
        table(results)
    downloads(entry, images, results, top)


def cards(
    entry: Entry, images: Sequence[InputImage], results: Sequence[Result], top: int, *, heat: bool, key: str = "cards"
) -> None:
    """Each image with what the model says of it, a few at a time."""
    pages = -(-len(images) // ON_A_PAGE)
    first = 0
    if pages > 1:
        first = (st.pagination(pages, key=f"{key}-page-{len(images)}") - 1) * ON_A_PAGE
    for image, result in list(zip(images, results, strict=True))[first : first + ON_A_PAGE]:
        with st.container(border=True):
            if isinstance(result, Unreadable):
                st.warning(as_markdown(result.error), icon=":material/broken_image:")
            else:
                st.html(card(image.name, result, drawn(entry, image, heat=heat), top, heat=heat))


def table(results: Sequence[Result]) -> None:
    """Every result in a row."""
    rows = [
        {"file": one.file, "class": one.top, "confidence": one.confidence, "known": one.known, "problem": ""}
        if isinstance(one, Prediction)
        else {"file": one.file, "class": None, "confidence": None, "known": None, "problem": one.error}
        for one in results
    ]
    if all(isinstance(one, Prediction) for one in results):
        for row in rows:
            del row["problem"]
    st.subheader("All results", anchor=False)
    bar = st.column_config.ProgressColumn(format="percent", min_value=0.0, max_value=1.0)
    st.dataframe(rows, hide_index=True, column_config={"confidence": bar}, alt="Results, one row per image")


def downloads(entry: Entry, images: Sequence[InputImage], results: Sequence[Result], top: int) -> None:
    """The results to take away."""
    with st.container(horizontal=True, key="downloads"):
        take = partial(st.download_button, on_click="ignore", icon=":material/download:")
        take("CSV", as_csv(results, top), "predictions.csv", "text/csv", key="csv", help="One row per image")
        take("JSON", as_json(results, top), "predictions.json", "application/json", key="json")
        if any(isinstance(one, Prediction) for one in results):
            make = partial(as_zip, entry, list(images), list(results))
            take("Heatmaps (ZIP)", make, "heatmaps.zip", "application/zip", key="zip", help="Images with heat, as PNG")


def _options(entry: Entry, classes: int) -> tuple[int, bool]:
    with st.container(horizontal=True, vertical_alignment="center", key="options"):
        heat = st.toggle("Show where the model looks", key="heat", persist_state="session")
        most = min(10, classes)
        top = most
        if most > 1:
            top = st.slider(
                "Classes shown", 1, most, min(5, most), key=f"top-{most}", width=220, persist_state="session"
            )
    if heat:
        st.caption(heat_method(opened(entry)))
    return top, heat


def _summary(results: Sequence[Result]) -> None:
    unreadable = sum(isinstance(one, Unreadable) for one in results)
    unknown = sum(isinstance(one, Prediction) and not one.known for one in results)
    parts = [f"{len(results) - unreadable} images classified"]
    parts += [f"{unknown} of them unlike anything in training"] if unknown else []
    parts += [f"{unreadable} could not be read"] if unreadable else []
    st.markdown("; ".join(parts) + ".")
