"""Components shared by several pages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from itertools import chain, repeat
from typing import Any, ParamSpec

import numpy as np
import numpy.typing as npt
import streamlit as st

from thirtytwo.app.about_models import about, dataset_name
from thirtytwo.app.certainty import SURE, certainty
from thirtytwo.app.display import Rendered, uri
from thirtytwo.app.library import Entry, entries, gone_model, info_of, select_model, selected_model
from thirtytwo.app.look_twice import views_note
from thirtytwo.app.originals import opening
from thirtytwo.app.problems import explained
from thirtytwo.errors import ThirtytwoError
from thirtytwo.explain.overlay import legend_colors
from thirtytwo.fewshot.verdict import Verdict
from thirtytwo.images.render import is_pixelated
from thirtytwo.inference.classifier import Prediction
from thirtytwo.inference.model_file import ModelInfo
from thirtytwo.text import (
    DIGITS,
    SPACE,
    as_html,
    as_markdown,
    capitalized,
    counted,
    listing,
    percent,
    readable,
    readable_names,
)

Ints = npt.NDArray[np.int64]
Given = ParamSpec("Given")
_RIGHT, _WRONG = "#3d88a6", "#c0592c"
UNKNOWN = "This may be something the model doesn’t know."


def card(name: str, result: Prediction, rendered: Rendered, top: int, *, heat: bool, opens: str = "") -> str:
    """One image with the model's input and the top classes as bars; `opens` is its key of `originals.openable`."""
    size = f"{result.width}×{result.height}"
    sides = "×".join(map(str, rendered.model_input.shape[1::-1]))
    alt = f"{name}{' with heatmap' if heat else ''}: {spoken(result)}"
    cut = f". The model looks at the marked square, not at {rendered.cut}." if rendered.cut else ""
    return (
        f'<div class="tt-card"><figure>{opening(img_tag(rendered.image, alt), opens, name)}'
        f"<figcaption>{as_html(name)} · {size}{cut}</figcaption></figure>"
        f'<figure class="tt-input">{img_tag(rendered.model_input, f"Model input of {name}")}'
        f"<figcaption>Model input, {sides}</figcaption></figure>"
        f"<div>{headline(result)}{bars(result.predictions[:top])}{_looks(result)}</div></div>"
    )


def spoken(result: Prediction) -> str:
    """The answer for an image as a phrase, for alternative texts and screen readers."""
    answer = f"{readable(result.top)}, {percent(result.confidence)}"
    if not result.known:
        return f"unknown, nearest class {answer}"
    return answer if certainty(result) == "sure" else f"not sure, perhaps {answer}"


def headline(result: Prediction) -> str:
    """The top class, with a badge and an explanation if the image is unknown or the model is not sure."""
    name = as_html(readable(result.top))
    if not result.known:
        return (
            f'<p class="tt-top">{name}?<span class="tt-badge tt-warm">unknown</span></p>'
            f'<p class="tt-soft" style="margin:0 0 8px">{UNKNOWN} The classes below are only the nearest ones.</p>'
        )
    if certainty(result) == "not sure":
        return (
            f'<p class="tt-top">{name}?<span class="tt-badge tt-warm">not sure</span></p>'
            f'<p class="tt-soft" style="margin:0 0 8px">The best answer has less than {percent(SURE, 0)}.</p>'
        )
    return f'<p class="tt-top">{name}</p>'


def _looks(result: Prediction) -> str:
    """How often an image was looked at, as a line of HTML."""
    note = views_note(result)
    return f'<p class="tt-soft">{capitalized(note)}</p>' if note else ""


def heat_legend() -> str:
    """What the colors of heatmaps mean."""
    return (
        f'<p class="tt-legend"><span>no evidence</span><i style="background:linear-gradient(to right, '
        f'{", ".join(legend_colors())})"></i><span>strongest evidence</span></p>'
    )


def bars(predictions: Iterable[tuple[str, float]]) -> str:
    """Classes and their calibrated probabilities as bars."""
    rows = (
        f'<b>{as_html(readable(name))}</b><span class="tt-track"><i style="width:{100 * value:.1f}%"></i></span>'
        f"<em>{percent(value)}</em>"
        for name, value in predictions
    )
    return f'<div class="tt-bars">{"".join(rows)}</div>'


