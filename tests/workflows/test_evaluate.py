"""Scoring a run again under corruptions and with prediction sets: what is written, kept, shown and refused."""

import json
import shutil

import pytest
from PIL import Image

from thirtytwo.cli.main import run_command
from thirtytwo.data.load import load_dataset
from thirtytwo.errors import ArgumentError, DataError, RunError, ThirtytwoError
from thirtytwo.evaluation.corruptions import STRENGTHS, corruption_names, display_name
from thirtytwo.rundir import RunDir
from thirtytwo.workflows.evaluate import _left_out, evaluate
from thirtytwo.workflows.loading import OtherImages
from thirtytwo.workflows.train import train


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "digits"
    train("digits", recipe="digits", run=path, epochs=1, limit_train=400, device="cpu", show=False)
    return path


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "digits")
    return RunDir(tmp_path / "digits")


def test_a_single_image_that_is_left_out(tiny, tmp_path):
    found = OtherImages(tiny.images(9), {"trained_on": 1, "validation": 2}, own_test=1)
    trained_on, validation, own_test = _left_out(found, RunDir(tmp_path / "run"))
    assert trained_on.startswith("left out 1 image that")
    assert validation.startswith("left out 2 images that")
    assert own_test.startswith("1 image is")


@pytest.mark.long
def test_corruptions_and_sets_are_written_and_kept(run):
    found = evaluate(run.path, corruptions=True, corruption_images=30, coverage=0.8, device="cpu", show=False)
    table, metrics = run.read_json(run.corruptions), run.read_json(run.metrics)
    assert found == metrics | {"corruptions": table}
    assert (table["dataset"], table["split"], table["n"]) == ("digits", "test", 30)
    assert [kind["kind"] for kind in table["kinds"]] == corruption_names()
    assert all(len(kind["accuracy"]) == len(STRENGTHS) for kind in table["kinds"])
    assert 0 < table["mean_corruption_accuracy"]["value"] <= 1
    sets = metrics["conformal"]
    assert (sets["coverage"], sets["calibrated_on"], sets["n"]) == (0.8, 44, metrics["n"])
    assert sets["measured"]["value"] == pytest.approx(0.8, abs=0.2)
    assert metrics["test_evaluations"] == 2

    evaluate(run.path, device="cpu", show=False)
    assert run.read_json(run.metrics)["conformal"] == sets
    page, card = run.report.read_text(encoding="utf-8"), run.card.read_text(encoding="utf-8")
    assert 'href="#augmented"' in page
    assert 'id="album"' in page
    for text in (page, card):
        assert "Prediction sets" in text
        assert display_name("shot_noise") in text


@pytest.mark.long
def test_corruptions_are_reproducible(run):
    first, second = (
        evaluate(run.path, corruptions=True, corruption_images=12, device="cpu", show=False)["corruptions"]
        for _ in range(2)
    )
    assert first == second


def test_other_splits_have_their_own_file(run):
    evaluate(run.path, split="val", corruptions=True, corruption_images=10, device="cpu", show=False)
    assert not run.corruptions.exists()
    assert run.read_json(run.path / "corruptions-val.json")["split"] == "val"


@pytest.mark.long
def test_the_command_prints_them(run, capsys):
    words = ["evaluate", str(run.path), "--corruptions", "--corruption-images", "10", "--coverage", "0.8"]
    assert run_command([*words, "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    for text in ("80 %", display_name("gaussian_noise"), "Corruptions", "Prediction sets"):
        assert text in out, text


@pytest.mark.parametrize(
    ("settings", "error", "named"),
    [
        ({"coverage": 95}, DataError, ["95", "0.95"]),
        ({"coverage": 0.99}, DataError, ["99", "44"]),
        ({"coverage": 0.9, "split": "val"}, DataError, ["--split val"]),
        ({"corruptions": True, "corruption_images": 5}, DataError, ["5", "10 classes", "--corruption-images"]),
        ({"split": "train"}, ArgumentError, ["'train'", "'val'"]),
        ({"split": "tst"}, ArgumentError, ["'tst'", "'test'"]),
        ({"corruption_images": 50}, ThirtytwoError, ["--corruption-images", "--corruptions"]),
    ],
)
def test_invalid_settings_are_refused_before_test_is_evaluated(run, settings, error, named):
    before = run.read_json(run.split)["test_evaluations"]
    with pytest.raises(error) as caught:
        evaluate(run.path, device="cpu", show=False, **settings)
    assert all(name in str(caught.value) for name in named)
    assert run.read_json(run.split)["test_evaluations"] == before


def test_a_run_without_validation(run, capsys):
    run.split.write_text(json.dumps(run.read_json(run.split) | {"n_val": 0, "val_rows": []}), encoding="utf-8")
    with pytest.raises(RunError) as caught:
        evaluate(run.path, coverage=0.9, device="cpu", show=False)
    assert str(run.path) in caught.value.message
    assert run_command(["evaluate", str(run.path), "--coverage", "0.9", "--device", "cpu"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "data.val_fraction" in err


def test_run_without_validation_predictions(run):
    run.predictions("val").unlink()
    with pytest.raises(RunError) as caught:
        evaluate(run.path, coverage=0.9, device="cpu", show=False)
    assert "'val'" in caught.value.message


def test_data_of_the_same_name_in_two_places_have_files_of_their_own(run, tmp_path):
    digits = load_dataset("digits", image_size=16).test
    for site, start in (("a", 0), ("b", 100)):
        for number in range(start, start + 60):
            place = tmp_path / site / "images" / digits.classes[digits.labels[number]]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(digits.images[number]).save(place / f"{number}.png")
    found = {site: evaluate(run.path, data=tmp_path / site / "images", show=False) for site in "abab"}
    written = [json.loads(path.read_text()) for path in sorted(run.path.glob("metrics-images*.json"))]
    assert len(written) == len(list(run.path.glob("predictions-images*.parquet"))) == 2
    assert {one["data"]: one["accuracy"] for one in written} == {
        str(tmp_path / site / "images"): found[site]["accuracy"] for site in "ab"
    }


@pytest.mark.parametrize("count", [150.5, None, "100"])
def test_a_number_of_corrupted_images_that_is_no_integer_is_refused(run, count):
    with pytest.raises(ArgumentError, match="corruption_images must be an integer of at least 1"):
        evaluate(run.path, corruptions=True, corruption_images=count, show=False)


def test_a_coverage_that_is_no_number_is_refused(run):
    with pytest.raises(DataError, match=r"a number between 0 and 1; found '0.9'"):
        evaluate(run.path, coverage="0.9", show=False)


def test_a_folder_named_like_a_known_data_set_stays_a_folder(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ThirtytwoError, match=r"\./cifar10"):
        evaluate(run.path, ood="./cifar10", show=False)
