"""Put a run's model into the package under a name, with weights of fewer bits, figures of that very file, and a card.

    python tools/bundle.py NAME RUN [--weights int8] [--data-root DIR]

Writes `NAME.onnx` and `NAME.md` into `src/thirtytwo/predict/bundled/`. Test is scored once more, with the smaller file,
and the run counts it; nothing is chosen on it.
"""

import argparse
import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx

from thirtytwo.data.imageset import ImageSet
from thirtytwo.data.load import load_dataset
from thirtytwo.export.shrink import shrink_onnx
from thirtytwo.files import write_text
from thirtytwo.images.decode import RESIZE_RULES
from thirtytwo.judge.confidence import calibration_record
from thirtytwo.judge.metrics import compute_metrics
from thirtytwo.pipeline.records import touch_test
from thirtytwo.pipeline.scoring import calibration_of
from thirtytwo.predict.modelfile import METADATA_KEY, open_session, read_info
from thirtytwo.predict.predictor import BUNDLED
from thirtytwo.report.card import write_card
from thirtytwo.rundir import Predictions, RunDir

BATCH = 100


def main() -> int:
    parser = argparse.ArgumentParser(description="Put a run's model into the package.")
    parser.add_argument("name", help="what it is called there, such as cifar10")
    parser.add_argument("run", type=Path)
    parser.add_argument("--weights", choices=["int8", "float16"], default="int8")
    parser.add_argument("--resize", choices=RESIZE_RULES, default="squash", help="see benchmarks/photos.py")
    parser.add_argument("--data-root", default=os.environ.get("THIRTYTWO_DATA"))
    options = parser.parse_args()
    run = RunDir.open(options.run)
    with tempfile.TemporaryDirectory() as place:
        copy = RunDir(Path(place) / "run")
        shutil.copytree(run.path, copy.path, ignore=shutil.ignore_patterns("checkpoints", "figures"))
        shrink_onnx(run.onnx, copy.onnx, options.weights)
        score(copy, options.resize, options.data_root)
        touch_test(run)
        write_card(copy)
        BUNDLED.mkdir(exist_ok=True)
        shutil.copyfile(copy.onnx, BUNDLED / f"{options.name}.onnx")
        text = copy.card.read_text(encoding="utf-8").replace("--model model.onnx", f"--model {options.name}")
        write_text(BUNDLED / f"{options.name}.md", text + about_file(copy, options.weights, options.resize))
    print(BUNDLED / f"{options.name}.onnx")
    return 0


def score(run: RunDir, rule: str, data_root: str | None) -> None:
    """Measure `model.onnx` on test: predictions, figures, and accuracy and resize rule in its metadata."""
    info = read_info(run.onnx)
    recipe, spec = run.read_recipe(), run.read_json(run.environment)["data"]["spec"]
    root = Path(data_root) if data_root else None
    dataset = load_dataset(
        spec, data_root=root, image_size=info.input_size, resize=info.resize, seed=recipe.data.split_seed
    )
    test = dataset.test
    assert test is not None
    probabilities, logits, known = outputs(run, test)
    said = Predictions(test.classes, test.labels, probabilities, test.rows, test.files)
    before = run.read_json(run.metrics)
    metrics = compute_metrics(
        said,
        dataset=dataset.name,
        split="test",
        superclasses=dataset.superclasses,
        test_evaluations=touch_test(run),
    )
    # `logits` in the file have the curvature off already, so temperature alone is left of the calibration.
    metrics["calibration"] = calibration_record(
        said, logits, calibration_of(info), temperature_only=None, fitted_on=before["calibration"]["fitted_on"]
    )
    metrics["calibration"]["before"] = before["calibration"]["before"]
    unknown = before.get("unknown")
    if unknown and info.unknown_threshold is not None:
        called = float((known < info.unknown_threshold).mean())
        unknown["test"]["called_unknown"]["value"] = called
        metrics["unknown"] = unknown
    run.write_predictions("test", said)
    run.write_json(run.metrics, metrics)
    model = onnx.load(str(run.onnx))
    told = info.model_copy(update={"accuracy": metrics["accuracy"]["value"], "resize": rule})
    onnx.helper.set_model_props(model, {METADATA_KEY: told.model_dump_json()})
    run.onnx.write_bytes(model.SerializeToString())
    print(f"accuracy {metrics['accuracy']['value']:.4f}, ECE {metrics['ece']['value']:.4f}, n = {metrics['n']:,}")


def outputs(run: RunDir, test: ImageSet) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities `(N, C)`, logits `(N, C)` and known scores `(N,)` of the model file."""
    session, _ = open_session(run.onnx)
    names = ["probabilities", "logits", "known_score"]
    parts = [
        session.run(names, {"images": np.ascontiguousarray(test.images[start : start + BATCH])})
        for start in range(0, len(test), BATCH)
    ]
    whole = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return whole[0], whole[1], whole[2]


def about_file(run: RunDir, weights: str, rule: str) -> str:
    """The card's last section."""
    content = run.onnx.read_bytes()
    typed = run.read_json(run.environment)["command"]
    size, digest = len(content) / 1e6, hashlib.sha256(content).hexdigest()
    shown = {"crop": "cropped in the middle", "pad": "padded", "squash": "squashed"}[rule]
    return (
        f"\n## This file\n\n{size:.1f} MB: weights are kept as {weights} and become float32 when the file is opened; "
        f"every figure above but the one before calibration is of this file. Pictures that are not square are {shown}. "
        f"SHA-256 `{digest}`. The run it comes from was started with:\n\n```sh\n{typed}\n```\n"
    )


if __name__ == "__main__":
    sys.exit(main())
