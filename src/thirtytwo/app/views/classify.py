"""The page Classify: predictions and heatmaps for images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import streamlit as st

from thirtytwo.app.components import (
    card,
    choose_model,
    percent_column,
    show_vocabulary,
    spoken,
    title,
    with_percentages,
)
from thirtytwo.app.display import Result, as_csv, as_json, as_zip, classify, heat_method, render
from thirtytwo.app.frame import announce
from thirtytwo.app.images import image_input
from thirtytwo.app.library import Entry, info_of, load_classifier
from thirtytwo.app.photos import InputImage
from thirtytwo.inference.classifier import Prediction, UnreadableImage
from thirtytwo.text import as_markdown, readable

IMAGES_PER_PAGE = 8
_MAX_SPOKEN = 3


def show() -> None:
    """Show the page."""
    title("Classify images", "Drop images below, or paste one with Ctrl+V. No data leaves this computer.")
    entry = choose_model()
    show_vocabulary(info_of(entry))
    images = image_input()
    if not images:
        st.info(
            "Add an image to classify it, or try the samples.",
            icon=":material/add_photo_alternate:",
        )
        return
    results = classify(entry, images)
    announce(summary(results))
    classes = len(load_classifier(entry).classes)
    top, heat = _options(entry, classes)
    if len(results) > 1:
        st.markdown(f"{counts(results)}.")
    cards(entry, images, results, top, heat=heat)
    if len(results) > 1:
        results_table(results)
    downloads(entry, images, results, top)


def cards(
    entry: Entry, images: Sequence[InputImage], results: Sequence[Result], top: int, *, heat: bool, key: str = "cards"
) -> None:
    """Show each image with its prediction, a page at a time."""
    pages = -(-len(images) // IMAGES_PER_PAGE)
    first = 0
    if pages > 1:
        first = (st.pagination(pages, key=f"{key}-page-{len(images)}") - 1) * IMAGES_PER_PAGE
    for image, result in list(zip(images, results, strict=True))[first : first + IMAGES_PER_PAGE]:
        with st.container(border=True):
            if isinstance(result, UnreadableImage):
                st.warning(as_markdown(result.error), icon=":material/broken_image:")
            else:
                st.html(card(image.name, result, render(entry, image, heat=heat), top, heat=heat))


def results_table(results: Sequence[Result]) -> None:
    """Show all results as a table."""
    rows = [
        {"file": one.file, "class": readable(one.top), "confidence": one.confidence, "known": one.known, "error": ""}
        if isinstance(one, Prediction)
        else {"file": one.file, "class": None, "confidence": None, "known": None, "error": one.error}
        for one in results
    ]
    if all(isinstance(one, Prediction) for one in results):
        for row in rows:
            del row["error"]
    st.subheader("All results", anchor=False)
    st.dataframe(
        with_percentages(rows, "confidence"),
        hide_index=True,
        column_config={"confidence": percent_column()},
        alt="Results, one row per image",
    )


def downloads(entry: Entry, images: Sequence[InputImage], results: Sequence[Result], top: int) -> None:
    """Show buttons to download the results."""
    with st.container(horizontal=True, key="downloads"):
        button = partial(st.download_button, on_click="ignore", icon=":material/download:")
        button("CSV", as_csv(results, top), "predictions.csv", "text/csv", key="csv", help="One row per image")
        button("JSON", as_json(results, top), "predictions.json", "application/json", key="json")
        if any(isinstance(one, Prediction) for one in results):
            create_zip = partial(as_zip, entry, list(images), list(results))
            button("Heatmaps (ZIP)", create_zip, "heatmaps.zip", "application/zip", key="zip", help="PNG overlays")


def _options(entry: Entry, classes: int) -> tuple[int, bool]:
    with st.container(horizontal=True, vertical_alignment="center", key="options"):
        heat = st.toggle("Show heatmap", key="heat", persist_state="session")
        most = min(10, classes)
        top = most
        if most > 1:
            top = st.slider(
                "Classes shown", 1, most, min(5, most), key=f"top-{most}", width=220, persist_state="session"
            )
    if heat:
        st.caption(heat_method(load_classifier(entry)))
    return top, heat


def summary(results: Sequence[Result]) -> str:
    """The results as a sentence for screen readers: the answers for a few images, else their number and the last."""
    answers = [f"{one.file}: {spoken(one) if isinstance(one, Prediction) else 'could not be read'}" for one in results]
    if len(answers) <= _MAX_SPOKEN:
        return f"{'; '.join(answers)}."
    return f"{counts(results)}. The last one, {answers[-1]}."


def counts(results: Sequence[Result]) -> str:
    """How many images were classified, are unknown and could not be read."""
    unreadable = sum(isinstance(one, UnreadableImage) for one in results)
    unknown = sum(isinstance(one, Prediction) and not one.known for one in results)
    parts = [f"{len(results) - unreadable} images classified"]
    parts += [f"{unknown} of them may be something the model doesn’t know"] if unknown else []
    parts += [f"{unreadable} could not be read"] if unreadable else []
    return "; ".join(parts)
