"""Plans of fixes suggested from findings, and the way from the doctor to a fixed copy and back."""

from __future__ import annotations

import csv
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from thirtytwo.cli.main import run_command
from thirtytwo.data.fixes import read_fix_plan
from thirtytwo.data.load import load_dataset
from thirtytwo.data.types import DataSet
from thirtytwo.doctor import CHECKS, Diagnosis, Subject, diagnose
from thirtytwo.doctor.fix_plan import CONFIDENT, DOUBTFUL, Suggestions, suggest_fixes

SPLIT = {"train/cat": 8, "train/dog": 8, "val/cat": 3, "val/dog": 3, "test/cat": 4, "test/dog": 4}
SIDE = 32


@pytest.fixture
def folder(make: SimpleNamespace, tmp_path: Path) -> Path:
    found: Path = make.tree(tmp_path / "pets", SPLIT, side=SIDE)
    return found


def copy(root: Path, source: str, *targets: str) -> None:
    """Copies of an image as other PNG files."""
    for target in targets:
        (root / target).write_bytes((root / source).read_bytes())


def suggested(root: Path, **options: object) -> Suggestions:
    return suggest_fixes(diagnose(str(root), **options))  # type: ignore[arg-type]


def rows(found: Suggestions) -> list[tuple[str, ...]]:
    return [(fix.action, fix.image, fix.to, fix.reason.split()[0]) for fix in found.plan.fixes]


def test_clean_data_needs_no_fixes(folder):
    found = suggested(folder)
    assert found.plan.fixes == ()
    assert (found.test, found.last) == (0, 0)


def test_one_of_equal_images_stays(folder):
    copy(folder, "train/cat/1.png", "train/cat/a.png", "train/cat/b.png")
    found = suggested(folder)
    assert rows(found) == [("drop", f"train/cat/{name}.png", "", "T103") for name in "ab"]
    assert "train/cat/1.png (cat)" in found.plan.fixes[0].evidence
    assert found.plan.fixes[0].reason == f"T103 {CHECKS.get('T103').title}"
    assert found.plan.fixes[0].label == "cat"


@pytest.mark.parametrize(
    ("source", "target", "dropped"),
    [
        ("test/cat/0.png", "train/cat/a.png", "train/cat/a.png"),
        ("test/cat/0.png", "val/cat/a.png", "val/cat/a.png"),
        ("val/cat/0.png", "train/cat/a.png", "train/cat/a.png"),
    ],
)
def test_copies_across_splits_leave_the_split_that_is_trained_on(source, target, dropped, folder):
    copy(folder, source, target)
    found = suggested(folder)
    assert rows(found) == [("drop", dropped, "", "T101")]
    assert source in found.plan.fixes[0].evidence
    assert found.test == 0


def test_copies_within_test_stay(folder):
    copy(folder, "test/cat/0.png", "test/cat/a.png", "test/dog/b.png")
    found = suggested(folder)
    assert rows(found) == []
    assert found.test == 2


def test_conflicting_copies_are_dropped_without_a_majority(folder):
    copy(folder, "train/cat/0.png", "train/dog/a.png")
    assert set(rows(suggested(folder))) == {
        ("drop", "train/cat/0.png", "", "T102"),
        ("drop", "train/dog/a.png", "", "T102"),
    }


def test_a_majority_of_two_to_one_keeps_its_first_image(folder):
    copy(folder, "train/cat/0.png", "train/cat/a.png", "train/dog/b.png")
    found = suggested(folder)
    assert set(rows(found)) == {("drop", "train/cat/a.png", "", "T102"), ("drop", "train/dog/b.png", "", "T102")}
    copy(folder, "train/cat/0.png", "train/dog/c.png")
    assert len(rows(suggested(folder))) == 4


