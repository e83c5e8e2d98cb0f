"""A run's split is recorded by content: restored in a changed folder, and protected against leakage."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import thirtytwo
from thirtytwo.cli.main import run_command
from thirtytwo.errors import DataError, RecipeError, RunError, ThirtytwoError
from thirtytwo.evaluation.metrics import wilson
from thirtytwo.rundir import RunDir
from thirtytwo.workflows.ensemble import ensemble
from thirtytwo.workflows.evaluate import evaluate
from thirtytwo.workflows.finish import Run
from thirtytwo.workflows.report import write_report
from thirtytwo.workflows.train import train

pytestmark = pytest.mark.slow

PER_CLASS = 40
SIZE = 16
Changes = Callable[..., Run]


@pytest.fixture(scope="module", autouse=True)
def _no_data_root() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("THIRTYTWO_DATA", raising=False)
        yield


@pytest.fixture(scope="module")
def overrides(tiny: SimpleNamespace) -> dict[str, Any]:
    return {**tiny.overrides, "data.image_size": SIZE, "augment.flip": "none", "evaluate.tta": False}


def noise(file: Path, seed: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng([7, seed]).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)


def noise_folder(root: Path, count: int = PER_CLASS, first: int = 0) -> Path:
    """`count` images of noise in each of two classes: a model can only memorize them."""
    for number in range(2 * count):
        noise(root / "ab"[number % 2] / f"{number}.png", first + number)
    return root


@pytest.fixture(scope="module")
def overfitted(overrides: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A folder of noise and a run that memorized its training images; tests do not modify either."""
    place = tmp_path_factory.mktemp("overfitted")
    folder = noise_folder(place / "noise")
    run = train(str(folder), recipe="fast", run=place / "run", overrides=overrides, epochs=60, device="cpu", show=False)
    return folder, run


@pytest.fixture
def changed(overfitted: tuple[Path, Run], tmp_path: Path) -> tuple[Path, RunDir]:
    """Modifiable copies of that folder and run; the run records the copy as its data."""
    shutil.copytree(overfitted[0], tmp_path / "noise")
    shutil.copytree(overfitted[1].path, tmp_path / "run")
    run = RunDir(tmp_path / "run")
    place(run, tmp_path / "noise")
    return tmp_path / "noise", run


def place(run: RunDir, folder: Path) -> None:
    """Change the recorded location of the run's data."""
    environment = run.read_json(run.environment)
    environment["data"] |= {"spec": str(folder), "path": str(folder)}
    run.write_json(run.environment, environment)


def files_of(run: RunDir, split: str) -> list[str]:
    return list(run.read_predictions(split).files or ())


def trained_files(folder: Path, run: RunDir) -> list[str]:
    held = {*files_of(run, "test"), *files_of(run, "val")}
    return [name for file in sorted(folder.rglob("*.png")) if (name := file.relative_to(folder).as_posix()) not in held]


