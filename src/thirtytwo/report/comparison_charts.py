"""Charts of a comparison as inline SVG: values with intervals, one per row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from thirtytwo.report.charts import nice_ticks


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
