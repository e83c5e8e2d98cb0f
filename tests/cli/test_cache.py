from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from thirtytwo.cli.main import run_command
from thirtytwo.data import cache
from thirtytwo.data.load import load_dataset

Output = tuple[int, str, str]


@pytest.fixture
def two(tmp_path: Path, tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two cached data sets; the second one was used last."""
    monkeypatch.setenv("THIRTYTWO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("THIRTYTWO_CACHE_GB", raising=False)
    found = [str(tiny.folder(tmp_path / name, 60, size=size)) for name, size in (("cats", 16), ("dogs", 24))]
    for data in found:
        load_dataset(data)
    gc.collect()
    return found


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Output]:
    def command(*arguments: str) -> Output:
        capsys.readouterr()
        code = run_command(["cache", *arguments])
        return code, *capsys.readouterr()

    return command


def test_entries_are_listed_with_data_size_and_last_use(two: list[str], run: Callable[..., Output]) -> None:
    code, out, _ = run()
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split() == ["entry", "data", "set", "images", "size", "on", "disk", "last", "used"]
    assert two[1] in lines[1]
    assert two[0] in lines[2]
    assert " 60 " in lines[1]
    assert "24×24" in lines[1]
    assert "16×16" in lines[2]
    assert lines[-1].startswith("2 entries")
    assert str(cache.cache_dir()) in lines[-1]


def test_entry_is_removed_by_name_or_data_set(two: list[str], run: Callable[..., Output]) -> None:
    name = run()[1].splitlines()[1].split()[0]
    code, out, _ = run("--clear", name)
    assert code == 0
    assert name in out.splitlines()[0]
    assert out.splitlines()[-1].startswith("1 ")
    assert two[1] not in run()[1]
    assert run("--clear", two[0])[0] == 0
    assert run()[1].startswith("0 entries")


@pytest.mark.slow
def test_all_are_removed_and_decoded_again_when_needed(two: list[str], run: Callable[..., Output]) -> None:
    open_one = load_dataset(two[0], whole=True)
    code, out, err = run("--clear")
    assert code == 0
    assert out.splitlines()[-1].startswith("1 ")
    assert err.count("\n") == 1, "the open entry is kept"
    del open_one
    gc.collect()
    assert run("--clear")[1].splitlines()[-1].startswith("1 ")
    assert len(load_dataset(two[0]).train) > 0
    assert run()[1].count(two[0]) == 1


def test_limit_keeps_recently_used_entries(two: list[str], run: Callable[..., Output]) -> None:
    assert run("--limit", "0.00014")[0] == 0
    out = run()[1]
    assert two[1] in out
    assert two[0] not in out


@pytest.mark.parametrize(
    "arguments", [("cats",), ("--clear", "--limit", "1"), ("--clear", "nothing"), ("--clear", "a"), ("--limit", "-1")]
)
def test_user_errors(two: list[str], run: Callable[..., Output], arguments: tuple[str, ...]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert run()[1].splitlines()[-1].startswith("2 entries")


def test_missing_cache_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., Output]) -> None:
    monkeypatch.setenv("THIRTYTWO_CACHE", str(tmp_path / "nowhere"))
    assert run()[1].startswith("0 entries")
    assert run("--clear")[0] == 0
    assert not (tmp_path / "nowhere").exists()


def test_few_entries_are_named_where_many_are_known(
    run: Callable[..., Output], tiny: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THIRTYTWO_CACHE", str(tmp_path / "cache"))
    for number in range(7):
        load_dataset(str(tiny.folder(tmp_path / f"set {number}, of 7", 9, seed=number)))
    code, _, err = run("--clear", "zebra")
    assert code == 2
    assert err.count(", of 7'") == 5
    assert "and 2 more" in err
