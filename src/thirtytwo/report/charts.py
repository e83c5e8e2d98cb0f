"""Charts of the report as inline SVG, styled by the CSS of the page.

Every function returns SVG text in which all names are escaped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from thirtytwo.evaluation.metrics import Reliability
from thirtytwo.report.views import MatrixView, ReliabilityBin, readable_on, reliability_bins
from thirtytwo.text import SPACE, abbreviate, as_html, as_printable, percent

MAX_LABELED_CLASSES = 120
"""Maximum number of classes for which a confusion matrix shows names."""
MAX_MATRIX_CLASSES = 200
"""Maximum number of classes for which a confusion matrix is drawn."""


CELLS = {"light": ("#1c5f79", "#b04a22", "#ffffff"), "dark": ("#79bdd6", "#ec9a70", "#1b1f23")}
"""Colors in `page.css` of correct and wrong cells of a matrix and of what lies below: --accent, --warm and --card."""
MOST_LETTERS = 31
"""Maximum length of a class name in a chart."""


@dataclass(frozen=True)
class Line:
    """One line of a chart: name in the legend, CSS class, and points (x, y)."""

    name: str
    kind: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class _Plane:
    """The area of a line chart: its size and margins in pixels, and the ranges of both axes."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    width: float = 340.0
    height: float = 232.0
    left: float = 42.0
    right: float = 52.0
    top: float = 50.0
    bottom: float = 28.0

    def place(self, x: float, y: float) -> tuple[float, float]:
        """The position of a point in pixels."""
        across = (x - self.x_low) / (self.x_high - self.x_low) if self.x_high > self.x_low else 0.5
        up = (y - self.y_low) / (self.y_high - self.y_low) if self.y_high > self.y_low else 0.5
        return (
            self.left + across * (self.width - self.left - self.right),
            self.height - self.bottom - up * (self.height - self.top - self.bottom),
        )


def line_chart(title: str, lines: Sequence[Line], *, unit: str = "", as_percent: bool = False) -> str:
    """Lines over epochs, each labeled with its last value; empty where there are no points."""
    drawn = [line for line in lines if line.points]
    if not drawn:
        return ""
    xs = [x for line in drawn for x, _ in line.points]
    ys = [y for line in drawn for _, y in line.points]
    ticks = nice_ticks(min(ys), max(ys))
    plane = _Plane(min(xs), max(xs), min(ticks[0], min(ys)), max(ticks[-1], max(ys)))
    keys = [
        f'<text class="key {line.kind}" x="{number * 78}" y="33">{as_html(line.name)}</text>'
        for number, line in enumerate(drawn)
        if line.name
    ]
    ends = _separate([plane.place(*line.points[-1])[1] for line in drawn], 13.0)
    parts = [
        _open(plane.width, plane.height, title, "chart"),
        f'<text class="t" x="0" y="14">{as_html(title)}</text>',
        *keys,
        *_line_axes(plane, ticks, as_percent),
    ]
    for line, end in zip(drawn, ends, strict=True):
        value = line.points[-1][1]
        parts += _line_marks(
            plane, line, end, f"{100 * value:.1f}{SPACE}%{unit}" if as_percent else f"{value:.3g}{unit}"
        )
    return "".join([*parts, "</svg>"])


