"""Error messages and exit codes, and the output of the small verbs."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import thirtytwo
from thirtytwo.cli.console import show_error, table_text
from thirtytwo.cli.main import expand_paths, run_command
from thirtytwo.config.resolve import read_recipe
from thirtytwo.errors import ThirtytwoError
from thirtytwo.io import write_text

NO_EXTRA = """
import importlib.abc, sys

EXTRAS = {"torch", "lightning", "sklearn", "pyarrow", "datasets", "pydantic_settings", "fastapi", "streamlit"}

class NotInstalled(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
from thirtytwo.cli.main import main
main()
"""


def without_extra(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `thirtytwo` as if nothing but the plain package were installed."""
    command = [sys.executable, "-c", NO_EXTRA, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(autouse=True)
def _empty_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("THIRTYTWO_DATA", raising=False)


def test_home_is_expanded_in_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    given = ["train", "--run=~/x", "--data-root=~", "--set=name=~/x", "--run", "a=~/x", "--resume"]
    run, root = f"--run={tmp_path}/x", f"--data-root={tmp_path}"
    assert expand_paths(given) == ["train", run, root, *given[3:]]
    assert expand_paths(["--run", "~/x", "~", "~x", "./~"]) == ["--run", f"{tmp_path}/x", str(tmp_path), "~x", "./~"]


@pytest.mark.long
def test_home_is_expanded_in_the_python_api(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished_run: Callable[..., Path]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for name in ("run", "other"):
        finished_run(tmp_path / "home" / name, seed=len(name))
    recipe = (tmp_path / "home" / "run" / "recipe.toml").rename(tmp_path / "home" / "mine.toml")
    recipe.with_name("run").joinpath("recipe.toml").write_bytes(recipe.read_bytes())
    assert read_recipe("~/mine.toml").name == "fast"
    thirtytwo.write_report("~/run", images=False, out="~/report.html")
    thirtytwo.compare(["~/run", "~/other"], out="~/compared")
    write_text(Path("~/deep/text.txt"), "x")
    assert {path.name for path in (tmp_path / "home").iterdir()} >= {"report.html", "compared", "deep"}
    assert not (tmp_path / "~").exists()


def test_words_after_two_dashes_are_no_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["predict", "--model", "cifar10-tiny", "--", "--x="]) == 2
    assert "--x= does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        (["trian"], ["'trian'", "'train'"]),
        (["data", "shwo"], ["'shwo'", "'show'"]),
        (["predict", "a.png", "--modle", "x"], ["--modle", "--model"]),
        (["predict"], ["thirtytwo predict --help"]),
        (["predict", ""], ["empty", "variable"]),
        (["teach", "--seed", "1", ""], ["empty", "variable"]),
        (["train", "digits", "--run", ""], ["'' after --run", "variable"]),
        (["predict", "a.png", "--out="], ["'' of --out", "variable"]),
        (["predict", "--", ""], ["empty", "variable"]),
        (["predict", "--force", ""], ["'' after --force", "variable"]),
        (["predict", "-", ""], ["argument", "variable"]),
        (["app", "--base-path", "", "--port", "x"], ["--port"]),
        (["serve", "--root-path=", "--port", "x"], ["--port"]),
        ([""], ["empty"]),
        (["train"], ["DATA", "thirtytwo train --help"]),
        (["predict", "a.png", "--top", "0"], ["--top", "'0'", "thirtytwo predict --help"]),
        (["predict", "a.png", "--top", "many"], ["--top", "'many'"]),
        (["predict", "a.png", "--format", "xml"], ["--format", ": 'xml'", "'csv'"]),
        (["predict", "a.png", "--tta"], ["--tta", "thirtytwo predict --help"]),
        (["predict", "a.png", "--force=3"], ["--force", "thirtytwo predict --help"]),
        (["data", "doctor", "digits", "--only"], ["--only", "thirtytwo data doctor --help"]),
        (["train", "digits", "--device", "tpu"], ["--device"]),
        (["train", "digits", "--epochs", "none"], ["--epochs"]),
        (["evaluate", "runs/x", "--split", "train"], ["--split"]),
        (["train", "cifar11"], ["'cifar11'", "'cifar10'", "'cifar100'"]),
        (["data", "show", "digit"], ["'digit'", "'digits'"]),
        (["data", "doctor", "digit"], ["'digit'", "'digits'"]),
        (["train", "digits", "--recipe", "fats"], ["'fats'", "'fast'"]),
        (["train", "digits", "--recipe", "my/fast.toml"], ["'my/fast.toml'"]),
        (["train", "digits", "--set", "schedule.epoch=2"], ["'schedule.epoch'", "'epochs'"]),
        (["train", "digits", "--set", "epochs"], ["--set", "'epochs'", "key=value"]),
        (["train", "digits", "--set", "schedule.epochs=few"], ["schedule.epochs"]),
        (["train", "digits", "--set", "model.name=fastnat"], ["'fastnat'", "'fastnet'"]),
        (["evaluate", "runs/none"], ["'runs/none'"]),
        (["report", "runs/none"], ["'runs/none'"]),
        (["train", "digits", "--resume", "--run", "runs/none"], ["'runs/none'"]),
    ],
)
def test_user_errors_are_one_message(
    arguments: list[str], values: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(arguments) == 2
    out, err = capsys.readouterr()
    assert all(value in err for value in values), err
    assert err.count("\n") == 1, "one plain line if stderr is not a terminal"
    assert "Traceback" not in err
    assert out == ""
    assert list(Path().iterdir()) == [], "nothing is written"


@pytest.mark.parametrize("words", [["--run", "my run"], ["--run=my run"]])
def test_resuming_without_the_data_names_the_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("my run").mkdir()
    Path("my run", "environment.json").write_text('{"data": {"spec": "my images"}}', encoding="utf-8")
    assert run_command(["train", "--resume", *words]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "Missing argument 'DATA'. Continue it with: thirtytwo train 'my images' --resume --run 'my run'" in error
    assert run_command(["train"]) == 2
    assert "thirtytwo train --help" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["data"]])
