"""`thirtytwo demo`: train, evaluate and predict on embedded data, without a download."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import thirtytwo
from thirtytwo.cli.console import show
from thirtytwo.cli.models import show_metrics
from thirtytwo.cli.predict import write_table
from thirtytwo.data.load import load_dataset
from thirtytwo.io import RUNS, free_path
from thirtytwo.rundir import RunDir

if TYPE_CHECKING:
    from thirtytwo.data.types import ImageSet
    from thirtytwo.workflows.finish import Run

DATA = "digits"
RECIPE = "digits"
MAX_IMAGES = 8


def run_demo(runs: Path = RUNS) -> Run:
    """Train `digits` in a new directory below `runs`, show the metrics and classify some test images.

    Raises:
        MissingExtraError: PyTorch is not installed.
    """
    train = thirtytwo.train
    show("1. Train on handwritten digits (from scikit-learn, no download).\n")
    run = train(DATA, recipe=RECIPE, run=free_path(runs / "demo"))
    made = RunDir(run.path)

    show("\n2. Evaluate on test images that were not used for training:\n")
    show_metrics(run.metrics)

    test = load_dataset(DATA).test
    if test is None:
        raise AssertionError(f"{DATA} has a test split")
    files = write_images(test, run.path / "images")
    show(f"\n3. Classify {len(files)} images in {files[0].parent} with {made.onnx} (without PyTorch):\n")
    write_table(thirtytwo.load(made.onnx).predict_iter(files, top=3), sys.stdout, top=3)

    show(f"\nReport with metrics per class and the most confident errors:  {made.report}")
    show("Next steps:")
    show(f"  thirtytwo predict {shlex.quote(str(files[0].parent))} --model {shlex.quote(str(run.path))}")
    show("  thirtytwo train cifar10                           a larger data set")
    show("  thirtytwo train FOLDER                            your own images, one folder per class")
    show(f"\nUse the model in a local web page:  thirtytwo app --model {shlex.quote(str(run.path))}")
    return run


def write_images(images: ImageSet, folder: Path, limit: int = MAX_IMAGES) -> list[Path]:
    """Write the first image of each of the first `limit` classes as PNG, named after its class."""
    from PIL import Image

    folder.mkdir(parents=True)
    files = []
    for index, name in enumerate(images.classes[:limit]):
        positions = np.flatnonzero(images.labels == index)
        if len(positions):
            files.append(folder / f"{name}.png")
            Image.fromarray(images.images[positions[0]]).save(files[-1])
    return files
