"""`thirtytwo data show DATA` and `thirtytwo cache`: show a data set, or the cache of decoded images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thirtytwo.cli.console import log, log_new_folder, show, show_table
from thirtytwo.cli.options import Data, DataRoot
from thirtytwo.errors import DataError, closest
from thirtytwo.inputs import refuse_data_as_output
from thirtytwo.io import check_writable, short_name
from thirtytwo.text import capitalized, listing, percent, readable, readable_names, size

if TYPE_CHECKING:
    from thirtytwo.data.cache_eviction import Cleared, Stored
    from thirtytwo.data.types import DataSet, ImageSet
    from thirtytwo.training.batches import Samples

MAX_LABELS = 2  # classes listed below a mixed image
MAX_KNOWN = 5
"""Data sets in the cache that a message names."""
MAX_SIZES = 5
"""Sizes of images that are listed."""


def show_data(
    data: Data,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write a page: samples, a map of similar images, colors, sizes."),
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a PNG with sample images of every class.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Show training images with this recipe's augmentation: on the page, or instead in a PNG.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting of that recipe; may be repeated."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the files of --html and --sheet.")] = False,
    data_root: DataRoot = None,
) -> None:
    """Show splits, classes, colors and sizes of a data set, on request as a page or with a recipe's augmentation."""
    from thirtytwo.config.resolve import parse_overrides

    if recipe is None and settings:
        raise typer.BadParameter("--set requires --recipe.")
    overrides = parse_overrides(settings or [])
    for path in (html, sheet):
        if path is not None:
            refuse_data_as_output(path, data)
    log_new_folder(html, sheet)
    if recipe is not None and html is None:
        _write_augmented(data, data_root, recipe, overrides, sheet, force=force)
        return
    if sheet is not None:
        check_writable(sheet, force=force, format="PNG", option="--sheet")
    loaded = _load_or_write_page(data, html, data_root, recipe, overrides, force=force)
    _show_summary(loaded)
    if sheet is not None:
        from thirtytwo.data.explore import write_sheet

        write_sheet(loaded.train, sheet)
        log(f"Sample images of every class: {sheet}")
    if html is not None:
        log("Page:")
        show(str(html))


def _load_or_write_page(
    spec: str,
    html: Path | None,
    data_root: Path | None,
    recipe: str | None,
    overrides: Mapping[str, Any],
    *,
    force: bool,
) -> DataSet:
    """Load a data set, and write its page if `html` names one."""
    from thirtytwo.workflows.show_data import load_shown, write_data_page

    if html is None:
        return load_shown(spec, data_root=data_root)
    return write_data_page(spec, html, data_root=data_root, recipe=recipe, overrides=overrides, force=force).data


def _show_summary(data: DataSet) -> None:
    """Print splits, channels, sizes and classes of a data set."""
    from thirtytwo.data.channels import channel_statistics
    from thirtytwo.data.explore import HOW_TO_KEEP_ENDS, class_counts, cut_ends

    parts = data.stored
    height, width = data.train.images.shape[1:3]
    counts = ", ".join(f"{name} {len(part):,}" for name, part in parts.items())
    show(f"{data.name}: {len(data.classes)} classes; {counts} images, loaded at {width}×{height}")
    show(f"content {data.fingerprint}")
    show()
    total = sum(len(part) for part in parts.values())
    rows = [(name, f"{len(part):,}", percent(len(part) / total), _per_class(part)) for name, part in parts.items()]
    show_table(["split", "images", "share", "per class"], rows)
    show()
    channels = zip(("red", "green", "blue"), *channel_statistics(data.train.images), strict=True)
    show_table(
        ["channel of train", "mean", "std"], [(name, f"{mean:.4f}", f"{std:.4f}") for name, mean, std in channels]
    )
    show()
    if data.sizes:
        _show_sizes(data.sizes)
        if (cut := cut_ends(data.sizes)) is not None:
            show(f"{cut} {HOW_TO_KEEP_ENDS}")
        show()
    superclasses = data.superclasses or {}
    shown = dict(zip(data.classes, readable_names(data.classes), strict=True))
    show_table(
        ["class", *(["superclass"] if superclasses else []), *parts],
        [
            (
                shown[row.name],
                *([readable(superclasses[row.name])] if superclasses else []),
                *(f"{count:,}" for count in row.counts.values()),
            )
            for row in class_counts(data)
        ],
    )
    for skipped in data.skipped:
        log(capitalized(skipped))


def _per_class(images: ImageSet) -> str:
    """Fewest and most images of a class of a split."""
    least, most = int(images.counts.min()), int(images.counts.max())
    return f"{most:,}" if least == most else f"{least:,} to {most:,}"


def _show_sizes(sizes: Mapping[tuple[int, int], int]) -> None:
    """Print the most frequent original sizes, or where hardly any images share one, their range."""
    from thirtytwo.doctor.shapes import shapes_of

    found = shapes_of(sizes)
    if found is None:
        return
    if found.are_scattered(MAX_SIZES):
        rows = [(name.lower(), f"{width:,}×{height:,}") for name, width, height in found.by_area()]
        show_table([f"{len(found.sizes):,} sizes of images, by area", "width×height"], rows)
        return
    rows = [(f"{width:,}×{height:,}", f"{count:,}") for width, height, count in found.sizes[:MAX_SIZES]]
    others = sum(count for *_, count in found.sizes[MAX_SIZES:])
    more = [(f"{len(found.sizes) - MAX_SIZES:,} other sizes", f"{others:,}")] if others else []
    show_table(["size of images", "images"], [*rows, *more])