def test_a_group_without_a_command_shows_its_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(arguments) == 0
    out, err = capsys.readouterr()
    assert "Usage: thirtytwo" in out
    assert err == ""


def test_run_directory_that_is_not_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    assert run_command(["train", "digits", "--run", "full", "--epochs", "1"]) == 2
    err = capsys.readouterr().err
    assert "full" in err
    assert "--resume" in err
    assert "--run" in err
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [["train", "digits"], ["evaluate", "runs/x"], ["report", "runs/x"], ["demo"], ["data", "show", "digits"]],
)
def test_missing_extra_names_the_install_command(arguments: list[str]) -> None:
    run = Path("runs/x")
    run.mkdir(parents=True)
    (run / "recipe.toml").touch()
    done = without_extra(*arguments)
    assert done.returncode == 2
    assert 'pip install "thirtytwo[train]"' in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.slow
@pytest.mark.parametrize(("command", "option"), [("serve", "--max-batch"), ("app", "--data-root")])
def test_help_needs_no_extra(command: str, option: str) -> None:
    done = without_extra(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert option in done.stdout
    assert without_extra(command).returncode == 2


@pytest.mark.slow
def test_models_without_the_extra_still_lists_trained_ones(colour_model: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "colours-1"
    run.mkdir(parents=True)
    (run / "model.onnx").write_bytes(colour_model.read_bytes())
    done = without_extra("models")
    assert done.returncode == 0
    assert re.search(r"^runs/colours-1 +colours +colours +3 +90\.0 %", done.stdout, re.MULTILINE)
    assert "\nresnet18 " in done.stdout


def test_models_lists_networks(capsys: pytest.CaptureFixture[str], nothing_bundled: None) -> None:
    assert run_command(["models"]) == 0
    out, err = capsys.readouterr()
    rows = {line.split("  ")[0]: line for line in out.splitlines()}
    assert {"fastnet", "textbook", "resnet18", "wideresnet depth=16 width=8", "timm convnext_tiny"} <= set(rows)
    assert re.split(" {2,}", rows["resnet18"])[1:3] == ["11.17 million", "1.11 G"]
    assert "thirtytwo train cifar10" in err


def test_models_reports_the_cost_at_another_size(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["models", "--size", "64"]) == 0
    out = capsys.readouterr().out
    assert "FLOPs at 64×64" in out
    assert re.search(r"^resnet18 +11.17 million +4.44 G", out, re.MULTILINE)
    assert run_command(["models", "--size", "33"]) == 2
    err = capsys.readouterr().err
    assert "--size 33" in err
    assert "32, 64, 96, 128, 224" in err


def test_damaged_model_in_runs_does_not_stop_the_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "runs" / "x"
    run.mkdir(parents=True)
    (run / "model.onnx").write_text("nothing")
    assert run_command(["models"]) == 0
    assert "runs/x" in capsys.readouterr().out


def test_recipes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["recipes"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["recipe", "network", "epochs", "description"]
    assert "\nfast " in out
    assert "\ndigits " in out


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["--version"]) == 0
    assert capsys.readouterr().out == f"thirtytwo {thirtytwo.__version__}\n"
    assert run_command([]) == 0
    out = capsys.readouterr().out
    for verb in ("train", "evaluate", "predict", "compare", "report", "models", "recipes", "data", "demo"):
        assert verb in out


@pytest.mark.parametrize(
    "name", ["data", "train", "evaluate", "predict", "compare", "report", "models", "recipes", "demo"]
)
def test_every_verb_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([name, "--help"]) == 0
    assert f"thirtytwo {name}" in capsys.readouterr().out


def test_data_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["data", "show", "digits", "--sheet", "sheet.png"]) == 0
    out = capsys.readouterr().out
    assert all(value in out.splitlines()[0] for value in ("digits", "10 classes", "train 1,439", "test 358"))
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    assert run_command(["data", "show", "digits", "--sheet", "sheet.png"]) == 2
    err = capsys.readouterr().err
    assert "sheet.png" in err
    assert "--sheet" in err


@pytest.mark.slow
def test_data_show_as_a_recipe_augments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "show", "digits", "--recipe", "digits"]
    mixed = ["--set", "augment.mixup=1.0", "--set", "augment.policy=randaugment"]
    assert run_command([*command, *mixed]) == 0
    assert capsys.readouterr().out == "digits-digits-augmented.png\n"
    assert (tmp_path / "digits-digits-augmented.png").read_bytes().startswith(b"\x89PNG")
    assert run_command([*command, "--sheet", "plain.png"]) == 0
    assert (tmp_path / "plain.png").read_bytes().startswith(b"\x89PNG")
    for arguments, values in (
        (command, ["digits-digits-augmented.png", "--sheet"]),
        ([*command, "--sheet", "x.png", "--set", "augment.policy=augmx"], ["'augmx'", "'augmix'"]),
        ([*command, "--sheet", "x.png", "--set", "augment.classes.11.rotate=3"], ["'augment.classes.11'"]),
        (["data", "show", "digits", "--set", "seed=3"], ["--set", "--recipe"]),
    ):
        assert run_command(arguments) == 2
        err = capsys.readouterr().err
        assert all(value in err for value in values), err
    assert not (tmp_path / "x.png").exists()


