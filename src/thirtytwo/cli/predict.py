"""`thirtytwo predict`: which files are meant, and the three formats results are written in."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO, TypeAlias

from thirtytwo.cli.console import percent, say, show_table
from thirtytwo.errors import DataError, OutputError
from thirtytwo.io import check_free

if TYPE_CHECKING:
    from thirtytwo.inference.classifier import Prediction, Unreadable

    Result: TypeAlias = Prediction | Unreadable

Format = Literal["table", "json", "csv"]

_MANY = 2 * 32  # files from which a progress bar is worth its start
_NAMED = 5  # left-out files told by name


def predict(arguments: list[str], model: str | None, top: int, format: Format, out: Path | None, force: bool) -> None:
    """Classify every picture meant by `arguments` and write the results.

    Raises:
        DataError: no picture was found, or, after all others were classified, some could not be read.
    """
    from thirtytwo.images.decode import find_images
    from thirtytwo.inference.classifier import default_model, load

    if out is not None:
        check_free(out, force=force)
    files, left_out = find_images(arguments)
    if model is None:
        chosen = default_model()
        say(f"Model: {chosen} (choose another with --model)")
        classifier = load(chosen)
    else:
        classifier = load(model)
    if left_out:
        named = "; ".join(f"{path}: {reason}" for path, reason in left_out[:_NAMED])
        more = f"; and {len(left_out) - _NAMED} more" if len(left_out) > _NAMED else ""
        say(f"Left out {len(left_out)} ({named}{more})")
    tally = _Tally()
    top = min(top, len(classifier.classes))
    with _opened(out) as stream:
        results = tally.count(
            _with_progress(classifier.predict_iter(files, top), len(files), quiet=_streams(format, stream))
        )
        WRITERS[format](results, stream, top)
        stream.flush()
    if tally.unreadable:
        if format == "table":
            for problem in tally.unreadable[:-1]:
                say(problem)
            raise DataError(tally.unreadable[-1], tally.summary() if tally.total > 1 else None)
        raise DataError(tally.summary(), "Their entries in the output say why.")


def write_json(results: Iterable[Result], stream: TextIO, top: int) -> None:
    """A JSON list, one entry a line, written as results come."""
    stream.write("[")
    for index, result in enumerate(results):
        stream.write(",\n" if index else "\n")
        stream.write(json.dumps(result.as_dict(), ensure_ascii=False, allow_nan=False))
    stream.write("\n]\n")


def write_csv(results: Iterable[Result], stream: TextIO, top: int) -> None:
    """One row a picture: its best class, then `class_1, confidence_1, …` up to `top`, then the error."""
    from thirtytwo.inference.classifier import Unreadable

    ranks = [f"{name}_{rank}" for rank in range(1, top + 1) for name in ("class", "confidence")]
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["file", "width", "height", "top", "confidence", "known", *ranks, "error"])
    for result in results:
        if isinstance(result, Unreadable):
            writer.writerow([result.file, *[""] * (5 + len(ranks)), result.error])
            continue
        known = "true" if result.known else "false"
        best = [cell for pair in result.predictions for cell in pair]
        writer.writerow([result.file, result.width, result.height, result.top, result.confidence, known, *best, ""])


def write_table(results: Iterable[Result], stream: TextIO, top: int) -> None:
    """A table for people."""
    columns = ["file", "size", "class", "confidence", "next best"]
    columns = columns if top > 1 else columns[:-1]
    show_table(columns, [_row(result)[: len(columns)] for result in results], stream)


WRITERS: dict[Format, Callable[[Iterable[Result], TextIO, int], None]] = {
    "table": write_table,
    "json": write_json,
    "csv": write_csv,
}


def _row(result: Result) -> tuple[str, ...]:
    from thirtytwo.inference.classifier import Unreadable

    if isinstance(result, Unreadable):
        return (str(result.file), "", "could not be read", "", "")
    name = result.top if result.known else f"unknown (nearest: {result.top})"
    others = ", ".join(f"{other} {percent(value)}" for other, value in result.predictions[1:])
    return (str(result.file), f"{result.width}×{result.height}", name, percent(result.confidence), others)


@dataclass
class _Tally:
    """How many results went by, and what was wrong with the unreadable ones."""

    total: int = 0
    unreadable: list[str] = field(default_factory=list)

    def count(self, results: Iterable[Result]) -> Iterator[Result]:
        from thirtytwo.inference.classifier import Unreadable

        for result in results:
            self.total += 1
            if isinstance(result, Unreadable):
                self.unreadable.append(result.error)
            yield result

    def summary(self) -> str:
        return f"{len(self.unreadable)} of {self.total} files could not be read."


def _streams(format: Format, stream: TextIO) -> bool:
    """Whether results appear on the terminal as they come, where a progress bar would get between them."""
    return format != "table" and stream.isatty()


def _with_progress(results: Iterator[Result], total: int, quiet: bool) -> Iterator[Result]:
    if quiet or total < _MANY or not sys.stderr.isatty():
        yield from results
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("Classifying"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        yield from bar.track(results, total=total)


@contextmanager
def _opened(out: Path | None) -> Iterator[TextIO]:
    """Stdout, a device as it is, or a file that appears whole or not at all."""
    if out is None:
        yield sys.stdout
        return
    if out.exists() and not out.is_file():
        try:
            with _open_text(out) as stream:
                yield stream
        except OSError as error:
            raise OutputError(f"{out} could not be written: {error.strerror}.", "Choose another place.") from error
        return
    from thirtytwo.io import written_whole

    with written_whole(out) as temporary, _open_text(temporary) as stream:
        yield stream


def _open_text(path: Path) -> TextIO:
    # File names that are no UTF-8 are written with escapes, which is also what JSON calls for.
    return path.open("w", encoding="utf-8", newline="", errors="backslashreplace")
