"""Near-duplicates: recall on copies made by hand, number found, seconds.

    python benchmarks/duplicates.py [DATA ...] [--copies 1000] [--sheet FOLDER]

DATA are CIFAR-10 and CIFAR-100 by default, read as `thirtytwo data doctor` reads them. `COPIES` images, chosen at
random, are changed in each of `KINDS` of ways; recall is the share of copies that are found as a near-duplicate of
their original. Then the data itself is examined, and the pairs across splits are counted. `--sheet` draws a random
sample of these pairs side by side, for looking at them. Writes `benchmarks/results/duplicates.json`.

Photographs are changed at `LARGE` pixels, and recall and the number of pairs are given for each of `LEAST` as the least
similarity, to choose it. `--sheet` draws the pairs between two of these on a sheet of their own. Writes
`benchmarks/results/duplicates_photographs.json`.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from thirtytwo.data.load import load_dataset
from thirtytwo.data.types import DataSet
from thirtytwo.doctor.near_duplicates import FINE, SIDE, Pairs, find_pairs, thumbnails
from thirtytwo.evaluation.metrics import wilson
from thirtytwo.images.decode import load_image
from thirtytwo.images.pixels import resize
from thirtytwo.images.render import png
from thirtytwo.io import write_json
from thirtytwo.machine import cpu_count, cpu_name

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
RESULTS = Path(__file__).parent / "results"
SHOWN, COLUMNS, TILE = 60, 10, 96
LARGE = 192
LEAST = (0.75, 0.8, 0.85, 0.9, 0.95)
KNOWN = ("cifar10", "cifar100")


def mirrored(image: Pixels) -> Pixels:
    """Left and right exchanged."""
    return image[:, ::-1]


def recompressed(image: Pixels) -> Pixels:
    """Saved as JPEG of quality 50 and read again."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=50)
    return np.asarray(Image.open(stream))


def brightened(image: Pixels) -> Pixels:
    """A quarter brighter."""
    return np.clip(image * 1.25, 0, 255).astype(np.uint8)


def shifted(image: Pixels) -> Pixels:
    """Two pixels of 32 to the right and down; the border is repeated."""
    by = max(1, round(2 * image.shape[0] / 32))
    return np.pad(image, ((by, 0), (by, 0), (0, 0)), mode="edge")[: image.shape[0], : image.shape[1]]