def test_the_run_overfits(overfitted: tuple[Path, Run]) -> None:
    folder, run = overfitted
    model = thirtytwo.load(run.path)
    files = trained_files(folder, RunDir(run.path))
    results = model.predict([folder / file for file in files], top=1)
    assert np.mean([one.top == file[0] for one, file in zip(results, files, strict=True)]) > 0.9  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_changed_folder_never_gives_trained_images_as_test(
    changed: tuple[Path, RunDir], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, run = changed
    trained, test = trained_files(folder, run), files_of(run, "test")
    seen = {(folder / file).read_bytes() for file in trained}
    gone = [*trained[:4], *test[:2]]
    for file in gone:
        (folder / file).unlink()
    for number in range(15):
        noise(folder / "ab"[number % 2] / f"0-added-{number}.png", 10_000 + number)
    for number, file in enumerate([*trained[4:20], *test[2:6]]):
        (folder / file).rename((folder / file).parent / f"renamed-{number}.png")
    capsys.readouterr()
    metrics = evaluate(run.path, device="cpu")
    log = capsys.readouterr().err
    scored = [folder / file for file in files_of(run, "test")]
    assert not [file for file in scored if file.read_bytes() in seen], "trained on"
    assert len(scored) == metrics["n"] == len(test) - 2
    assert metrics["changed"] == {"missing": 2, "new": 15}
    for word in (*gone[4:], "0-added-0.png"):
        assert word in log, word
    low, high = wilson(round(metrics["n"] / 2), metrics["n"], 3.3)
    assert low <= metrics["accuracy"]["value"] <= high
    assert run.read_json(run.metrics) == metrics
    val = evaluate(run.path, split="val", device="cpu", show=False)
    assert not [file for file in files_of(run, "val") if (folder / file).read_bytes() in seen]
    assert val["n"] == RunDir(run.path).read_json(run.split)["n_val"]


@pytest.mark.slow
def test_one_image_less_leaves_the_rest_of_test(changed: tuple[Path, RunDir]) -> None:
    folder, run = changed
    test = files_of(run, "test")
    (folder / trained_files(folder, run)[0]).unlink()
    metrics = evaluate(run.path, device="cpu", show=False)
    assert (metrics["n"], metrics["test_evaluations"]) == (len(test), 2)
    assert files_of(run, "test") == test


@pytest.mark.long
def test_images_keep_their_rows_and_the_report_its_images(changed: tuple[Path, RunDir]) -> None:
    folder, run = changed
    before = run.read_predictions("test")
    for number in range(5):
        noise(folder / "a" / f"0-added-{number}.png", 20_000 + number)
    evaluate(run.path, device="cpu", show=False)
    after = run.read_predictions("test")
    np.testing.assert_array_equal(after.rows, before.rows)
    np.testing.assert_allclose(after.probabilities, before.probabilities, atol=1e-5)
    assert b"data:image" in write_report(run.path).read_bytes()


@pytest.mark.long
def test_class_folders_that_were_renamed_are_named(
    changed: tuple[Path, RunDir], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, run = changed
    (folder / "a").rename(folder / "x")
    (folder / "b").rename(folder / "y")
    with pytest.raises(DataError) as one:
        evaluate(run.path, device="cpu", show=False)
    for word in ("'x'", "'y'", "'a'", "'b'"):
        assert word in one.value.message
    assert "names that they had" in str(one.value.fix)
    assert "different data set" not in str(one.value)
    with pytest.raises(DataError, match="'x', 'y'"):
        evaluate(run.path, data=str(folder), device="cpu", show=False)
    (folder / "y").rename(folder / "b")
    capsys.readouterr()
    evaluate(run.path, device="cpu")
    log = " ".join(capsys.readouterr().err.split())
    assert "40 images of the run are now in the class 'x', which it was not trained on" in log
    assert "missing or no longer readable" not in log


def test_the_record_names_every_image_once(overfitted: tuple[Path, Run]) -> None:
    folder, run = overfitted
    split = json.loads((run.path / "split.json").read_text())
    parts = {name: split[name] for name in ("train", "val", "test")}
    hashes = [one for part in parts.values() for one in part["hashes"]]
    assert len(hashes) == len(set(hashes)) == 2 * PER_CLASS
    assert all(len(one) == 16 for one in hashes)
    files = {file for part in parts.values() for file in part["files"]}
    assert files == {file.relative_to(folder).as_posix() for file in folder.rglob("*.png")}
    for name, part in parts.items():
        assert len(part["hashes"]) == len(part["files"]) == len(part["rows"]) == split[f"n_{name}"]
    assert split["val_rows"] == parts["val"]["rows"]


def test_a_run_without_hashes_names_the_command(changed: tuple[Path, RunDir]) -> None:
    _, run = changed
    split = run.read_json(run.split)
    run.write_json(run.split, {key: value for key, value in split.items() if key not in ("train", "val", "test")})
    with pytest.raises(RunError, match=r"thirtytwo train") as caught:
        evaluate(run.path, device="cpu", show=False)
    assert caught.value.fix
    assert run.read_json(run.split)["test_evaluations"] == split["test_evaluations"], "nothing was scored"


# Location of the data


@pytest.mark.long
def test_from_another_directory(overrides: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    monkeypatch.chdir(tmp_path / "one")
    noise_folder(Path("noise"), 10)
    run = train("noise", recipe="fast", run=tmp_path / "run", overrides=overrides, epochs=1, device="cpu", show=False)
    data = json.loads((run.path / "environment.json").read_text())["data"]
    assert (data["spec"], data["path"]) == ("noise", str(tmp_path / "one" / "noise"))
    test = files_of(RunDir(run.path), "test")

    monkeypatch.chdir(tmp_path / "two")
    assert evaluate(run.path, device="cpu", show=False)["n"] == len(test)
    noise_folder(Path("noise"), 10, first=5000)
    assert evaluate(run.path, device="cpu", show=False)["n"] == len(test)
    assert files_of(RunDir(run.path), "test") == test, "not those of the folder of that name here"

    (tmp_path / "one" / "noise").rename(tmp_path / "moved")
    before = json.loads((run.path / "metrics.json").read_text())
    with pytest.raises(DataError, match="noise") as caught:
        evaluate(run.path, device="cpu", show=False)
    assert "--data" in (caught.value.fix or "")
    assert json.loads((run.path / "metrics.json").read_text()) == before
    noise(tmp_path / "moved" / "a" / "added.png", 6000)
    own = evaluate(run.path, data=str(tmp_path / "moved"), device="cpu", show=False)
    assert own["changed"] == {"missing": 0, "new": 1}
    assert own["n"] == len(test)
    assert own["test_evaluations"] == before["test_evaluations"] + 1, "the same images, wherever they lie"


# Other data


def test_a_folder_without_splits_is_scored_whole(changed: tuple[Path, RunDir], tmp_path: Path) -> None:
    _, run = changed
    other = noise_folder(tmp_path / "other", 10, first=9000)
    metrics = evaluate(run.path, data=str(other), device="cpu", show=False)
    assert metrics["n"] == 20
    assert metrics["excluded"] == {"trained_on": 0, "validation": 0}


@pytest.mark.parametrize(
    ("images", "n"),
    [
        ({"test/a": 3, "test/b": 2}, 5),
        ({"a": 4}, 4),
        ({"a": 1, "b": 1}, 2),
        ({"a": 1}, 1),
        ({"test/b": 1}, 1),
        ({"train/a": 3, "train/b": 3}, 6),
        ({"train/a": 3, "train/b": 3, "test/a": 2}, 2),
    ],
)
def test_folders_that_could_not_be_trained_on_are_scored(
    images: dict[str, int], n: int, changed: tuple[Path, RunDir], tmp_path: Path
) -> None:
    _, run = changed
    for place, count in images.items():
        for number in range(count):
            noise(tmp_path / "other" / place / f"{number}.png", 30_000 + len(place) * 100 + number)
    assert evaluate(run.path, data=str(tmp_path / "other"), device="cpu", show=False)["n"] == n


def test_trained_images_are_left_out_of_other_data(
    changed: tuple[Path, RunDir], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, run = changed
    trained, val = trained_files(folder, run), files_of(run, "val")
    other = noise_folder(tmp_path / "other", 5, first=9000)
    for number, file in enumerate([*trained[:7], *val[:2]]):
        shutil.copy(folder / file, other / "a" / f"copy-{number}.png")
    metrics = evaluate(run.path, data=str(other), device="cpu")
    assert (metrics["n"], metrics["excluded"]) == (10, {"trained_on": 7, "validation": 2})
    assert "7" in capsys.readouterr().err
    shutil.rmtree(other)
    for file in trained[:3]:
        (other / "a").mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / file, other / "a")
    with pytest.raises(DataError, match="3"):
        evaluate(run.path, data=str(other), device="cpu", show=False)


@pytest.mark.long
def test_scores_of_other_images_are_not_kept(changed: tuple[Path, RunDir]) -> None:
    folder, run = changed
    before = evaluate(run.path, tta=True, coverage=0.5, device="cpu", show=False)
    assert before["accuracy_tta"]
    assert before["conformal"]
    assert evaluate(run.path, device="cpu", show=False)["accuracy_tta"] == before["accuracy_tta"]
    (folder / files_of(run, "test")[0]).unlink()
    after = evaluate(run.path, device="cpu", show=False)
    assert after["n"] == before["n"] - 1
    assert after["accuracy_tta"] is None
    assert "conformal" not in after


def test_other_data_with_images_of_the_own_test_counts_as_a_test_evaluation(
    changed: tuple[Path, RunDir], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, run = changed
    other = noise_folder(tmp_path / "other", 5, first=9000)
    evaluations = run.read_json(run.split)["test_evaluations"]
    evaluate(run.path, data=str(other), device="cpu", show=False)
    assert run.read_json(run.split)["test_evaluations"] == evaluations
    for file in files_of(run, "test")[:3]:
        shutil.copy(folder / file, other / "a" / f"copy-{Path(file).name}")
    metrics = evaluate(run.path, data=str(other), device="cpu")
    assert metrics["n"] == 13
    assert metrics["test_evaluations"] == run.read_json(run.split)["test_evaluations"] == evaluations + 1
    assert "3 images are of the run's own test" in capsys.readouterr().err


def test_metrics_on_other_data_are_written(changed: tuple[Path, RunDir], tmp_path: Path) -> None:
    folder, run = changed
    other = noise_folder(tmp_path / "other", 5, first=9000)
    shutil.copy(folder / trained_files(folder, run)[0], other / "a" / "copy.png")
    own = run.metrics.read_bytes()
    metrics = evaluate(run.path, data=str(other), device="cpu", show=False)
    written = run.read_json(run.path / "metrics-other-test.json")
    assert written["n"] == metrics["n"] == 10
    assert written["excluded"] == {"trained_on": 1, "validation": 0}
    assert run.metrics.read_bytes() == own


def test_other_images_in_the_place_of_the_run_s_are_other_data(changed: tuple[Path, RunDir]) -> None:
    folder, run = changed
    shutil.rmtree(folder)
    noise_folder(folder, 6, first=50_000)
    with pytest.raises(DataError):
        evaluate(run.path, device="cpu", show=False)
    assert evaluate(run.path, data=str(folder), device="cpu", show=False)["n"] == 12


# Leakage checks


@pytest.fixture
def quick(overrides: dict[str, Any], tmp_path: Path) -> Changes:
    """`quick(folder, name, key=value…)` trains for an epoch."""

    def quick_train(folder: Path, name: str, more: dict[str, Any] | None = None, **rest: Any) -> Run:
        settings = {"overrides": overrides | (more or {}), "recipe": "fast", "epochs": 1, "device": "cpu"} | rest
        return train(str(folder), run=tmp_path / name, show=False, **settings)

    return quick_train


@pytest.mark.long
def test_a_start_on_the_same_folder_is_allowed(overfitted: tuple[Path, Run], quick: Changes) -> None:
    folder, run = overfitted
    assert quick(folder, "next", pretrained=str(run.path)).metrics["n"]


@pytest.mark.long
def test_a_folder_that_grew_may_start_from_the_former_run(
    overfitted: tuple[Path, Run], quick: Changes, tmp_path: Path
) -> None:
    shutil.copytree(overfitted[0], tmp_path / "grown")
    for number in range(30):
        noise(tmp_path / "grown" / "ab"[number % 2] / f"0-added-{number}.png", 10_000 + number)
    assert quick(tmp_path / "grown", "next", pretrained=str(overfitted[1].path)).metrics["n"]


@pytest.mark.parametrize(
    ("relation", "file"),
    [("transfer.pretrained", ""), ("transfer.pretrained", "weights.safetensors"), ("train.distill.run", "")],
)
def test_held_out_images_of_a_changed_folder_are_guarded(
    relation: str, file: str, overfitted: tuple[Path, Run], quick: Changes, tmp_path: Path
) -> None:
    """Training images of the first run are test images here, with other names and in another folder."""
    folder, run = overfitted
    made = tmp_path / "made"
    for number, image in enumerate(trained_files(folder, RunDir(run.path))):
        part = "test" if number % 3 == 0 else "train"
        (made / part / image[0]).mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / image, made / part / image[0] / f"{number}.png")
    number = len(list((made / "test").rglob("*.png")))
    with pytest.raises(RecipeError, match=rf"{number} of {number} test images") as caught:
        quick(made, "next", {relation: str(run.path / file)})
    assert "thirtytwo train" in (caught.value.fix or "")
    assert not (tmp_path / "next").exists()


@pytest.mark.long
def test_the_same_folder_spelled_otherwise_with_another_seed(overfitted: tuple[Path, Run], quick: Changes) -> None:
    folder, run = overfitted
    spelled = Path(os.path.relpath(folder))
    settings = {"data.split_seed": 5, "transfer.pretrained": str(run.path)}
    with pytest.raises(RecipeError, match="trained on") as caught:
        quick(spelled, "next", settings)
    assert "--set data.split_seed=0" in (caught.value.fix or "")
    assert quick(spelled, "next", settings | {"data.split_seed": 0}).metrics["n"], "the fix works"


@pytest.mark.long
def test_the_guard_follows_the_chain(overfitted: tuple[Path, Run], quick: Changes, tmp_path: Path) -> None:
    folder, first = overfitted
    other = noise_folder(tmp_path / "other", 10, first=9000)
    second = quick(other, "second", pretrained=str(first.path))
    moved = first.path.with_name("elsewhere")
    first.path.rename(moved)
    try:
        with pytest.raises(RecipeError, match="trained on"):
            quick(folder, "third", {"data.split_seed": 5}, pretrained=str(second.path))
        with pytest.raises(DataError):
            evaluate(second.path, data=str(_copies(folder, RunDir(moved), tmp_path)), device="cpu", show=False)
    finally:
        moved.rename(first.path)


def _copies(folder: Path, run: RunDir, place: Path) -> Path:
    made = place / "copies"
    for number, file in enumerate(trained_files(folder, run)[:6]):
        (made / file[0]).mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / file, made / file[0] / f"{number}.png")
    return made


@pytest.mark.long
def test_members_that_were_trained_on_each_others_test(
    overfitted: tuple[Path, Run], quick: Changes, tmp_path: Path
) -> None:
    folder, run = overfitted
    other = quick(folder, "other", {"data.split_seed": 5})
    with pytest.raises(ThirtytwoError, match="trained on|different"):
        ensemble([run.path, other.path], run=tmp_path / "both", device="cpu", show=False)
    assert not (tmp_path / "both").exists()


@pytest.mark.long
def test_a_calibration_run_that_was_trained_on_our_test(
    overfitted: tuple[Path, Run], quick: Changes, tmp_path: Path
) -> None:
    folder, run = overfitted
    settings = {"data.train_on": "all", "data.calibrate_from": str(run.path)}
    with pytest.raises(RecipeError, match="trained on"):
        quick(folder, "all", settings | {"data.split_seed": 5})
    assert quick(folder, "all", settings).metrics["n"]


# Groups, limits


@pytest.mark.long
def test_groups_stay_together(quick: Changes, tmp_path: Path) -> None:
    for group in range(12):
        for number in range(4):
            noise(tmp_path / "grouped" / "ab"[group % 2] / f"p{group}_{number}.png", 100 * group + number)
    run = quick(tmp_path / "grouped", "run", group_by=r"/(p\d+)_")
    split = json.loads((run.path / "split.json").read_text())
    groups = {
        name: {file.split("/")[1].split("_")[0] for file in split[name]["files"]} for name in ("train", "val", "test")
    }
    assert all(groups.values())
    assert sum(len(found) for found in groups.values()) == 12
    assert RunDir(run.path).read_recipe().data.group_by == r"/(p\d+)_"
    assert evaluate(run.path, device="cpu", show=False)["n"] == split["n_test"]


@pytest.mark.parametrize(("pattern", "message"), [("(", r"'\('.*--group-by"), ("nothing", "'nothing'.*--group-by")])
def test_invalid_group_patterns_are_errors(
    pattern: str, message: str, overfitted: tuple[Path, Run], quick: Changes
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        quick(overfitted[0], "run", group_by=pattern)
    assert caught.value.fix


@pytest.mark.long
def test_a_pattern_that_misses_files_is_told(
    quick: Changes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(24):
        noise(tmp_path / "grouped" / "a" / f"p{number // 4}_{number}.png", number)
        noise(tmp_path / "grouped" / "b" / f"{number}.png", 500 + number)
    run = quick(tmp_path / "grouped", "run", group_by=r"/(p\d+)_")
    choices = {choice["what"]: choice for choice in json.loads((run.path / "environment.json").read_text())["choices"]}
    assert choices["groups"]["value"] == "30"
    assert "24 of 48" in choices["groups"]["reason"]


@pytest.mark.parametrize("pattern", ["a|b", "."])
def test_a_pattern_that_makes_one_group_of_a_class(pattern: str, overfitted: tuple[Path, Run], quick: Changes) -> None:
    with pytest.raises(DataError) as caught:
        quick(overfitted[0], "run", group_by=pattern)
    assert "group_by" in caught.value.message
    assert "--group-by" in (caught.value.fix or "")


@pytest.mark.long
def test_a_limit_above_what_there_is_changes_nothing(overfitted: tuple[Path, Run], quick: Changes) -> None:
    folder, run = overfitted
    whole = RunDir(run.path).read_json(RunDir(run.path).split)
    limited = RunDir(quick(folder, "limited", limit_train=whole["n_train"] + 1).path)
    split = limited.read_json(limited.split)
    assert (split["n_train"], split["n_val"]) == (whole["n_train"], whole["n_val"])
    assert any("limit_train" in note for note in limited.read_json(limited.environment)["data"]["skipped"])


@pytest.mark.long
@pytest.mark.parametrize("train_on", ["train", "all"])
def test_limit_train_is_what_is_trained_on(train_on: str, overfitted: tuple[Path, Run], quick: Changes) -> None:
    folder, run = overfitted
    more = {"data.train_on": "all", "data.calibrate_from": str(run.path)} if train_on == "all" else {}
    limited = quick(folder, "limited", more, limit_train=30)
    split = json.loads((limited.path / "split.json").read_text())
    assert split["n_train"] == len(split["train"]["hashes"]) == 30
    assert evaluate(limited.path, device="cpu", show=False).get("changed") is None, "what was left out is not new"


# Outputs in the data folder


@pytest.mark.long
def test_our_own_outputs_are_no_classes(
    quick: Changes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = noise_folder(tmp_path / "noise", 10)
    monkeypatch.chdir(folder)
    run = quick(Path(), "noise/runs/first")
    assert run_command(["explain", "a/0.png", "a/2.png", "--model", str(run.path), "--method", "occlusion"]) == 0
    assert (folder / "explained" / "explanations.json").is_file()
    second = quick(Path(), "noise/runs/second")
    data = json.loads((second.path / "environment.json").read_text())["data"]
    assert data["classes"] == ["a", "b"]
    assert data["train"] + data["val"] + data["test"] == 20
    assert any("skipped runs" in entry for entry in data["skipped"])
    assert any("skipped explained" in entry for entry in data["skipped"])


@pytest.mark.long
def test_copies_of_test_images_are_not_trained_on(quick: Changes, tmp_path: Path) -> None:
    """Outputs in the data folder are not data, and the test split stays the same."""
    for number in range(24):
        noise(tmp_path / "parts" / ("train", "test")[number % 3 == 0] / "ab"[number % 2] / f"{number}.png", number)
    shutil.copy(tmp_path / "parts/test/a/0.png", tmp_path / "parts/train/a/copy.png")
    run = quick(tmp_path / "parts", "run")
    split = json.loads((run.path / "split.json").read_text())
    assert split["n_test"] == 8
    assert "train/a/copy.png" not in split["train"]["files"] + split["val"]["files"]
    skipped = json.loads((run.path / "environment.json").read_text())["data"]["skipped"]
    assert "skipped 1 training image: equal to test images" in skipped


@pytest.mark.long
def test_a_run_that_recorded_rows_only_is_evaluated_while_nothing_changes(quick: Changes, tmp_path: Path) -> None:
    for number in range(24):
        noise(tmp_path / "parts" / ("train", "test")[number % 3 == 0] / "ab"[number % 2] / f"{number}.png", number)
    run = RunDir(quick(tmp_path / "parts", "run").path)
    before = {split: run.read_predictions(split) for split in ("val", "test")}
    record = run.read_json(run.split)
    run.write_json(run.split, {key: value for key, value in record.items() if key not in ("train", "val", "test")})
    for split, given in before.items():
        evaluate(run.path, split=split, device="cpu", show=False)
        assert run.read_predictions(split).files == given.files
    with pytest.raises(RecipeError, match="8 of 9 validation images"):
        quick(tmp_path / "parts", "next", {"data.split_seed": 3, "data.val_fraction": 0.4}, pretrained=str(run.path))
    noise(tmp_path / "parts" / "train" / "a" / "added.png", 500)
    with pytest.raises(RunError):
        evaluate(run.path, device="cpu", show=False)
