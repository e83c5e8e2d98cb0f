"""Charts of the page of a data set as inline SVG, styled by the CSS of the page; names are escaped."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from thirtytwo.data.channels import LEVELS, ChannelLevels
from thirtytwo.doctor.data_map import DataMap
from thirtytwo.doctor.shapes import RATIOS, Shapes
from thirtytwo.doctor.spread import Spread
from thirtytwo.report.charts import nice_ticks
from thirtytwo.text import as_html, counted

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 440.0, 190.0, 6.0, 24.0
"""Size of a chart, and its margins on the left and right and at the bottom, in pixels."""
_TOP = 26.0
MOST_SIZES = 400
"""Number of different sizes in a chart; it leaves out rarer ones."""
MAP_SIDE = 1000
"""Side of the map in its own units."""
_RIM = 20


def _open(title: str, width: float = _WIDTH, height: float = _HEIGHT, kind: str = "chart") -> list[str]:
    label = as_html(title)
    return [
        f'<svg class="{kind}" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{label}">',
        f'<text class="t" x="0" y="14">{label}</text>',
    ]


def _across(share: float) -> float:
    return _LEFT + share * (_WIDTH - 2 * _LEFT)


def _axis(ticks: Sequence[tuple[float, str]]) -> list[str]:
    """The line below a chart and its labels, at shares of the width."""
    y = _HEIGHT - _BOTTOM
    parts = [f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _LEFT}" y1="{y}" y2="{y}"/>']
    for share, label in ticks:
        anchor = "" if share < 0.04 else " end" if share > 0.96 else " mid"
        parts.append(f'<text class="num{anchor}" x="{_across(share):.1f}" y="{y + 16}">{as_html(label)}</text>')
    return parts


def _bars(counts: npt.NDArray[np.int64], names: Sequence[str]) -> list[str]:
    """One bar for each count, with a tooltip."""
    most, room, bottom = max(1, int(counts.max())), _HEIGHT - _BOTTOM - _TOP, _HEIGHT - _BOTTOM
    wide = (_WIDTH - 2 * _LEFT) / len(counts)
    return [
        f'<rect class="bar" x="{_LEFT + place * wide:.1f}" width="{max(1.0, wide - 1):.1f}" '
        f'y="{bottom - (tall := max(1.0, room * count / most)):.1f}" height="{tall:.1f}">'
        f"<title>{as_html(f'{name}: {count:,} images')}</title></rect>"
        for place, (count, name) in enumerate(zip(counts.tolist(), names, strict=True))
        if count
    ]


def spread_chart(spread: Spread) -> str:
    """Histogram of a statistic over images, with its median."""
    edges = np.linspace(spread.low, spread.high, len(spread.counts) + 1)
    names = [f"{low:.3g} to {high:.3g}" for low, high in itertools.pairwise(edges)]
    span = spread.high - spread.low
    ticks = [
        ((tick - spread.low) / span, f"{tick:g}")
        for tick in nice_ticks(spread.low, spread.high, 8)
        if spread.low <= tick <= spread.high
    ]
    middle = _across((spread.median - spread.low) / span)
    return "".join(
        [
            *_open(f"{spread.name.capitalize()}, median {spread.median:.3g}"),
            *_bars(spread.counts, names),
            f'<line class="median" x1="{middle:.1f}" x2="{middle:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>',
            *_beyond(spread),
            *_axis(ticks),
            "</svg>",
        ]
    )


def _beyond(spread: Spread) -> list[str]:
    """How many images lie outside of a histogram, and how far, at its ends."""
    parts = []
    if spread.below:
        text = f"← {counted(spread.below, 'image')} down to {spread.lowest_values[0]:.3g}"
        parts.append(f'<text class="num" x="{_LEFT}" y="{_TOP + 10}">{as_html(text)}</text>')
    if spread.above:
        text = f"{counted(spread.above, 'image')} up to {spread.highest_values[0]:.3g} →"
        parts.append(f'<text class="num end" x="{_WIDTH - _LEFT}" y="{_TOP + 10}">{as_html(text)}</text>')
    return parts


def levels_chart(title: str, counts: npt.NDArray[np.int64], kinds: Sequence[str]) -> str:
    """Shares of the levels 0 to 255.

    The scale ends at the highest share that is not among the largest 2 %: black and white borders would flatten the
    rest.

    Args:
        title: of the chart.
        counts: int64 `(K, 256)`.
        kinds: CSS class of each of the K lines.
    """
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    most = max(1e-9, 1.15 * float(np.quantile(shares, 0.98)))
    bottom, room = _HEIGHT - _BOTTOM, _HEIGHT - _BOTTOM - _TOP
    parts = _open(title)
    for row, kind in zip(shares, kinds, strict=True):
        tops = bottom - room * np.minimum(row / most, 1.0)
        line = " ".join(f"{_across(level / (LEVELS - 1)):.1f},{top:.1f}" for level, top in enumerate(tops))
        area = f"{_across(0):.1f},{bottom} {line} {_across(1):.1f},{bottom}"
        parts.append(f'<polygon class="level {kind}" points="{area}"/><polyline class="level {kind}" points="{line}"/>')
    ticks = [(level / (LEVELS - 1), str(level)) for level in (0, 64, 128, 192, 255)]
    return "".join([*parts, *_axis(ticks), "</svg>"])


def channel_charts(levels: ChannelLevels) -> list[str]:
    """Histograms of all pixels, and of each channel."""
    return [
        levels_chart("All channels together", levels.counts.sum(axis=0, keepdims=True), ("gray",)),
        levels_chart("Red, green and blue", levels.counts, ("red", "green", "blue")),
    ]


def ratio_chart(shapes: Shapes) -> str:
    """Histogram of width divided by height, logarithmic."""
    low, high = np.log(RATIOS)
    edges = np.exp(np.linspace(low, high, len(shapes.ratios) + 1))
    names = [f"{start:.2f} to {end:.2f}" for start, end in itertools.pairwise(edges)]
    shown = ((0.5, "1:2"), (2 / 3, "2:3"), (1.0, "1:1"), (1.5, "3:2"), (2.0, "2:1"))
    ticks = [(float((np.log(ratio) - low) / (high - low)), label) for ratio, label in shown]
    return "".join([*_open("Width divided by height"), *_bars(shapes.ratios, names), *_axis(ticks), "</svg>"])


def sizes_chart(shapes: Shapes) -> str:
    """Width against height of the typical sizes; the area of a circle is the number of images."""
    shown = shapes.typical(MOST_SIZES)
    width_ticks = nice_ticks(0, max(width for width, _, _ in shown))
    height_ticks = nice_ticks(0, max(height for _, height, _ in shown), 4)
    left, right, tall, most = 52.0, 16.0, 308.0, max(count for _, _, count in shown)
    across = (_WIDTH - left - right) / width_ticks[-1]
    up = (tall - _TOP - 48) / height_ticks[-1]
    bottom = tall - 40
    parts = _open("Width and height in pixels", height=tall)
    for tick in height_ticks:
        y = bottom - tick * up
        parts.append(f'<line class="grid" x1="{left}" x2="{_WIDTH - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="num end" x="{left - 6}" y="{y + 4:.1f}">{tick:,.0f}</text>')
    parts += [
        f'<text class="num mid" x="{left + tick * across:.1f}" y="{bottom + 18}">{tick:,.0f}</text>'
        for tick in width_ticks
    ]
    parts += [
        f'<circle class="size" cx="{left + width * across:.1f}" cy="{bottom - height * up:.1f}" '
        f'r="{max(2.0, 13 * (count / most) ** 0.5):.1f}">'
        f"<title>{width:,}×{height:,}: {count:,} images</title></circle>"
        for width, height, count in shown
    ]
    return "".join([*parts, "</svg>"])


def map_chart(found: DataMap, groups: npt.NDArray[np.int64], colors: Sequence[str]) -> tuple[str, list[list[int]]]:
    """The map: a point for each image, colored by its group, marked ones with an outline; and the points in its units.

    Each group is two paths of points, so that points keep their size on every screen.

    Args:
        found: the map of M images.
        groups: group of each image, int64 `(M,)`.
        colors: CSS color of each group.
    """
    points = np.rint(_RIM + found.points * (MAP_SIDE - 2 * _RIM)).astype(np.int64)
    parts = [
        (
            f'<svg class="map" viewBox="0 0 {MAP_SIDE} {MAP_SIDE}" role="application" tabindex="0" '
            'aria-label="Map of similar images: the arrow keys go through the marked ones">'
        )
    ]
    marked = found.other >= 0
    for outline in (False, True):
        for group, color in enumerate(colors):
            chosen = points[(groups == group) & (marked == outline)]
            if len(chosen):
                path = "".join(f"M{x} {y}h0" for x, y in chosen.tolist())
                rim = f'<path class="rim" d="{path}"/>' if outline else ""
                parts.append(f'<g class="all">{rim}<path style="stroke:{color}" d="{path}"/></g>')
    parts.append('<g id="map-chosen"></g><path id="map-at" d=""/></svg>')
    return "".join(parts), points.tolist()
