"""Put a run's model into the package under a name, with weights of fewer bits, metrics of that very file, and a card.

    python tools/bundle.py NAME RUN [--weights int8] [--resize squash] [--data-root DIR]

Writes `NAME.onnx` and `NAME.md` into `src/thirtytwo/inference/bundled/`, and as `docs/reports/NAME.html` a report
without images, whose licence does not allow passing them on. Test is scored once more, with the smaller file, and the
run counts it; nothing is chosen on it.
"""

import argparse
import hashlib
import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file

from thirtytwo.data.run_data import RunData, load_run_data
from thirtytwo.data.types import ImageSet
from thirtytwo.evaluation.calibration import calibration_of, calibration_record
from thirtytwo.evaluation.metrics import compute_metrics
from thirtytwo.evaluation.ood import class_mean, ood_record, ood_sets, validation_false_alarms
from thirtytwo.export.metadata import rewrite_info
from thirtytwo.export.quantize import Weights, shrink_onnx
from thirtytwo.images.pixels import RESIZE_RULES
from thirtytwo.inference.library import BUNDLED
from thirtytwo.inference.session import open_session
from thirtytwo.io import write_text
from thirtytwo.models import Network
from thirtytwo.predictions import Predictions
from thirtytwo.report.card import write_card
from thirtytwo.report.page import render
from thirtytwo.report.run_record import read_run_record, typed_commands
from thirtytwo.rundir import RunDir
from thirtytwo.workflows.provenance import selection_record, selections
from thirtytwo.workflows.records import count_test_evaluation

OTHER = {"cifar10": "cifar100", "cifar100": "cifar10"}
"""Data sets without a class in common; the other one's images are OOD data."""
BATCH = 100
REPORTS = Path(__file__).parents[1] / "docs" / "reports"
UNLICENSED = "- No licence is set: add one before publishing, and check the licence of the data."
LICENSE = "- Licensed as thirtytwo (MIT); check the licence of the data as well."
BY_POSITION = (
    "Its held-out images were chosen by position, before thirtytwo divided data by content: the same commands now hold "
    "out other images of train, and the same test."
)
REPEAT = re.compile(r"Reproduce it with the recipe of this directory:\n\n```sh\n.*?\n```", re.DOTALL)


def main() -> int:
    parser = argparse.ArgumentParser(description="Put a run's model into the package.")
    parser.add_argument("name", help="name of the bundled model, such as cifar10")
    parser.add_argument("run", type=Path)
    parser.add_argument("--weights", choices=["int8", "float16"], default="int8")
    parser.add_argument("--resize", choices=RESIZE_RULES, default="squash", help="see benchmarks/photos.py")
    parser.add_argument("--data-root", default=os.environ.get("THIRTYTWO_DATA"))
    options = parser.parse_args()
    put(
        options.name,
        RunDir.open(options.run),
        options.weights,
        options.resize,
        Path(options.data_root) if options.data_root else None,
    )
    print(BUNDLED / f"{options.name}.onnx")
    return 0


def put(
    name: str,
    run: RunDir,
    weights: Weights,
    rule: str,
    data_root: Path | None,
    data: RunData | None = None,
    net: Network | None = None,
    license: str = LICENSE,
) -> None:
    """Write the bundled file, its card and its report.

    Args:
        name: name of the bundled model.
        run: the finished run.
        weights: how weights are stored.
        rule: how images that are not square are resized.
        data_root: directory of known data sets.
        data: the run's data where it is loaded already.
        net: the run's network where it computes `known_score` itself.
        license: the card's line on the licence.
    """
    with tempfile.TemporaryDirectory() as place:
        copy = RunDir(Path(place) / "run")
        shutil.copytree(run.path, copy.path, ignore=shutil.ignore_patterns("checkpoints", "figures"))
        shrink_onnx(run.onnx, copy.onnx, weights)
        score(copy, run, rule, data_root, data, net)
        write_card(copy)
        for folder in (BUNDLED, REPORTS):
            folder.mkdir(exist_ok=True)
        shutil.copyfile(copy.onnx, BUNDLED / f"{name}.onnx")
        write_text(REPORTS / f"{name}.html", render(read_run_record(copy, "test"), None, passed_on=True))
        write_text(BUNDLED / f"{name}.md", card(copy, name, weights, rule, license))


