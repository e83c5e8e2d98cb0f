"""Small run directories, finished and not."""

import numpy as np
import pytest

from thirtytwo.config.recipe import Recipe
from thirtytwo.data.types import ImageSet
from thirtytwo.evaluation.metrics import compute_metrics
from thirtytwo.predictions import Predictions
from thirtytwo.rundir import RunDir

COLUMNS = (
    "epoch",
    "step",
    "lr",
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "seconds",
    "images_per_second",
)
NAMES = ("ant", "bee", "<b>cow</b>", '$x$ & "y" | `z`', "naïve 猫", "</script><script>alert(1)</script>")


def make_predictions(classes, count=240, seed=0, skill=2.5):
    random = np.random.default_rng(seed)
    truth = np.arange(count) % len(classes)
    logits = random.normal(size=(count, len(classes)))
    logits[np.arange(count), truth] += skill
    shares = np.exp(logits)
    probabilities = (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)
    return Predictions(tuple(classes), truth.astype(np.int64), probabilities, np.arange(count) + 7)


def make_images(given, side=8):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (len(given.truth), side, side, 3), dtype=np.uint8)
    return ImageSet(images, given.truth, given.classes, given.rows)


@pytest.fixture
def make_run(tmp_path):
    """A function that writes a finished run; names in `without` are left out."""

    def make(
        classes=NAMES, *, superclasses=None, without=(), split="test", test_evaluations=1, count=240, **environment
    ):
        run = RunDir.create(tmp_path / "run")
        recipe = Recipe(name="fast", model={"name": "small_net"}, train={"label_smoothing": 0.2})
        run.write_recipe(recipe)
        given = make_predictions(classes, count)
        if "history" not in without:
            rows = [
                {"epoch": n, "step": n * 9, "lr": 0.1 / n, "train_loss": 2 / n, "train_accuracy": 1 - 0.5 / n}
                | ({"val_loss": 2.1 / n, "val_accuracy": 1 - 0.6 / n} if n % 2 else {})
                for n in range(1, 6)
            ]
            run.write_history(rows, COLUMNS)
        if "predictions" not in without:
            run.write_predictions(split, given)
        if "metrics" not in without:
            scores = compute_metrics(
                given,
                dataset="pets <i>",
                split=split,
                superclasses=superclasses,
                tta=make_predictions(classes, count, skill=4.0),
                resamples=20,
                test_evaluations=test_evaluations,
            )
            run.write_json(run.metrics, scores)
        if "split" not in without:
            values = {"seed": 0, "val_fraction": 0.1, "train_on": "train", "n_train": 900, "n_val": 100}
            run.write_json(run.split, values | {"val_rows": list(range(100)), "test_evaluations": test_evaluations})
        if "environment" not in without:
            values = {
                "command": "thirtytwo train 'my pets' --recipe fast",
                "started": "2025-02-03T10:00:00+00:00",
                "finished": "2025-02-03T10:05:00+00:00",
                "seconds": {"train": 290.0, "total": 300.0},
                "versions": {"python": "3.11.2", "torch": "2.15.0"},
                "hardware": {"cpu": "Some CPU", "cores": 2, "memory_gb": 24.0, "gpu": None},
                "device": "cpu",
                "parameters": 1_970_000,
                "flops": None,
                "choices": [{"what": "precision", "value": "float32", "reason": "no fast <bfloat16> here"}],
                "data": {
                    "spec": "my pets",
                    "name": "pets <i>",
                    "fingerprint": "abc123",
                    "classes": list(classes),
                    "superclasses": superclasses,
                    "train": 900,
                    "val": 100,
                    "test": count,
                    "skipped": ["skipped Thumbs.db: not an image"],
                },
                "peak_memory_mb": 800,
                "interrupted": False,
            }
            run.write_json(run.environment, values | environment)
        return run, given

    return make


@pytest.fixture
def images_of():
    """A function that makes images for predictions."""
    return make_images
