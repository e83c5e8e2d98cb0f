"""Pieces of the pages that Streamlit has no element for, as HTML; every text from outside is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from thirtytwo.app.display import Drawn, uri
from thirtytwo.inference.classifier import Prediction
from thirtytwo.text import as_html

Ints = npt.NDArray[np.int64]
_SHARP = 64
SPACE = "\u00a0"
_RIGHT, _WRONG = "#3d88a6", "#c0592c"


def card(name: str, result: Prediction, drawn: Drawn, top: int, *, heat: bool) -> str:
    """One image: itself, what the model sees, and the most probable classes as bars."""
    size = f"{result.width}×{result.height}"
    sides = "×".join(map(str, drawn.seen.shape[1::-1]))
    about = f"{name}, with heat over it" if heat else name
    return (
        f'<div class="tt-card"><figure>{img_tag(drawn.image, about)}'
        f"<figcaption>{as_html(name)} · {size}</figcaption></figure>"
        f'<figure class="tt-seen">{img_tag(drawn.seen, f"{name} as the model sees it")}'
        f"<figcaption>What the model sees, {sides}</figcaption></figure>"
        f"<div>{headline(result)}{bars(result.predictions[:top])}</div></div>"
    )


def headline(result: Prediction) -> str:
    """The class named first, and a badge where the image is unlike those of training."""
    if result.known:
        return f'<p class="tt-top">{as_html(result.top)}</p>'
    return (
        f'<p class="tt-top">{as_html(result.top)}?<span class="tt-badge tt-warm">unknown</span></p>'
        '<p class="tt-soft" style="margin:0 0 8px">Unlike anything the model was trained on; what follows is its '
        "nearest guess.</p>"
    )


def bars(predictions: Iterable[tuple[str, float]]) -> str:
    """Classes with their calibrated probabilities as bars."""
    rows = (
        f'<b>{as_html(name)}</b><span class="tt-track"><i style="width:{100 * value:.1f}%"></i></span>'
        f"<em>{percent(value)}</em>"
        for name, value in predictions
    )
    return f'<div class="tt-bars">{"".join(rows)}</div>'


def wall(tiles: Iterable[tuple[npt.NDArray[np.uint8], str, str]]) -> str:
    """Many small images, each with a line in bold and one below."""
    shown = (
        f'<figure class="tt-tile">{img_tag(pixels, f"{first}, {second}")}<b>{as_html(first)}</b><br>'
        f"<span>{as_html(second)}</span></figure>"
        for pixels, first, second in tiles
    )
    return f'<div class="tt-wall">{"".join(shown)}</div>'


def beside(
    name: str, image: npt.NDArray[np.uint8], said: Sequence[tuple[str, Prediction]], top: int, *, agree: bool
) -> str:
    """One image and what each model says of it."""
    badge = (
        '<span class="tt-badge tt-good" style="margin-left:0">agree</span>'
        if agree
        else '<span class="tt-badge tt-warm" style="margin-left:0">differ</span>'
    )
    columns = "".join(
        f"<div><h4>{as_html(model)}</h4>{headline_only(result)}{bars(result.predictions[:top])}</div>"
        for model, result in said
    )
    return (
        f'<div class="tt-beside" style="--models:{len(said)}"><figure style="margin:0">{img_tag(image, name)}'
        f'<figcaption class="tt-soft">{as_html(name)}</figcaption>{badge}</figure>{columns}</div>'
    )


def headline_only(result: Prediction) -> str:
    """The class named first, with a badge, without the explanation of it."""
    badge = "" if result.known else '<span class="tt-badge tt-warm">unknown</span>'
    return f'<p class="tt-top">{as_html(result.top)}{badge}</p>'


def matrix(counts: Ints, classes: Sequence[str]) -> str:
    """A confusion matrix `(C, C)`: rows are true classes, columns what they were called."""
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
        '<p class="tt-soft">Rows: what it is. Columns: what it was called.</p>'
        '<div class="tt-scroll"><table class="tt-matrix" aria-label="Confusion matrix">'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def img_tag(pixels: npt.NDArray[np.uint8], about: str) -> str:
    """An `<img>`; small images show their pixels."""
    sharp = ' class="tt-sharp"' if max(pixels.shape[:2]) <= _SHARP else ""
    return f'<img{sharp} src="{uri(pixels)}" alt="{as_html(about)}">'


def percent(value: float) -> str:
    """`0.9312` as `93.1 %` with a space that does not break; what is almost nothing or everything is not called so."""
    shown = f"{100 * value:.1f}"
    if shown == "100.0" and value < 1:
        shown = "> 99.9"
    if shown == "0.0" and value > 0:
        shown = "< 0.1"
    return f"{shown}{SPACE}%"