def image_grid(tiles: Iterable[tuple[npt.NDArray[np.uint8], str, str]], opens: Iterable[str] = ()) -> str:
    """A grid of small images, each with a bold and a normal caption line; `opens` are keys of `originals.openable`."""
    figures = (
        f'<figure class="tt-tile">{opening(img_tag(pixels, f"{first}, {second}"), key, f"{first}, {second}")}'
        f"<b>{as_html(first)}</b><br><span>{as_html(second).replace('/', '/<wbr>')}</span></figure>"
        for (pixels, first, second), key in zip(tiles, chain(opens, repeat("")), strict=False)
    )
    return f'<div class="tt-grid">{"".join(figures)}</div>'


def side_by_side(
    name: str,
    image: npt.NDArray[np.uint8],
    predictions: Sequence[tuple[str, Prediction]],
    top: int,
    *,
    agree: bool,
    opens: str = "",
) -> str:
    """One image with the prediction of each model; `opens` is its key of `originals.openable`."""
    kind, word = ("tt-good", "agree") if agree else ("tt-warm", "differ")
    badge = f'<span class="tt-badge {kind}" style="margin:4px 0 0">{word}</span>'
    if not any(result.known for _, result in predictions):
        badge += '<span class="tt-badge" style="margin:4px 0 0 4px">unknown to all</span>'
    answers = "; ".join(f"{model}: {spoken(result)}" for model, result in predictions)
    shown = opening(img_tag(image, f"{name}: {answers}"), opens, name)
    columns = "".join(
        f'<div><p class="tt-name">{as_html(model)}</p>{short_headline(result)}{bars(result.predictions[:top])}'
        f"{_looks(result)}</div>"
        for model, result in predictions
    )
    return (
        f'<div class="tt-beside" style="--models:{len(predictions)}"><figure style="margin:0">{shown}'
        f'<figcaption class="tt-soft">{as_html(name)}</figcaption>{badge}</figure>{columns}</div>'
    )


def short_headline(result: Prediction) -> str:
    """The top class, with a badge if the image is unknown or the model is not sure."""
    words = certainty(result)
    badge = "" if words == "sure" else f'<span class="tt-badge tt-warm">{words}</span>'
    doubt = "" if words == "sure" else "?"
    return f'<p class="tt-top">{as_html(readable(result.top))}{doubt}{badge}</p>'


def matrix(counts: Ints, classes: Sequence[str], *, pick: bool = False) -> str:
    """A confusion matrix `(C, C)`: rows are true classes, columns predicted classes; with `pick` cells are buttons."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = readable_names(classes)
    head = "".join(f'<th scope="col">{as_html(name)}</th>' for name in names)
    rows = []
    for row, name in enumerate(names):
        cells = "".join(
            f'<td style="--tint:{_RIGHT if row == column else _WRONG};--share:{75 * shares[row, column]:.0f}%">'
            f"{_cell(counts, names, row, column, pick=pick)}</td>"
            for column in range(len(names))
        )
        rows.append(f'<tr><th scope="row">{as_html(name)}</th>{cells}</tr>')
    return (
        '<p class="tt-soft">Rows: actual class. Columns: predicted class.</p>'
        '<div class="tt-wide"><div class="tt-scroll" tabindex="0" role="region" aria-label="Confusion matrix, scrolls">'
        '<table class="tt-matrix" aria-label="Confusion matrix">'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></div>"
    )


def with_percentages(rows: Iterable[Mapping[str, Any]], *keys: str) -> list[dict[str, Any]]:
    """Rows of a table with the shares of some columns in percent, for `percent_column`."""
    return [
        {key: 100 * value if key in keys and value is not None else value for key, value in row.items()} for row in rows
    ]


def percent_column() -> Any:
    """The format of a column of percentages, as `percent` writes them, with bars."""
    return st.column_config.ProgressColumn(format=f"%.{DIGITS}f{SPACE}%%", min_value=0.0, max_value=100.0)


def _cell(counts: Ints, names: Sequence[str], row: int, column: int, *, pick: bool) -> str:
    """The count of a cell of a confusion matrix, as a button if it can be picked; empty for 0."""
    count = int(counts[row, column])
    if not count or not pick:
        return str(count or "")
    true, predicted = (as_html(names[index]) for index in (row, column))
    what = f"{true} predicted as {predicted}: {counted(count, 'image')}"
    return f'<button type="button" data-pick="{row},{column}" aria-label="{what}" title="{what}">{count}</button>'


def img_tag(pixels: npt.NDArray[np.uint8], alt: str) -> str:
    """An `<img>` element; small images are shown pixelated."""
    sharp = ' class="tt-sharp"' if is_pixelated(pixels) else ""
    return f'<img{sharp} src="{uri(pixels)}" alt="{as_html(alt)}">'


_MODEL = "model"
_FEW = 12
"""Number of classes that are named at once."""

NO_MODEL = """
This page needs a model, and there is none yet. Either

