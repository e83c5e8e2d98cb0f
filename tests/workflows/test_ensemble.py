"""Ensembles and soups: averaged probabilities or weights, output files, and errors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import thirtytwo
from thirtytwo.cli.main import run_command
from thirtytwo.data.load import load_dataset
from thirtytwo.data.split import Parts
from thirtytwo.data.types import ImageSet
from thirtytwo.errors import DataError, RecipeError, RunError, ThirtytwoError
from thirtytwo.evaluation.scoring import Scorer
from thirtytwo.inference.model_file import read_info
from thirtytwo.inference.session import open_session
from thirtytwo.models import MODELS
from thirtytwo.rundir import RunDir
from thirtytwo.tensors import normalize
from thirtytwo.workflows.ensemble import SoupBuilder, ensemble
from thirtytwo.workflows.evaluate import evaluate
from thirtytwo.workflows.loading import load_run
from thirtytwo.workflows.report import write_report
from thirtytwo.workflows.train import train

ROWS = 180


@pytest.fixture(scope="module", autouse=True)
def _no_data_root() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("THIRTYTWO_DATA", raising=False)
        yield


@pytest.fixture(scope="module")
def members(tiny: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small runs on digits: two seeds of one network, and another network."""
    parent = tmp_path_factory.mktemp("members")
    same = {**tiny.overrides, "data.image_size": 16, "schedule.epochs": 2}
    other = {**same, "model.name": "textbook", "model.options": {"widths": [8, 16], "dense": []}}
    other |= {"optimizer.name": "adamw", "optimizer.lr": 0.01}  # at FastNet's rates this network diverges
    made: dict[str, Any] = {"a": (0, same), "b": (1, same), "other": (2, other)}
    for name, (seed, overrides) in made.items():
        how: dict[str, Any] = {"recipe": "digits", "overrides": overrides, "seed": seed, "limit_train": ROWS}
        train("digits", run=parent / name, show=False, device="cpu", **how)
    return {name: parent / name for name in made}


