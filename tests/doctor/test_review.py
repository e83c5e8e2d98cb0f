"""Decisions on suggested fixes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from thirtytwo.data.load import load_dataset
from thirtytwo.doctor import CHECKS, Diagnosis, Place, Subject, diagnose, examine
from thirtytwo.doctor.review import Review

SPLIT = {"train/cat": 6, "train/dog": 6, "test/cat": 4, "test/dog": 4}


@pytest.fixture
def folder(make: SimpleNamespace, tmp_path: Path) -> Path:
    """Two copies within a split (T103), and an image in both classes (T102)."""
    found: Path = make.tree(tmp_path / "pets", SPLIT, side=32)
    for source, target in (("cat/1", "cat/a"), ("cat/1", "cat/b"), ("cat/2", "dog/c")):
        (found / f"train/{target}.png").write_bytes((found / f"train/{source}.png").read_bytes())
    return found


def reviewed(folder: Path, before: Review | None = None) -> Review:
    return Review(diagnose(str(folder)), None if before is None else before.decided)


def images(review: Review) -> list[str]:
    return [fix.image.removeprefix("train/") for fix in review.plan.fixes]


def test_each_fix_has_its_image_and_those_of_its_group(folder):
    review = reviewed(folder)
    subject = review.diagnosis.subject
    assert subject is not None
    shown = {
        item.fix.image: (
            subject.name_of(item.place) if item.place else "",
            sorted(subject.name_of(other) for other in item.others),
        )
        for item in review.items
    }
    assert shown == {
        "train/cat/a.png": ("train/cat/a.png", ["train/cat/1.png", "train/cat/b.png"]),
        "train/cat/b.png": ("train/cat/b.png", ["train/cat/1.png", "train/cat/a.png"]),
        "train/cat/2.png": ("train/cat/2.png", ["train/dog/c.png"]),
        "train/dog/c.png": ("train/dog/c.png", ["train/cat/2.png"]),
    }
    assert sorted(review.codes) == ["T102", "T103"]


def test_images_that_stay_are_compared_first(folder):
    for target in ("train/cat/y.png", "test/cat/z.png"):
        (folder / target).write_bytes((folder / "train/cat/0.png").read_bytes())
    review = reviewed(folder)
    assert review.diagnosis.subject is not None
    item = next(item for item in review.items if item.fix.image == "train/cat/0.png")
    assert [review.diagnosis.subject.name_of(other) for other in item.others] == ["test/cat/z.png", "train/cat/y.png"]


def test_accepted_fixes_become_the_plan(folder):
    review = reviewed(folder)
    assert images(review) == []
    first, second = review.items[0].fix, review.items[1].fix
    review.decide(True)
    review.decide(False)
    assert review.plan.fixes == (first,)
    assert (review.position, review.count(accepted=True), review.count(accepted=False)) == (2, 1, 1)
    review.go(-1)
    assert review.decision(review.position) is False
    review.decide(True)
    assert review.plan.fixes == (first, second)


def test_two_decisions_on_the_same_item_leave_the_next_one(folder):
    review = reviewed(folder)
    review.decide(True, 0)
    review.decide(False, 0)
    assert review.decided == {review.items[0].fix: False}
    assert review.position == 1


def test_all_fixes_of_a_check_at_once(folder):
    review = reviewed(folder)
    review.decide_all("T103", True)
    assert images(review) == ["cat/a.png", "cat/b.png"]
    assert review.current.code == "T102", "the next one that is not decided"
    review.decide_all("T102", True)
    review.decide_all("T103", False)
    assert images(review) == ["cat/2.png", "dog/c.png"]
    assert review.count("T103", accepted=False) == review.count("T103") == 2


def test_decisions_are_undone_in_reverse(folder):
    review = reviewed(folder)
    review.decide(False)
    code = review.items[0].code
    review.decide_all(code, True)
    review.undo()
    assert (images(review), review.decision(0)) == ([], False)
    review.undo()
    assert (review.decided, review.position, review.can_undo) == ({}, 0, False)
    review.undo()
    assert review.decided == {}


def test_going_beyond_the_ends_stays_there(folder):
    review = reviewed(folder)
    review.go(-1)
    assert review.position == 0
    for _ in range(9):
        review.decide(True)
    assert (review.position, len(review.plan.fixes)) == (3, 4)
    review.go_to("T103")
    assert review.current.code == "T103"


def test_a_second_check_keeps_decisions_on_the_same_fixes(folder):
    review = reviewed(folder)
    review.decide_all("T103", True)
    (folder / "train/dog/c.png").unlink()
    again = reviewed(folder, review)
    assert images(again) == ["cat/a.png", "cat/b.png"]
    assert len(again.items) == 2
    assert not again.can_undo


def test_a_file_that_cannot_be_read_has_no_image(folder):
    (folder / "train/cat/0.png").write_bytes(b"\x89PNG nothing")
    review = reviewed(folder)
    item = next(item for item in review.items if item.fix.image == "train/cat/0.png")
    assert (item.place, item.others) == (None, ())


def test_images_without_files_are_found_by_row(folder):
    data = load_dataset(str(folder))
    train = replace(data.train, files=None, rows=data.train.rows + 100)
    assert data.test is not None
    bare = replace(data, train=train, test=replace(data.test, files=None))
    review = Review(Diagnosis("data", Subject(bare), examine(bare), tuple(CHECKS)))
    assert [item.fix.image for item in review.items if item.code == "T103"] == ["106", "107"]
    assert [item.place for item in review.items if item.code == "T103"] == [Place("train", 6), Place("train", 7)]
    review.decide(True)
    assert review.plan.by_row


def test_data_that_cannot_be_used_has_no_fixes(tmp_path):
    (tmp_path / "one").mkdir()
    review = Review(diagnose(str(tmp_path)))
    assert (review.items, review.plan.fixes, review.codes) == ((), (), ())
    review.go(1)
    assert review.position == 0
