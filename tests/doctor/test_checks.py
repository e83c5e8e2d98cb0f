"""Codes, texts and choice of checks; output of a diagnosis."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest

from thirtytwo.cli.main import run_command
from thirtytwo.doctor import CHECKS, diagnose
from thirtytwo.doctor.page import render_diagnosis
from thirtytwo.errors import UnknownNameError
from thirtytwo.text import quote


@pytest.fixture
def folder(make, tmp_path: Path) -> Path:
    """Two classes; two images of one class are equal, and one file is empty."""
    root = make.tree(tmp_path / "set", {"a": 30, "b": 25})
    (root / "a/4.png").write_bytes((root / "a/5.png").read_bytes())
    (root / "b/3.png").write_bytes(b"")
    return root


@pytest.mark.parametrize("code", list(CHECKS))
def test_every_check_says_what_it_is(code: str) -> None:
    check = CHECKS.get(code)
    assert check.code == code
    assert re.fullmatch(r"[A-Z]\d{3}", code)
    assert check.severity in ("error", "warning", "note")
    assert check.title
    assert not check.title.endswith(".")
    assert check.why.endswith(".")
    assert not check.fix or check.fix.endswith((".", "pad."))


def test_checks_can_be_muted_and_chosen(folder: Path) -> None:
    codes = {finding.code for finding in diagnose(str(folder)).findings}
    assert {"T103", "T201"} <= codes
    assert {finding.code for finding in diagnose(str(folder), muted=["T103"]).findings} == codes - {"T103"}
    only = diagnose(str(folder), only=["T103"])
    assert {finding.code for finding in only.findings} == {"T103"}
    assert only.ran == ("T103",)


def test_codes_may_be_written_in_small_letters(folder: Path) -> None:
    assert diagnose(str(folder), only=["t103"]).ran == ("T103",)
    assert "T103" not in diagnose(str(folder), muted=["t103"]).ran
    assert run_command(["data", "doctor", str(folder), "--fail-on", "NEVER"]) == 0


def test_a_text_that_is_named_as_an_image(make, tmp_path: Path) -> None:
    root = make.tree(tmp_path / "set", {"a": 3, "b": 3})
    (root / "a/1.jpg").write_text("not an image", encoding="utf-8")
    (finding,) = diagnose(str(root), only=["T201"]).findings
    assert finding.fix.startswith("Leave it out, or save it as an image")


@pytest.mark.parametrize(
    "names",
    [("traffic-light", "traffic_light", "Traffic light"), ("stop sign", "stopsign"), ("M\u00fcll", "Mu\u0308ll")],
)
def test_variants_of_a_name_are_found(make, tmp_path: Path, names: tuple[str, ...]) -> None:
    root = make.tree(tmp_path / "set", dict.fromkeys((*names, "other", "_", "-"), 2))
    (finding,) = diagnose(str(root), only=["T304"]).findings
    assert all(quote(name) in finding.what for name in names)
    assert finding.classes == len(names)


def test_real_names_are_shown_where_readable_ones_would_be_equal(
    make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make.tree(tmp_path / "set", {"a_b": 3, "a b": 3, "c_d": 3})
    assert run_command(["data", "show", str(root)]) == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"(?m)^\W*{name}\s", shown) for name in ("a_b", "a b", "c d"))
    page = render_diagnosis(diagnose(str(root)))
    assert "a b, a_b, c d" in page


@pytest.mark.parametrize("option", ["muted", "only"])
def test_an_unknown_code_is_an_error(option: str, folder: Path) -> None:
    with pytest.raises(UnknownNameError, match="T10"):
        diagnose(str(folder), **{option: ["T1O3"]})


def test_exit_code_follows_the_severity(folder: Path) -> None:
    assert run_command(["data", "doctor", str(folder)]) == 3
    (folder / "b/3.png").unlink()
    assert run_command(["data", "doctor", str(folder)]) == 0
    assert run_command(["data", "doctor", str(folder), "--fail-on", "note"]) == 3
    assert run_command(["data", "doctor", str(folder), "--fail-on", "never"]) == 0


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["data", "doctor", str(folder), "--format", "json", "--fail-on", "never"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["classes"] == ["a", "b"]
    assert sum(found["images"].values()) == 54
    duplicates = next(finding for finding in found["findings"] if finding["code"] in ("T101", "T103"))
    assert sorted(Path(image["file"]).name for image in duplicates["groups"][0]) == ["4.png", "5.png"]


def test_csv(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "findings.csv"
    assert run_command(["data", "doctor", str(folder), "--out", str(out)]) == 3, "the suffix says the format"
    rows = list(csv.DictReader(io.StringIO(out.read_text(encoding="utf-8"))))
    same = [row for row in rows if row["code"] in ("T101", "T103")]
    assert sorted(Path(row["file"]).name for row in same) == ["4.png", "5.png"]
    assert run_command(["data", "doctor", str(folder), "--format", "csv", "--out", str(out)]) == 2, "not overwritten"


def test_the_checks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["data", "checks"]) == 0
    listed = capsys.readouterr().out
    assert all(code in listed for code in CHECKS)


@pytest.mark.parametrize("options", [["--only", "T103", "--mute", "T103"], [f"--mute={code}" for code in CHECKS]])
def test_no_check_left_is_refused(options: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["data", "doctor", str(folder), *options]) == 2
    assert "No check is left" in capsys.readouterr().err


def test_no_plan_for_data_that_cannot_be_used(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, plan = folder.parent / "missing.csv", folder.parent / "plan.csv"
    table.write_text("file,label\nset/a/1.png,a\nset/a/none.png,a\nset/b/1.png,b\n")
    assert run_command(["data", "doctor", str(table), "--fix-plan", str(plan)]) == 2
    captured = capsys.readouterr()
    assert "none.png" in captured.out
    assert str(plan) in captured.err
    assert not plan.exists()
