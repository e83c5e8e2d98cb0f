"""Runs on the Hugging Face hub: what is uploaded, what is refused, and models from its cache."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

import thirtytwo
from thirtytwo.cli.main import run_command
from thirtytwo.config.resolve import read_recipe
from thirtytwo.errors import OfflineError, OutputError, RunError, UnknownNameError
from thirtytwo.inference.hub import repository_name
from thirtytwo.report.page import render
from thirtytwo.report.run_record import read_run_record
from thirtytwo.rundir import RunDir
from thirtytwo.workflows.push import NO_TOKEN, push

push_module = importlib.import_module("thirtytwo.workflows.push")
FILES = {"README.md", "model.onnx", "weights.safetensors", "recipe.toml", "metrics.json", "report.html"}


@pytest.fixture
def run(finished_run: Any, tmp_path: Path) -> Path:
    path: Path = finished_run(tmp_path / "run")
    for file in (RunDir(path).weights, RunDir(path).class_means):
        file.write_bytes(b"weights")
    return path


@pytest.mark.parametrize(
    "name", ["mine", "a/b/c", "a b/c", "../c", "a/..", "", "hf:", "a/b--c", f"a/{'b' * 96}", "é/c"]
)
def test_names_of_repositories(name: str) -> None:
    with pytest.raises(UnknownNameError):
        repository_name(name)


def test_dry_run_lists_the_files(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = push(run, "hf:me/colours", dry_run=True)
    assert (found.repository, found.url) == ("me/colours", "https://huggingface.co/me/colours")
    assert set(found.files) == FILES
    assert found.files["model.onnx"] == RunDir(run).onnx.stat().st_size
    assert run_command(["push", str(run), "me/colours", "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert all(name in out for name in FILES)
    assert out.endswith("https://huggingface.co/me/colours\n")
    assert "Nothing was uploaded" in err


def test_without_a_token(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert run_command(["push", str(run), "me/colours"]) == 2
    err = capsys.readouterr().err
    assert NO_TOKEN in err
    assert "hf auth login" in err


@pytest.mark.slow
@pytest.mark.parametrize("token", [None, *(pytest.param(token, marks=pytest.mark.long) for token in ("", "  "))])
def test_without_a_token_a_command_ends_with_one_line(token: str | None, run: Path, tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    home = {"HF_HOME": str(tmp_path / "home"), **({} if token is None else {"HF_TOKEN": token})}
    ended = subprocess.run(
        [sys.executable, "-m", "thirtytwo", "push", str(run), "me/colours"],
        capture_output=True,
        text=True,
        check=False,
        env={**kept, "PYTHONPATH": str(Path(thirtytwo.__file__).parent.parent), **home},
        timeout=120,
    )
    assert (ended.returncode, ended.stdout) == (2, ""), ended.stderr
    assert ended.stderr.startswith(f"thirtytwo: {NO_TOKEN} ")
    assert len(ended.stderr.splitlines()) == 1


def test_without_a_network(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "token")
    with pytest.raises(OfflineError):
        push(run, "me/colours")


def test_the_license_in_the_card_of_the_run_is_uploaded(run: Path) -> None:
    RunDir(run).card.write_text("---\nlicense: mit\n---\n# Colours\n", encoding="utf-8")
    assert "license: mit\n" in text_of(push_module._content(RunDir(run))["README.md"])


def test_unfinished_run(run: Path) -> None:
    RunDir(run).onnx.unlink()
    with pytest.raises(RunError, match="not finished"):
        push(run, "me/colours", dry_run=True)


@pytest.mark.parametrize("public", [True, False])
def test_upload_is_one_commit(run: Path, monkeypatch: pytest.MonkeyPatch, public: bool) -> None:
    calls: list[tuple[str, Any, Any]] = []
    api = SimpleNamespace(
        create_repo=lambda name, **options: calls.append(("create", name, options)) or f"https://hub/{name}",
        create_commit=lambda name, operations, **_: calls.append(("commit", name, operations)),
    )
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "token")
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: api)
    monkeypatch.setattr("thirtytwo.workflows.push.hub_is_reachable", lambda: True)
    assert push(run, "me/colours", public=public).url == "https://hub/me/colours"
    (create, commit) = calls
    assert create == ("create", "me/colours", {"private": not public, "exist_ok": True})
    assert {operation.path_in_repo for operation in commit[2]} == FILES
    contents = {one.path_in_repo: one.path_or_fileobj for one in commit[2]}
    assert b"data:image" not in contents["report.html"]
    assert str(run).encode() not in contents["report.html"]

    def refuse(name: str, operations: Any, **_: Any) -> None:
        raise ValueError("no right to write\nmore")

    api.create_commit = refuse
    with pytest.raises(OutputError, match="no right to write"):
        push(run, "me/colours")


def test_models_of_the_hub_come_from_the_cache(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    with pytest.raises(OfflineError):
        thirtytwo.load("hf:me/colours")
    place = cache / "models--me--colours"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(commit)
    (place / "snapshots" / commit).mkdir(parents=True)
    shutil.copy(RunDir(run).onnx, place / "snapshots" / commit / "model.onnx")
    assert thirtytwo.load("hf:me/colours").classes == ("red", "green", "blue")
    monkeypatch.chdir(tmp_path)
    assert run_command(["export", "hf:me/colours", "--format", "web-page"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "model-web-page.zip"
    assert (tmp_path / "model-web-page.zip").is_file()
    assert [file.name for file in (place / "snapshots" / commit).iterdir()] == ["model.onnx"]
    assert run_command(["predict", "missing.png", "--model", "hf:nobody"]) == 2
    assert "owner/name" in capsys.readouterr().err


SECRET = "/home/anna/work"
BUILT_ON: dict[str, Any] = {
    "data": {"fix_plan": f"{SECRET}/plan.csv", "train_on": "all", "calibrate_from": f"{SECRET}/runs/calibrated/"},
    "train": {"distill": {"run": f"{SECRET}/runs/teacher"}},
    "transfer": {"pretrained": f"{SECRET}/base.safetensors"},
}


def text_of(content: Path | bytes) -> str:
    return (content if isinstance(content, bytes) else content.read_bytes()).decode()


def test_what_is_uploaded_names_no_place_of_this_machine(finished_run: Any, tmp_path: Path) -> None:
    facts = {"spec": f"{SECRET}/pets?label=breed", "name": "pets", "fingerprint": "abc", "classes": ["a", "b"]}
    command = f"thirtytwo train {SECRET}/pets --apply {SECRET}/plan.csv"
    run = RunDir(finished_run(tmp_path / "run", settings=BUILT_ON, data=facts, command=command))
    content = push_module._content(run)
    texts = {name: text_of(content[name]) for name in ("README.md", "recipe.toml", "report.html", "metrics.json")}
    assert not [name for name, text in texts.items() if "anna" in text]
    (tmp_path / "theirs.toml").write_text(texts["recipe.toml"], encoding="utf-8")
    theirs, ours = read_recipe(tmp_path / "theirs.toml"), run.read_recipe()
    assert theirs.data == ours.data.model_copy(update={"fix_plan": "", "calibrate_from": "calibrated"})
    assert (theirs.train.distill.run, theirs.transfer.pretrained) == ("teacher", "base.safetensors")
    assert theirs.train.model_copy(update={"distill": ours.train.distill}) == ours.train
    card = texts["README.md"].replace("\\", "")
    assert "thirtytwo train 'pets?label=breed' --recipe recipe.toml" in card
    for named in ("transfer.pretrained", "train.distill.run", "data.calibrate_from", "data.fix_plan"):
        assert named in card
        assert named in texts["recipe.toml"]
    assert f'"{SECRET}/plan.csv"' in run.recipe.read_text(), "the run itself stays as it is"


def test_neither_choices_nor_metrics_nor_names_of_files_tell_of_this_machine(finished_run: Any, tmp_path: Path) -> None:
    facts = {"spec": f"{SECRET}/pets", "path": f"{SECRET}/pets", "name": "pets", "fingerprint": "abc"}
    facts |= {"classes": ["red", "green", "blue"], "skipped": [f"skipped {SECRET}/pets/rex.gif: not an image"]}
    choices = [
        {"what": "recipe", "value": "fast", "reason": f"it starts from {SECRET}/base.safetensors"},
        {
            "what": "calibration",
            "value": f"from {SECRET}/runs/calibrated/",
            "reason": "this run trains on all of train",
        },
        {"what": "groups", "value": "9", "reason": f"files in {SECRET}/pets/dogs"},
    ]
    run = RunDir(finished_run(tmp_path / "run", settings=BUILT_ON, data=facts, choices=choices))
    given = run.read_predictions("test")
    files = tuple(f"train/rex-{row}.jpg" for row in given.rows.tolist())
    run.write_predictions("test", replace(given, files=files))
    row = {
        "name": "cars",
        "what": "images of cars",
        "source": f"requested as {SECRET}/cars?label=kind, fingerprint abc",
    }
    measured = {"n": 9, "auroc": 0.9, "fpr95": 0.5, "called_unknown": 0.5}
    unknown = {
        "score": "class_mean",
        "what": "",
        "source": "",
        "share": 0.05,
        "threshold": 0.5,
        "against": [row | measured],
    }
    run.write_json(run.metrics, run.read_json(run.metrics) | {"unknown": unknown})
    content = push_module._content(run)
    texts = {name: text_of(content[name]) for name in ("README.md", "recipe.toml", "report.html", "metrics.json")}
    assert not [name for name, text in texts.items() if "anna" in text or "rex" in text]
    page = texts["report.html"]
    assert all(left in page for left in ("it starts from base.safetensors", "from calibrated", "files in dogs"))
    assert re.search(r">row \d+<", page), "an image without its file"
    assert "plan of fixes that was applied" in page
    (found,) = json.loads(texts["metrics.json"])["unknown"]["against"]
    assert found["source"] == "requested as cars?label=kind, fingerprint abc"
    shared = render(read_run_record(run), None, passed_on=True)
    assert "anna" not in shared
    assert "rex.gif: not an image" in shared, "a page that is passed on names files, without their folder"


def test_members_are_uploaded_by_their_names(finished_run: Any, tmp_path: Path) -> None:
    member = {"recipe": "fast", "seed": 3, "network": "fastnet", "accuracy": None, "in_it": True}
    members = [member | {"run": f"{SECRET}/runs/{name}"} for name in ("one", "two")]
    command = f"thirtytwo ensemble {SECRET}/runs/one {SECRET}/runs/two --data-root {SECRET}/data"
    run = RunDir(finished_run(tmp_path / "run", members=members, command=command))
    (run.path / "comparison").mkdir()
    (run.path / "comparison" / "comparison.html").write_text("<!DOCTYPE html>")
    content = push_module._content(run)
    for text in (text_of(content["README.md"]), text_of(content["report.html"])):
        assert "anna" not in text
        assert "thirtytwo ensemble one two" in text
        assert "comparison.html" not in text


@pytest.mark.parametrize("pretrained", ["", "imagenet", "a1_in1k"])
def test_a_recipe_without_places_is_uploaded_as_it_is(pretrained: str, finished_run: Any, tmp_path: Path) -> None:
    run = RunDir(finished_run(tmp_path / "run", settings={"transfer": {"pretrained": pretrained}}))
    content = push_module._content(run)
    assert text_of(content["recipe.toml"]) == run.recipe.read_text()
    assert "of the recipe" not in text_of(content["README.md"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "reason"),
    [("push", "not completed"), ("predict", "could not be downloaded"), ("data show", "cannot be reached")],
)
def test_a_lost_connection_is_one_sentence(
    command: str, reason: str, run: Path, losing_hub: str, tmp_path: Path
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "red.png")
    arguments = {
        "push": ["push", run, "me/colours"],
        "predict": ["predict", tmp_path / "red.png", "--model", "hf:me/colours"],
        "data show": ["data", "show", "hf:me/colours"],
    }[command]
    hub = {"HF_ENDPOINT": losing_hub, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_none"}
    ended = subprocess.run(
        [sys.executable, "-m", "thirtytwo", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(thirtytwo.__file__).parent.parent), **hub},
        cwd=tmp_path,
        timeout=120,
    )
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "me/colours" in ended.stderr
    assert reason in ended.stderr