def test_a_conflict_with_test_drops_the_training_copy(folder):
    copy(folder, "test/cat/0.png", "train/dog/a.png", "train/dog/b.png", "train/dog/c.png")
    found = suggested(folder)
    assert {row[1] for row in rows(found)} == {f"train/dog/{name}.png" for name in "abc"}
    assert {row[3] for row in rows(found)} == {"T102"}
    assert found.test == 0


def test_muted_checks_suggest_nothing(folder):
    copy(folder, "test/cat/0.png", "train/dog/a.png")
    assert rows(suggested(folder, muted=["T102"])) == []


def test_near_duplicates_across_splits(folder):
    random = np.random.default_rng(5)
    smooth = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((SIDE, SIDE))
    smooth.save(folder / "test/cat/s.png")
    smooth.save(folder / "train/cat/s.jpg", quality=92)
    found = suggested(folder)
    assert rows(found) == [("drop", "train/cat/s.jpg", "", "T111")]
    assert "similarity" in found.plan.fixes[0].evidence
    assert "test/cat/s.png" in found.plan.fixes[0].evidence


def test_blank_and_unreadable_images(folder):
    Image.new("RGB", (SIDE, SIDE), "white").save(folder / "train/dog/white.png")
    Image.new("RGB", (SIDE, SIDE), "black").save(folder / "test/dog/black.png")
    (folder / "test/cat/empty.png").write_bytes(b"")
    (folder / "train/cat/cut.png").write_bytes((folder / "train/cat/0.png").read_bytes()[:200])
    found = suggested(folder)
    assert set(rows(found)) == {
        ("drop", "test/cat/empty.png", "", "T201"),
        ("drop", "train/cat/cut.png", "", "T201"),
        ("drop", "train/dog/white.png", "", "T401"),
    }
    assert found.test == 1
    assert "0 bytes" in next(fix.evidence for fix in found.plan.fixes if fix.image == "test/cat/empty.png")
    assert {fix.image: (fix.split, fix.label) for fix in found.plan.fixes}["train/cat/cut.png"] == ("train", "cat")


def test_the_last_image_of_a_class_stays(make, tmp_path):
    root = make.tree(tmp_path / "pets", {**SPLIT, "train/cow": 1, "val/cow": 1, "test/cow": 1}, side=SIDE)
    copy(root, "test/cow/0.png", "train/cow/0.png")
    found = suggested(root)
    assert rows(found) == []
    assert found.last == 1


def with_findings(data: DataSet, predicted: list[tuple[str, int, str, float]]) -> Diagnosis:
    """A diagnosis in which T501 reports images by split and position, with the predicted class and its probability."""
    subject = Subject(data)
    places = {(place.split, place.position): place for place in subject.places}
    finding = CHECKS.get("T501").finding(
        "labels",
        [(places[split, position],) for split, position, *_ in predicted],
        predicted=[(label, probability) for *_, label, probability in predicted],
    )
    return Diagnosis("data", subject, (finding,), ("T501",))


def test_probably_wrong_labels(folder):
    data = load_dataset(str(folder))
    sure, unsure = CONFIDENT + 0.1, CONFIDENT - 0.1
    wrong = [("train", 0, "dog", unsure), ("train", 1, "dog", sure), ("val", 0, "dog", 0.98), ("test", 0, "dog", 0.99)]
    wrong.append(("train", 2, "dog", DOUBTFUL - 0.1))
    found = suggest_fixes(with_findings(data, wrong))
    assert rows(found) == [
        ("relabel", "val/cat/0.png", "dog", "T501"),
        ("relabel", "train/cat/1.png", "dog", "T501"),
        ("drop", "train/cat/0.png", "", "T501"),
    ]
    assert found.plan.fixes[0].evidence == "given cat, predicted dog with 0.98"
    assert found.test == 1


def test_images_without_files_are_named_by_row(folder):
    data = load_dataset(str(folder))
    train = replace(data.train, files=None, rows=data.train.rows + 100)
    bare = replace(data, train=train, val=None, test=replace(data.test, files=None))
    found = suggest_fixes(with_findings(bare, [("train", 3, "dog", 0.9)]))
    assert found.plan.by_row
    assert found.plan.fixes[0].image == "103"


