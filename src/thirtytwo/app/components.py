"""Components shared by several pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import streamlit as st

from thirtytwo.app.display import Rendered, uri
from thirtytwo.app.library import Entry, entries, index_of_selected, info_of, select_model
from thirtytwo.errors import ThirtytwoError
from thirtytwo.images.render import is_pixelated
from thirtytwo.inference.classifier import Prediction
from thirtytwo.inference.model_file import ModelInfo
from thirtytwo.text import as_html, as_markdown, percent

Ints = npt.NDArray[np.int64]
_RIGHT, _WRONG = "#3d88a6", "#c0592c"


def card(name: str, result: Prediction, rendered: Rendered, top: int, *, heat: bool) -> str:
    """One image with the model's input and the top classes as bars."""
    size = f"{result.width}×{result.height}"
    sides = "×".join(map(str, rendered.model_input.shape[1::-1]))
    alt = f"{name} with heatmap" if heat else name
    return (
        f'<div class="tt-card"><figure>{img_tag(rendered.image, alt)}'
        f"<figcaption>{as_html(name)} · {size}</figcaption></figure>"
        f'<figure class="tt-input">{img_tag(rendered.model_input, f"Model input of {name}")}'
        f"<figcaption>Model input, {sides}</figcaption></figure>"
        f"<div>{headline(result)}{bars(result.predictions[:top])}</div></div>"
    )


def headline(result: Prediction) -> str:
    """The top class, with a badge and an explanation if the image is unknown."""
    if result.known:
        return f'<p class="tt-top">{as_html(result.top)}</p>'
    return (
        f'<p class="tt-top">{as_html(result.top)}?<span class="tt-badge tt-warm">unknown</span></p>'
        '<p class="tt-soft" style="margin:0 0 8px">Out of distribution: unlike the training images. The classes '
        "below are the nearest ones.</p>"
    )


def bars(predictions: Iterable[tuple[str, float]]) -> str:
    """Classes and their calibrated probabilities as bars."""
    rows = (
        f'<b>{as_html(name)}</b><span class="tt-track"><i style="width:{100 * value:.1f}%"></i></span>'
        f"<em>{percent(value, 1)}</em>"
        for name, value in predictions
    )
    return f'<div class="tt-bars">{"".join(rows)}</div>'


def image_grid(tiles: Iterable[tuple[npt.NDArray[np.uint8], str, str]]) -> str:
    """A grid of small images, each with a bold and a normal caption line."""
    figures = (
        f'<figure class="tt-tile">{img_tag(pixels, f"{first}, {second}")}<b>{as_html(first)}</b><br>'
        f"<span>{as_html(second).replace('/', '/<wbr>')}</span></figure>"
        for pixels, first, second in tiles
    )
    return f'<div class="tt-grid">{"".join(figures)}</div>'


def side_by_side(
    name: str, image: npt.NDArray[np.uint8], predictions: Sequence[tuple[str, Prediction]], top: int, *, agree: bool
) -> str:
    """One image with the prediction of each model."""
    badge = (
        '<span class="tt-badge tt-good" style="margin-left:0">agree</span>'
        if agree
        else '<span class="tt-badge tt-warm" style="margin-left:0">differ</span>'
    )
    columns = "".join(
        f"<div><h4>{as_html(model)}</h4>{short_headline(result)}{bars(result.predictions[:top])}</div>"
        for model, result in predictions
    )
    return (
        f'<div class="tt-beside" style="--models:{len(predictions)}"><figure style="margin:0">{img_tag(image, name)}'
        f'<figcaption class="tt-soft">{as_html(name)}</figcaption>{badge}</figure>{columns}</div>'
    )


def short_headline(result: Prediction) -> str:
    """The top class, with a badge if the image is unknown."""
    badge = "" if result.known else '<span class="tt-badge tt-warm">unknown</span>'
    return f'<p class="tt-top">{as_html(result.top)}{badge}</p>'


def matrix(counts: Ints, classes: Sequence[str]) -> str:
    """A confusion matrix `(C, C)`: rows are true classes, columns predicted classes."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    head = "".join(f'<th scope="col">{as_html(name)}</th>' for name in classes)
    rows = []
    for row, name in enumerate(classes):
        cells = "".join(
            f'<td style="--tint:{_RIGHT if row == column else _WRONG};--share:{75 * shares[row, column]:.0f}%">'
            f"{int(counts[row, column]) or ''}</td>"
            for column in range(len(classes))
        )
        rows.append(f'<tr><th scope="row">{as_html(name)}</th>{cells}</tr>')
    return (
        '<p class="tt-soft">Rows: true class. Columns: predicted class.</p>'
        '<div class="tt-scroll"><table class="tt-matrix" aria-label="Confusion matrix">'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def img_tag(pixels: npt.NDArray[np.uint8], alt: str) -> str:
    """An `<img>` element; small images are shown pixelated."""
    sharp = ' class="tt-sharp"' if is_pixelated(pixels) else ""
    return f'<img{sharp} src="{uri(pixels)}" alt="{as_html(alt)}">'


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


def choose_model(label: str = "Model", *, key: str = "model", remember: bool = True) -> Entry:
    """Show a selection of the available models; without any, show how to get one and stop the page.

    The choice becomes the default of other pages unless `remember` is false.
    """
    found = entries()
    if not found:
        require_model()
    names = [entry.name for entry in found]
    if st.session_state.get(key) not in names:
        st.session_state.pop(key, None)
    name = st.selectbox(label, names, index=index_of_selected(found), key=key)
    entry = found[names.index(name)]
    if remember:
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
    accuracy = "" if info.accuracy is None else f" · {percent(info.accuracy, 1)} test accuracy"
    size, dataset, architecture = info.input_size, as_markdown(info.dataset), as_markdown(info.architecture)
    return f"{len(info.classes)} classes of {dataset}{accuracy} · input {size}×{size} pixels · {architecture}"


def show_error(error: ThirtytwoError) -> None:
    """Show an error and how to fix it."""
    st.error(as_markdown(f"{error.message} {error.fix or ''}"), icon=":material/error:")
