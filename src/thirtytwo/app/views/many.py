"""Many images on the page Classify: tally, filters, grid, progress of heatmaps, and heatmaps to download."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import streamlit as st

from thirtytwo.app import results as chosen
from thirtytwo.app.components import bars, img_tag
from thirtytwo.app.display import Rendered, Result, as_zip, render, write_zip
from thirtytwo.app.file_store import UploadHandle
from thirtytwo.app.library import Entry
from thirtytwo.app.originals import openable_input, opening
from thirtytwo.app.pager import Pager
from thirtytwo.app.photos import InputImage, photo_store
from thirtytwo.app.problems import plain
from thirtytwo.app.results import Criteria, answer, kinds, tally
from thirtytwo.errors import ImageError
from thirtytwo.images.render import as_uri
from thirtytwo.inference.classifier import Prediction, UnreadableImage
from thirtytwo.text import as_html, readable_names

CARDS, GRID, TABLE = "Cards", "Grid", "Table"
VIEWS = (CARDS, GRID, TABLE)
TILES_PER_PAGE = 48
FILTERED_FROM = 6
"""Smallest number of images with filters and a tally."""
_CLASSES = 8
"""Number of classes in the tally; all are in the filter."""
_DIRECT = 12
"""Largest number of images whose heatmaps are computed at once for a download, without progress."""
_ANY = "Any class"
HEAT = "heat"
"""Key of the switch that shows heatmaps."""
_ZIP, _ZIP_WANTED = "prepared heatmaps", "heatmaps wanted"


def show_tally(results: Sequence[Result]) -> None:
    """Show how many images there are of the most frequent classes, as shares of all."""
    counts = tally(results)
    total = len(results)
    rows = [(f"{name}, {count:,}", count / total) for name, count in counts[:_CLASSES]]
    others = sum(count for _, count in counts[_CLASSES:])
    if others:
        rows.append((f"{len(counts) - _CLASSES:,} other classes, {others:,}", others / total))
    rows += [(f"({kind.lower()}), {count:,}", count / total) for kind, count in kinds(results).items() if _apart(kind)]
    st.html(f'<div class="tt-tally" role="region" aria-label="Images by class">{bars(rows)}</div>')


@contextmanager
def folded_on_phones() -> Iterator[None]:
    """A place for counts and filters; on phones a switch opens it, so that the first answer is in sight."""
    with st.container(key="filters-switch"):
        opened = st.toggle("Counts and filters", key="filters-open", persist_state="session")
    with st.container(key="filters-opened" if opened else "filters-closed"):
        yield


def _apart(kind: str) -> bool:
    return kind in (chosen.UNKNOWN, chosen.UNREADABLE)


def choose(results: Sequence[Result]) -> Criteria:
    """Let the user filter and sort the results."""
    counts = dict(tally(results))
    with st.container(key="filters"):
        options = [chosen.ALL, *kinds(results)]
        if st.session_state.get("shown-kind") not in (None, *options):
            st.session_state["shown-kind"] = chosen.ALL
        kind: str | None = chosen.ALL
        if len(options) > 2:
            kind = st.segmented_control("Show", options, default=chosen.ALL, required=True, key="shown-kind")
        first, second, third = st.columns(3)
        names = [_ANY, *sorted(counts, key=str.casefold)]
        if st.session_state.get("shown-class") not in (None, *names):
            st.session_state["shown-class"] = _ANY
        shown = {name: f"{text} ({counts[name]:,})" for name, text in zip(counts, readable_names(counts), strict=True)}
        label = first.selectbox("Class", names, format_func=lambda name: shown.get(name, name), key="shown-class")
        least, most = second.slider("Confidence", 0, 100, (0, 100), format="%d\u00a0%%", key="shown-confidence")
        order = third.selectbox("Sort", chosen.ORDERS, key="shown-order")
    return Criteria(kind or chosen.ALL, None if label == _ANY else label, least / 100, most / 100, order)


def rendered(
    entry: Entry, shown: Sequence[tuple[InputImage, Result]], key: str, *, heat: bool, mark: bool = False
) -> Iterator[tuple[InputImage, Result, Rendered | None]]:
    """Render images one after another, None for unreadable ones; heatmaps show their progress and can be canceled.

    An image whose file is gone since it was classified is unreadable, too. `mark` as in `render`.
    """
    heatmaps = sum(isinstance(result, Prediction) for _, result in shown) if heat else 0
    with _progress(heatmaps, key, _cancel_heat) as advance:
        for image, result in shown:
            found = None
            if isinstance(result, Prediction):
                try:
                    found = render(entry, image, heat=heat, mark=mark)
                except ImageError as error:
                    result = UnreadableImage(image.name, f"{plain(error.message)} Add it again.")
            advance()
            yield image, result, found


@contextmanager
def _progress(total: int, key: str, cancel: Callable[[], None] | None = None) -> Iterator[Callable[[], None]]:
    """Show the progress of heatmaps with a button to cancel them, if there are several; gone when they are computed.

    Yields the function to call after each one. A click of the button ends the script's run, and `cancel` is called.
    """
    if total < 2:
        yield lambda: None
        return
    place, done = st.empty(), 0
    with place.container(horizontal=True, vertical_alignment="center", key=f"{key}-computing"):
        bar = st.progress(0.0, f"Heatmap 1 of {total}")
        st.button("Cancel", key=f"{key}-cancel", on_click=cancel, icon=":material/close:")

    def advance() -> None:
        nonlocal done
        done = min(done + 1, total)
        bar.progress(done / total, f"Heatmap {min(done + 1, total)} of {total}")

    yield advance
    place.empty()


def _cancel_heat() -> None:
    st.session_state[HEAT] = False


def grid(entry: Entry, images: Sequence[InputImage], results: Sequence[Result], key: str, *, heat: bool) -> None:
    """Show small images with their top classes, a page at a time."""
    pager = Pager(len(images), TILES_PER_PAGE, f"{key}-grid-{len(images)}")
    shown = list(zip(images, results, strict=True))[pager.show()]
    if heat:
        found = rendered(entry, shown, key, heat=True)
        drawn = ["" if one is None else img_tag(one.image, f"{image.name} with heatmap") for image, _, one in found]
    else:
        drawn = [_thumbnail(image) for image, _ in shown]
    tiles = (_tile(entry, *one, html, heat=heat) for one, html in zip(shown, drawn, strict=True))
    st.html(f'<div class="tt-grid tt-results">{"".join(tiles)}</div>')
    pager.show_again()


def _thumbnail(image: InputImage) -> str:
    if not image.thumbnail:
        return ""
    return f'<img src="{as_uri(image.thumbnail, "jpeg")}" alt="{as_html(image.name)}">'


def _tile(entry: Entry, image: InputImage, result: Result, drawn: str, *, heat: bool) -> str:
    """One image of the grid with its answer."""
    name = f"<span>{as_html(image.name)}</span>"
    if isinstance(result, UnreadableImage):
        return f'<figure class="tt-tile"><b>cannot be read</b><br>{name}</figure>'
    shown = opening(drawn, openable_input(image, entry, answer(result), heat=heat), image.name)
    return f'<figure class="tt-tile">{shown}<b>{as_html(answer(result))}</b><br>{name}</figure>'


def offer_heatmaps(entry: Entry, images: Sequence[InputImage], results: Sequence[Result]) -> None:
    """Show the button to download the heatmaps; those of many images are computed first, with progress."""
    count = sum(isinstance(one, Prediction) for one in results)
    if not count:
        return
    button = partial(
        st.download_button,
        file_name="heatmaps.zip",
        mime="application/zip",
        on_click="ignore",
        icon=":material/download:",
    )
    prepared = _prepared(entry, images, results)
    if count <= _DIRECT:
        button("Heatmaps (ZIP)", partial(as_zip, entry, list(images), list(results)), key="zip")
    elif prepared is not None:
        button("Download heatmaps (ZIP)", prepared.path.read_bytes, key="zip-file", type="primary")
    else:
        st.button(f"Prepare {count:,} heatmaps (ZIP)", key="zip-all", on_click=_want_zip, icon=":material/folder_zip:")
        note = "This takes a while; the button to download the file then stands here."
        if _ZIP in st.session_state:
            note = "The file that was prepared is out of date: images or answers have changed."
        st.caption(note, width="content")


def prepare_heatmaps(entry: Entry, images: Sequence[InputImage], results: Sequence[Result]) -> None:
    """Compute the heatmaps to download, if they were asked for."""
    if st.session_state.pop(_ZIP_WANTED, False):
        _prepare_zip(entry, images, results)


def _want_zip() -> None:
    st.session_state[_ZIP_WANTED] = True


def _identity(entry: Entry, images: Sequence[InputImage], results: Sequence[Result]) -> tuple[object, ...]:
    return (entry.stamp, tuple(image.digest for image in images), tuple(results))


def _prepared(entry: Entry, images: Sequence[InputImage], results: Sequence[Result]) -> UploadHandle | None:
    """The file of heatmaps of these images and answers, if it was written."""
    found: tuple[tuple[object, ...], UploadHandle] | None = st.session_state.get(_ZIP)
    return found[1] if found is not None and found[0] == _identity(entry, images, results) else None


def _prepare_zip(entry: Entry, images: Sequence[InputImage], results: Sequence[Result]) -> None:
    """Write the file of heatmaps, which exists while the session references it; shows progress, and can be canceled."""
    st.session_state.pop(_ZIP, None)
    total = sum(isinstance(one, Prediction) for one in results)
    with tempfile.NamedTemporaryFile(dir=photo_store().folder, suffix=".zip", delete=False) as stream:
        path = Path(stream.name)
        try:
            with _progress(total, "zip") as advance:
                for _ in write_zip(stream, entry, images, results):
                    advance()
        except BaseException:
            with suppress(OSError):
                path.unlink()
            raise
        size = stream.tell()
    st.session_state[_ZIP] = (_identity(entry, images, results), UploadHandle(path, path.stem, size))
    st.rerun()
