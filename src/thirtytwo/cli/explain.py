"""`thirtytwo explain`: pictures with heat over them, one page of all, and figures that say what the heat is worth."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thirtytwo.cli.console import percent, say, show, show_table
from thirtytwo.errors import DataError, ImageError, OutputError
from thirtytwo.images.outputs import EXPLANATIONS as NUMBERS
from thirtytwo.images.outputs import SHEET

if TYPE_CHECKING:
    from thirtytwo.explain.explainer import Explanation
    from thirtytwo.explain.overlay import Pixels
    from thirtytwo.explain.sheet import Entry
    from thirtytwo.images.decode import ResizeRule
    from thirtytwo.inference.classifier import Unreadable

DEFAULT_OUT = "explained"
_ON_SHEET = 60
_NAMED = 5  # left-out files told by name


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
    """Explain every picture meant by `arguments`, write overlays, page and figures, and print the directory last.

    Raises:
        DataError: no picture was found, or, after all others were explained, some could not be read.
    """
    from thirtytwo.explain.explainer import Explainer
    from thirtytwo.explain.sheet import contact_sheet
    from thirtytwo.images.decode import find_images
    from thirtytwo.inference.classifier import Unreadable, default_model
    from thirtytwo.io import write_bytes, write_json
    from thirtytwo.rundir import writing_at

    place = _place(out, force)
    files, left_out = find_images(arguments)
    names = overlay_names(files)
    _spare(files, place, names)
    if model is None:
        model = str(default_model())
        say(f"Model: {model} (choose another with --model)")
    explainer = Explainer(model, method, class_name=class_name)
    if method is None:
        say(f"Method: {explainer.method} ({explainer.reason})")
    if left_out:
        named = "; ".join(f"{path}: {reason}" for path, reason in left_out[:_NAMED])
        more = f"; and {len(left_out) - _NAMED} more" if len(left_out) > _NAMED else ""
        say(f"Left out {len(left_out)} ({named}{more})")
    results: list[Explanation | Unreadable] = []
    entries: list[Entry] = []
    numbers = []
    with writing_at(place):
        for file, result in zip(files, _with_progress(explainer.explain(files, score=score), len(files)), strict=True):
            results.append(result)
            numbers.append(result.as_dict())
            if isinstance(result, Unreadable):
                continue
            numbers[-1]["overlay"] = names[file]
            entry = _entry(file, result, explainer.classifier.info.resize)
            write_bytes(place / names[file], _png(entry.overlay))
            if len(entries) < _ON_SHEET:
                entries.append(entry)
        write_json(place / NUMBERS, numbers)
        if len(entries) > 1:
            write_bytes(place / SHEET, _png(contact_sheet(entries)))
            if len(entries) < len(names):
                say(f"{SHEET} shows {len(entries)} of {len(names)} pictures")
    show_table(*_table(results, score))
    problems = [result.error for result in results if isinstance(result, Unreadable)]
    if not problems:
        show(str(place))
        return
    if len(problems) < len(files):
        show(str(place))
    for problem in problems[:-1]:
        say(problem)
    summary = f"{len(problems)} of {len(files)} files could not be read."
    raise DataError(problems[-1], summary if len(files) > 1 else None)


def overlay_names(files: Sequence[Path]) -> dict[Path, str]:
    """A PNG's name for each picture: its own below the folder that all share, folders joined by hyphens."""
    absolute = [Path(os.path.abspath(file)) for file in files]  # noqa: PTH100, links stay as they are
    shared = Path(os.path.commonpath([file.parent for file in absolute]))
    taken, names = {SHEET.casefold()}, dict[Path, str]()
    for file, full in zip(files, absolute, strict=True):
        stem = "-".join(full.relative_to(shared).with_suffix("").parts)
        name, number = f"{stem}.png", 2
        while name.casefold() in taken:
            name, number = f"{stem}-{number}.png", number + 1
        taken.add(name.casefold())
        names[file] = name
    return names


def _place(out: Path | None, force: bool) -> Path:
    """The directory to write to, found to hold nothing that could be lost."""
    if out is None:
        number = 1
        while (place := Path(f"{DEFAULT_OUT}-{number}" if number > 1 else DEFAULT_OUT)).exists():
            number += 1
        return place
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file, and --out needs a directory.", "Choose another name.")
    if not force and out.is_dir() and any(out.iterdir()):
        raise OutputError(
            f"{out} exists and is not empty.", "Choose another directory, or overwrite what is in it with --force."
        )
    return out


def _spare(files: Sequence[Path], place: Path, names: dict[Path, str]) -> None:
    """Refuse to write an overlay over a picture that is to be explained."""
    pictures = {file.resolve() for file in files}
    lost = next((name for name in names.values() if (place / name).resolve() in pictures), None)
    if lost is not None:
        raise OutputError(
            f"The picture {place / lost} would be overwritten by its own overlay.",
            "Choose another directory with --out.",
        )


def _entry(file: Path, found: Explanation, rule: ResizeRule) -> Entry:
    """The picture at a size to look at, with and without heat, and what was said of it."""
    from thirtytwo.explain.overlay import on_picture, overlay, to_look_at
    from thirtytwo.explain.sheet import Entry
    from thirtytwo.images.decode import decode

    try:
        picture = to_look_at(decode(file))
    except ImageError:  # gone or changed since it was explained
        picture = to_look_at(found.pixels)
    heat = on_picture(found.heat, picture.shape[0], picture.shape[1], rule)
    lines = [f"{found.label} {percent(found.confidence)}", str(file)]
    if found.label != found.top:
        lines[0] += f" (top: {found.top})"
    if not found.known:
        lines[0] += ", unknown"
    if found.score is not None:
        lines.insert(1, f"{found.method}: better than random by {found.score.gain:+.2f}")
    return Entry(picture, overlay(picture, heat), tuple(lines))


def _table(results: Iterable[Explanation | Unreadable], score: bool) -> tuple[list[str], list[tuple[str, ...]]]:
    from thirtytwo.inference.classifier import Unreadable

    figures = ["deletion", "insertion", "random", "better by", "maps beaten"] if score else []
    rows: list[tuple[str, ...]] = []
    for result in results:
        if isinstance(result, Unreadable):
            rows.append((str(result.file), "could not be read", "", "", *[""] * len(figures)))
            continue
        cells = [str(result.file), result.label, percent(result.confidence), result.method]
        if not result.known:
            cells[1] += " (unknown)"
        if result.score is not None:
            found = result.score
            cells += [f"{value:.3f}" for value in (found.deletion, found.insertion, found.random)]
            cells += [f"{found.gain:+.3f}", f"{found.beaten:.0%}"]
        rows.append(tuple(cells))
    return ["file", "class", "confidence", "method", *figures], rows


def _with_progress(results: Iterator[Explanation | Unreadable], total: int) -> Iterator[Explanation | Unreadable]:
    if total < 2 or not sys.stderr.isatty():
        yield from results
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(results, "Explaining", total=total, console=Console(stderr=True), transient=True)


def _png(pixels: Pixels) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()
