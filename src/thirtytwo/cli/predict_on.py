"""`thirtytwo predict --on`: classify on a Ray cluster, with a progress line, into a folder of parquet files."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from thirtytwo.cli.console import log, log_default_model, log_skipped, show
from thirtytwo.errors import DataError, OutputError, ThirtytwoError
from thirtytwo.text import counted, image_rate

if TYPE_CHECKING:
    from thirtytwo.inference.views import Tta
    from thirtytwo.progress import Bar
    from thirtytwo.scale.predict import Progress

LINE_SECONDS = 30.0
"""Time between two lines of progress where there is no bar."""


def predict_on(
    arguments: list[str],
    on: str,
    *,
    model: str | None,
    top: int,
    tta: Tta,
    format: str | None,
    out: str | None,
    force: bool,
    workers: int | None,
) -> None:
    """Classify the images on a cluster; the last output line is the output folder.

    Raises:
        OutputError: --out is missing.
        DataError: some images could not be read (raised after classifying all others).
    """
    from thirtytwo.inference.library import default_model, find_model
    from thirtytwo.inference.model_file import read_info
    from thirtytwo.scale.address import parse_address
    from thirtytwo.scale.cluster import import_ray
    from thirtytwo.scale.predict import predict_on_cluster

    if out is None:
        raise OutputError("--on needs a folder for the results.", "Name it with --out FOLDER.")
    if format not in (None, "table"):
        raise ThirtytwoError(f"--on writes parquet files, not {format}.", "Leave out --format.")
    parse_address(on)  # before anything slow
    import_ray()
    path = default_model() if model is None else find_model(model)
    if model is None:
        log_default_model(path)
    top = min(top, len(read_info(path).classes))
    line = _Line()
    try:
        done = predict_on_cluster(
            arguments,
            out,
            model=path,
            name=model or str(path),
            top=top,
            tta=tta,
            on=on,
            workers=workers,
            force=force,
            report=line.report,
            log=log,
        )
    except KeyboardInterrupt:
        log(f"Interrupted; {line.state()}. The same command continues.")
        raise
    finally:
        line.close()
    log(f"{line.state()}: {done.out}/predictions")
    show(done.out)
    if done.unreadable:
        raise DataError(
            f"{done.unreadable:,} of {done.images:,} files could not be read.",
            f"See {done.out}/errors for the reasons.",
        )


class _Line:
    """The progress of a job: a bar on a terminal, otherwise a line now and then."""

    def __init__(self) -> None:
        self._bar: Bar | None = None
        self._last: Progress | None = None
        self._start = self._shown = 0.0

    def report(self, progress: Progress) -> None:
        """Show the progress."""
        from thirtytwo.progress import open_bar

        if self._last is None:
            log_skipped(progress.skipped)
            self._start = self._shown = time.monotonic()
            if progress.earlier:
                log(f"Continuing after {progress.earlier:,} of {counted(progress.images, 'image')}")
            self._bar = open_bar("Classifying", progress.images, done=progress.done)
        self._last = progress
        if self._bar is not None:
            self._bar.update(progress.done, title="Classifying", text=self._rate())
        elif time.monotonic() - self._shown >= LINE_SECONDS:
            self._shown = time.monotonic()
            log(f"{self.state()}, {self._rate()}")

    def state(self) -> str:
        """How many images are done, as text."""
        if self._last is None:
            return "no image is classified"
        return f"{self._last.done:,} of {counted(self._last.images, 'image')} done"

    def _rate(self) -> str:
        assert self._last is not None
        new, seconds = self._last.done - self._last.earlier, time.monotonic() - self._start
        return image_rate(new, seconds) if new and seconds > 1 else ""

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
