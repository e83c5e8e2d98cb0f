"""The file that an export has beside its images: class order and superclasses, which most layouts cannot express."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from thirtytwo.data.undecoded import UndecodedDataSet, UndecodedPart
from thirtytwo.errors import DataError
from thirtytwo.run_paths import FIXES

MANIFEST = "export.json"
CHECKSUMS = "checksums.sha256"
CLASSES = "classes.txt"
OWN_FILES = frozenset({MANIFEST, CHECKSUMS, FIXES})
"""Files of an export or of a fixed copy that are not data."""
VERSION = 1
_KEY = "thirtytwo_export"


@dataclass(frozen=True)
class Manifest:
    """What `export.json` says.

    Attributes:
        data: path of DATA in the folder, such as `labels.csv`; empty: the folder itself.
        classes: class names in the order of their indices.
        superclasses: superclass of each class; None where there are none.
    """

    data: str
    classes: tuple[str, ...]
    superclasses: Mapping[str, str] | None
    images: Mapping[str, int] | None = None
    """Number of images of each split; None: not known."""

    def as_json(self, **more: object) -> dict[str, object]:
        """The content of the file; `more` is for people."""
        own = {"data": self.data, "classes": self.classes, "superclasses": self.superclasses}
        return {_KEY: VERSION, **own, **more}


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest in a folder; None where it has none that this version understands."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if found[_KEY] != VERSION:
            return None
        groups = found["superclasses"]
        return Manifest(
            str(found["data"]),
            tuple(map(str, found["classes"])),
            None if groups is None else {str(name): str(group) for name, group in groups.items()},
            {str(name): int(one["images"]) for name, one in found["splits"].items()} if "splits" in found else None,
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _compared(data: UndecodedDataSet, manifest: Manifest) -> UndecodedDataSet:
    counts = {str(split): len(part.labels) for split, part in data.parts.items()}
    notes = []
    for split, listed in (manifest.images or {}).items():
        if split not in counts and listed:
            raise DataError(
                f"{data.where} lacks the split {split!r}, of which {MANIFEST} lists {listed:,} images.",
                f"Copy the export again; if the split was removed on purpose, move {MANIFEST} away.",
            )
        if counts.get(split, 0) < listed:
            notes.append(f"the file {MANIFEST} lists {listed:,} images in {split}, but {counts[split]:,} were found")
    return replace(data, skipped=(*data.skipped, *notes), warnings=(*data.warnings, *notes)) if notes else data


def restored(data: UndecodedDataSet, manifest: Manifest) -> UndecodedDataSet:
    """The data set with the class order and superclasses of the manifest.

    Where the folder has classes that the manifest lacks, it was changed since, and its own order stays. Fewer images
    than the manifest lists are noted.

    Raises:
        DataError: a split of the manifest is missing as a whole, so that another one would be cut from the others.
    """
    data = _compared(data, manifest)
    if not set(data.classes) <= set(manifest.classes):
        note = f"the file {MANIFEST} does not list all classes, so the class order is that of the folder"
        return replace(data, skipped=(*data.skipped, note))
    index = {name: number for number, name in enumerate(manifest.classes)}
    order = np.array([index[name] for name in data.classes], dtype=np.int64)

    def relabelled(part: UndecodedPart) -> UndecodedPart:
        return replace(part, labels=order[part.labels] if len(order) else part.labels)

    return replace(
        data,
        classes=manifest.classes,
        parts={split: relabelled(part) for split, part in data.parts.items()},
        superclasses=data.superclasses or manifest.superclasses,
        all_in_all=False,
    )
