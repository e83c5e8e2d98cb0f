"""`thirtytwo compare`, and `thirtytwo train` with several seeds: output and errors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import thirtytwo
from thirtytwo.cli.compare import parse_seeds
from thirtytwo.cli.main import run_command
from thirtytwo.errors import RecipeError
from thirtytwo.io import lock_directory

NO_PYARROW = """
import importlib.abc, sys

class NotInstalled(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "pyarrow":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
from thirtytwo.cli.main import main
main()
"""

AT_ONCE = """
import sys
from thirtytwo.workflows import compare

gather = compare.gather_comparison
def wait(*args, **kwargs):
    found = gather(*args, **kwargs)
    print("ready", flush=True)
    sys.stdin.readline()
    return found

compare.gather_comparison = wait
from thirtytwo.cli.main import main
main()
"""
WRITTEN = ["comparison.html", "comparison.json", "comparison.md"]


@pytest.fixture(autouse=True)
def _empty_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("THIRTYTWO_DATA", raising=False)


@pytest.fixture
def two(finished_run: Callable[..., Path]) -> list[str]:
    return [str(finished_run(Path(f"runs/{name}"), seed=seed)) for seed, name in enumerate(("first", "second"))]


@pytest.mark.slow
def test_compare_prints_tables_and_the_page_last(two: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["compare", *two, "--out", "out"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].startswith("colours, test, 240")
    assert lines[2].split()[:2] == ["run", "accuracy"]
    assert "FLOPs" in lines[2]
    assert any(line.startswith("A − B") for line in lines)
    assert lines[-1] == "out/comparison.html"
    assert "--data-root" in err
    assert Path("out/comparison.md").is_file()


@pytest.mark.slow
def test_compare_measures_time_when_asked(two: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["compare", *two, "--out", "plain"]) == 0
    assert "ms per image" not in capsys.readouterr().out
    assert run_command(["compare", *two, "--out", "timed", "--time"]) == 0
    assert "ms per image" in capsys.readouterr().out


@pytest.mark.long
@pytest.mark.parametrize("options", [[], ["--out", "out"]], ids=["unnamed", "named"])
def test_comparisons_at_once_never_share_a_directory(options: list[str], two: list[str]) -> None:
    command = [sys.executable, "-c", AT_ONCE, "compare", *two, *options]
    both = [subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, text=True) for _ in range(2)]
    for process in both:  # both have chosen a directory or are about to
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    results = [process.communicate("\n") for process in both]
    if options:
        assert sorted(process.returncode for process in both) == [0, 2]
        (refused,) = (err for process, (_, err) in zip(both, results, strict=True) if process.returncode)
        assert refused.startswith(("thirtytwo: out is in use by process", "thirtytwo: out exists and is not empty."))
        assert sorted(path.name for path in Path("out").iterdir()) == WRITTEN
    else:
        assert [process.returncode for process in both] == [0, 0], results
        pages = sorted(out.splitlines()[-1] for out, _ in results)
        assert pages == ["runs/comparison-2/comparison.html", "runs/comparison/comparison.html"]
        for page in pages:
            assert sorted(path.name for path in Path(page).parent.iterdir()) == WRITTEN


def test_a_directory_in_use_is_left_alone(two: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    with lock_directory(Path("out")):
        assert run_command(["compare", *two, "--out", "out"]) == 2
        assert "out is in use by process" in capsys.readouterr().err
    assert not list(Path("out").iterdir())
    Path("out/notes.txt").write_text("mine")
    assert run_command(["compare", *two, "--out", "out"]) == 2
    assert [path.name for path in Path("out").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        (["compare"], ["thirtytwo compare --help"]),
        (["compare", "runs/first"], ["2", "1"]),
        (["compare", "runs/first", "runs/first"], ["runs/first"]),
        (["compare", "runs/first", "runs/none"], ["'runs/none'"]),
        (["compare", "runs/first", "runs/second", "--out", "runs"], ["runs"]),
        (["compare", "runs/first", "runs/second", "--split", "train"], ["--split"]),
        (["compare", "runs/first", "runs/second", "--split", "val"], ["runs/first", "'val'"]),
        (["train", "digits", "--seeds", "0,x"], ["--seeds", "'0,x'", "'x'"]),
        (["train", "digits", "--seeds", ""], ["--seeds", "''"]),
        (["train", "digits", "--seeds", "0,-1"], ["'-1'"]),
        (["train", "digits", "--seeds", "1,1"], ["1"]),
        (["train", "digits", "--seeds", "0,1", "--seed", "2"], ["--seeds", "--seed "]),
        (["train", "digits", "--seeds", "0,1", "--repeat", "2"], ["--seeds", "--repeat"]),
        (["train", "digits", "--repeat", "0"], ["--repeat"]),
        (["train", "digits", "--repeat", "2", "--set", "seed=3"], ["'seed'"]),
        (["train", "digits", "--repeat", "2", "--recipe", "fats"], ["'fats'", "'fast'"]),
        (["train", "digits", "--repeat", "2", "--resume"], ["--run"]),
        (["train", "digits", "--repeat", "2", "--resume", "--run", "runs/none"], ["runs/none"]),
        (["train", "digits", "--repeat", "2", "--resume", "--run", "runs/first"], ["runs/first"]),
    ],
)
def test_user_errors_are_one_message(
    arguments: list[str], values: list[str], two: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(Path().rglob("*"))
    assert run_command(arguments) == 2
    out, err = capsys.readouterr()
    assert all(value in err for value in values), err
    assert "Traceback" not in err
    assert out == ""
    assert sorted(Path().rglob("*")) == before, "nothing is written"


def test_without_the_extra_the_install_command_is_named(two: list[str]) -> None:
    command = [sys.executable, "-c", NO_PYARROW, "compare", *two]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert 'pip install "thirtytwo[train]"' in done.stderr


def test_help_mentions_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["compare", "--help"]) == 0
    assert "thirtytwo compare" in capsys.readouterr().out
    assert run_command(["train", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--seeds" in out
    assert "--repeat" in out


@pytest.mark.parametrize(
    ("given", "seeds"),
    [
        ((None, None, None), None),
        ((None, None, 7), None),
        (("0, 1,2", None, None), [0, 1, 2]),
        ((None, 3, None), [0, 1, 2]),
        ((None, 2, 5), [5, 6]),
    ],
)
def test_seeds_are_parsed(given: tuple[str | None, int | None, int | None], seeds: list[int] | None) -> None:
    assert parse_seeds(*given) == seeds


@pytest.mark.parametrize("text", ["1;2", "²", "1.5", ",", "0,"])
def test_invalid_seeds(text: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_seeds(text, None, None)
    assert repr(text) in caught.value.message


def test_seeds_print_the_directory_of_all_last(
    finished_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[dict[str, Any]] = []
    module = pytest.importorskip("thirtytwo.workflows.series")

    def train(data: str, *, run: Path, **settings: Any) -> Any:
        calls.append(settings)
        if not settings.get("resume"):
            finished_run(run, seed=settings["seed"])
        return module.Run(run, {})

    monkeypatch.setattr(module, "train", train)
    assert run_command(["train", "digits", "--repeat", "2", "--seed", "3", "--run", "runs/many", "--epochs", "2"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == "runs/many"
    assert [line.split()[0] for line in out[:3]] == ["run", "seed3", "seed4"]
    assert "mean" in out[4]
    assert [call["overrides"]["schedule.epochs"] for call in calls] == [2, 2]
    assert calls[1]["overrides"]["data.keep_together"] == "copies"  # as the first was resolved
    calls.clear()
    assert run_command(["train", "digits", "--resume", "--run", "runs/many"]) == 0
    assert [call["resume"] for call in calls] == [True, True]
    assert run_command(["train", "digits", "--resume", "--run", "runs/many", "--seed", "9"]) == 2
    err = capsys.readouterr().err
    assert "runs/many" in err
    assert "--seed 9" in err


@pytest.mark.long
def test_compare_takes_the_directory_of_seeds(
    finished_run: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    from thirtytwo.report.seeds import summarize, write_summary

    for seed in (0, 1):
        finished_run(Path(f"runs/many/seed{seed}"), seed=seed)
    write_summary(Path("runs/many"), summarize(Path("runs/many"), "colours", [0, 1], {}))
    assert run_command(["compare", "runs/many"]) == 0
    out = capsys.readouterr().out
    assert "n = 2" in out
    assert out.splitlines()[-1] == "runs/comparison/comparison.html"
    assert thirtytwo.compare(["runs/many"], out="again").groups[0].members == (0, 1)
