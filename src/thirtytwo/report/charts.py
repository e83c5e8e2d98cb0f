"""Charts of the report as inline SVG, styled by the CSS of the page.

Every function returns SVG text in which all names are escaped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from thirtytwo.evaluation.metrics import Reliability, wilson
from thirtytwo.text import percent, shorten

MAX_LABELED_CLASSES = 120
"""Maximum number of classes for which a confusion matrix shows names."""
MAX_MATRIX_CLASSES = 200
"""Maximum number of classes for which a confusion matrix is drawn."""


MOST_LETTERS = 31
"""Maximum length of a class name in a chart."""


@dataclass(frozen=True)
class Line:
    """One line of a chart: name in the legend, CSS class, and points (x, y)."""

    name: str
    kind: str
    points: Sequence[tuple[float, float]]


def line_chart(title: str, lines: Sequence[Line], *, unit: str = "", as_percent: bool = False) -> str:
    """Lines over epochs, each labeled with its last value; empty where there are no points."""
    drawn = [line for line in lines if line.points]
    if not drawn:
        return ""
    width, height, left, right, top, bottom = 340.0, 232.0, 42.0, 52.0, 50.0, 28.0
    xs = [x for line in drawn for x, _ in line.points]
    ys = [y for line in drawn for _, y in line.points]
    x_low, x_high = min(xs), max(xs)
    ticks = nice_ticks(min(ys), max(ys))
    y_low, y_high = min(ticks[0], min(ys)), max(ticks[-1], max(ys))

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low) if x_high > x_low else 0.5
        up = (y - y_low) / (y_high - y_low) if y_high > y_low else 0.5
        return left + across * (width - left - right), height - bottom - up * (height - top - bottom)

    def shown(value: float) -> str:
        return f"{100 * value:.1f}%" if as_percent else f"{value:.3g}"

    parts = [_open(width, height, title, "chart"), f'<text class="t" x="0" y="14">{escape(title)}</text>']
    parts.extend(
        f'<text class="key {line.kind}" x="{number * 78}" y="33">{escape(line.name)}</text>'
        for number, line in enumerate(drawn)
        if line.name
    )
    for tick in ticks:
        _, y = place(x_low, tick)
        label = f"{100 * tick:.4g}%" if as_percent else f"{tick:.4g}"
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="num end" x="{left - 6}" y="{y + 4:.1f}">{label}</text>')
    for tick in _epoch_ticks(x_low, x_high):
        x, _ = place(tick, y_low)
        parts.append(f'<text class="num mid" x="{x:.1f}" y="{height - bottom + 16}">{tick:g}</text>')
    parts.append(f'<text class="num" x="{width - right + 9}" y="{height - bottom + 16}">epoch</text>')
    ends = _separate([place(*line.points[-1])[1] for line in drawn], 13.0)
    for line, end in zip(drawn, ends, strict=True):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line.points))
        if len(line.points) > 1:
            parts.append(f'<polyline class="line {line.kind}" points="{path}"/>')
        x, y = place(*line.points[-1])
        parts.append(f'<circle class="dot {line.kind}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>')
        parts.append(
            f'<text class="num {line.kind}" x="{x + 7:.1f}" y="{end + 4:.1f}">{shown(line.points[-1][1])}{unit}</text>'
        )
    return "".join([*parts, "</svg>"])


def reliability_chart(found: Reliability, title: str = "") -> str:
    """Accuracy against confidence with Wilson intervals, above a histogram of confidence."""
    width, left, right, top, bottom, bars_top, bars = 426.0, 56.0, 20.0, 28.0, 276.0, 294.0, 56.0

    def across(share: float) -> float:
        return left + share * (width - left - right)

    def up(share: float) -> float:
        return bottom - share * (bottom - top)

    parts = [_open(width, 400.0, f"Confidence against accuracy {title}".strip(), "chart")]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{up(tick):.1f}" y2="{up(tick):.1f}"/>')
        parts.append(f'<text class="num end" x="{left - 6}" y="{up(tick) + 4:.1f}">{100 * tick:.0f}%</text>')
        parts.append(
            f'<text class="num mid" x="{across(tick):.1f}" y="{bars_top + bars + 16}">{100 * tick:.0f}%</text>'
        )
    parts.append(f'<line class="ideal" x1="{across(0)}" y1="{up(0)}" x2="{across(1)}" y2="{up(1)}"/>')
    parts.append('<text class="axis" x="0" y="12">accuracy</text>')
    parts.append(f'<text class="axis end" x="{left - 6}" y="{bars_top + bars}">images</text>')
    parts.append(f'<text class="axis mid" x="{across(0.5):.1f}" y="{bars_top + bars + 36}">confidence</text>')
    most, total = int(found.counts.max()), int(found.counts.sum())
    for number, count in enumerate(found.counts.tolist()):
        if not count:
            continue
        low, high = float(found.edges[number]), float(found.edges[number + 1])
        confidence, accuracy = float(found.confidence[number]), float(found.accuracy[number])
        tooltip = (
            f"confidence {100 * low:.0f} to {100 * high:.0f}%: {count:,} of {total:,} images, "
            f"mean confidence {100 * confidence:.1f}%, accuracy {100 * accuracy:.1f}%"
        )
        bottom_end, top_end = wilson(round(accuracy * count), count)
        x = across(confidence)
        tall = max(1.0, bars * count / most)
        parts.append(
            f'<g><title>{tooltip}</title><line class="whisker" x1="{x:.1f}" x2="{x:.1f}" y1="{up(bottom_end):.1f}" '
            f'y2="{up(top_end):.1f}"/><circle class="dot val" cx="{x:.1f}" cy="{up(accuracy):.1f}" r="4"/>'
            f'<rect class="bar" x="{across(low) + 0.75:.1f}" width="{across(high) - across(low) - 1.5:.1f}" '
            f'y="{bars_top + bars - tall:.1f}" height="{tall:.1f}"/></g>'
        )
    return "".join([*parts, "</svg>"])


def confusion_chart(
    matrix: npt.NDArray[np.int64],
    classes: Sequence[str],
    superclasses: Mapping[str, str] | None = None,
    *,
    of: str = "classes",
) -> str:
    """A confusion matrix `(C, C)` as a heat map, grouped by superclass; empty where it is too large.

    Rows are true classes. The opacity of a cell is its share of the row; the diagonal and the errors have separate
    colors and scales, because errors are small next to the diagonal. `of` is `classes` or `groups` (superclasses); the
    script of the page uses it to find names and readout.
    """
    width = len(classes)
    if width > MAX_MATRIX_CLASSES:
        return ""
    groups = [superclasses[name] for name in classes] if superclasses else []
    order = sorted(range(width), key=lambda index: (groups[index], index)) if groups else list(range(width))
    names = [classes[index] for index in order]
    ordered = matrix[np.ix_(order, order)]
    share = ordered / np.maximum(ordered.sum(axis=1, keepdims=True), 1)
    off = share * (1 - np.eye(width))
    most = float(off.max()) or 1.0

    cell, font = (42.0, 13.0) if width <= 12 else (24.0, 11.0) if width <= 30 else (10.0, 8.0)
    grouped = bool(groups) and width > 30
    labels = sorted(set(groups)) if grouped else names if width <= MAX_LABELED_CLASSES else []
    if grouped:
        font = 12.0
    longest = max((len(shorten(label, MOST_LETTERS)) for label in labels), default=0)
    margin = 30.0 + longest * font * 0.56
    side = cell * width
    kind = "matrix small" if width <= 12 else "matrix middle" if width <= 30 else "matrix large"
    listed = escape(json.dumps(names, ensure_ascii=False), quote=True)
    label = f"Confusion matrix of {of}: arrow keys select a cell, Enter shows its images"
    data = f' tabindex="0" data-of="{of}" data-names="{listed}"'
    parts = [
        _open(margin + side + 4, margin + side + 4, label, kind, data, role="application"),
        f'<text class="axis mid" x="{margin + side / 2:g}" y="12">predicted</text>',
        f'<text class="axis mid" transform="translate(12 {margin + side / 2:g}) rotate(-90)">true</text>',
        f'<rect class="field" x="{margin}" y="{margin}" width="{side}" height="{side}"/>',
    ]
    spans = _spans([groups[index] for index in order]) if grouped else [(name, n, 1) for n, name in enumerate(names)]
    for label, start, length in spans:
        middle = margin + cell * (start + length / 2)
        if start and (grouped or width <= 30):
            line = margin + cell * start
            parts.append(f'<path class="rule" d="M{margin} {line}h{side}M{line} {margin}v{side}"/>')
        if labels:
            text, style = escape(shorten(label, MOST_LETTERS)), f'style="font-size:{font}px"'
            parts.append(f'<text class="end" {style} x="{margin - 6}" y="{middle + font * 0.35:.1f}">{text}</text>')
            turned = f"translate({middle + font * 0.35:.1f} {margin - 6}) rotate(-90)"
            parts.append(f'<text {style} transform="{turned}">{text}</text>')
    totals = ordered.sum(axis=1)
    for row, column in np.argwhere(ordered > 0).tolist():
        count, part, right = int(ordered[row, column]), float(share[row, column]), row == column
        depth = 0.12 + 0.88 * part if right else 0.08 + 0.92 * (part / most) ** 0.7
        outcome = "correct" if right else f"predicted as {names[column]}"
        title = escape(f"{names[row]} {outcome}: {count:,} of {int(totals[row]):,} ({percent(part, 1)})")
        x, y = margin + cell * column, margin + cell * row
        parts.append(
            f'<rect class="{"hit" if right else "miss"}" x="{x:g}" y="{y:g}" width="{cell:g}" height="{cell:g}" '
            f'fill-opacity="{depth:.2f}" data-at="{row},{column}"><title>{title}</title></rect>'
        )
        if width <= 30:
            tone = f"{'on' if depth > 0.6 else 'off'}{' fine' if width > 12 else ''}"
            parts.append(
                f'<text class="count {tone}" x="{x + cell / 2}" y="{y + cell / 2 + font / 3:.1f}">{count}</text>'
            )
    if grouped:
        for _, start, length in spans:
            x, edge = margin + cell * start, cell * length
            parts.append(f'<rect class="block" x="{x:g}" y="{x:g}" width="{edge:g}" height="{edge:g}"/>')
    parts.append(f'<rect class="cursor" width="{cell:g}" height="{cell:g}" data-margin="{margin:g}"/>')
    return "".join([*parts, "</svg>"])


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """About `about` round values that span `low` to `high`."""
    if high <= low:
        low, high = low - (abs(low) or 1.0) * 0.05, high + (abs(high) or 1.0) * 0.05
    rough = (high - low) / max(1, about - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _epoch_ticks(low: float, high: float) -> list[float]:
    if high <= low:
        return [low]
    step = max(1.0, nice_ticks(0.0, high - low)[1])
    first = math.ceil(low / step) * step
    ticks = [first + step * number for number in range(int((high - first) / step) + 1)]
    return ticks or [low, high]


def _separate(places: Sequence[float], least: float) -> list[float]:
    """Positions moved apart to a distance of at least `least`, so that labels do not overlap."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = list(places)
    for before, after in pairwise(order):
        if moved[after] - moved[before] < least:
            middle = (moved[after] + moved[before]) / 2
            moved[before], moved[after] = middle - least / 2, middle + least / 2
    return moved


