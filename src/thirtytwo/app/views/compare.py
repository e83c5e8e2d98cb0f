"""The page Compare: predictions of several models for the same images."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import chain

import streamlit as st

from thirtytwo.app import look_twice
from thirtytwo.app.components import describe, require_model, side_by_side, title
from thirtytwo.app.display import Result, classify, view
from thirtytwo.app.frame import announce
from thirtytwo.app.images import image_input
from thirtytwo.app.library import Entry, entries, info_of, selected_model
from thirtytwo.app.originals import openable_input
from thirtytwo.app.pager import Pager
from thirtytwo.app.photos import InputImage
from thirtytwo.app.problems import plain
from thirtytwo.errors import ImageError, ThirtytwoError
from thirtytwo.inference.classifier import Prediction, UnreadableImage
from thirtytwo.text import CsvWriter, as_markdown, counted

MAX_MODELS = 4
IMAGES_PER_PAGE = 8
_TOP = 3
_CHOSEN = "models-compared"

Compared = tuple[InputImage, tuple[Result, ...]]
"""An image and the results of all models for it."""


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
    look_twice.show_option()
    results = {entry.name: classify(entry, images, twice=look_twice.wanted()) for entry in models}
    look_twice.explain(models, chain.from_iterable(results.values()))
    compared = _readable(list(zip(images, zip(*results.values(), strict=True), strict=True)))
    if not compared:
        return
    _show_page(_filter_by_agreement(compared, len(models)), models)
    _show_download(results)


def _readable(compared: Sequence[Compared]) -> list[Compared]:
    """Images that can be read, with their results; show a warning for each of the others."""
    readable = []
    for image, row in compared:
        problem = next((one for one in row if isinstance(one, UnreadableImage)), None)
        if problem is None:
            readable.append((image, row))
        else:  # for one model only, where the file was deleted between the two
            st.warning(as_markdown(problem.error), icon=":material/broken_image:")
    return readable


def _filter_by_agreement(compared: list[Compared], models: int) -> list[Compared]:
    """Show how often the models agree; return all images, or those where the models differ if the user wants that."""
    agreeing = sum(agree(row) for _, row in compared)
    both = "Both" if models == 2 else f"All {models}"
    sentence = f"{both} agree on {agreeing} of {counted(len(compared), 'image')}."
    st.markdown(f"**{sentence}**", help="They agree if they predict the same class, and all or none know the image.")
    announce(sentence)
    if 0 < agreeing < len(compared) and st.toggle("Only where they differ", key="differing"):
        return [(image, row) for image, row in compared if not agree(row)]
    return compared


def _show_page(compared: Sequence[Compared], models: Sequence[Entry]) -> None:
    """Show one page of images with the predictions of all models; they open with what the first model sees."""
    names, entry = [one.name for one in models], models[0]
    pager = Pager(len(compared), IMAGES_PER_PAGE, f"compare-page-{len(compared)}")
    for image, row in compared[pager.show()]:
        with st.container(border=True):
            predictions = list(zip(names, _predictions(row), strict=True))
            try:
                shown = view(image)
            except ImageError as error:  # its file is gone
                st.warning(as_markdown(f"{plain(error.message)} Add it again."), icon=":material/broken_image:")
                continue
            opens = openable_input(image, entry)
            st.html(side_by_side(image.name, shown, predictions, _TOP, agree=agree(row), opens=opens))
    pager.show_again()


def _show_download(results: dict[str, list[Result]]) -> None:
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
    """Whether all predict the same top class, in whatever case, and all or none as known."""
    found = _predictions(row)
    return len({one.top.casefold() for one in found}) == 1 and len({one.known for one in found}) == 1


def as_csv(results: dict[str, list[Result]]) -> str:
    """One row per image: the prediction of each model, its number of views if known, and whether all agree."""
    stream = io.StringIO()
    writer = CsvWriter(stream)
    viewed = any(map(look_twice.views_of, chain.from_iterable(results.values())))
    columns = ("class", "confidence", "known", *(["views"] if viewed else []))
    writer.writerow(["file", *(f"{name}: {what}" for name in results for what in columns), "agree"])
    for row in zip(*results.values(), strict=True):
        found = _predictions(row)
        if len(found) < len(row):
            continue
        cells: list[object] = []
        for one in found:
            cells += [one.top, one.confidence, str(one.known).lower(), *([look_twice.views_of(one)] if viewed else [])]
        writer.writerow([found[0].file, *cells, str(agree(row)).lower()])
    return stream.getvalue()


def _choose(found: list[Entry]) -> list[Entry]:
    """Let the user choose models, at first the one in use and one with the same classes; say where classes differ."""
    names = [entry.name for entry in found]
    kept = [name for name in st.session_state.get(_CHOSEN, []) if name in names]
    if _CHOSEN not in st.session_state:
        kept = [entry.name for entry in opening_pair(found, selected_model(found))]
    st.session_state[_CHOSEN] = kept
    picked = st.multiselect("Models", names, max_selections=MAX_MODELS, key=_CHOSEN, persist_state="session")
    models = [found[names.index(name)] for name in picked]
    used = selected_model(found)
    if used not in models and models == opening_pair(found, used):
        st.caption(
            as_markdown(f"No other model has the classes of {used.name}, the model in use; these two have the same.")
        )
    st.caption("  \n".join(f"{as_markdown(entry.name)}: {describe(info_of(entry))}" for entry in models))
    if len({classes_of(entry) for entry in models}) > 1:
        st.info(
            "These models do not know the same classes, so they cannot agree on every image. Choose models with the "
            "same classes to compare how well they do.",
            icon=":material/balance:",
        )
    return models


def choose_models(models: Sequence[Entry]) -> None:
    """Choose the models that the page shows when it is opened next."""
    st.session_state[_CHOSEN] = [entry.name for entry in models]


def opening_pair(found: Sequence[Entry], used: Entry) -> list[Entry]:
    """The two models to compare at first: the one in use and one with its classes, else any two with the same classes.

    Where no two have the same classes, the one in use and another one.
    """
    for first in (used, *found):
        partner = next((one for one in found if one != first and classes_of(one) == classes_of(first)), None)
        if partner is not None:
            return [first, partner]
    return [used, next(one for one in found if one != used)]


def classes_of(entry: Entry) -> frozenset[str]:
    """The classes of a model, for comparison with those of another; empty if its file cannot be read."""
    try:
        return frozenset(name.casefold() for name in info_of(entry).classes)
    except ThirtytwoError:
        return frozenset()


def _predictions(row: Sequence[Result]) -> list[Prediction]:
    return [one for one in row if isinstance(one, Prediction)]