def _line_axes(plane: _Plane, ticks: Sequence[float], as_percent: bool) -> list[str]:
    parts = []
    for tick in ticks:
        _, y = plane.place(plane.x_low, tick)
        label = f"{100 * tick:.4g}{SPACE}%" if as_percent else f"{tick:.4g}"
        parts.append(
            f'<line class="grid" x1="{plane.left}" x2="{plane.width - plane.right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(f'<text class="num end" x="{plane.left - 6}" y="{y + 4:.1f}">{label}</text>')
    below = plane.height - plane.bottom + 16
    for tick in _epoch_ticks(plane.x_low, plane.x_high):
        x, _ = plane.place(tick, plane.y_low)
        parts.append(f'<text class="num mid" x="{x:.1f}" y="{below}">{tick:g}</text>')
    return [*parts, f'<text class="num" x="{plane.width - plane.right + 9}" y="{below}">epoch</text>']


def _line_marks(plane: _Plane, line: Line, end: float, text: str) -> list[str]:
    """The line, its last point, and the value `text` at height `end`."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (plane.place(*point) for point in line.points))
    x, y = plane.place(*line.points[-1])
    return [
        *([f'<polyline class="line {line.kind}" points="{path}"/>'] if len(line.points) > 1 else []),
        f'<circle class="dot {line.kind}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>',
        f'<text class="num {line.kind}" x="{x + 7:.1f}" y="{end + 4:.1f}">{text}</text>',
    ]


_LEFT, _RIGHT, _TOP, _BOTTOM, _BARS_TOP, _BARS = 56.0, 406.0, 28.0, 276.0, 294.0, 56.0
"""Edges of the reliability diagram in pixels, and place and height of the bars below it."""


def _across(share: float) -> float:
    return _LEFT + share * (_RIGHT - _LEFT)


def _up(share: float) -> float:
    return _BOTTOM - share * (_BOTTOM - _TOP)


def reliability_chart(found: Reliability, title: str = "") -> str:
    """Accuracy against confidence with Wilson intervals, above a histogram of confidence."""
    bins, total = reliability_bins(found), int(found.counts.sum())
    most = max((one.count for one in bins), default=1)
    parts = [
        _open(_RIGHT + 20.0, 400.0, f"Confidence against accuracy {title}".strip(), "chart"),
        *_reliability_axes(),
        *(_reliability_mark(one, most, total) for one in bins),
    ]
    return "".join([*parts, "</svg>"])


def _reliability_axes() -> list[str]:
    parts, below = [], _BARS_TOP + _BARS
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = _up(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="num end" x="{_LEFT - 6}" y="{y + 4:.1f}">{percent(tick, 0)}</text>')
        parts.append(f'<text class="num mid" x="{_across(tick):.1f}" y="{below + 16}">{percent(tick, 0)}</text>')
    return [
        *parts,
        f'<line class="ideal" x1="{_across(0)}" y1="{_up(0)}" x2="{_across(1)}" y2="{_up(1)}"/>',
        '<text class="axis" x="0" y="12">accuracy</text>',
        f'<text class="axis end" x="{_LEFT - 6}" y="{below}">images</text>',
        f'<text class="axis mid" x="{_across(0.5):.1f}" y="{below + 36}">confidence</text>',
    ]


def _reliability_mark(one: ReliabilityBin, most: int, total: int) -> str:
    """The point, whisker and bar of a bin; `most` is the largest count of a bin."""
    x, tall = _across(one.confidence), max(1.0, _BARS * one.count / most)
    tooltip = (
        f"confidence {100 * one.low:.0f} to {percent(one.high, 0)}: {one.count:,} of {total:,} images, "
        f"mean confidence {percent(one.confidence)}, accuracy {percent(one.accuracy)}"
    )
    low, high = one.interval
    left, right = _across(one.low), _across(one.high)
    return (
        f'<g><title>{tooltip}</title><line class="whisker" x1="{x:.1f}" x2="{x:.1f}" y1="{_up(low):.1f}" '
        f'y2="{_up(high):.1f}"/><circle class="dot val" cx="{x:.1f}" cy="{_up(one.accuracy):.1f}" r="4"/>'
        f'<rect class="bar" x="{left + 0.75:.1f}" width="{right - left - 1.5:.1f}" '
        f'y="{_BARS_TOP + _BARS - tall:.1f}" height="{tall:.1f}"/></g>'
    )


@dataclass(frozen=True)
class _MatrixLayout:
    """Sizes of a confusion matrix in pixels; `grouped`: names are those of superclasses."""

    width: int
    cell: float
    font: float
    margin: float
    kind: str
    grouped: bool
    named: bool

    @property
    def side(self) -> float:
        """Side of the matrix without names."""
        return self.cell * self.width

    @property
    def large(self) -> bool:
        """Whether cells are too small for numbers."""
        return self.width > 30

    @classmethod
    def of(cls, view: MatrixView) -> _MatrixLayout:
        """The layout for the number of classes and the lengths of their names."""
        width = len(view.names)
        cell, font = (42.0, 13.0) if width <= 12 else (24.0, 11.0) if width <= 30 else (10.0, 8.0)
        grouped = bool(view.groups) and width > 30
        font = 12.0 if grouped else font
        named = grouped or width <= MAX_LABELED_CLASSES
        labels = (view.groups if grouped else view.names) if named else ()
        longest = max((len(label) for label in abbreviate(labels, MOST_LETTERS)), default=0)
        sizes = ((6, "few"), (12, "small"), (30, "middle"))
        kind = f"matrix {next((name for most, name in sizes if width <= most), 'large')}"
        return cls(width, cell, font, 30.0 + longest * font * 0.56, kind, grouped, named)


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
    if len(classes) > MAX_MATRIX_CLASSES:
        return ""
    view = MatrixView.of(matrix, classes, superclasses)
    layout = _MatrixLayout.of(view)
    spans = view.spans if layout.grouped else [(name, position, 1) for position, name in enumerate(view.names)]
    labels = abbreviate([name for name, *_ in spans], MOST_LETTERS)
    parts = [
        *_matrix_frame(view, layout, of),
        *(
            part
            for label, (_, start, length) in zip(labels, spans, strict=True)
            for part in _matrix_label(layout, label, start, length)
        ),
        *_matrix_cells(view, layout),
        *(_matrix_block(layout, start, length) for _, start, length in spans if layout.grouped),
        f'<rect class="cursor" width="{layout.cell:g}" height="{layout.cell:g}" data-margin="{layout.margin:g}"/>',
    ]
    return "".join([*parts, "</svg>"])


def _matrix_frame(view: MatrixView, layout: _MatrixLayout, of: str) -> list[str]:
    margin, side = layout.margin, layout.side
    listed = as_html(json.dumps([as_printable(name) for name in view.names], ensure_ascii=False))
    label = f"Confusion matrix of {of}: arrow keys select a cell, Enter shows its images"
    data = f' tabindex="0" data-of="{of}" data-names="{listed}"'
    return [
        _open(margin + side + 4, margin + side + 4, label, layout.kind, data, role="application"),
        f'<text class="axis mid" x="{margin + side / 2:g}" y="12">predicted</text>',
        f'<text class="axis mid" transform="translate(12 {margin + side / 2:g}) rotate(-90)">true</text>',
        f'<rect class="field" x="{margin}" y="{margin}" width="{side}" height="{side}"/>',
    ]


def _matrix_label(layout: _MatrixLayout, label: str, start: int, length: int) -> list[str]:
    """The name of a class or superclass on both axes, and the rules before it."""
    parts, margin, font = [], layout.margin, layout.font
    middle = margin + layout.cell * (start + length / 2)
    if start and (layout.grouped or not layout.large):
        line = margin + layout.cell * start
        parts.append(f'<path class="rule" d="M{margin} {line}h{layout.side}M{line} {margin}v{layout.side}"/>')
    if layout.named:
        text, style = as_html(label), f'style="font-size:{font}px"'
        parts.append(f'<text class="end" {style} x="{margin - 6}" y="{middle + font * 0.35:.1f}">{text}</text>')
        turned = f"translate({middle + font * 0.35:.1f} {margin - 6}) rotate(-90)"
        parts.append(f'<text {style} transform="{turned}">{text}</text>')
    return parts


def _matrix_cells(view: MatrixView, layout: _MatrixLayout) -> Iterator[str]:
    """A rectangle for each count above 0, with the number where there is room."""
    names, totals, cell = view.names, view.counts.sum(axis=1), layout.cell
    most = float((view.shares * (1 - np.eye(layout.width))).max()) or 1.0
    for row, column in np.argwhere(view.counts > 0).tolist():
        count, part, right = int(view.counts[row, column]), float(view.shares[row, column]), row == column
        depth = 0.12 + 0.88 * part if right else 0.08 + 0.92 * (part / most) ** 0.7
        outcome = "correct" if right else f"predicted as {names[column]}"
        title = as_html(f"{names[row]} {outcome}: {count:,} of {int(totals[row]):,} ({percent(part)})")
        x, y = layout.margin + cell * column, layout.margin + cell * row
        yield (
            f'<rect class="{"hit" if right else "miss"}" x="{x:g}" y="{y:g}" width="{cell:g}" height="{cell:g}" '
            f'fill-opacity="{depth:.2f}" data-at="{row},{column}"><title>{title}</title></rect>'
        )
        if not layout.large:
            tone = f"{_number_tone(right, round(depth, 2))}{' fine' if layout.width > 12 else ''}"
            y_text = y + cell / 2 + layout.font / 3
            yield f'<text class="count {tone}" x="{x + cell / 2}" y="{y_text:.1f}">{count}</text>'


def _number_tone(right: bool, depth: float) -> str:
    """CSS classes that make a number black or white on a cell, in light and dark: `light-white dark-black`."""
    tones = []
    for scheme, (hit, miss, card) in CELLS.items():
        colors = (hit if right else miss, card)
        cell, below = ([int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)] for color in colors)
        mixed = tuple(depth * over + (1 - depth) * under for over, under in zip(cell, below, strict=True))
        tones.append(f"{scheme}-{readable_on(mixed)}")
    return " ".join(tones)


def _matrix_block(layout: _MatrixLayout, start: int, length: int) -> str:
    x, edge = layout.margin + layout.cell * start, layout.cell * length
    return f'<rect class="block" x="{x:g}" y="{x:g}" width="{edge:g}" height="{edge:g}"/>'


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


def _open(width: float, height: float, title: str, kind: str, more: str = "", role: str = "img") -> str:
    label = as_html(title)
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

    parts = [
        _open(width, height, title, "chart"),
        f'<text class="t" x="0" y="14">{as_html(title)}</text>',
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
            f'<g><title>{as_html(row.tooltip)}</title><text class="name" x="0" y="{y + 4:.1f}">{as_html(name)}</text>'
            f'<line class="whisker" x1="{across(row.low):.1f}" x2="{across(row.high):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.extend(f'<circle class="run" cx="{across(point):.1f}" cy="{y:.1f}" r="2.6"/>' for point in row.points)
        parts.append(f'<circle class="dot val" cx="{across(row.value):.1f}" cy="{y:.1f}" r="4"/></g>')
    return "".join([*parts, "</svg>"])
