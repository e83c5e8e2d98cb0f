"""Wrong input to `data fix`, `data export`, `train --apply` and `train --folds`: one message, and no file changes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from thirtytwo.cli.main import run_command

FAST = ["--recipe", "fast", "--device", "cpu", "--run", "run"]
FIX = ["data", "fix", "pets", "--plan"]
EXPORT = ["data", "export", "pets", "--format"]
CASES: dict[str, list[str]] = {
    "fix: a table of labels as plan": [*FIX, "labels.csv", "--out", "new"],
    "fix: a workbook as plan": [*FIX, "plan.xlsx", "--out", "new"],
    "fix: a folder as plan": [*FIX, "pets", "--out", "new"],
    "fix: into the data by a link": [*FIX, "plan.csv", "--out", "link/new"],
    "fix: below a file": [*FIX, "plan.csv", "--out", "plan.csv/new"],
    "fix: over the plan": [*FIX, "plan.csv", "--out", "plan.csv"],
    "fix: a row that is no number": ["data", "fix", "digits", "--plan", "square.csv", "--out", "new"],
    "export: over the folder of a table": [
        "data",
        "export",
        "labels.csv",
        "--format",
        "csv",
        "--out",
        "pets",
        "--force",
    ],
    "export: below a file": [*EXPORT, "folder", "--out", "plan.csv/new"],
    "export: a name that is too long": [*EXPORT, "folder", "--out", "n" * 300],
    "export: two formats": [*EXPORT, "csv,npz", "--out", "new"],
    "export: an unknown column": ["data", "export", "labels.csv?label=no", "--format", "csv", "--out", "new"],
    "apply: no file": ["train", "pets", *FAST, "--apply", "none.csv"],
    "apply: nothing": ["train", "pets", *FAST, "--apply", ""],
    "apply: two plans": ["train", "pets", *FAST, "--apply", "plan.csv", "--set", "data.fix_plan=other.csv"],
    "apply: files for rows": ["train", "digits", *FAST, "--apply", "plan.csv"],
    "apply: one class left": ["train", "pets", *FAST, "--apply", "merge.csv"],
    "folds: more than images": ["train", "pets", *FAST, "--folds", "20"],
    "folds: with seeds": ["train", "pets", *FAST, "--folds", "3", "--seeds", "1,2"],
    "folds: trained on all": ["train", "pets", *FAST, "--folds", "3", "--set", "data.train_on=all"],
    "folds: into the data": ["train", "pets", *FAST[:-1], "pets", "--folds", "3"],
    "folds: resumed from nothing": ["train", "pets", *FAST, "--folds", "3", "--resume"],
    "folds: too few images after the plan": ["train", "pets", *FAST, "--folds", "4", "--apply", "most.csv"],
}


@pytest.fixture
def place(tiny: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with 18 images of three classes, and tables and plans for them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("THIRTYTWO_DATA", raising=False)
    tiny.folder(tmp_path / "pets", 18)
    (tmp_path / "link").symlink_to(tmp_path / "pets")
    files = [f"class {number % 3}/{number}.png" for number in range(18)]
    texts = {
        "labels.csv": ["file,label", *(f"pets/{file},{file[6]}" for file in files)],
        "plan.csv": ["action,file", f"drop,{files[0]}"],
        "square.csv": ["action,split,row", "drop,train,²"],
        "merge.csv": ["action,file,to", *(f"relabel,{file},class 0" for file in files if file[6] != "0")],
        "most.csv": ["action,file", *(f"drop,{file}" for file in files[:9])],
    }
    for name, lines in texts.items():
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "plan.xlsx").write_bytes(b"PK\x03\x04" + bytes(40))
    return tmp_path


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("command", CASES.values(), ids=CASES)
def test_wrong_input_is_refused_in_one_message(
    command: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(place)
    assert run_command(command) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("thirtytwo: ")
    assert "Traceback" not in captured.err
    assert content(place) == before
