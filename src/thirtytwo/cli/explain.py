"""`thirtytwo explain`: heatmap overlays, a contact sheet and faithfulness scores."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thirtytwo.cli.console import log, log_default_model, log_skipped, show, show_table
from thirtytwo.errors import DataError, ImageError, OutputError
from thirtytwo.images.discover import EXPLANATIONS, SHEET
from thirtytwo.io import folded, free_name, free_path
from thirtytwo.text import percent, readable

if TYPE_CHECKING:
    from thirtytwo.explain.explainer import Explanation
    from thirtytwo.images.pixels import ResizeRule
    from thirtytwo.images.render import Entry
    from thirtytwo.inference.classifier import UnreadableImage

DEFAULT_OUT = "explained"
_MAX_ON_SHEET = 60


def explain(
    arguments: list[str],
    *,
    model: str | None,
    method: str | None,
    class_name: str | None,
    out: Path | None,
    force: bool,
    score: bool,
) -> None:
    """Explain every image that `arguments` match; write overlays, contact sheet and scores, and print the directory.

    Raises:
        DataError: no image was found, or some could not be read (raised after explaining all others).
    """
    from thirtytwo.explain.explainer import Explainer
    from thirtytwo.images.discover import find_images
    from thirtytwo.images.lists import expand_lists
    from thirtytwo.inference.library import default_model
    from thirtytwo.rundir import lock_run_of

    directory = _output_directory(out, force)
    files, skipped = find_images(expand_lists(arguments))
    names = overlay_names(files)
    _check_not_overwriting(files, directory, names)
    if model is None:
        model = str(chosen := default_model())
        log_default_model(chosen)
    explainer = Explainer(model, method, class_name=class_name)
    if method is None:
        log(f"Method: {explainer.method} ({explainer.reason})")
    log_skipped(skipped)
    with lock_run_of(directory):
        explanations = _with_progress(explainer.explain(files, score=score), len(files))
        rule = explainer.classifier.info.resize
        rows, problems = _write_explanations(files, explanations, directory, names, rule, score=score)
    show_table(_columns(score), rows)
    _show_directory(directory, problems, len(files))


def _write_explanations(
    files: Sequence[Path],
    results: Iterable[Explanation | UnreadableImage],
    directory: Path,
    names: dict[Path, str],
    rule: ResizeRule,
    *,
    score: bool,
) -> tuple[list[tuple[str, ...]], list[str]]:
    """Write overlays, their list and the contact sheet; returns the rows of the table, and what could not be read."""
    from thirtytwo.images.render import png
    from thirtytwo.inference.classifier import UnreadableImage
    from thirtytwo.io import write_bytes, write_json

    rows: list[tuple[str, ...]] = []
    problems: list[str] = []
    entries: list[Entry] = []
    records = []
    for file, result in zip(files, results, strict=True):
        rows.append(_row(result, score))
        records.append(result.as_dict())
        if isinstance(result, UnreadableImage):
            problems.append(result.error)
            continue
        records[-1]["overlay"] = names[file]
        entry = _entry(file, result, rule)
        write_bytes(directory / names[file], png(entry.overlay))
        if len(entries) < _MAX_ON_SHEET:
            entries.append(entry)
    write_json(directory / EXPLANATIONS, records)
    if len(entries) > 1:
        _write_sheet(directory, entries, len(names))
    return rows, problems


def _write_sheet(directory: Path, entries: Sequence[Entry], images: int) -> None:
    from thirtytwo.images.render import contact_sheet, png
    from thirtytwo.io import write_bytes

    write_bytes(directory / SHEET, png(contact_sheet(entries)))
    if len(entries) < images:
        log(f"{SHEET} contains {len(entries)} of {images} images")


def _show_directory(directory: Path, problems: Sequence[str], images: int) -> None:
    """Show where the explanations of `images` files are.

    Raises:
        DataError: some files could not be read.
    """
    if len(problems) < images:
        show(str(directory))
    if not problems:
        return
    for problem in problems[:-1]:
        log(problem)
    summary = f"{len(problems)} of {images} files could not be read."
    raise DataError(problems[-1], summary if images > 1 else None)


def overlay_names(files: Sequence[Path]) -> dict[Path, str]:
    """An unused PNG name for each image: its path below the common folder, with hyphens between folders."""
    absolute = [Path(os.path.abspath(file)) for file in files]  # noqa: PTH100, resolve() would follow links
    shared = Path(os.path.commonpath([file.parent for file in absolute]))
    taken, names = {folded(SHEET)}, dict[Path, str]()
    for file, full in zip(files, absolute, strict=True):
        name = free_name("-".join(full.relative_to(shared).with_suffix("").parts) + ".png", taken)
        taken.add(folded(name))
        names[file] = name
    return names


def _output_directory(out: Path | None, force: bool) -> Path:
    """The directory to write to: `out`, or a new one.

    Raises:
        OutputError: `out` is a file, or is not empty and `force` is not set.
    """
    if out is None:
        return free_path(Path(DEFAULT_OUT))
    if out.exists() and not out.is_dir():
        raise OutputError(f"--out must be a directory, but {out} is a file.", "Choose another name.")
    if not force and out.is_dir() and any(out.iterdir()):
        raise OutputError(
            f"{out} exists and is not empty.", "Choose another directory, or add --force to overwrite files in it."
        )
    return out


def _check_not_overwriting(files: Sequence[Path], directory: Path, names: dict[Path, str]) -> None:
    """Raise OutputError if an overlay or the contact sheet would overwrite an input image."""
    inputs = set(map(os.path.realpath, files))  # Path.resolve raises an error for links in circles
    written = [*names.values(), *([SHEET] if len(names) > 1 else [])]
    overwritten = next((name for name in written if os.path.realpath(directory / name) in inputs), None)
    if overwritten is not None:
        what = "contact sheet" if overwritten == SHEET else "overlay"
        raise OutputError(
            f"The {what} would overwrite the input image {directory / overwritten}.",
            "Choose another directory with --out.",
        )


def _entry(file: Path, found: Explanation, rule: ResizeRule) -> Entry:
    """An entry of the contact sheet: the image with and without its heatmap, and the prediction."""
    from thirtytwo.explain.overlay import map_to_original, overlay
    from thirtytwo.images.decode import decode
    from thirtytwo.images.render import Entry, for_display

    try:
        image = for_display(decode(file))
    except ImageError:  # deleted or changed since it was explained
        image = for_display(found.pixels)
    heat = map_to_original(found.heat, image.shape[0], image.shape[1], rule)
    lines = [f"{readable(found.label)} {percent(found.confidence)}", str(file)]
    if found.label != found.top:
        lines[0] += f" (top: {readable(found.top)})"
    if not found.known:
        lines[0] += ", unknown"
    if found.score is not None:
        lines.insert(1, f"{found.method}: insertion − deletion {found.score.gain:+.2f}")
    return Entry(image, overlay(image, heat), tuple(lines))


def _columns(score: bool) -> list[str]:
    scores = ["deletion", "insertion", "random", "insertion − deletion", "random maps outscored"] if score else []
    return ["file", "class", "confidence", "method", *scores]


def _row(result: Explanation | UnreadableImage, score: bool) -> tuple[str, ...]:
    """The cells of `_columns` for an image."""
    from thirtytwo.inference.classifier import UnreadableImage

    if isinstance(result, UnreadableImage):
        return (str(result.file), "could not be read", *[""] * (len(_columns(score)) - 2))
    cells = [str(result.file), readable(result.label), percent(result.confidence), result.method]
    if not result.known:
        cells[1] += " (unknown)"
    if result.score is not None:
        found = result.score
        cells += [f"{value:.3f}" for value in (found.deletion, found.insertion, found.random)]
        cells += [f"{found.gain:+.3f}", percent(found.beaten, 0)]
    return tuple(cells)


def _with_progress(
    results: Iterator[Explanation | UnreadableImage], total: int
) -> Iterator[Explanation | UnreadableImage]:
    if total < 2 or not sys.stderr.isatty():
        yield from results
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(results, "Explaining", total=total, console=Console(stderr=True), transient=True)
