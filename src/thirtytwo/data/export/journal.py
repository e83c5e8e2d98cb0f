"""Record of the complete shards of an unfinished export, by which it is resumed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from thirtytwo.data.split import Split
from thirtytwo.errors import RunError

JOURNAL = ".journal.jsonl"


@dataclass(frozen=True)
class Shard:
    """A complete shard.

    Attributes:
        split: its split.
        images: number of its images.
        content: sum of the hashes of its images with their labels (`run.digest_of`), in hexadecimal.
        files: SHA-256 of each of its files, by path in the output.
    """

    split: Split
    images: int
    content: str
    files: Mapping[str, str]


class Journal:
    """The journal in an output folder: a line with the key of the export, then one for each shard, in order.

    Attributes:
        shards: the complete shards.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._file = folder, folder / JOURNAL
        self.shards: list[Shard] = []

    def start(self, key: str) -> None:
        """Start a journal for the export that `key` identifies."""
        self._file.write_text(json.dumps({"key": key}) + "\n", encoding="utf-8")

    def resume(self, key: str) -> None:
        """Read the journal; shards whose files are not as recorded, those after them and all other files are removed.

        Raises:
            RunError: the unfinished export is of other data, or in another format.
        """
        first, *lines = self._file.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
        if not _is_key(first, key):
            raise RunError(
                f"{self._folder} is an unfinished export of other data, in another format or with other options.",
                "Give the same ones as before, or start over with --force instead of --resume.",
            )
        for line in lines:
            try:
                shard = Shard(**json.loads(line))
            except (ValueError, TypeError):  # the last line, which was being written
                break
            if any(sha256_or_none(self._folder / name) != found for name, found in shard.files.items()):
                break
            self.shards.append(shard)
        self._remove_others()
        rows = "".join(json.dumps(asdict(shard)) + "\n" for shard in self.shards)
        self._file.write_text(first + "\n" + rows, encoding="utf-8")

    def add(self, shard: Shard) -> None:
        """Record a complete shard."""
        self.shards.append(shard)
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(shard)) + "\n")

    def of(self, split: Split) -> list[Shard]:
        """The complete shards of a split."""
        return [shard for shard in self.shards if shard.split == split]

    def _remove_others(self) -> None:
        known = {self._folder / name for shard in self.shards for name in shard.files}
        for path in self._folder.rglob("*"):
            hidden = path.parent == self._folder and path.name.startswith(".")  # the journal and the lock
            if path.is_file() and path not in known and not hidden:
                path.unlink()


def _is_key(line: str, key: str) -> bool:
    try:
        return bool(json.loads(line) == {"key": key})
    except ValueError:
        return False


def sha256(file: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_or_none(file: Path) -> str | None:
    """SHA-256 of a file, or None where it cannot be read."""
    try:
        return sha256(file)
    except OSError:
        return None
