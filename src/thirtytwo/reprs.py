"""HTML that objects show in notebooks (`_repr_html_`): a title, tables and small images.

Colors are those of the notebook's theme. All text is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from thirtytwo.text import as_html

_CELL = "padding:2px 10px;vertical-align:top"


def card(title: str, *parts: str, note: str = "") -> str:
    """A box with a title, finished HTML below it, and a note in small letters.

    Args:
        title: text.
        parts: HTML.
        note: text below the parts.
    """
    below = f'<div style="opacity:.7;font-size:90%">{as_html(note)}</div>' if note else ""
    return (
        '<div style="border:1px solid rgba(128,128,128,.4);border-radius:6px;padding:8px 12px;max-width:60em;'
        f'overflow-x:auto;font:13px sans-serif"><div style="font-weight:700;margin-bottom:4px">{as_html(title)}</div>'
        f"{''.join(parts)}{below}</div>"
    )


def table(rows: Iterable[Sequence[object]], head: Sequence[object] = ()) -> str:
    """A table: the first column is text, the others are aligned to the right; finished HTML is given as `Html`."""
    top = "".join(_cell(value, "th", number) for number, value in enumerate(head))
    body = "".join(
        f"<tr>{''.join(_cell(value, 'td', number) for number, value in enumerate(row))}</tr>" for row in rows
    )
    return f'<table style="border-collapse:collapse;margin:4px 0">{f"<tr>{top}</tr>" if top else ""}{body}</table>'


class Html(str):
    """Text that is HTML already and is not escaped."""

    __slots__ = ()


def image(uri: str, side: int, label: str) -> Html:
    """A small image, `side` pixels high, with a description."""
    return Html(
        f'<img src="{as_html(uri)}" alt="{as_html(label)}" title="{as_html(label)}" height="{side}" '
        f'style="height:{side}px;image-rendering:pixelated;display:inline-block;margin:1px">'
    )


def bar(share: float) -> Html:
    """A bar of a share, 0 to 1."""
    return Html(
        '<div style="background:rgba(128,128,128,.25);width:8em;height:.8em;margin-top:.25em">'
        f'<div style="background:#00897b;height:100%;width:{100 * min(max(share, 0.0), 1.0):.1f}%"></div></div>'
    )


def _cell(value: object, tag: str, column: int) -> str:
    text = value if isinstance(value, Html) else as_html(value)
    align = "left" if column == 0 or isinstance(value, Html) else "right"
    return f'<{tag} style="{_CELL};text-align:{align}">{text}</{tag}>'
