"""`thirtytwo demo`: the whole job on embedded data, with no download."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import thirtytwo
from thirtytwo.cli.console import show
from thirtytwo.cli.listings import show_metrics
from thirtytwo.cli.predict import write_table
from thirtytwo.data.load import load_dataset
from thirtytwo.rundir import RunDir

if TYPE_CHECKING:
    from thirtytwo.data.types import ImageSet
    from thirtytwo.workflows import Run

DATA = "digits"
RECIPE = "digits"
PICTURES = 8


def run_demo(runs: Path = Path("runs")) -> Run:
    """Train `digits` in a new directory below `runs`, show the figures, and classify some pictures of the test split.

    Raises:
        MissingExtraError: PyTorch is not installed.
    """
    train = thirtytwo.train
    show("1. Training on handwritten digits (scikit-learn's own, no download).\n")
    run = train(DATA, recipe=RECIPE, run=_fresh(runs))
    made = RunDir(run.path)

    show("\n2. How good it is, on pictures it never saw:\n")
    show_metrics(run.metrics)

    test = load_dataset(DATA).test
    if test is None:
        raise AssertionError(f"{DATA} has a test split")
    files = write_pictures(test, run.path / "pictures")
    show(f"\n3. Classifying {len(files)} pictures in {files[0].parent} with {made.onnx} (needs no PyTorch):\n")
    write_table(thirtytwo.load(made.onnx).predict_iter(files, top=3), sys.stdout, top=3)

    show(f"\nReport, with every class and the worst mistakes:  {made.report}")
    show("What to try next:")
    show(f"  thirtytwo predict {files[0].parent} --model {run.path}")
    show("  thirtytwo train cifar10                           a real data set")
    show("  thirtytwo train FOLDER                            your own pictures, one folder a class")
    show(f"\nTry it in a web page, on this computer alone:  thirtytwo app --model {run.path}")
    return run


def write_pictures(images: ImageSet, folder: Path, most: int = PICTURES) -> list[Path]:
    """The first picture of each class as PNG, named after its class, at most `most`."""
    from PIL import Image

    folder.mkdir(parents=True)
    files = []
    for index, name in enumerate(images.classes[:most]):
        positions = np.flatnonzero(images.labels == index)
        if len(positions):
            files.append(folder / f"{name}.png")
            Image.fromarray(images.images[positions[0]]).save(files[-1])
    return files


def _fresh(runs: Path) -> Path:
    return next(path for number in count(1) if not (path := runs / f"demo-{number}").exists())
