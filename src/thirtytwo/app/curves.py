"""Accuracy and loss over epochs as images that follow the light or dark theme."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence

from thirtytwo.report.page import history_charts
from thirtytwo.report.views import CURVES, history_series
from thirtytwo.text import as_html, percent

_WIDTH = re.compile(r'(viewBox="0 0 )(\d+)')
_MARGIN = 12
"""Pixels that the last values may reach beyond the chart; an image cuts off what does."""
_XMLNS = "http://www.w3.org/2000/svg"
_STYLE = """<style>
:root { color-scheme: light dark; --ink: #1e2226; --soft: #5b6066; --grid: #dedad0; --accent: #1c5f79; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7e4de; --soft: #a9abab; --grid: #353b42; --accent: #8cc8df; } }
text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; fill: var(--soft); }
text.t { font-size: 15px; font-weight: 600; fill: var(--ink); } text.key { font-weight: 600; }
.end { text-anchor: end; } .mid { text-anchor: middle; } .grid { stroke: var(--grid); }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; } .line.val { stroke: var(--accent); }
.line.train { stroke: var(--soft); stroke-width: 1.6; stroke-dasharray: 5 3.5; }
text.val, .dot.val { fill: var(--accent); } text.train, .dot.train { fill: var(--soft); }
</style>"""


def curves(history: Sequence[Mapping[str, float]]) -> str:
    """The curves as HTML; empty without an epoch. The alternative texts give the last values."""
    charts = history_charts(history)[: len(CURVES)]
    figures = (
        f'<img src="data:image/svg+xml;base64,{_encoded(chart)}" alt="{as_html(_in_words(history, what, title))}">'
        for chart, (what, title) in zip(charts, CURVES, strict=False)
    )
    return f'<div class="tt-curves">{"".join(figures)}</div>' if charts else ""


def _encoded(chart: str) -> str:
    """A chart as an SVG file of its own, in base64."""
    start, sign, rest = chart.replace("<svg ", f'<svg xmlns="{_XMLNS}" ', 1).partition(">")
    start = _WIDTH.sub(lambda found: f"{found[1]}{int(found[2]) + _MARGIN}", start)
    text = f"{start}{sign}{_STYLE}{rest}"
    return base64.b64encode(text.encode()).decode("ascii")


def _in_words(history: Sequence[Mapping[str, float]], what: str, title: str) -> str:
    """The last values of a curve in a sentence."""
    parts = []
    for key, name in ((f"train_{what}", "training"), (f"val_{what}", "validation")):
        if points := history_series(history, key):
            value = points[-1][1]
            parts.append(f"{name} {percent(value) if what == 'accuracy' else f'{value:.3g}'}")
    return f"{title} after epoch {len(history)}: {', '.join(parts)}"