def test_data_doctor(image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["data", "doctor", "digits"]) == 0
    assert "errors: none" in capsys.readouterr().out
    assert run_command(["data", "doctor", str(image_folder)]) == 2
    out, err = capsys.readouterr()
    assert out.startswith("error T200: ")
    assert "errors: 1" in out
    assert "cannot be used" in err


# Exit codes of every kind of error


def broken(*_: object, **__: object) -> None:
    raise RuntimeError("not the user's")


def test_bug_prints_its_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("thirtytwo.cli.models.show_recipes", broken)
    assert run_command(["recipes"]) == 1
    err = capsys.readouterr().err
    assert "RuntimeError: not the user's" in err
    assert "Traceback" in err


def test_interrupted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stopped() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("thirtytwo.cli.models.show_recipes", stopped)
    assert run_command(["recipes"]) == 130
    assert capsys.readouterr().err.count("\n") == 1


def test_closed_pipe_is_silent() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "thirtytwo", "recipes"], stdout=writer, stderr=subprocess.PIPE, check=False, timeout=60
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("arguments", ["recipes", "predict {image}", "predict -"])
def test_closed_streams(image_folder: Path, closed: str, arguments: str) -> None:
    command = f"{sys.executable} -m thirtytwo {arguments.format(image=image_folder / 'red.png')} {closed}"
    done = subprocess.run(command, shell=True, capture_output=True, stdin=subprocess.DEVNULL, check=False, timeout=60)
    assert b"Traceback" not in done.stdout + done.stderr
    assert done.returncode == (2 if arguments.endswith("-") else 0)


