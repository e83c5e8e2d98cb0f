"""The answers for many images as a table."""

from __future__ import annotations

import re
from collections.abc import Iterable

from thirtytwo.app.certainty import certainty
from thirtytwo.app.display import Result
from thirtytwo.app.look_twice import views_of
from thirtytwo.inference.classifier import UnreadableImage
from thirtytwo.text import as_html, counted, percent, readable

UNKNOWN_NOTE = "unknown: only the nearest class"
_HEAD = ("Image", "Answer", "Confidence", "Note")


def answer_table(results: Iterable[Result]) -> str:
    """A table as HTML, one row for each image, with what is to be said of its answer."""
    head = "".join(f'<th scope="col">{name}</th>' for name in _HEAD)
    return (
        '<div class="tt-scroll" tabindex="0" role="region" aria-label="Results, one row per image">'
        f'<table class="tt-table tt-answers"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(map(_row, results))}</tbody></table></div>"
    )


def _row(result: Result) -> str:
    if isinstance(result, UnreadableImage):
        cells = ("–", "–", result.error)
    else:
        note = {"unknown": UNKNOWN_NOTE, "not sure": "not sure", "sure": ""}[certainty(result)]
        views = views_of(result)
        notes = "; ".join(filter(None, (note, counted(views, "view") if views else "")))
        cells = (readable(result.top), percent(result.confidence), notes)
    rest = "".join(f"<td>{as_html(cell)}</td>" for cell in cells)
    name = re.sub("([_-])", r"\1<wbr>", as_html(result.file or ""))
    return f'<tr><th scope="row">{name}</th>{rest}</tr>'
