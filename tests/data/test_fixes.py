"""Plans of fixes: reading and writing them, and applying them to data that has not been decoded."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from thirtytwo.data.fixes import Fix, FixPlan, read_fix_plan, write_fix_plan
from thirtytwo.data.load import load_dataset
from thirtytwo.errors import DataError, OutputError, UnknownNameError

SPLIT = {"train/cat": 4, "train/dog": 4, "test/cat": 2, "test/dog": 2}
ODD_NAMES = (
    "a, b.png",
    'say "cat".png',
    "=1+1.png",
    "'=1.png",
    "''-x.png",
    "-dash.png",
    "@home.png",
    "+1.png",
    " space .png",
    "Käfer 虫.png",
    "K\\xe4fer.png",
    "two\nlines.png",
    "\ttab.png",
    "\rreturn\r.png",
    "semi;colon.png",
)


def fix(action: str, file: str, to: str = "", split: str = "train", label: str = "", **more: str) -> Fix:
    return Fix(action, split, file, label, to, more.get("reason", ""), more.get("evidence", ""))  # type: ignore[arg-type]


def plan_of(*fixes: Fix, by_row: bool = False) -> FixPlan:
    return FixPlan(fixes, by_row=by_row)


@pytest.fixture
def folder(make: SimpleNamespace, tmp_path: Path) -> Path:
    found: Path = make.tree(tmp_path / "pets", SPLIT)
    return found


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_plan_is_read_back_unchanged(name, tmp_path):
    written = plan_of(
        fix("drop", name, label=name, reason=name, evidence=f"= {name}"),
        fix("relabel", f"x{name}", to=name, label="'-"),
        fix("move", f"y{name}", to="val"),
    )
    write_fix_plan(tmp_path / "plan.csv", written)
    read = read_fix_plan(tmp_path / "plan.csv")
    assert [vars(one) | {"line": 0} for one in read.fixes] == [vars(one) | {"line": 0} for one in written.fixes]
    assert not read.problems


def test_no_cell_is_a_formula(tmp_path):
    write_fix_plan(tmp_path / "plan.csv", plan_of(fix("drop", "=1+1.png", label="@x", reason="-", evidence="+")))
    cells = (tmp_path / "plan.csv").read_text().splitlines()[1].split(",")
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)


@pytest.mark.parametrize(
    "content",
    [
        "action,file\ndrop,train/cat/0.png\n",
        "\ufeffAction;File;To\r\nDrop;train/cat/0.png;\r\n\r\n",
        "action\tsplit\tfile\tclass\tto\treason\tevidence\nDROP\tTraining\ttrain/cat/0.png\tcat\t\t\t\n",
    ],
)
def test_plans_edited_by_hand(content, folder, tmp_path):
    (tmp_path / "plan.csv").write_text(content, encoding="utf-8")
    data = load_dataset(str(folder), fix_plan=read_fix_plan(tmp_path / "plan.csv"))
    assert data.train.counts.tolist() == [3, 4]


def test_an_empty_plan_changes_nothing(folder, tmp_path):
    write_fix_plan(tmp_path / "plan.csv", plan_of())
    fixed = load_dataset(str(folder), fix_plan=read_fix_plan(tmp_path / "plan.csv"))
    assert fixed.fingerprint == load_dataset(str(folder)).fingerprint
    assert fixed.fixes == {"dropped": 0, "relabeled": 0, "moved": 0}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "is empty"),
        ("file,label\na,b\n", "'label'"),
        ("action,class\ndrop,cat\n", "file"),
        ("action,file,row\ndrop,a,1\n", "both"),
        ("action,file,file\ndrop,a,1\n", "twice"),
        ("split,file\ntrain,a\n", "action"),
    ],
)
def test_files_that_are_not_plans(content, expected, tmp_path):
    (tmp_path / "plan.csv").write_text(content)
    with pytest.raises(DataError) as caught:
        read_fix_plan(tmp_path / "plan.csv")
    assert expected in caught.value.message


def test_a_plan_that_does_not_exist(tmp_path):
    with pytest.raises(DataError, match=r"plan\.csv"):
        read_fix_plan(tmp_path / "plan.csv")


def test_drop_relabel_and_move(make, folder):
    plan = plan_of(
        fix("drop", "train/cat/0.png", label="cat"),
        fix("relabel", "train/cat/1.png", "dog", label="cat"),
        fix("move", "test/dog/1.png", "train", split="test"),
        fix("relabel", "test/cat/0.png", "dog", split="test"),
    )
    data = load_dataset(str(folder), fix_plan=plan)
    assert data.fixes == {"dropped": 1, "relabeled": 2, "moved": 1}
    kept = ("cat/1", "cat/2", "cat/3", "dog/0", "dog/1", "dog/2", "dog/3")
    assert data.train.files == (*(f"train/{name}.png" for name in kept), "test/dog/1.png")
    assert data.train.labels.tolist() == [1, 0, 0, 1, 1, 1, 1, 1]
    assert data.test is not None
    assert data.test.files == ("test/cat/0.png", "test/cat/1.png", "test/dog/0.png")
    assert data.test.labels.tolist() == [1, 0, 1]
    for images, seeds in ((data.train, [1, 2, 3, 4, 5, 6, 7, 11]), (data.test, [8, 9, 10])):
        for image, seed in zip(images.images, seeds, strict=True):
            np.testing.assert_array_equal(image, make.pixels(seed))
    dropped = load_dataset(str(folder)).train.hashes[0]
    assert dropped in data.thinned
    assert any("1 dropped" in note for note in data.skipped)


def test_larger_copies_follow_their_images(make, tmp_path):
    root = make.tree(tmp_path / "pets", SPLIT, side=24)
    data = load_dataset(
        str(root), image_size=12, large=20, fix_plan=plan_of(fix("move", "test/cat/0.png", "train", split="test"))
    )
    assert data.train.large is not None
    assert len(data.train.large) == 9
    alone = load_dataset(str(root), image_size=20)
    assert alone.test is not None
    np.testing.assert_array_equal(data.train.large.read(np.array([8]))[0], alone.test.images[0])


def test_the_cache_keeps_plans_apart(folder):
    plans = [plan_of(fix("move", f"test/cat/{number}.png", "train", split="test")) for number in (0, 1)]
    first, second = (load_dataset(str(folder), fix_plan=plan) for plan in plans)
    again = load_dataset(str(folder), fix_plan=plans[0])
    assert not np.array_equal(first.train.images[8], second.train.images[8])
    np.testing.assert_array_equal(first.train.images, again.train.images)


def test_rows_of_a_table(make, tmp_path):
    make.parquet(tmp_path / "data" / "train.parquet", [0, 1] * 4, names=["cat", "dog"])
    make.parquet(tmp_path / "data" / "test.parquet", [0, 1] * 2, names=["cat", "dog"], first=50)
    plan = plan_of(
        fix("drop", "0", label="cat"),
        fix("move", "3", "train", split="test", label="dog"),
        fix("relabel", "7", "cat"),
        by_row=True,
    )
    data = load_dataset(str(tmp_path / "data"), fix_plan=plan)
    assert data.train.labels.tolist() == [1, 0, 1, 0, 1, 0, 0, 1]
    np.testing.assert_array_equal(data.train.images[-1], make.pixels(53))
    np.testing.assert_array_equal(data.train.images[0], make.pixels(1))
    assert data.test is not None
    assert len(data.test) == 3


def test_rows_of_data_without_a_test_split(make, tmp_path):
    """An image that is split off as test is in the stored split train."""
    make.parquet(tmp_path / "data" / "all.parquet", [0, 1] * 15, names=["cat", "dog"])
    data = load_dataset(str(tmp_path / "data"))
    assert data.test is not None
    row = int(data.test.rows[0])
    fixed = load_dataset(str(tmp_path / "data"), fix_plan=plan_of(fix("drop", str(row), split="test"), by_row=True))
    assert fixed.test is not None
    assert row not in fixed.test.rows
    assert row not in fixed.train.rows
    assert set(fixed.train.rows.tolist()) <= set(data.train.rows.tolist())


def test_data_in_memory(tmp_path):
    data = load_dataset("digits", image_size=8)
    row = str(int(data.train.rows[5]))
    fixed = load_dataset("digits", image_size=8, fix_plan=plan_of(fix("drop", row), by_row=True))
    kept = np.delete(np.arange(len(data.train)), 5)
    np.testing.assert_array_equal(fixed.train.images, data.train.images[kept])
    np.testing.assert_array_equal(fixed.train.labels, data.train.labels[kept])
    np.testing.assert_array_equal(fixed.train.hashes, data.train.hashes[kept])
    assert fixed.thinned.tolist() == [int(data.train.hashes[5])]
    assert data.test is not None
    plan = plan_of(fix("move", str(int(data.test.rows[0])), "train", split="test"), by_row=True)
    moved = load_dataset("digits", image_size=8, fix_plan=plan)
    np.testing.assert_array_equal(moved.train.images[-1], data.test.images[0])
    assert moved.train.labels[-1] == data.test.labels[0]


def test_unreadable_images_can_be_dropped(folder):
    (folder / "train/cat/9.png").write_bytes(b"")
    data = load_dataset(str(folder), fix_plan=plan_of(fix("drop", "train/cat/9.png", label="cat")))
    assert len(data.train) == 8


def test_names_that_are_not_utf8(make, folder):
    name = os.fsencode(folder) + b"/train/cat/K\xe4fer.png"
    Path(os.fsdecode(name)).write_bytes(make.png(90))
    data = load_dataset(str(folder))
    assert data.train.files is not None
    written = next(file for file in data.train.files if "fer" in file)
    fixed = load_dataset(str(folder), fix_plan=plan_of(fix("drop", written)))
    assert fixed.train.files is not None
    assert written not in fixed.train.files


def test_a_table_of_files(make, tmp_path):
    make.tree(tmp_path, {"photos": 12})
    rows = [f"photos/{number}.png,{'ab'[number % 2]},{'train' if number < 8 else 'test'}" for number in range(12)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label,split", *rows]))
    plan = plan_of(fix("drop", "photos/0.png", label="a"), fix("relabel", "photos/1.png", "a", label="b"))
    data = load_dataset(str(tmp_path / "labels.csv"), fix_plan=plan)
    assert data.train.counts.tolist() == [4, 3]


def test_classes_can_be_merged(make, tmp_path):
    root = make.tree(tmp_path / "pets", {"Cat": 2, "cat": 6, "dog": 6})
    plan = plan_of(*(fix("relabel", f"Cat/{number}.png", "cat") for number in (0, 1)))
    assert load_dataset(str(root), fix_plan=plan).classes == ("cat", "dog")


def test_a_class_can_be_dropped_from_all_splits(make, tmp_path):
    root = make.tree(tmp_path / "pets", {**SPLIT, "test/cow": 2})
    plan = plan_of(*(fix("drop", f"test/cow/{number}.png", split="test") for number in (0, 1)))
    assert load_dataset(str(root), fix_plan=plan).classes == ("cat", "dog")
    every = plan_of(*(fix("drop", name.relative_to(root).as_posix(), split="") for name in root.rglob("c*/*.png")))
    with pytest.raises(DataError, match="no image of 'cat' would be left in train"):
        load_dataset(str(root), fix_plan=every)


def test_a_class_of_data_in_memory_can_be_dropped():
    whole = load_dataset("digits")
    zeros = [
        fix("drop", str(row), split=name)
        for name, part in whole.stored.items()
        for row in part.rows[part.labels == 0].tolist()
    ]
    data = load_dataset("digits", fix_plan=plan_of(*zeros, by_row=True))
    assert data.classes == whole.classes[1:]
    assert data.train.counts.tolist() == whole.train.counts.tolist()[1:]
    assert data.fixes["dropped"] == len(zeros) > 100


@pytest.mark.parametrize("moved", [1, 3])
def test_a_class_may_leave_a_split_of_a_table_for_training(moved, make, tmp_path):
    """Only where splits may lack classes, and train lacked it before."""
    root = make.tree(tmp_path / "pets", {**SPLIT, "test/cow": 3})
    lines = [f"{file.relative_to(root)},{file.parent.name},{file.parts[-3]}" for file in sorted(root.rglob("*.png"))]
    (root / "pets.csv").write_text("\n".join(["file,label,split", *lines]))
    plan = plan_of(*(fix("move", f"test/cow/{number}.png", "train", split="test") for number in range(moved)))
    data = load_dataset(str(root / "pets.csv"), fix_plan=plan)
    assert data.train.counts.tolist()[data.classes.index("cow")] == moved
    with pytest.raises(DataError, match="'cow'") if moved == 3 else nullcontext():
        load_dataset(str(root), fix_plan=plan)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([fix("drop", "train/cat/77.png")], "train/cat/77.png"),
        ([fix("drop", "train/cat/0.png", label="dog")], "'dog'"),
        ([fix("drop", "train/cat/0.png", split="test")], "test"),
        ([fix("drop", "train/cat/0.png"), fix("relabel", "train/cat/0.png", "dog")], "twice"),
        ([fix("relabel", "train/cat/0.png", "dgo")], "'dgo'"),
        ([fix("move", "train/cat/0.png", "val")], "val"),
        ([fix("drop", f"train/cat/{number}.png") for number in range(4)], "'cat'"),
    ],
)
def test_plans_that_do_not_fit(rows, expected, folder):
    with pytest.raises(DataError) as caught:
        load_dataset(str(folder), fix_plan=plan_of(*rows))
    assert expected in caught.value.message
    assert "1 problem:" in caught.value.message


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("delete,train,train/cat/0.png,cat,", "'delete'"),
        ("relabel,train,train/cat/0.png,cat,", "to"),
        ("move,train,train/cat/0.png,cat,attic", "'attic'"),
        ("drop,train,,cat,", "file"),
        ("drop,attic,train/cat/0.png,cat,", "'attic'"),
        ("drop,train,train/cat/0.png,cat,,x,y,z", "cells"),
    ],
)
def test_rows_that_cannot_be_read(line, expected, folder, tmp_path):
    (tmp_path / "plan.csv").write_text(f"action,split,file,class,to\n{line}\n")
    with pytest.raises(DataError) as caught:
        load_dataset(str(folder), fix_plan=read_fix_plan(tmp_path / "plan.csv"))
    assert expected in caught.value.message
    assert "line 2" in caught.value.message


def test_all_problems_are_listed_at_once(folder, tmp_path):
    lines = [f"drop,x{number}.png" for number in range(30)]
    (tmp_path / "plan.csv").write_text("\n".join(["action,file", "erase,train/cat/0.png", *lines]))
    with pytest.raises(DataError) as caught:
        load_dataset(str(folder), fix_plan=read_fix_plan(tmp_path / "plan.csv"))
    first, *lines = caught.value.message.splitlines()
    assert first.endswith("31 problems:")
    assert len(lines) == 21
    assert all(line.strip().startswith(f"line {number}: ") for number, line in enumerate(lines[:20], 2))
    assert lines[20].strip() == "and 11 more"
    assert caught.value.message in str(caught.value)


@pytest.mark.parametrize(
    ("row", "known"),
    [
        ("relabel,train,train/cat/{},,lynx", "'cat', 'dog'"),
        ("move,train,train/cat/{},,val", "train, test"),
        ("move,train,train/cat/{},,attic", "train, val, test"),
        ("erase,train,train/cat/{},,", "drop, relabel, move"),
    ],
)
def test_what_is_known_is_listed_once(row, known, folder, tmp_path):
    rows = [row.format(f"{number}.png") for number in range(3)]
    (tmp_path / "plan.csv").write_text("\n".join(["action,split,file,class,to", *rows]))
    with pytest.raises(DataError) as caught:
        load_dataset(str(folder), fix_plan=read_fix_plan(tmp_path / "plan.csv"))
    assert len(caught.value.message.splitlines()) == 4
    assert str(caught.value).count(known) == 1


def test_the_same_row_twice_counts_once(folder):
    data = load_dataset(str(folder), fix_plan=plan_of(*[fix("drop", "train/cat/0.png")] * 2))
    assert data.fixes["dropped"] == 1


def test_an_existing_plan_is_not_overwritten(tmp_path):
    write_fix_plan(tmp_path / "plan.csv", plan_of())
    with pytest.raises(OutputError):
        write_fix_plan(tmp_path / "plan.csv", plan_of())


def test_imbalance_comes_after_the_fixes(folder):
    plan = plan_of(fix("drop", "train/dog/0.png"))
    data = load_dataset(f"{folder}?imbalance=4", fix_plan=plan)
    assert data.train.counts.tolist() == [4, 1]
    assert len(data.thinned) == 3


def test_unknown_data_is_reported_first(tmp_path):
    with pytest.raises(UnknownNameError):
        load_dataset(str(tmp_path / "nothing"), fix_plan=plan_of())


def test_the_column_of_the_images_must_be_that_of_the_data(folder):
    with pytest.raises(DataError, match="1 problem: .*'file'"):
        load_dataset(str(folder), fix_plan=plan_of(fix("drop", "1"), fix("drop", "2"), by_row=True))
    with pytest.raises(DataError, match="1 problem: .*'row'"):
        load_dataset("digits", fix_plan=plan_of(fix("drop", "1.png"), fix("drop", "2.png")))
