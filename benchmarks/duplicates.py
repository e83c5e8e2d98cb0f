"""Near-duplicates: recall on copies made by hand, number found across splits, seconds.

    python benchmarks/duplicates.py [DATA ...] [--copies 1000] [--sheet FOLDER]

DATA are CIFAR-10 and CIFAR-100 by default, read as `thirtytwo train` reads them. `COPIES` training images, chosen at
random, are changed in each of `KINDS` of ways and added to all images of the data; recall is the share of copies that
are found as a near-duplicate of their original. Then the data itself is examined, and the pairs across splits are
counted. `--sheet` draws a random sample of these pairs side by side, for looking at them. Writes
`benchmarks/results/duplicates.json`.
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
from thirtytwo.doctor.near_duplicates import find_pairs, thumbnails
from thirtytwo.evaluation.metrics import wilson
from thirtytwo.images.render import png
from thirtytwo.io import write_json
from thirtytwo.machine import cpu_count, cpu_name

Pixels = npt.NDArray[np.uint8]
RESULTS = Path(__file__).parent / "results" / "duplicates.json"
SHOWN = 60


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
    parser.add_argument("data", nargs="*", default=["cifar10", "cifar100"])
    parser.add_argument("--copies", type=int, default=1000)
    parser.add_argument("--sheet", type=Path, help="folder for sheets of pairs")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    root = os.environ.get("THIRTYTWO_DATA")
    if root is None:
        print("skipped: set THIRTYTWO_DATA to a folder with the data sets")
        return 0
    content: dict[str, Any] = {"what": __doc__.splitlines()[0], "copies": options.copies}
    for spec in options.data:
        content[spec] = examine(spec, Path(root), options.copies, options.sheet)
        print(spec, content[spec], flush=True)
    content |= {"cpu": cpu_name(), "cores": cpu_count(), "date": datetime.now(UTC).date().isoformat()}
    write_json(options.out, content)
    return 0


def examine(spec: str, root: Path, copies: int, sheet: Path | None) -> dict[str, Any]:
    """Recall, and pairs across splits."""
    found = root / spec
    data = load_dataset(str(found) if spec not in ("cifar10", "cifar100") else spec, data_root=root)
    parts = list(data.stored.values())
    images = np.concatenate([part.images for part in parts])
    split = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    start = time.perf_counter()
    small = thumbnails(images)
    pairs = find_pairs(small)
    seconds = time.perf_counter() - start
    across = split[pairs.first] != split[pairs.second]
    differ = labels[pairs.first] != labels[pairs.second]
    if sheet is not None:
        draw(images, pairs, np.flatnonzero(across), sheet / f"{spec}.png")
    return {
        "n": len(images),
        "recall": recalls(small, copies),
        "pairs": len(pairs),
        "pairs_across_splits": int(across.sum()),
        "pairs_across_splits_with_different_labels": int((across & differ).sum()),
        "seconds": round(seconds, 1),
    }


def recalls(small: Pixels, copies: int) -> dict[str, Any]:
    """Share of the copies of each kind that are found, with a 95 % interval."""
    chosen = np.random.default_rng(0).choice(len(small), copies, replace=False)
    found = {}
    for kind, change in KINDS.items():
        changed = np.stack([change(small[position]) for position in chosen])
        pairs = find_pairs(np.concatenate([small[chosen], changed]))
        hits = int(((pairs.second - pairs.first) == copies).sum())
        low, high = wilson(hits, copies)
        found[kind] = {"value": hits / copies, "ci95": [round(low, 4), round(high, 4)]}
    return found


def draw(images: Pixels, pairs: Any, positions: npt.NDArray[np.int64], path: Path) -> None:
    """A random sample of pairs, side by side and enlarged, least similar last; and the least similar ones."""
    sample = np.sort(np.random.default_rng(0).permutation(positions)[:SHOWN])
    side, columns = 96, 10
    rows = -(-len(sample) // columns)
    page = np.full((rows * (side + 6), columns * (2 * side + 12), 3), 255, dtype=np.uint8)
    for number, position in enumerate(sample):
        top, left = number // columns * (side + 6), number % columns * (2 * side + 12)
        for part, row in enumerate((pairs.first[position], pairs.second[position])):
            shown = Image.fromarray(images[row]).resize((side, side), Image.Resampling.NEAREST)
            page[top : top + side, left + part * side : left + (part + 1) * side] = np.asarray(shown)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(page))
    print(f"{path}: similarities {pairs.similarity[sample].round(2).tolist()}")


if __name__ == "__main__":
    sys.exit(main())
