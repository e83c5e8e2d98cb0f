"""The same images through several models."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import streamlit as st

from thirtytwo.app.components import describe, no_model, title
from thirtytwo.app.display import view
from thirtytwo.app.images import image_input
from thirtytwo.app.library import Entry, chosen, entries, info_of
from thirtytwo.app.markup import beside
from thirtytwo.app.results import Result, tell
from thirtytwo.inference.classifier import Prediction, Unreadable
from thirtytwo.text import as_markdown

MOST = 4
ON_A_PAGE = 8
_TOP = 3


def show() -> None:
    """The page."""
    title("Compare models", "The same images through two to four models, and where these agree.")
    found = entries()
    if not found:
        no_model()
    if len(found) < 2:
        st.info(
            f"There is one model at hand, {as_markdown(found[0].name)}. Train another, teach one of your own, or "
            "add a file on the page Models; then choose both here.",
            icon=":material/balance:",
        )
        return
    models = _choose(found)
    if len(models) < 2:
        st.info("Choose at least two models.", icon=":material/balance:")
        return
    images = image_input()
    if not images:
        st.info("Add images to compare what the models say.", icon=":material/add_photo_alternate:")
        return
    told = {entry.name: tell(entry, images) for entry in models}
    rows = list(zip(images, zip(*told.values(), strict=True), strict=True))
    readable = [(image, said) for image, said in rows if not isinstance(said[0], Unreadable)]
    for _, said in rows:
        if isinstance(said[0], Unreadable):
            st.warning(as_markdown(said[0].error), icon=":material/broken_image:")
    if not readable:
        return
    agreeing = sum(agree(said) for _, said in readable)
    both = "Both" if len(models) == 2 else f"All {len(models)}"
    st.markdown(f"**{both} name the same class for {agreeing} of {len(readable)} images.**")
    if 0 < agreeing < len(readable) and st.toggle("Only where they differ", key="differing"):
        readable = [(image, said) for image, said in readable if not agree(said)]
    pages = -(-len(readable) // ON_A_PAGE)
    first = (st.pagination(pages, key=f"compare-page-{len(readable)}") - 1) * ON_A_PAGE if pages > 1 else 0
    for image, said in readable[first : first + ON_A_PAGE]:
        with st.container(border=True):
            names = list(zip(told, _predictions(said), strict=True))
            st.html(beside(image.name, view(image.data), names, _TOP, agree=agree(said)))
    st.download_button(
        "CSV",
        as_csv(told),
        "comparison.csv",
        "text/csv",
        key="compare-csv",
        on_click="ignore",
        icon=":material/download:",
    )


def agree(said: Sequence[Result]) -> bool:
    """Whether all name the same class first, and all know it or none does."""
    found = _predictions(said)
    return len({one.top for one in found}) == 1 and len({one.known for one in found}) == 1


def as_csv(told: dict[str, list[Result]]) -> str:
    """One row per image: what each model says, and whether they agree."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        ["file", *(f"{name}: {what}" for name in told for what in ("class", "confidence", "known")), "agree"]
    )
    for said in zip(*told.values(), strict=True):
        if isinstance(said[0], Unreadable):
            continue
        found = _predictions(said)
        cells = [cell for one in found for cell in (one.top, one.confidence, str(one.known).lower())]
        writer.writerow([found[0].file, *cells, str(agree(said)).lower()])
    return stream.getvalue()


def _choose(found: list[Entry]) -> list[Entry]:
    names = [entry.name for entry in found]
    first = chosen(found)
    default = [names[first], next(name for name in names if name != names[first])]
    picked = st.multiselect("Models", names, default=default, max_selections=MOST, key="models-compared")
    models = [found[names.index(name)] for name in picked]
    st.caption("  \n".join(f"{as_markdown(entry.name)}: {describe(info_of(entry))}" for entry in models))
    return models


def _predictions(said: Sequence[Result]) -> list[Prediction]:
    return [one for one in said if isinstance(one, Prediction)]
