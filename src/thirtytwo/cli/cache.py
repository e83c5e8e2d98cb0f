"""`thirtytwo cache`: what decoded images take on disk, and removing them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thirtytwo.cli.console import say, show, show_table
from thirtytwo.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from thirtytwo.data.cache_eviction import Cleared, Stored


def cache(
    entries: Annotated[
        list[str] | None, typer.Argument(metavar="[ENTRY...]", help="With --clear: these only, by entry or data set.")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove entries; without a name, all of them.")] = False,
    limit: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="GB",
            help="Remove the least recently used entries until the rest takes no more than this.",
            show_default="never more than THIRTYTWO_CACHE_GB, else 20 or a tenth of the disk",
        ),
    ] = None,
) -> None:
    """List the decoded images kept on disk with sizes and last use, or remove them."""
    from thirtytwo.data import cache_eviction as room
    from thirtytwo.data.cache import clear_contents, entries_dir

    if entries and not clear:
        raise DataError("Entries are named, and --clear is not given.", "Add --clear to remove them.")
    if clear and limit is not None:
        raise DataError("--clear and --limit exclude each other.", "Use --limit alone to keep what was used last.")
    found = room.stored(entries_dir())
    if limit is not None:
        _tell(room.make_room(entries_dir(), int(limit * room.GB)))
    elif clear:
        done = room.remove(_chosen(found, entries) if entries else found)
        swept = 0 if entries else room.sweep(entries_dir()) + clear_contents()
        _tell(room.Cleared(done.removed, done.left, done.freed + swept))
    else:
        _list(found, room.limit_bytes(entries_dir()))


def _list(found: list[Stored], limit: int) -> None:
    from thirtytwo.data.cache import cache_dir

    rows = [
        (
            entry.name,
            entry.data or "(not known)",
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


def _chosen(found: list[Stored], wanted: list[str]) -> list[Stored]:
    """The entries meant: by the beginning of their key, at least as much as is listed, or by their data set.

    Raises:
        DataError: there is no such entry.
    """
    chosen: dict[Path, Stored] = {}
    for text in wanted:
        meant = [one for one in found if one.data == text or (len(text) >= 8 and one.path.name.startswith(text))]
        if not meant:
            known = {one.name for one in found} | {one.data for one in found if one.data}
            raise DataError(f"The cache has no entry {text!r}.", did_you_mean(text, known))
        chosen |= {one.path: one for one in meant}
    return list(chosen.values())


def _tell(done: Cleared) -> None:
    """What was removed, and what was not and why."""
    for entry in done.removed:
        show(f"removed {entry.name}  {_size(entry.size)}  {entry.data or '(not known)'}")
    for entry, reason in done.left:
        say(f"left {entry.name}: {reason}")
    show(f"{len(done.removed)} entries removed, {_size(done.freed)} freed")


def _size(count: int) -> str:
    """Bytes as `7.9 MB` or `1.20 GB`."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
