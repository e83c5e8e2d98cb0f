"""The page Classify: predictions and heatmaps for images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import streamlit as st

from thirtytwo.app import look_twice
from thirtytwo.app.about_models import examples
from thirtytwo.app.answer_table import answer_table
from thirtytwo.app.components import (
    card,
    choose_model,
    heat_legend,
    show_vocabulary,
    spoken,
    title,
)
from thirtytwo.app.display import TOP, Result, as_csv, as_json, classify, cut_off, heat_method
from thirtytwo.app.frame import announce
from thirtytwo.app.images import image_input
from thirtytwo.app.library import Entry, info_of, load_classifier, warm_up
from thirtytwo.app.originals import openable_input
from thirtytwo.app.pager import Pager
from thirtytwo.app.photos import InputImage
from thirtytwo.app.results import Criteria, answer, matching
from thirtytwo.app.views import many
from thirtytwo.inference.classifier import Prediction, UnreadableImage
from thirtytwo.text import as_markdown, counted

IMAGES_PER_PAGE, ROWS_PER_PAGE = 8, 100
_MAX_SPOKEN = 3


def show() -> None:
    """Show the page."""
    title("Classify images", "Add images below. No data leaves this computer.")
    entry = choose_model()
    show_vocabulary(info_of(entry), examples(entry))
    images = image_input(entry)
    if not images:
        st.info(
            "Add an image to classify it, or try the samples.",
            icon=":material/add_photo_alternate:",
        )
        warm_up(entry)
        return
    results = classify(entry, images, twice=look_twice.wanted())
    announce(summary(results))
    classes = len(load_classifier(entry).classes)
    top, heat = _options(entry, classes)
    look_twice.explain([entry], results)
    if len(results) == 1:
        cards(entry, images, results, top, heat=heat)
        matched = results
    else:
        st.markdown(f"{counts(results)}.")
        matched = _show_many(entry, images, results, top, heat=heat)
    downloads(entry, images, results, min(TOP, classes), matched)


def _show_many(
    entry: Entry, images: Sequence[InputImage], results: Sequence[Result], top: int, *, heat: bool
) -> list[Result]:
    """Show several images as cards, in a grid or in a table; many can be filtered and sorted.

    Returns those that match the filters, in their order.
    """
    criteria = Criteria()
    if len(results) >= many.FILTERED_FROM:
        with many.folded_on_phones():
            many.show_tally(results)
            criteria = many.choose(results)
    default = many.CARDS
    view = st.segmented_control("View", many.VIEWS, default=default, required=True, key="view", persist_state="session")
    places = matching(results, criteria)
    if criteria.narrows:
        st.caption(f"{len(places):,} of {counted(len(results), 'image')}")
    if not places:
        st.info("No image matches these filters.", icon=":material/filter_alt:")
        return []
    some, found = [images[place] for place in places], [results[place] for place in places]
    key = f"shown-{hash(criteria)}"
    if view != many.CARDS and _any_is_cut(entry, found):
        st.caption("The model looks at the central square of each image. A click on an image shows it.")
    if view == many.TABLE:
        results_table(found, key)
    elif view == many.GRID:
        many.grid(entry, some, found, key, heat=heat)
    else:
        cards(entry, some, found, top, heat=heat, key=key)
    return found


def _any_is_cut(entry: Entry, results: Sequence[Result]) -> bool:
    """Whether the model leaves out a part of any image."""
    rule = info_of(entry).resize
    return any(isinstance(one, Prediction) and cut_off(one.width, one.height, rule) for one in results)


def cards(
    entry: Entry, images: Sequence[InputImage], results: Sequence[Result], top: int, *, heat: bool, key: str = "cards"
) -> None:
    """Show each image with its prediction, a page at a time."""
    pager = Pager(len(images), IMAGES_PER_PAGE, f"{key}-page-{len(images)}")
    shown = list(zip(images, results, strict=True))[pager.show()]
    for image, result, rendered in many.rendered(entry, shown, key, heat=heat, mark=True):
        with st.container(border=True):
            if isinstance(result, UnreadableImage):
                st.warning(as_markdown(result.error), icon=":material/broken_image:")
            elif rendered is not None:
                opens = openable_input(image, entry, answer(result), heat=heat)
                st.html(card(image.name, result, rendered, top, heat=heat, opens=opens))
    pager.show_again()


def results_table(results: Sequence[Result], key: str = "table") -> None:
    """Show all results as a table, a page at a time."""
    st.subheader("All results", anchor=False)
    pager = Pager(len(results), ROWS_PER_PAGE, f"{key}-table-{len(results)}")
    st.html(answer_table(results[pager.show()]))
    pager.show_again()


def downloads(
    entry: Entry,
    images: Sequence[InputImage],
    results: Sequence[Result],
    top: int,
    matched: Sequence[Result] | None = None,
) -> None:
    """Show buttons to download the results of all images, and those that match the filters, if these leave some out."""
    some = len(results) if matched is None else len(matched)
    of_all = f" (all {len(results):,})" if len(results) > 1 else ""
    with st.container(horizontal=True, key="downloads"):
        button = partial(st.download_button, on_click="ignore", icon=":material/download:")
        if matched and some < len(results):
            file = "predictions-filtered.csv"
            button(f"CSV ({some:,} as filtered)", as_csv(matched, top), file, "text/csv", key="csv-filtered")
        button(f"CSV{of_all}", as_csv(results, top), "predictions.csv", "text/csv", key="csv", help="One row per image")
        button(f"JSON{of_all}", as_json(results, top), "predictions.json", "application/json", key="json")
        many.offer_heatmaps(entry, images, results)
    many.prepare_heatmaps(entry, images, results)


def _options(entry: Entry, classes: int) -> tuple[int, bool]:
    with st.container(horizontal=True, vertical_alignment="center", key="options"):
        heat = st.toggle("Show heatmap", key=many.HEAT, persist_state="session")
        look_twice.show_option()
        most = min(10, classes)
        top = most
        if most > 1:
            top = st.slider(
                "Classes shown", 1, most, min(5, most), key=f"top-{most}", width=220, persist_state="session"
            )
    if heat:
        st.caption(heat_method(load_classifier(entry)))
        st.html(heat_legend())
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
    classified = len(results) - unreadable
    which = "it" if classified == 1 else f"{unknown} of them"
    parts = [f"{counted(classified, 'image')} classified"]
    parts += [f"{which} may be something the model doesn’t know"] if unknown else []
    parts += [f"{unreadable} could not be read"] if unreadable else []
    return "; ".join(parts)
