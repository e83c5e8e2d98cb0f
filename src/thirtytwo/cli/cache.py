"""`thirtytwo cache`: list and remove cached decoded images."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thirtytwo.cli.console import log, show, show_table
from thirtytwo.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from thirtytwo.data.cache_eviction import Cleared, Stored


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
            _size(entry.size),
            f"{datetime.fromtimestamp(entry.used):%Y-%m-%d %H:%M}",
        )
        for entry in found
    ]
    if rows:
        show_table(["entry", "data set", "images", "size", "on disk", "last used"], rows)
        show()
    total = sum(entry.size for entry in found)
    show(f"{len(found)} entries, {_size(total)} of at most {_size(limit)}, in {cache_dir()}")


def _matching(found: list[Stored], wanted: list[str]) -> list[Stored]:
    """The entries whose data set equals, or whose key starts with (at least 8 characters), one of `wanted`.

    Raises:
        DataError: an element of `wanted` matches no entry.
    """
    chosen: dict[Path, Stored] = {}
    for text in wanted:
        matches = [one for one in found if one.data == text or (len(text) >= 8 and one.path.name.startswith(text))]
        if not matches:
            known = {one.name for one in found} | {one.data for one in found if one.data}
            raise DataError(f"The cache has no entry {text!r}.", did_you_mean(text, known))
        chosen |= {one.path: one for one in matches}
    return list(chosen.values())


def _show_removed(done: Cleared) -> None:
    """List removed entries, and entries that were kept with the reason."""
    for entry in done.removed:
        show(f"removed {entry.name}  {_size(entry.size)}  {entry.data or '(unknown)'}")
    for entry, reason in done.left:
        log(f"kept {entry.name}: {reason}")
    show(f"{len(done.removed)} entries removed, {_size(done.freed)} freed")


def _size(count: int) -> str:
    """A size in bytes formatted as `7.9 MB` or `1.20 GB`."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
