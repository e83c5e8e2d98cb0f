"""The page Compare: predictions of several models for the same images."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import streamlit as st

from thirtytwo.app.components import describe, require_model, side_by_side, title
from thirtytwo.app.display import Result, classify, view
from thirtytwo.app.images import image_input
from thirtytwo.app.library import Entry, entries, index_of_selected, info_of
from thirtytwo.inference.classifier import Prediction, UnreadableImage
from thirtytwo.text import as_markdown

MAX_MODELS = 4
IMAGES_PER_PAGE = 8
_TOP = 3


def show() -> None:
    """Show the page."""
    title("Compare models", "Classify the same images with two to four models and see where they agree.")
    found = entries()
    if not found:
        require_model()
    if len(found) < 2:
        st.info(
            f"There is only one model, {as_markdown(found[0].name)}. Train another one, add classes to it, or add a "
            "file on the page Models.",
            icon=":material/balance:",
        )
        return
    models = _choose(found)
    if len(models) < 2:
        st.info("Choose at least two models.", icon=":material/balance:")
        return
    images = image_input()
    if not images:
        st.info("Add images to compare the models' predictions.", icon=":material/add_photo_alternate:")
        return
    results = {entry.name: classify(entry, images) for entry in models}
    rows = list(zip(images, zip(*results.values(), strict=True), strict=True))
    readable = [(image, row) for image, row in rows if not isinstance(row[0], UnreadableImage)]
    for _, row in rows:
        if isinstance(row[0], UnreadableImage):
            st.warning(as_markdown(row[0].error), icon=":material/broken_image:")
    if not readable:
        return
    agreeing = sum(agree(row) for _, row in readable)
    both = "Both" if len(models) == 2 else f"All {len(models)}"
    st.markdown(f"**{both} predict the same class for {agreeing} of {len(readable)} images.**")
    if 0 < agreeing < len(readable) and st.toggle("Only where they differ", key="differing"):
        readable = [(image, row) for image, row in readable if not agree(row)]
    pages = -(-len(readable) // IMAGES_PER_PAGE)
    first = (st.pagination(pages, key=f"compare-page-{len(readable)}") - 1) * IMAGES_PER_PAGE if pages > 1 else 0
    for image, row in readable[first : first + IMAGES_PER_PAGE]:
        with st.container(border=True):
            names = list(zip(results, _predictions(row), strict=True))
            st.html(side_by_side(image.name, view(image.data), names, _TOP, agree=agree(row)))
    st.download_button(
        "CSV",
        as_csv(results),
        "comparison.csv",
        "text/csv",
        key="compare-csv",
        on_click="ignore",
        icon=":material/download:",
    )


def agree(row: Sequence[Result]) -> bool:
    """Whether all predict the same top class, and all or none as known."""
    found = _predictions(row)
    return len({one.top for one in found}) == 1 and len({one.known for one in found}) == 1


def as_csv(results: dict[str, list[Result]]) -> str:
    """One row per image: the prediction of each model, and whether they agree."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        ["file", *(f"{name}: {what}" for name in results for what in ("class", "confidence", "known")), "agree"]
    )
    for row in zip(*results.values(), strict=True):
        if isinstance(row[0], UnreadableImage):
            continue
        found = _predictions(row)
        cells = [cell for one in found for cell in (one.top, one.confidence, str(one.known).lower())]
        writer.writerow([found[0].file, *cells, str(agree(row)).lower()])
    return stream.getvalue()


def _choose(found: list[Entry]) -> list[Entry]:
    names = [entry.name for entry in found]
    first = index_of_selected(found)
    default = [names[first], next(name for name in names if name != names[first])]
    picked = st.multiselect("Models", names, default=default, max_selections=MAX_MODELS, key="models-compared")
    models = [found[names.index(name)] for name in picked]
    st.caption("  \n".join(f"{as_markdown(entry.name)}: {describe(info_of(entry))}" for entry in models))
    return models


def _predictions(row: Sequence[Result]) -> list[Prediction]:
    return [one for one in row if isinstance(one, Prediction)]
