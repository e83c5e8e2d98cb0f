"""Terminal output: messages on stderr, results on stdout; plain text if the stream is not a terminal.

Control characters in names of files and classes are escaped, and markup is not interpreted.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from thirtytwo.io import missing_folder
from thirtytwo.process import library_attribute
from thirtytwo.text import ITEM, as_printable, for_terminal, listing

_MAX_LISTED = 5  # skipped files listed by name


def log(text: str) -> None:
    """Print a message on stderr, so that stdout contains only results."""
    print(for_terminal(text), file=sys.stderr)


def log_skipped(skipped: Sequence[tuple[Path, str]]) -> None:
    """Print the number of skipped files on stderr, with the first of them and the reasons."""
    if skipped:
        reasons = [f"{path}: {reason}" for path, reason in skipped]
        log(f"Skipped {len(skipped)} ({listing(reasons, _MAX_LISTED, quoted=False, separator='; ')})")


def log_default_model(path: Path) -> None:
    """Print which model is used where none is named, by the name that `--model` takes."""
    from thirtytwo.inference.library import model_argument

    log(f"Model: {model_argument(path)} (choose another with --model)")


def log_new_folder(*paths: Path | None) -> None:
    """Print which folders of outputs that the user names will be created, so that a mistyped path is noticed."""
    for folder in dict.fromkeys(missing_folder(path) for path in paths if path is not None):
        if folder is not None:
            log(f"The folder {folder} does not exist and will be created.")


def show(text: str = "") -> None:
    """Print a line of results on stdout."""
    print(for_terminal(text), flush=True)


def show_error(message: str, fix: str | None = None) -> None:
    """Print an error on stderr: wrapped and colored on a terminal, otherwise as one plain line.

    A list in the message (`text.itemized`) has a line for each item.
    """
    sentence, *items = message.split(ITEM)
    paragraphs = [sentence, *(f"  {item}" for item in items), *([fix] if fix else [])]
    if not sys.stderr.isatty():
        plain = [part if part.startswith("  ") else " ".join(part.split()) for part in paragraphs]
        log("thirtytwo: " + ("\n" if items else " ").join(plain))
        return
    width = min(shutil.get_terminal_size().columns, 100)
    wrapped = [
        textwrap.fill(
            as_printable(part),
            width,
            subsequent_indent="    " if part.startswith("  ") else "",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for part in paragraphs
    ]
    label = "Error" if "NO_COLOR" in os.environ else "\033[1;31mError\033[0m"
    print("\n".join([label, *wrapped]), file=sys.stderr)


def advice_on_file(error: Exception, given: Sequence[str]) -> str | None:
    """How to name a file that begins with a dash, where a command line was refused for an unknown option.

    Args:
        error: why it was refused.
        given: the words of the command line.
    """
    option = getattr(error, "option_name", None)
    files = [word for word in given if option and word.startswith(option) and os.path.isfile(word)]  # noqa: PTH113
    return f"To name the file {files[0]}, write ./{files[0]}" if files else None


@contextmanager
def brief_warnings() -> Iterator[None]:
    """Print warnings of libraries as one sentence with the library's name, without a line of its code."""

    def show_brief(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        _, installed, inside = filename.replace(os.sep, "/").rpartition("site-packages/")
        library = inside.split("/")[0].removesuffix(".py") if installed else Path(filename).stem
        log(f"warning: {' '.join(str(message).split())} ({library})")

    with library_attribute(warnings, "showwarning", show_brief):
        yield


def table_text(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as text, its columns aligned with spaces; line breaks in cells become spaces."""
    cells = [tuple(as_printable(" ".join(cell.split())) for cell in row) for row in (columns, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(columns))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)
    return "".join(f"{line}\n" for line in lines)


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]], stream: TextIO | None = None) -> None:
    """Print a table (default: on stdout): with Rich on a terminal, otherwise as aligned plain text."""
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