def test_a_bundled_model_is_named_as_the_option_takes_it(
    image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["predict", str(image_folder / "red.png")]) == 0
    assert "Model: imagenet (choose another with --model)" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_under_stdout() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "thirtytwo", "recipes"], stdout=full, stderr=subprocess.PIPE, check=False, timeout=60
        )
    assert done.returncode == 2
    assert b"No space left on device" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_message_on_a_terminal_is_wrapped() -> None:
    code = """
import os
os.environ["COLUMNS"] = "40"
from thirtytwo.cli.console import show_error
show_error("A message that is somewhat longer than forty characters.", "And what to do.")
"""
    controller, terminal = pty.openpty()
    done = subprocess.Popen([sys.executable, "-c", code], stderr=terminal)
    assert done.wait(timeout=60) == 0
    os.close(terminal)
    shown = os.read(controller, 10_000).decode().replace("\r\n", "\n")
    os.close(controller)
    assert shown == (
        "\x1b[1;31mError\x1b[0m\nA message that is somewhat longer than\nforty characters.\nAnd what to do.\n"
    )


def test_message_without_a_fix(capsys: pytest.CaptureFixture[str]) -> None:
    show_error("Two\nlines.")
    assert capsys.readouterr().err == "thirtytwo: Two lines.\n"


def test_table_text() -> None:
    assert table_text(["a", "long name"], [("1", "x"), ("12345", "two\nlines")]) == (
        "a      long name\n1      x\n12345  two lines\n"
    )


def test_evaluate_is_loaded_on_first_use() -> None:
    with pytest.raises(ThirtytwoError, match="runs/none"):
        thirtytwo.evaluate("runs/none")


def test_import_is_cheap() -> None:
    code = "import json, sys, thirtytwo; print(json.dumps(sorted(name.split('.')[0] for name in sys.modules)))"
    loaded = set(json.loads(subprocess.check_output([sys.executable, "-c", code], text=True)))
    assert not loaded & {"numpy", "torch", "onnxruntime", "typer", "rich", "pydantic", "PIL"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["train", "digits", "--repeat", str(2**40)],
        ["train", "digits", "--seeds", f"0,{2**64}"],
        ["train", "digits", "--seeds", "9" * 5000],
        ["tune", "digits", "--trials", str(2**63)],
        ["teach", "x", "--seed", "-1"],
        ["teach", "x", "--seed", str(2**64)],
        ["cache", "--limit", "1e308"],
        ["cache", "--limit", "inf"],
        ["train", "digits", "--set", "model.options={groups = [{width = 9999999999999999999999}]}"],
        ["train", "digits", "--set", "model.name=textbook", "--set", "model.options={dense = [1000000000]}"],
        ["train", "digits", "--set", "model.name=wideresnet", "--set", "model.options={width = 1000000000}"],
    ],
    ids=lambda words: " ".join(words)[:60],
)
def test_numbers_are_bounded(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("x").mkdir()
    assert run_command(words) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_the_limit_of_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("THIRTYTWO_CACHE_GB", "1e308")
    assert run_command(["cache"]) == 2
    assert "THIRTYTWO_CACHE_GB" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["predict", "photo.jpg", "--format", "xml"], ["--format", "'xml'", "'json'"]),
        (["predict", "photo.jpg", "--tta", "on"], ["--tta", "'on'", "'auto'"]),
        (["predict", "photo.jpg", "--top", "0"], ["--top", "1"]),
        (["serve", "--tta", "on"], ["--tta", "THIRTYTWO_SERVE_TTA", "'on'", "'auto'"]),
        (["serve", "--threads", "0"], ["--threads", "1"]),
        (["serve", "--replicas", "2", "--max-replicas", "1"], ["replicas", "2", "1"]),
    ],
)
def test_invalid_values_are_named_without_terms_of_pydantic(
    words: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(words) == 2
    shown = capsys.readouterr().err
    assert all(part in shown for part in parts)
    assert "Value error" not in shown


def test_file_names_made_from_long_names_are_shortened(tiny: SimpleNamespace) -> None:
    tiny.folder(Path("n" * 255), 12)
    assert run_command(["data", "show", "n" * 255, "--recipe", "fast"]) == 0
