"""Results in words, tables and charts, before they are rendered as HTML, Markdown or terminal text.

Nothing here is escaped or styled: `report.sections` renders a section for the report and for the model card,
`cli.models` for the terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from thirtytwo.evaluation.metrics import Reliability


@dataclass(frozen=True)
class Cell:
    """A text with a note, whether it is the best of its row, and the value to sort by.

    `tooltip` and `shade`, 0 to 1, are shown in HTML only.
    """

    text: str
    note: str = ""
    best: bool = False
    value: float | None = None
    tooltip: str = ""
    shade: float | None = None


@dataclass(frozen=True)
class Table:
    """Columns and rows of cells; the first cell names the row. `words`: cells are text, not numbers.

    A table with the title `folded` is long: only HTML shows it, folded under that title.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    words: bool = False
    title: str = ""
    folded: str = ""


def table_of(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table of plain texts."""
    return Table(tuple(columns), tuple(tuple(map(Cell, row)) for row in rows))


@dataclass(frozen=True)
class Chart:
    """A reliability diagram and its title."""

    title: str
    data: Reliability


@dataclass(frozen=True)
class Panel:
    """A panel of a figure: its title, and a name and values for each line."""

    title: str
    lines: tuple[tuple[str, tuple[float, ...]], ...]


@dataclass(frozen=True)
class LineFigure:
    """A figure of shares, 0 to 1, in panels side by side: values of every line at `x`; `reference` is a dotted line."""

    x: tuple[float, ...]
    x_label: str
    y_label: str
    panels: tuple[Panel, ...]
    reference: float


@dataclass(frozen=True)
class Picked:
    """An evaluated image to show: `position` in the predictions on `split`, two lines below it, and notes."""

    split: str
    position: int
    lines: tuple[str, str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """The description of one evaluator's results.

    Args:
        sentences: complete sentences before the tables.
        tables: tables, in order.
        charts: charts, left to right.
        legend: complete sentences on the charts, shown only with them.
        notes: complete sentences after the tables.
        images: images to show, the most important first.
        figure: a figure that is written to the directory of figures, named by the key of the evaluator.
    """

    sentences: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
    legend: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    images: tuple[Picked, ...] = ()
    figure: LineFigure | None = None