def _write_augmented(
    spec: str, data_root: Path | None, recipe: str, overrides: Mapping[str, Any], sheet: Path | None, *, force: bool
) -> None:
    """Write a PNG of training images with the recipe's augmentation, and print its path.

    Raises:
        OutputError: the file already exists, or has the suffix of another format.
    """
    path = sheet or Path(short_name(f"{_as_file_name(spec)}-{_as_file_name(Path(recipe).stem)}-augmented.png"))
    check_writable(path, force=force, format="PNG", option="--sheet")
    import numpy as np

    from thirtytwo.data.explore import augmented_sheet
    from thirtytwo.images.render import png
    from thirtytwo.io import write_bytes
    from thirtytwo.workflows.show_data import augment_data

    found = augment_data(spec, recipe, overrides, data_root=data_root)
    data, samples = found.data, found.samples
    shown = readable_names(data.classes)
    names = [shown[label] for label in samples.labels]
    page = augmented_sheet(samples.originals, samples.augmented, names, _captions(samples, shown))
    write_bytes(path, png(np.asarray(page)))
    if found.fixes is not None:
        done = ", ".join(f"{count:,} {what}" for what, count in data.fixes.items())
        log(f"With the fixes of {found.fixes.where}: {done}")
    log(f"Images of {data.name} (original on the left) augmented with the recipe {found.recipe.name}:")
    show(str(path))


def _captions(samples: Samples, classes: Sequence[str]) -> list[list[list[str]]] | None:
    """Label shares of each augmented image, largest first; None if no image is mixed with another."""
    if (samples.targets.max(axis=2) == 1).all():
        return None
    return [
        [
            [
                f"{percent(target[index], 0)} {classes[index]}"
                for index in (-target).argsort()[:MAX_LABELS]
                if target[index] > 0
            ]
            for target in row
        ]
        for row in samples.targets
    ]


def _as_file_name(name: str) -> str:
    """A data set's name as part of a file name: `hf:owner/name` becomes `hf-owner-name`."""
    if not name.strip("./"):
        name = Path(name).resolve().name
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name).strip("-.") or "data"


def cache(
    entries: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ENTRY...]", help="Entries to remove with --clear, by entry name or data set."),
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove the named entries, or all of them.")] = False,
    limit: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1e9,
            metavar="GB",
            help="Remove the least recently used entries until the cache is at most this large.",
            show_default="THIRTYTWO_CACHE_GB, else 20 or a tenth of the disk",
        ),
    ] = None,
) -> None:
    """List the cached decoded images with their sizes and last use, or remove them."""
    from thirtytwo.data import cache_eviction
    from thirtytwo.data.cache import clear_contents, entries_dir

    if entries and not clear:
        raise DataError(f"Entries were given ({', '.join(entries)}) without --clear.", "Add --clear to remove them.")
    if clear and limit is not None:
        raise DataError(
            "--clear and --limit cannot be used together.", "Use --limit alone to keep recently used entries."
        )
    found = cache_eviction.stored(entries_dir())
    if limit is not None:
        _show_removed(cache_eviction.make_room(entries_dir(), int(limit * cache_eviction.GB)))
    elif clear:
        done = cache_eviction.remove(_matching(found, entries) if entries else found)
        swept = 0 if entries else cache_eviction.sweep(entries_dir()) + clear_contents()
        _show_removed(cache_eviction.Cleared(done.removed, done.left, done.freed + swept))
    else:
        _show_entries(found, cache_eviction.limit_bytes(entries_dir()))


def _show_entries(found: list[Stored], limit: int) -> None:
    from thirtytwo.data.cache import cache_dir

    rows = [
        (
            entry.name,
            entry.data or "(unknown)",
            f"{entry.images:,}" if entry.side else "",
            f"{entry.side}×{entry.side}" if entry.side else "",
            size(entry.size),
            f"{datetime.fromtimestamp(entry.used):%Y-%m-%d %H:%M}",
        )
        for entry in found
    ]
    if rows:
        show_table(["entry", "data set", "images", "size", "on disk", "last used"], rows)
        show()
    total = sum(entry.size for entry in found)
    show(f"{len(found)} entries, {size(total)} of at most {size(limit)}, in {cache_dir()}")


def _matching(found: list[Stored], wanted: list[str]) -> list[Stored]:
    """The entries whose data set equals, or whose key starts with (at least 8 characters), one of `wanted`.

    Raises:
        DataError: an element of `wanted` matches no entry.
    """
    chosen: dict[Path, Stored] = {}
    for text in wanted:
        matches = [one for one in found if one.data == text or (len(text) >= 8 and one.path.name.startswith(text))]
        if not matches:
            raise DataError(f"The cache has no entry {text!r}.", _known_entries(found, text))
        chosen |= {one.path: one for one in matches}
    return list(chosen.values())


def _known_entries(found: list[Stored], text: str) -> str:
    """The data sets in the cache that a mistyped name may mean, else the first of them."""
    data = sorted({one.data for one in found if one.data})
    if close := closest(text, [*data, *(one.name for one in found)]):
        return f"Did you mean {close}?"
    return f"It has {listing(data, MAX_KNOWN)}; thirtytwo cache lists all." if data else "thirtytwo cache lists all."


def _show_removed(done: Cleared) -> None:
    """List removed entries, and entries that were kept with the reason."""
    for entry in done.removed:
        show(f"removed {entry.name}  {size(entry.size)}  {entry.data or '(unknown)'}")
    for entry, reason in done.left:
        log(f"kept {entry.name}: {reason}")
    show(f"{len(done.removed)} entries removed, {size(done.freed)} freed")