def _spans(labels: Sequence[str]) -> list[tuple[str, int, int]]:
    """Runs of equal labels: (label, first position, length)."""
    spans: list[tuple[str, int, int]] = []
    for position, label in enumerate(labels):
        if spans and spans[-1][0] == label:
            spans[-1] = (label, spans[-1][1], spans[-1][2] + 1)
        else:
            spans.append((label, position, 1))
    return spans


def _open(width: float, height: float, title: str, kind: str, more: str = "", role: str = "img") -> str:
    label = escape(title, quote=True)
    return f'<svg class="{kind}" viewBox="0 0 {width:g} {height:g}" role="{role}" aria-label="{label}"{more}>'


@dataclass(frozen=True)
class Row:
    """One row: label, value, ends of the whisker, tooltip, and further points."""

    label: str
    value: float
    low: float
    high: float
    tooltip: str
    points: tuple[float, ...] = ()


def interval_chart(title: str, rows: Sequence[Row], *, unit: str = "%", zero: bool = False) -> str:
    """Fractions as dots with whiskers, in percent; `zero` draws the line of no difference. Names are escaped."""
    longest = max((len(row.label) for row in rows), default=0)
    width, right, top, step, bottom = 420.0, 16.0, 30.0, 24.0, 26.0
    left = min(190.0, 16.0 + 7.0 * longest)
    ends = [100 * end for row in rows for end in (row.low, row.high, row.value, *row.points)] + ([0.0] if zero else [])
    ticks = nice_ticks(min(ends), max(ends), 5)
    low, high = min(ticks[0], min(ends)), max(ticks[-1], max(ends))
    height = top + step * len(rows) + bottom

    def across(share: float) -> float:
        return left + (100 * share - low) / (high - low) * (width - left - right)

    label = escape(title, quote=True)
    parts = [
        f'<svg class="chart" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{label}">',
        f'<text class="t" x="0" y="14">{escape(title)}</text>',
    ]
    for tick in ticks:
        x = across(tick / 100)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 4}" y2="{height - bottom}"/>')
        text = f"{tick:.4g}".replace("-", "−") + unit
        parts.append(f'<text class="num mid" x="{x:.1f}" y="{height - bottom + 16}">{text}</text>')
    if zero:
        x = across(0.0)
        parts.append(f'<line class="ideal" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 4}" y2="{height - bottom}"/>')
    for number, row in enumerate(rows):
        y = top + step * (number + 0.5)
        name = row.label if len(row.label) <= 26 else row.label[:25] + "…"
        parts.append(
            f'<g><title>{escape(row.tooltip)}</title><text class="name" x="0" y="{y + 4:.1f}">{escape(name)}</text>'
            f'<line class="whisker" x1="{across(row.low):.1f}" x2="{across(row.high):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.extend(f'<circle class="run" cx="{across(point):.1f}" cy="{y:.1f}" r="2.6"/>' for point in row.points)
        parts.append(f'<circle class="dot val" cx="{across(row.value):.1f}" cy="{y:.1f}" r="4"/></g>')
    return "".join([*parts, "</svg>"])