ODD = ('a, "b".png', "=cmd.png", "Käfer 虫.png", "-x.png", "'@.png")


@pytest.mark.slow
def test_round_trip_from_the_doctor_to_a_fixed_copy(folder, tmp_path, capsys):
    for number, name in enumerate(ODD):
        copy(folder, f"train/cat/{number}.png", f"train/cat/{name}")
        copy(folder, f"test/cat/{number % 4}.png", f"train/cat/test {name}")
    copy(folder, "train/dog/0.png", os.fsdecode(b"train/dog/\xe9t\xe9.png"))
    copy(folder, "train/dog/1.png", "train/cat/conflict.png")
    Image.new("RGB", (SIDE, SIDE), "white").save(folder / "train/dog/white.png")
    (folder / "train/dog/empty.png").write_bytes(b"")
    plan, clean = tmp_path / "plan.csv", tmp_path / "clean"
    assert run_command(["data", "doctor", str(folder), "--fix-plan", str(plan), "--fail-on", "never"]) == 0
    assert "15 to drop" in capsys.readouterr().err
    kinds = ("T101", "T102", "T103", "T111", "T201", "T401")
    assert {finding.code for finding in diagnose(str(folder)).findings} >= {"T101", "T102", "T103", "T201", "T401"}
    assert run_command(["data", "fix", str(folder), "--plan", str(plan), "--out", str(clean)]) == 0
    after = diagnose(str(clean))
    assert {finding.code for finding in after.findings}.isdisjoint(kinds)
    assert after.data is not None
    assert [len(images) for images in after.data.stored.values()] == [15, 6, 8]
    assert rows(suggest_fixes(after)) == []


@pytest.mark.slow
def test_round_trip_of_class_folders(make, tmp_path):
    root = make.tree(tmp_path / "pets", {"cat": 20, "dog": 20}, side=SIDE)
    for number in range(6):
        copy(root, f"cat/{number}.png", f"cat/{number} again.png")
    plan, clean = tmp_path / "plan.csv", tmp_path / "clean"
    assert run_command(["data", "doctor", str(root), "--fix-plan", str(plan)]) == 0
    left = Counter(fix.split for fix in read_fix_plan(plan).fixes)
    assert set(left) == {"train"}
    assert run_command(["data", "fix", str(root), "--plan", str(plan), "--out", str(clean)]) == 0
    before, after = load_dataset(str(root)), load_dataset(str(clean))
    assert before.test is not None
    assert after.test is not None
    assert sorted(after.test.hashes.tolist()) == sorted(before.test.hashes.tolist())
    assert len(np.unique(after.train.hashes)) == len(after.train)


def test_the_plan_of_the_command(folder, tmp_path, capsys):
    copy(folder, "test/cat/0.png", "train/cat/a.png", "test/dog/b.png")
    plan = tmp_path / "plan.csv"
    command = ["data", "doctor", str(folder), "--fix-plan", str(plan), "--fail-on", "never"]
    assert run_command(command) == 0
    assert "test image" in capsys.readouterr().err
    with plan.open(newline="", encoding="utf-8") as stream:
        (row,) = csv.DictReader(stream)
    assert list(row) == ["action", "split", "file", "class", "to", "reason", "evidence"]
    assert (row["action"], row["split"], row["class"], row["to"]) == ("drop", "train", "cat", "")
    assert run_command(command) == 2
    assert "exists" in capsys.readouterr().err
    assert run_command([*command, "--force"]) == 0


def test_no_plan_of_data_that_cannot_be_used(tmp_path, make, capsys):
    root = make.tree(tmp_path / "pets", {"cat": 3})
    plan = tmp_path / "plan.csv"
    assert run_command(["data", "doctor", str(root), "--fix-plan", str(plan)]) == 2
    assert not plan.exists()
