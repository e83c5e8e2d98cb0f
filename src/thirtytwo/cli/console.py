"""What the command line shows: messages on stderr, tables on stdout; plain text where it is not a terminal.

Names of files and classes come from anywhere: what a terminal would obey is written out, and nothing is markup.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import TextIO

from thirtytwo.text import as_printable


def say(text: str) -> None:
    """A note on stderr, so that stdout holds results only."""
    print(as_printable(text), file=sys.stderr)


def show(text: str = "") -> None:
    """A line of results on stdout."""
    print(as_printable(text), flush=True)


def show_error(message: str, fix: str | None = None) -> None:
    """One message on stderr: wrapped and coloured on a terminal, one plain line elsewhere."""
    text = f"{message} {fix}" if fix else message
    if not sys.stderr.isatty():
        say(f"thirtytwo: {' '.join(text.split())}")
        return
    width = min(shutil.get_terminal_size().columns, 100)
    wrapped = [
        textwrap.fill(as_printable(part), width, break_long_words=False, break_on_hyphens=False)
        for part in (message, fix)
        if part
    ]
    label = "Error" if "NO_COLOR" in os.environ else "\033[1;31mError\033[0m"
    print("\n".join([label, *wrapped]), file=sys.stderr)


def table_text(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns aligned with spaces; cells hold no line breaks."""
    cells = [tuple(as_printable(" ".join(cell.split())) for cell in row) for row in (columns, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(columns))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)
    return "".join(f"{line}\n" for line in lines)


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]], stream: TextIO | None = None) -> None:
    """A table on stdout: drawn by Rich on a terminal, aligned plain text elsewhere."""
    stream = stream or sys.stdout
    if not stream.isatty():
        stream.write(table_text(columns, rows))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(Text(as_printable(column)), overflow="fold")
    for row in rows:
        table.add_row(*(Text(as_printable(cell)) for cell in row))
    Console(file=stream).print(table)


def percent(value: float) -> str:
    """`0.9312` as `93.12 %`."""
    return f"{100 * value:.2f} %"