def resized(image: Pixels) -> Pixels:
    """At three quarters of its size, and enlarged again."""
    side = image.shape[0]
    small = Image.fromarray(image).resize((side * 3 // 4,) * 2, Image.Resampling.BICUBIC)
    return np.asarray(small.resize((side, side), Image.Resampling.BICUBIC))


KINDS: dict[str, Callable[[Pixels], Pixels]] = {
    function.__name__: function for function in (mirrored, recompressed, brightened, shifted, resized)
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="*", default=list(KNOWN))
    parser.add_argument("--copies", type=int, default=1000)
    parser.add_argument("--sheet", type=Path, help="folder for sheets of pairs")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    root = os.environ.get("THIRTYTWO_DATA")
    if root is None:
        print("skipped: set THIRTYTWO_DATA to a folder with the data sets")
        return 0
    content: dict[str, Any] = {"what": __doc__.splitlines()[0], "copies": options.copies}
    small = set(options.data) <= set(KNOWN)
    for spec in options.data:
        found = examine if spec in KNOWN else examine_photographs
        content[spec] = found(spec, Path(root), options.copies, options.sheet)
        print(spec, content[spec], flush=True)
    content |= {"cpu": cpu_name(), "cores": cpu_count(), "date": datetime.now(UTC).date().isoformat()}
    write_json(options.out or RESULTS / f"duplicates{'' if small else '_photographs'}.json", content)
    return 0


def examine(spec: str, root: Path, copies: int, sheet: Path | None) -> dict[str, Any]:
    """Recall, and pairs across splits."""
    data = load_dataset(spec, data_root=root)
    images, labels, split = joined(data)
    start = time.perf_counter()
    pairs = find_pairs(thumbnails(images))
    seconds = time.perf_counter() - start
    across = split[pairs.first] != split[pairs.second]
    differ = labels[pairs.first] != labels[pairs.second]
    if sheet is not None:
        chosen = np.flatnonzero(across)
        draw(images, pairs, chosen, sheet / f"{spec}.png")
    originals = images[np.random.default_rng(0).choice(len(images), copies, replace=False)]
    return {
        "n": len(images),
        "recall": recalls(similarities(originals), FINE),
        "pairs": len(pairs),
        "pairs_across_splits": int(across.sum()),
        "pairs_across_splits_with_different_labels": int((across & differ).sum()),
        "seconds": round(seconds, 1),
    }


def examine_photographs(spec: str, root: Path, copies: int, sheet: Path | None) -> dict[str, Any]:
    """Recall and pairs by the least similarity."""
    data = load_dataset(str(root / spec))
    images, labels, _ = joined(data)
    pairs = find_pairs(thumbnails(images))
    equal = (images[pairs.first] == images[pairs.second]).all(axis=(1, 2, 3))
    differ = labels[pairs.first] != labels[pairs.second]
    files = [root / spec / name for part in data.stored.values() for name in part.files or ()]
    originals = np.random.default_rng(0).choice(len(images), min(copies, len(images)), replace=False)
    found = similarities(np.stack([load_image(files[place], LARGE).pixels for place in originals]))
    by_least = {}
    for least, most in zip(LEAST, (*LEAST[1:], 2.0), strict=True):
        chosen = (pairs.similarity >= least) & ~equal
        by_least[str(least)] = {
            "pairs": int(chosen.sum()),
            "pairs_with_different_labels": int((chosen & differ).sum()),
            "recall": recalls(found, least),
        }
        if sheet is not None:
            band = np.flatnonzero(chosen & (pairs.similarity < most))
            shown = np.stack([load_image(file, TILE).pixels for file in files])
            draw(shown, pairs, band, sheet / f"{spec}-{least}.png")
    return {"n": len(images), "equal_pairs": int(equal.sum()), "least_similarity": by_least}


def joined(data: DataSet) -> tuple[Pixels, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Images, labels and numbers of the splits of a data set."""
    parts = list(data.stored.values())
    images = np.concatenate([part.images for part in parts])
    split = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return images, np.concatenate([part.labels for part in parts]), split


def similarities(images: Pixels) -> dict[str, Floats]:
    """Similarity of each image with its copy, for each kind of copy, float32 `(N,)`; 0 where it is not found."""
    found = {}
    small = np.stack([resize(image, SIDE) for image in images])
    for kind, change in KINDS.items():
        changed = np.stack([resize(change(image), SIDE) for image in images])
        pairs = find_pairs(np.concatenate([small, changed]))
        own = (pairs.second - pairs.first) == len(images)
        found[kind] = np.zeros(len(images), dtype=np.float32)
        found[kind][pairs.first[own]] = pairs.similarity[own]
    return found


def recalls(found: dict[str, Floats], least: float) -> dict[str, Any]:
    """Share of the copies of each kind that are found with at least this similarity, with a 95 % interval."""
    shares = {}
    for kind, values in found.items():
        hits, count = int((values >= least).sum()), len(values)
        low, high = wilson(hits, count)
        shares[kind] = {"value": round(hits / count, 4), "ci95": [round(low, 4), round(high, 4)]}
    return shares


def draw(images: Pixels, pairs: Pairs, positions: npt.NDArray[np.int64], path: Path) -> None:
    """A random sample of pairs, side by side and enlarged, least similar last."""
    sample = np.sort(np.random.default_rng(0).permutation(positions)[:SHOWN])
    if not len(sample):
        return
    rows = -(-len(sample) // COLUMNS)
    page = np.full((rows * (TILE + 6), COLUMNS * (2 * TILE + 12), 3), 255, dtype=np.uint8)
    for number, position in enumerate(sample):
        top, left = number // COLUMNS * (TILE + 6), number % COLUMNS * (2 * TILE + 12)
        for part, row in enumerate((pairs.first[position], pairs.second[position])):
            shown = Image.fromarray(images[row]).resize((TILE, TILE), Image.Resampling.NEAREST)
            page[top : top + TILE, left + part * TILE : left + (part + 1) * TILE] = np.asarray(shown)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(page))
    print(f"{path}: similarities {pairs.similarity[sample].round(2).tolist()}")


if __name__ == "__main__":
    sys.exit(main())