- train one on your own images, with one folder per class, on the page Train,
- or add a `model.onnx` file made by thirtytwo:
"""


def title(text: str, description: str) -> None:
    """Show the title and the description of a page."""
    st.title(text, anchor=False)
    st.markdown(description)


def choose_model() -> Entry:
    """Show the selection of the model in use, which only the user changes; without any, say how to get one and stop."""
    found = entries()
    if not found:
        require_model()
    names = [entry.name for entry in found]
    entry = selected_model(found)
    show_gone_model(entry)
    if st.session_state.get(_MODEL) != entry.name:
        st.session_state[_MODEL] = entry.name

    def choose() -> None:
        select_model(found[names.index(st.session_state[_MODEL])])

    st.selectbox("Model in use", names, key=_MODEL, on_change=choose)
    st.caption("  \n".join(filter(None, (describe(info_of(entry)), as_markdown(about(entry))))))
    return entry


def show_gone_model(used: Entry) -> None:
    """Say that the model in use before is not available, and which one is in use instead."""
    if name := gone_model():
        text = (
            f"“{name}”, the model in use before, is not available: it was deleted or moved, or was uploaded to a page "
            f"that is closed. “{used.name}” is in use instead."
        )
        st.warning(as_markdown(text), icon=":material/deployed_code_alert:")


def show_vocabulary(info: ModelInfo, known: Sequence[str] = ()) -> None:
    """Say what a model can name: some of its classes, such as `known` ones, and all of them on demand."""
    names = [readable(name) for name in info.classes]
    if len(names) <= _FEW:
        st.markdown(as_markdown(f"It can name {listing(names, _FEW, quoted=False)}."))
        return
    some = known or names[:: len(names) // _FEW][:_FEW]
    st.markdown(as_markdown(f"It can name {len(names):,} things, such as {listing(some, _FEW, quoted=False)}."))
    with st.expander(f"All {len(names):,} things that it can name"):
        st.markdown(as_markdown(", ".join(sorted(names, key=str.casefold))))


def require_model() -> None:
    """Show how to get a model, offer an upload, and stop the page."""
    from thirtytwo.app.views.models import upload

    with st.container(border=True):
        st.markdown(NO_MODEL)
        upload()
    st.stop()


def describe(info: ModelInfo) -> str:
    """Describe a model in one line of Markdown."""
    if info.few_shot is not None:
        images = counted(sum(info.few_shot.counts), "image")
        return as_markdown(f"{len(info.classes):,} classes, learned from {images} on top of {info.few_shot.base}")
    accuracy = "" if info.accuracy is None else f" · {percent(info.accuracy)} test accuracy"
    return f"{len(info.classes):,} classes of {as_markdown(dataset_name(info.dataset))}{accuracy}"


def show_error(error: ThirtytwoError) -> None:
    """Show an error and what can be done about it in the app."""
    st.error(as_markdown(explained(error)), icon=":material/error:")


def with_errors(show: Callable[Given, None]) -> Callable[Given, None]:
    """Wrap a page, or a part of one that is drawn anew alone, so that user errors are shown as messages."""

    @wraps(show)
    def shown(*args: Given.args, **kwargs: Given.kwargs) -> None:
        try:
            show(*args, **kwargs)
        except ThirtytwoError as error:
            show_error(error)

    return shown


_VERDICT_COLORS = {"weak": "red", "fair": "orange", "good": "green"}


def show_verdict(verdict: Verdict | None) -> None:
    """Show a verdict on an accuracy as a badge, with how often guessing would be right; nothing without one."""
    if verdict is not None:
        st.markdown(f":{_VERDICT_COLORS[verdict.word]}-badge[{capitalized(verdict.word)}] · {verdict.guessing}")