@dataclass(frozen=True)
class FileScorer:
    """Logits and features of a model file, as `evaluation.scoring.Scorer` gives those of a network."""

    session: Any
    net: Network | None = None

    def known_scores(self, features: np.ndarray, means: np.ndarray) -> np.ndarray:
        """OOD scores, from features."""
        if self.net is None or not self.net.scores_known:
            return class_mean(features, means)
        with torch.inference_mode():
            return self.net.known_score(torch.from_numpy(features)).double().numpy()

    def score_known(self, images: np.ndarray, means: np.ndarray) -> np.ndarray:
        """OOD scores of images uint8 `(N, H, W, 3)`."""
        return self.known_scores(self.outputs(images)[1], means)

    def outputs(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits `(N, C)`, without the curvature, and features `(N, D)` of images uint8 `(N, H, W, 3)`."""
        _, logits, features = self.everything(images)
        return logits, features

    def everything(self, images: np.ndarray) -> list[np.ndarray]:
        """Probabilities, logits and features."""
        names = ["probabilities", "logits", "features"]
        parts = [
            self.session.run(names, {"images": np.ascontiguousarray(images[start : start + BATCH])})
            for start in range(0, len(images), BATCH)
        ]
        return [np.concatenate(column) for column in zip(*parts, strict=True)]


def score(
    run: RunDir,
    origin: RunDir,
    rule: str,
    data_root: Path | None,
    data: RunData | None = None,
    net: Network | None = None,
) -> None:
    """Evaluate `model.onnx`: predictions, metrics, and accuracy and resize rule in its metadata; `origin` counts it."""
    session, info = open_session(run.onnx)
    recipe = run.read_recipe()
    spec = run.read_json(run.environment)["data"]["spec"]
    data = data or load_run_data(run, data_root, image_size=info.input_size)
    if any(data.missing.values()):
        raise SystemExit(next(data.changes()))
    dataset, parts, touches = data.dataset, data.parts, count_test_evaluation(origin)
    scorer, means = FileScorer(session, net), load_file(run.class_means)["class_means"]
    known = {}
    for split, images in (("val", parts.val), ("test", parts.test)):
        if images is not None:
            probabilities, logits, features = scorer.everything(images.images)
            run.write_predictions(split, predictions(images, probabilities))
            known[split] = scorer.known_scores(features, means)
    predicted = run.read_predictions("test")
    metrics = compute_metrics(
        predicted, dataset=dataset.name, split="test", superclasses=dataset.superclasses, test_evaluations=touches
    )
    before = run.read_json(run.metrics)["calibration"]
    after: dict[str, Any] = {"temperature_only": None, "fitted_on": before["fitted_on"]}
    metrics["calibration"] = calibration_record(predicted, logits, calibration_of(info), **after)
    metrics["calibration"] |= selection_record(selections(recipe, run.read_json(run.environment)))
    metrics["calibration"]["before"] = before["before"]  # the file does not give logits with the curvature on
    others = ood_sets(info, [OTHER[spec]] if spec in OTHER else [], data_root)
    alarms = validation_false_alarms(known.get("val"), info)
    given = {"validation": alarms, "test": known["test"], "sets": others}
    metrics["unknown"] = ood_record(partial(scorer.score_known, means=means), info, **given)  # type: ignore[arg-type]
    run.write_json(run.metrics, metrics)
    rewrite_info(run.onnx, info.model_copy(update={"accuracy": metrics["accuracy"]["value"], "resize": rule}))
    print(f"accuracy {metrics['accuracy']['value']:.4f}, ECE {metrics['ece']['value']:.4f}, n = {metrics['n']:,}")


def predictions(images: ImageSet, probabilities: np.ndarray) -> Predictions:
    """The file's predictions of labeled images."""
    return Predictions(images.classes, images.labels, probabilities, images.rows, images.files)


def card(run: RunDir, name: str, weights: str, rule: str, license: str) -> str:
    """The run's card, with what differs in this file."""
    content = run.onnx.read_bytes()
    commands = "\n".join(typed_commands(run))
    size, digest = len(content) / 1e6, hashlib.sha256(content).hexdigest()
    shown = {"crop": "cropped in the middle", "pad": "padded", "squash": "squashed"}[rule]
    text = run.card.read_text(encoding="utf-8").replace("--model model.onnx", f"--model {name}")
    text = text.replace("`model.onnx` is the complete model", f"`{name}.onnx` is the complete model")
    text = text.replace("`report.html` shows them", "The run's `report.html` shows them")
    text = text.replace(UNLICENSED, license)
    note = "" if "train" in run.read_json(run.split) else f"\n\n{BY_POSITION}"
    text = REPEAT.sub(lambda _: f"Reproduce the run it comes from with:\n\n```sh\n{commands}\n```{note}", text)
    return text + (
        f"\n## This file\n\n{size:.1f} MB: weights are kept as {weights} and become float32 when the file is opened. "
        "Metrics are of this file, except those before calibration and on corrupted images, which are of the run "
        f"before its weights were rounded. Images that are not square are {shown}. SHA-256 `{digest}`.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
