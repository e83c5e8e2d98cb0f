"""Classes that a split lacks, or that cannot be divided: found beside everything else, and fixed by the plan."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from thirtytwo.cli.main import run_command
from thirtytwo.data.load import load_dataset
from thirtytwo.doctor import Diagnosis, diagnose
from thirtytwo.doctor.fix_plan import suggest_fixes
from thirtytwo.errors import DataError

BOTH = {"train/cat": 24, "train/dog": 24, "val/cat": 5, "val/dog": 5, "test/cat": 6, "test/dog": 6}


def suggested(diagnosis: Diagnosis) -> Counter[tuple[str, str, str, str]]:
    """How often the plan says each action, with the split, the class and where to."""
    return Counter((fix.action, fix.split, fix.label, fix.to) for fix in suggest_fixes(diagnosis).plan.fixes)


def counts(root: Path, diagnosis: Diagnosis) -> dict[str, dict[str, int]]:
    """Images by split and class when the plan is applied as training does."""
    data = load_dataset(str(root), fix_plan=suggest_fixes(diagnosis).plan)
    return {name: dict(zip(data.classes, part.counts.tolist(), strict=True)) for name, part in data.stored.items()}


def severities(diagnosis: Diagnosis, code: str) -> list[str]:
    return [finding.severity for finding in diagnosis.findings if finding.code == code]


@pytest.mark.parametrize("extra", [{"test/cow": 3}, {"val/cow": 3, "test/cow": 2}, {"val/cow": 1}])
def test_a_class_that_train_lacks_is_an_error_and_dropped(extra, make: SimpleNamespace, tmp_path: Path) -> None:
    root = make.tree(tmp_path / "pets", BOTH | extra)
    (root / "train/cat/a.png").write_bytes((root / "train/cat/0.png").read_bytes())
    with pytest.raises(DataError, match="'cow'"):
        load_dataset(str(root))
    diagnosis = diagnose(str(root))
    assert diagnosis.data is not None
    assert severities(diagnosis, "T200") == []
    assert severities(diagnosis, "T301")[0] == "error"
    assert severities(diagnosis, "T103") == ["note"]  # the other checks were run
    assert diagnosis.is_blocked
    finding = next(finding for finding in diagnosis.findings if finding.code == "T301")
    assert finding.what.startswith("train has no images of 'cow' (")
    assert len(finding.groups) == sum(extra.values())
    plan = suggested(diagnosis)
    assert plan.pop(("drop", "train", "cat", "")) == 1
    assert plan == {("drop", name.split("/")[0], "cow", ""): count for name, count in extra.items()}
    assert counts(root, diagnosis)["test"] == {"cat": 6, "dog": 6}


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"train/cow": 20, "val/cow": 4}, {"train": 16, "val": 4, "test": 4}),
        ({"train/cow": 20, "test/cow": 4}, {"train": 18, "val": 2, "test": 4}),
        ({"train/cow": 20}, {"train": 14, "val": 2, "test": 4}),
        ({"train/cow": 5}, {"train": 3, "val": 1, "test": 1}),
        ({"train/cow": 4}, {}),
    ],
)
def test_a_class_with_training_images_alone_is_divided(extra, expected, make: SimpleNamespace, tmp_path: Path) -> None:
    root = make.tree(tmp_path / "pets", BOTH | extra)
    diagnosis = diagnose(str(root))
    assert set(severities(diagnosis, "T301")) == {"error"}
    found = counts(root, diagnosis)
    assert {name: part["cow"] for name, part in found.items() if "cow" in part} == expected
    assert suggested(diagnosis) == suggested(diagnose(str(root)))
    again = make.tree(tmp_path / "later", BOTH | extra)
    (again / "train/cow/0.png").rename(again / "train/cow/zzz.png")
    moved = {fix.image for fix in suggest_fixes(diagnosis).plan.fixes}
    named = {fix.image.replace("zzz", "0") for fix in suggest_fixes(diagnose(str(again))).plan.fixes}
    assert moved == named  # chosen by content


def test_copies_are_moved_together(make: SimpleNamespace, tmp_path: Path) -> None:
    root = make.tree(tmp_path / "pets", BOTH | {"train/cow": 8})
    for number in range(8):
        (root / f"train/cow/{number} again.png").write_bytes((root / f"train/cow/{number}.png").read_bytes())
    plan = suggest_fixes(diagnose(str(root))).plan
    where = {fix.image.replace(" again", "") for fix in plan.fixes if fix.action == "move"}
    moved = [fix for fix in plan.fixes if fix.action == "move"]
    assert len(moved) == 2 * len(where) > 2
    assert len({(fix.image.replace(" again", ""), fix.to) for fix in moved}) == len(where)


def test_a_class_that_is_written_otherwise_gets_the_other_name(make: SimpleNamespace, tmp_path: Path) -> None:
    root = make.tree(tmp_path / "pets", {name: BOTH[name] for name in BOTH if name != "test/cat"} | {"test/Cat": 4})
    diagnosis = diagnose(str(root))
    assert suggested(diagnosis) == {("relabel", "test", "Cat", "cat"): 4}
    assert counts(root, diagnosis) == {
        "train": {"cat": 24, "dog": 24},
        "val": {"cat": 5, "dog": 5},
        "test": {"cat": 4, "dog": 6},
    }


def test_a_class_of_one_image_that_cannot_be_divided(make: SimpleNamespace, tmp_path: Path) -> None:
    root = make.tree(tmp_path / "pets", {"cat": 24, "dog": 24, "cow": 1})
    diagnosis = diagnose(str(root))
    assert diagnosis.data is not None
    assert severities(diagnosis, "T302")[0] == "error"
    assert [one.what for one in diagnosis.findings if "1 of 3 classes has fewer" in one.what]
    assert "T103" in diagnosis.ran
    assert suggested(diagnosis) == {("drop", "train", "cow", ""): 1}
    assert set(counts(root, diagnosis)["train"]) == {"cat", "dog"}


def test_nothing_is_suggested_by_checks_that_are_muted(make: SimpleNamespace, tmp_path: Path) -> None:
    root = make.tree(tmp_path / "pets", BOTH | {"test/cow": 3})
    assert suggested(diagnose(str(root), muted=["T301"])) == {}
    alone = make.tree(tmp_path / "alone", {"cat": 24, "dog": 24, "cow": 1})
    assert suggested(diagnose(str(alone), muted=["T302"])) == {}


def test_splits_of_a_table_may_lack_classes_but_train(make: SimpleNamespace, tmp_path: Path) -> None:
    root = make.tree(tmp_path / "pets", BOTH | {"train/cow": 3, "test/emu": 3})
    lines = [f"{file.relative_to(root)},{file.parent.name},{file.parts[-3]}" for file in sorted(root.rglob("*.png"))]
    table = root / "pets.csv"
    table.write_text("\n".join(["file,label,split", *lines]))
    diagnosis = diagnose(str(table))
    found = [(finding.severity, finding.what) for finding in diagnosis.findings if finding.code == "T301"]
    assert ("error", "train has no images of 'emu' (3 images in test).") in found
    assert ("warning", "val has no images of 'cow', 'emu'.") in found
    assert suggested(diagnosis) == {("drop", "test", "emu", ""): 3}
    assert not [finding for finding in diagnosis.findings if finding.code == "T202"]  # not said twice


@pytest.mark.slow
def test_the_command(make: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, plan, fixed = make.tree(tmp_path / "pets", BOTH | {"test/cow": 3}), tmp_path / "p.csv", tmp_path / "fixed"
    command = ["data", "doctor", str(root), "--html", str(tmp_path / "page.html"), "--fix-plan", str(plan)]
    assert run_command(command) == 3
    out, err = capsys.readouterr()
    assert "cannot be used for training as it is" in out
    assert "3 to drop" in err
    assert "cannot be used for training as it is" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert run_command(["data", "fix", str(root), "--plan", str(plan), "--out", str(fixed)]) == 0
    assert run_command(["data", "doctor", str(fixed)]) == 0
    assert not (fixed / "test" / "cow").exists()
    assert run_command(["data", "show", str(root)]) == 0
    out, err = capsys.readouterr()
    assert "cow" in out
    assert "Train has no images of 'cow'" in err
