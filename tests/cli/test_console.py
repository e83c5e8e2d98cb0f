"""Control characters and markup in names are escaped in terminal output."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from thirtytwo.cli.console import brief_warnings, show_error, show_table
from thirtytwo.cli.main import run_command
from thirtytwo.text import itemized

TITLE = "\x1b]0;owned\x07"
RED = "\x1b[31m"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("name", ["-x.jpg", "--y.jpg"])
def test_a_file_that_begins_with_a_dash_is_named_with_its_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).touch()
    assert run_command(["predict", name]) == 2
    assert f"write ./{name}" in capsys.readouterr().err
    (tmp_path / name).unlink()
    assert run_command(["predict", name]) == 2
    assert "./" not in capsys.readouterr().err


def test_control_characters_in_names_are_escaped(
    write_model: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_model(tmp_path / "model.onnx", classes=(f"{TITLE}cat", "green", "blue"))
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (9, 9), (250, 5, 5)).save(folder / f"{RED}red.png")
    (folder / f"{RED}broken.png").write_bytes(b"no image")
    (folder / f"{RED}notes.txt").write_text("")
    assert run_command(["predict", str(folder), "--model", str(model)]) == 2
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert "\x07" not in out + err
    assert "\\x1b]0;owned\\x07cat" in out
    assert "\\x1b[31mred.png" in out
    assert "\\x1b[31mbroken.png" in err
    assert "\\x1b[31mnotes.txt" in err
    assert run_command(["predict", str(folder / f"{RED}gone.png"), "--model", str(model)]) == 2
    assert "\\x1b[31mgone.png" in capsys.readouterr().err


def test_table_on_a_terminal_does_not_interpret_markup() -> None:
    stream = Terminal()
    show_table(["[red]data[/red]", f"{TITLE}value"], [("[link=http://x]cat[/link]", f"{RED}1")], stream)
    shown = stream.getvalue()
    assert "[red]data[/red]" in shown
    assert "[link=http://x]cat[/link]" in shown
    assert "\\x1b]0;owned\\x07value" in shown
    assert "\\x1b[31m1" in shown
    assert TITLE not in shown


def test_error_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("NO_COLOR", "1")
    show_error(f"{RED}cat.png is damaged.", f"Delete {TITLE}it.")
    assert stream.getvalue() == "Error\n\\x1b[31mcat.png is damaged.\nDelete \\x1b]0;owned\\x07it.\n"


def test_warnings_of_libraries_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with brief_warnings():
            warnings.warn_explicit("lbfgs failed\n to converge", UserWarning, "/x/site-packages/sklearn/linear.py", 3)
            warnings.warn_explicit("deprecated", UserWarning, "/x/elsewhere.py", 3)
    assert capsys.readouterr().err == "warning: lbfgs failed to converge (sklearn)\nwarning: deprecated (elsewhere)\n"


def test_a_list_in_an_error_has_a_line_for_each_item(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    message = itemized("The plan does not fit:", ["line 2: 'a  b'", "line 3: 'two\nlines'"])
    show_error(message, "Correct it.")
    expected = "The plan does not fit:\n  line 2: 'a  b'\n  line 3: 'two lines'\nCorrect it.\n"
    assert capsys.readouterr().err == f"thirtytwo: {expected}"
    assert itemized("Wrong:", ["one"]) == "Wrong: one."
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("NO_COLOR", "1")
    show_error(message, "Correct it.")
    assert stream.getvalue() == f"Error\n{expected}"


OUTPUTS = {
    "doctor": ["data", "doctor", "digits", "--only", "T103", "--out", "new/found.txt"],
    "doctor's page": ["data", "doctor", "digits", "--only", "T103", "--html", "new/page.html"],
    "plan": ["data", "doctor", "digits", "--only", "T103", "--fix-plan", "new/plan.csv"],
    "sheet": ["data", "show", "digits", "--sheet", "new/sheet.png"],
    "export": ["data", "export", "digits", "--format", "npz", "--out", "new/digits"],
    "predict": ["predict", "red.png", "--model", "MODEL", "--out", "new/found.csv", "--format", "csv"],
    "explain": ["explain", "red.png", "--model", "MODEL", "--out", "new/explained"],
}


@pytest.mark.slow
@pytest.mark.parametrize("what", OUTPUTS)
def test_a_folder_that_is_created_for_an_output_is_named(
    what: str,
    write_model: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every command creates missing folders of outputs, and says so, so that a mistyped path is noticed."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (9, 9), (250, 5, 5)).save("red.png")
    model = str(write_model(tmp_path / "model.onnx"))
    words = [word.replace("MODEL", model) for word in OUTPUTS[what]]
    assert run_command(words) == 0
    assert f"{tmp_path / 'new'} does not exist and will be created" in capsys.readouterr().err
    assert any((tmp_path / "new").iterdir())
    assert run_command([*words, "--force"]) == 0
    assert "will be created" not in capsys.readouterr().err