@pytest.fixture(scope="module")
def made(members: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """An ensemble of two networks."""
    path = tmp_path_factory.mktemp("ensembles") / "two"
    return RunDir(ensemble([members["a"], members["other"]], run=path, device="cpu", show=False).path)


@pytest.fixture
def changed(members: dict[str, Path], tmp_path: Path) -> Callable[..., Path]:
    """`changed("split.json", key=value)`: a copy of a run of which this artefact says something else."""

    def make(artefact: str, **values: Any) -> Path:
        copy = tmp_path / "changed"
        shutil.copytree(members["b"], copy)
        content = json.loads((copy / artefact).read_text())
        for key, value in values.items():
            content[key] = content[key] | value if isinstance(value, dict) else value
        (copy / artefact).write_text(json.dumps(content))
        return copy

    return make


def probabilities(run: Path, images: np.ndarray) -> np.ndarray:
    session, _ = open_session(run / "model.onnx")
    (found,) = session.run(["probabilities"], {"images": images})
    return np.asarray(found)


def test_outputs_averaged_probabilities_with_its_own_calibration(members: dict[str, Path], made: RunDir) -> None:
    images = load_dataset("digits", image_size=16).test.images[:64]  # type: ignore[union-attr]
    mean = np.mean([probabilities(members[name], images) for name in ("a", "other")], axis=0)
    info = read_info(made.onnx)
    logits = np.log(mean) - info.curvature * np.log(mean) ** 2
    expected = torch.softmax(torch.tensor(logits / info.temperature), dim=1).numpy()
    np.testing.assert_allclose(probabilities(made.path, images), expected, atol=1e-5)


@pytest.mark.slow
def test_ensemble_is_a_complete_run(members: dict[str, Path], made: RunDir) -> None:
    metrics, environment = made.read_json(made.metrics), made.read_json(made.environment)
    own = {name: RunDir(path) for name, path in members.items()}
    theirs = [own[name].read_json(own[name].environment) for name in ("a", "other")]
    assert environment["parameters"] == sum(each["parameters"] for each in theirs)
    assert environment["flops"] == pytest.approx(sum(each["flops"] for each in theirs), rel=1e-3)
    assert environment["seconds"]["train"] == pytest.approx(sum(each["seconds"]["train"] for each in theirs), abs=0.02)
    assert [member["run"] for member in environment["members"]] == [str(members["a"]), str(members["other"])]
    assert metrics["calibration"]["fitted_on"] == own["a"].read_json(own["a"].split)["n_val"]
    assert made.read_json(made.split)["val_rows"] == own["a"].read_json(own["a"].split)["val_rows"]
    assert metrics["test_evaluations"] == 1
    image = load_dataset("digits", image_size=16).test.images[0]  # type: ignore[union-attr]
    (answer,) = thirtytwo.load(made.path).predict(image[None], top=3)
    assert len(answer.predictions) == 3
    again = evaluate(made.path, device="cpu", show=False)
    assert again["accuracy"] == metrics["accuracy"]
    assert again["test_evaluations"] == 2


@pytest.mark.slow
def test_report_card_and_comparison_show_members_and_cost(members: dict[str, Path], made: RunDir) -> None:
    comparison = json.loads((made.path / "comparison" / "comparison.json").read_text())
    assert {run["run"] for run in comparison["runs"]} == {"two", "a", "other"}
    assert all(run["milliseconds"]["alone"] > 0 for run in comparison["runs"]), comparison["runs"][0]
    page = made.report.read_text(encoding="utf-8")
    assert 'id="members"' in page
    assert 'href="comparison/comparison.html"' in page
    card = made.card.read_text(encoding="utf-8")
    assert "## Members" in card
    for text in (page, card):
        assert str(members["other"]) in text
        assert f"thirtytwo ensemble {members['a']} {members['other']}" in text
        assert "--recipe" not in text
    before = page
    assert write_report(made.path) == made.report
    assert 'id="members"' in made.report.read_text(encoding="utf-8")
    assert len(made.report.read_text(encoding="utf-8")) == pytest.approx(len(before), rel=0.01)


@pytest.mark.long
def test_better_member_is_logged(members: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(members["b"], tmp_path / "sure")
    sure = RunDir(tmp_path / "sure")
    predictions = sure.read_predictions("val")
    correct = np.eye(len(predictions.classes), dtype=np.float32)[predictions.truth]
    sure.write_predictions("val", replace(predictions, probabilities=correct))
    ensemble([members["a"], sure.path], run=tmp_path / "pair", device="cpu")
    err = capsys.readouterr().err
    assert f"{sure.path} alone" in err
    assert "100.0 %" in err


@pytest.mark.long
def test_command_takes_seeds_and_prints_the_run_last(
    members: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [str(members["a"]), str(members["b"])]
    assert run_command(["ensemble", *runs, "--device", "cpu"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == "runs/digits-ensemble"
    assert any(line.startswith("combined") for line in out)


@pytest.mark.parametrize("soup", ["uniform", "greedy"])
@pytest.mark.long
def test_soups_average_weights(members: dict[str, Path], tmp_path: Path, soup: Any) -> None:
    shutil.copytree(members["a"], tmp_path / "near")
    near = RunDir(tmp_path / "near")
    weights = load_file(near.weights)
    generator = torch.Generator().manual_seed(0)
    perturbed = {
        name: value + 0.01 * value.abs().mean() * torch.randn(value.shape, generator=generator)
        if value.is_floating_point() and "running" not in name
        else value
        for name, value in weights.items()
    }
    save_file(perturbed, near.weights, metadata={"thirtytwo": read_info(near.onnx).model_dump_json()})
    found = RunDir(ensemble([members["a"], near.path], run=tmp_path / "soup", soup=soup, show=False).path)
    environment, recipe = found.read_json(found.environment), found.read_recipe()
    assert recipe.model == near.read_recipe().model
    assert recipe.name == f"{soup}-soup"
    assert environment["parameters"] == near.read_json(near.environment)["parameters"]
    kept = [member["in_it"] for member in environment["members"]]
    combined = load_file(found.weights)
    if soup == "uniform":
        assert kept == [True, True]
    if all(kept):
        for name in weights:
            if "running" not in name and weights[name].is_floating_point():
                torch.testing.assert_close(combined[name], (weights[name] + perturbed[name]) / 2)


@pytest.mark.long
@pytest.mark.long
def test_greedy_soup_is_never_worse_on_validation_than_its_best_member(
    members: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = RunDir(ensemble([members["a"], members["b"]], run=tmp_path / "soup", soup="greedy", device="cpu").path)

    def on_validation(path: Path) -> float:
        predictions = RunDir(path).read_predictions("val")
        return float((predictions.predicted == predictions.truth).mean())

    assert on_validation(found.path) >= max(on_validation(members[name]) for name in ("a", "b"))
    err = capsys.readouterr().err
    choices = [choice for choice in found.read_json(found.environment)["choices"] if choice["what"] == "soup"]
    assert len(choices) == 2
    assert choices[0]["value"] in err
    alone = sum(member["in_it"] for member in found.read_json(found.environment)["members"]) == 1
    assert ("the soup is that single run" in err) is alone


def test_a_student_learns_from_an_ensemble(made: RunDir, tiny: SimpleNamespace, tmp_path: Path) -> None:
    settings = {**tiny.overrides, "data.image_size": 16, "schedule.epochs": 1, "train.distill.run": str(made.path)}
    student = train("digits", recipe="digits", overrides=settings, limit_train=ROWS, run=tmp_path / "s", show=False)
    assert student.metrics["n"] > 0


@pytest.mark.long
def test_an_ensemble_of_ensembles(members: dict[str, Path], made: RunDir, tmp_path: Path) -> None:
    found = ensemble([made.path, members["b"]], run=tmp_path / "three", device="cpu", show=False)
    loaded = load_run(found.path)
    net, info = loaded.network, loaded.info
    images = load_dataset("digits", image_size=16).test.images[:32]  # type: ignore[union-attr]
    mean = np.mean([probabilities(path, images) for path in (made.path, members["b"])], axis=0)
    logits = Scorer(net, info.mean, info.std, torch.device("cpu")).logits(images)
    np.testing.assert_allclose(np.exp(logits), mean, atol=1e-5)


def test_ensemble_cannot_be_trained(made: RunDir) -> None:
    with pytest.raises(RecipeError) as caught:
        train("digits", recipe=made.path, show=False)
    assert "thirtytwo ensemble" in (caught.value.fix or "")


def test_refusals(members: dict[str, Path], changed: Callable[..., Path], tmp_path: Path) -> None:
    a, b, other = members["a"], members["b"], members["other"]
    unlike = changed("split.json", val_rows=[1, 2, 3])
    refusals: list[tuple[type[ThirtytwoError], list[Path], dict[str, Any], list[str]]] = [
        (DataError, [a], {}, ["2", "found 1"]),
        (DataError, [a, b, a], {}, [str(a), "twice"]),
        (RunError, [a, tmp_path / "nowhere"], {}, [str(tmp_path / "nowhere")]),
        (RunError, [a, other], {"soup": "uniform"}, [str(a), str(other), "--soup"]),
        (RunError, [a, b], {"run": a}, [str(a), "--run"]),
        (RunError, [a, unlike], {"run": tmp_path / "new"}, [str(unlike), "validation", "data.split_seed"]),
    ]
    for kind, runs, settings, named in refusals:
        with pytest.raises(kind) as caught:
            ensemble(runs, show=False, **settings)
        assert all(name in str(caught.value) for name in named), caught.value
    assert not (tmp_path / "new").exists()


def test_other_data_is_refused(members: dict[str, Path], changed: Callable[..., Path]) -> None:
    with pytest.raises(RunError, match="digits and shells"):
        ensemble([members["a"], changed("environment.json", data={"fingerprint": "x", "spec": "shells"})], show=False)


def test_unfinished_run_is_refused(members: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(members["b"], tmp_path / "half")
    (tmp_path / "half" / "model.onnx").unlink()
    with pytest.raises(RunError) as caught:
        ensemble([members["a"], tmp_path / "half"], show=False)
    assert "model.onnx" in caught.value.message
    assert "--resume" in (caught.value.fix or "")


@pytest.mark.long
@pytest.mark.parametrize("count", [60, 61])
def test_a_soup_renews_statistics_on_batches_of_all_classes(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of folders come class by class, and a batch of a single image would be too small for a dense layer."""
    monkeypatch.setattr("thirtytwo.workflows.ensemble.scored_batch_size", lambda side: 20)
    labels = np.arange(count) * 2 // count
    pixels = np.random.default_rng(0).integers(0, 56, (count, 8, 8, 3)) + 200 * labels[:, None, None, None]
    images = ImageSet(pixels.astype(np.uint8), labels, ("dark", "bright"), np.arange(count))
    options = {"widths": [8], "convolutions": 1, "places": 1, "dense": [6]}
    info = SimpleNamespace(mean=(0.5,) * 3, std=(0.25,) * 3)
    recipe = SimpleNamespace(data=SimpleNamespace(split_seed=0))
    members: Any = [
        SimpleNamespace(network=MODELS.get("textbook")(2, options), info=info, recipe=recipe) for _ in range(2)
    ]
    hardware: Any = SimpleNamespace(device=torch.device("cpu"))
    net: Any = SoupBuilder(members, Parts(images, None, images), hardware).average([0, 1])
    convolution, norm = net.stages[:2]
    with torch.inference_mode():
        maps = convolution(normalize(torch.from_numpy(images.images), info.mean, info.std))
    torch.testing.assert_close(norm.running_var, maps.var(dim=(0, 2, 3)), rtol=0.2, atol=0)


@pytest.mark.long
def test_the_classes_are_those_of_the_members_whatever_became_of_the_data(
    tiny: SimpleNamespace, tmp_path: Path
) -> None:
    data = tiny.folder(tmp_path / "data", 120)
    for seed in (0, 1):
        how: dict[str, Any] = {"recipe": "fast", "overrides": {**tiny.overrides, "schedule.epochs": 1}, "seed": seed}
        train(str(data), run=tmp_path / str(seed), show=False, device="cpu", **how)
    shutil.copytree(data / "class 1", data / "a new class")
    made = RunDir(ensemble([tmp_path / "0", tmp_path / "1"], run=tmp_path / "both", device="cpu", show=False).path)
    classes = ["class 0", "class 1", "class 2"]
    assert list(read_info(made.onnx).classes) == made.read_json(made.environment)["data"]["classes"] == classes
    found = evaluate(made.path, device="cpu", show=False)
    assert found["accuracy"] == made.read_json(made.metrics)["accuracy"]


def test_another_combination_that_lost_a_file_is_not_overwritten(
    members: dict[str, Path], made: RunDir, tmp_path: Path
) -> None:
    copy = RunDir(tmp_path / "two")
    shutil.copytree(made.path, copy.path)
    copy.report.unlink()
    before = copy.onnx.read_bytes()
    with pytest.raises(RunError, match="holds another combination"):
        ensemble([members["a"], members["b"]], run=copy.path, device="cpu", show=False)
    assert copy.onnx.read_bytes() == before
    ensemble([members["a"], members["other"]], run=copy.path, device="cpu", show=False)
    assert copy.is_finished()


def test_a_member_whose_training_did_not_finish_is_refused(
    changed: Callable[..., Path], members: dict[str, Path], tmp_path: Path
) -> None:
    member = changed("environment.json")
    environment = json.loads((member / "environment.json").read_text())
    environment["seconds"].pop("train")
    (member / "environment.json").write_text(json.dumps(environment))
    with pytest.raises(RunError, match="did not finish"):
        ensemble([members["a"], member], run=tmp_path / "both", device="cpu", show=False)
