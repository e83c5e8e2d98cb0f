"""`thirtytwo predict`: find the files, classify them and write the results as table, JSON or CSV."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, TypeAlias

from thirtytwo.cli.console import log, log_default_model, log_new_folder, log_skipped, show_table
from thirtytwo.cli.formats import STDOUT, ResultFormat, format_for
from thirtytwo.errors import DataError, OutputError
from thirtytwo.inference.output import write_csv, write_json
from thirtytwo.inputs import refuse_image_as_output
from thirtytwo.io import TEXT, check_writable
from thirtytwo.text import percent, readable

if TYPE_CHECKING:
    from thirtytwo.inference.classifier import Prediction, UnreadableImage
    from thirtytwo.inference.views import Tta

    Result: TypeAlias = Prediction | UnreadableImage

_PROGRESS_FROM = 2 * 32  # smallest number of files with a progress bar


def predict(
    arguments: list[str],
    model: str | None,
    top: int,
    chosen_format: ResultFormat | None = None,
    out: Path | None = None,
    force: bool = False,
    tta: Tta = "off",
) -> None:
    """Classify every image that `arguments` match and write the results, by default as the suffix of `out` says.

    Raises:
        DataError: no image was found, or some could not be read (raised after classifying all others).
        OutputError: `out` cannot be written, exists and `force` is not set, or is an image or the model.
    """
    from thirtytwo.images.discover import find_images
    from thirtytwo.images.lists import expand_lists
    from thirtytwo.inference.classifier import load
    from thirtytwo.inference.library import default_model
    from thirtytwo.inference.session import BATCHES, MANY

    out = None if out == STDOUT else out
    format = format_for(out, chosen_format)
    if out is not None:
        check_writable(out, force=force, format=TEXT if format == "table" else format.upper())
        log_new_folder(out)
    files, skipped = find_images(expand_lists(arguments))
    batches = BATCHES if len(files) >= MANY else 1
    if model is None:
        chosen = default_model()
        log_default_model(chosen)
        classifier = load(chosen, batches=batches)
    else:
        classifier = load(model, batches=batches)
    if out is not None:
        refuse_image_as_output(out, files)
        if os.path.realpath(out) == os.path.realpath(classifier.path):
            raise OutputError(f"{out} is the model to use.", "Choose another name with --out.")
    log_skipped(skipped)
    counter = _Counter()
    top = min(top, len(classifier.classes))
    with _open_output(out) as stream:
        found = classifier.predict_iter(files, top, tta=tta)
        results = counter.count(_with_progress(found, len(files), quiet=_prints_continuously(format, stream)))
        WRITERS[format](results, stream, top)
        stream.flush()
    if model is None:
        _suggest_model_for_small(classifier.path, counter.sides)
    if counter.unreadable:
        if format == "table":
            for problem in counter.unreadable[:-1]:
                log(problem)
            raise DataError(counter.unreadable[-1], counter.summary() if counter.total > 1 else None)
        raise DataError(counter.summary(), "See their entries in the output.")


def _suggest_model_for_small(chosen: Path, sides: Sequence[int]) -> None:
    """Log which bundled model suits small images, where the one for photographs was chosen by default."""
    import numpy as np

    from thirtytwo.config.recommend import is_small
    from thirtytwo.inference.library import DEFAULT_BUNDLED, SMALL_BUNDLED, bundled_models

    bundled = bundled_models()
    if chosen != bundled.get(DEFAULT_BUNDLED) or SMALL_BUNDLED not in bundled or not sides:
        return
    side = float(np.median(sides))
    if is_small(side):
        log(f"Small images, with a median shorter side of {side:g} pixels: try --model {SMALL_BUNDLED}")


def write_table(results: Iterable[Result], stream: TextIO, top: int) -> None:
    """Write a table for reading."""
    columns = ["file", "size", "class", "confidence", "next best"]
    columns = columns if top > 1 else columns[:-1]
    show_table(columns, [_row(result)[: len(columns)] for result in results], stream)


WRITERS: dict[ResultFormat, Callable[[Iterable[Result], TextIO, int], None]] = {
    "table": write_table,
    "json": write_json,
    "csv": write_csv,
}


def _row(result: Result) -> tuple[str, ...]:
    from thirtytwo.inference.classifier import UnreadableImage

    if isinstance(result, UnreadableImage):
        return (str(result.file), "", "could not be read", "", "")
    top = readable(result.top)
    name = top if result.known else f"unknown (nearest: {top})"
    others = ", ".join(f"{readable(other)} {percent(value)}" for other, value in result.predictions[1:])
    return (str(result.file), f"{result.width}×{result.height}", name, percent(result.confidence), others)


@dataclass
class _Counter:
    """Counts results; collects the errors of unreadable files, and the shorter sides of the others in pixels."""

    total: int = 0
    unreadable: list[str] = field(default_factory=list)
    sides: list[int] = field(default_factory=list)

    def count(self, results: Iterable[Result]) -> Iterator[Result]:
        from thirtytwo.inference.classifier import UnreadableImage

        for result in results:
            self.total += 1
            if isinstance(result, UnreadableImage):
                self.unreadable.append(result.error)
            else:
                self.sides.append(min(result.width, result.height))
            yield result

    def summary(self) -> str:
        return f"{len(self.unreadable)} of {self.total} files could not be read."


def _prints_continuously(format: ResultFormat, stream: TextIO) -> bool:
    """Whether results are printed on the terminal as they arrive, where a progress bar would interrupt them."""
    return format != "table" and stream.isatty()


def _with_progress(results: Iterator[Result], total: int, quiet: bool) -> Iterator[Result]:
    if quiet or total < _PROGRESS_FROM or not sys.stderr.isatty():
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
def _open_output(out: Path | None) -> Iterator[TextIO]:
    """A stream to write to: stdout, a device, or a file that is written atomically."""
    if out is None:
        yield sys.stdout
        return
    if out.exists() and not out.is_file():
        try:
            with _open_text(out) as stream:
                yield stream
        except OSError as error:
            raise OutputError(f"Cannot write {out}: {error.strerror}.", "Choose another location.") from error
        return
    from thirtytwo.io import atomic_write

    with atomic_write(out) as temporary, _open_text(temporary) as stream:
        yield stream


def _open_text(path: Path) -> TextIO:
    # File names that are not UTF-8 are written with escapes, as JSON requires.
    return path.open("w", encoding="utf-8", newline="", errors="backslashreplace")
