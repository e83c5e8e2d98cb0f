from __future__ import annotations

import os
import re

import numpy as np
import pytest
from PIL import Image

from thirtytwo.data.load import load_dataset
from thirtytwo.errors import ArgumentError, DataError, ImageError, UnknownNameError

SPLIT = {"train/cat": 4, "train/dog": 4, "val/cat": 1, "val/dog": 1, "test/cat": 2, "test/dog": 2}


def test_split_folders(make, tmp_path):
    data = load_dataset(str(make.tree(tmp_path / "pets", SPLIT)))
    assert data.name == "pets"
    assert data.classes == ("cat", "dog")
    assert data.val is not None
    assert data.test is not None
    assert [len(part) for part in (data.train, data.val, data.test)] == [8, 2, 4]
    assert data.train.files is not None
    assert data.train.files[5] == "train/dog/1.png"
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4
    np.testing.assert_array_equal(data.train.images[5], make.pixels(5))
    assert data.sizes == {(10, 10): 14}
    assert data.skipped == ()


@pytest.mark.parametrize(
    "names", [("Training", "valid", "Test"), ("train", "validation", "testing"), ("train", "dev", "test")]
)
def test_other_spellings_of_splits(make, names, tmp_path):
    new = dict(zip(("train", "val", "test"), names, strict=True))
    data = load_dataset(
        str(make.tree(tmp_path, {"/".join([new[key.split("/")[0]], key.split("/")[1]]): n for key, n in SPLIT.items()}))
    )
    assert data.val is not None
    assert (len(data.train), len(data.val)) == (8, 2)


def test_classes_directly_are_split_by_seed(make, tmp_path):
    root = str(make.tree(tmp_path, {"cat": 10, "dog": 5}))
    data, again, other = (load_dataset(root, seed=seed) for seed in (0, 0, 1))
    assert data.val is None
    assert data.test is not None
    assert data.test.counts.tolist() == [2, 1]
    assert data.train.counts.tolist() == [8, 4]
    assert set(data.train.files or ()).isdisjoint(data.test.files or ())
    assert data.train.files == again.train.files
    assert data.train.files != other.train.files
    assert "no test split: 3 of 15" in data.skipped[0]
    for part in (data.train, data.test):
        for image, row in zip(part.images, part.rows, strict=True):
            np.testing.assert_array_equal(image, make.pixels(row))


def test_train_without_test_gives_a_part_of_train(make, tmp_path):
    data = load_dataset(str(make.tree(tmp_path, {"train/a": 10, "train/b": 10, "valid/a": 2, "valid/b": 2})))
    assert data.val is not None
    assert data.test is not None
    assert [len(part) for part in (data.train, data.val, data.test)] == [16, 4, 4]


def test_junk_is_skipped_and_listed(make, tmp_path):
    root = make.tree(tmp_path, {"train/cat": 2, "train/dog": 2, "test/cat": 1, "test/dog": 1, ".git/objects": 1})
    for name in ("train/cat/Thumbs.db", "train/.DS_Store", "train/cat/._0.png", "train/dog/notes.txt", "README.md"):
        (root / name).write_bytes(b"x")
    (root / "train" / "empty").mkdir()
    (root / "train" / "loose.png").write_bytes(make.png(99))
    (root / "__MACOSX").mkdir()
    data = load_dataset(str(root))
    assert data.classes == ("cat", "dog")
    assert len(data.train) == 4
    assert {left.removeprefix("skipped ").split(":")[0] for left in data.skipped} == {
        "train/cat/Thumbs.db", "train/.DS_Store", "train/cat/._0.png", "train/dog/notes.txt", "README.md",
        "train/empty", "train/loose.png",
    }  # fmt: skip


def test_deeper_folders_belong_to_their_class_and_order_is_natural(make, tmp_path):
    root = make.tree(tmp_path, {"class10": 2, "class9/left": 2, "class9/right": 2, "Class1": 2})
    data = load_dataset(str(root))
    assert data.classes == ("Class1", "class9", "class10")
    assert data.test is not None
    assert (data.train.counts + data.test.counts).tolist() == [2, 4, 2]


@pytest.mark.parametrize(("sides", "auto"), [((10, 10), 10), ((100, 60), 32), ((3, 3), 8), ((20, 100), 20)])
def test_auto_size(make, sides, auto, tmp_path):
    root = make.tree(tmp_path, {"a": 3, "b": 3})
    for number, file in enumerate(root.rglob("*.png")):
        Image.new("RGB", sides, (number, 0, 0)).save(file)
    assert load_dataset(str(root)).train.images.shape[1:] == (auto, auto, 3)
    assert load_dataset(str(root), image_size=17, resize="pad").train.images.shape[1:] == (17, 17, 3)


def _zero(root):
    (root / "cat" / "1.png").write_bytes(b"")
    return r"1 of 20 .*cat/1\.png"


def _many(root):
    for file in root.rglob("*.png"):
        file.write_bytes(file.read_bytes()[:60])
    return "20 of 20 .*; and 10 more"


def _one_by_one(root):
    Image.new("RGB", (1, 1)).save(root / "cat" / "2.png")
    return r"cat/2\.png has 1×1 pixels"


def _no_image(root):
    (root / "dog" / "3.png").write_text("<html>")
    return r"dog/3\.png"


@pytest.mark.parametrize("spoil", [_zero, _many, _one_by_one, _no_image])
def test_unreadable_images_are_named(make, spoil, tmp_path):
    root = make.tree(tmp_path, {"cat": 10, "dog": 10})
    message = spoil(root)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(str(root))
    assert "\n" not in str(caught.value)
    assert caught.value.fix
    assert not list((tmp_path / "cache of the test").rglob("*.npy"))


def test_unreadable_images_can_be_collected_instead(make, tmp_path):
    root = make.tree(tmp_path, {"cat": 10, "dog": 10})
    _zero(root)
    causes: list[ImageError] = []
    data = load_dataset(str(root), unreadable=causes)
    assert data.test is not None
    assert len(data.train) + len(data.test) == 19
    assert ["cat/1.png" in cause.message for cause in causes] == [True]
    for part in (data.train, data.test):
        for image, row in zip(part.images, part.rows, strict=True):
            np.testing.assert_array_equal(image, make.pixels(row))


@pytest.mark.parametrize(
    ("tree", "message", "fix"),
    [
        ({}, "no images", "<folder>/<class>"),
        ({"cat": 0, "dog": 0}, "no images", "<folder>/<class>"),
        ({".": 3}, "3 images.* class folder", "<folder>/<class>"),
        ({"cat": 3}, "one class, 'cat'", "folder"),
        ({"train/cat": 3, "test/cat": 1}, "one class, 'cat'", "folder"),
        ({"pets/cat": 3, "pets/dog": 3}, "one class, 'pets'", "pets'"),
        ({"train/cat": 3, "train/dog": 3, "test/cat": 3}, "test has no .*'dog'", "class"),
        ({"train/cat": 3, "test/cat": 3, "test/dog": 3}, "train has no .*'dog'", "class"),
        (
            {"train/a": 3, "train/b": 3, "val/b": 1, "test/a": 1},
            "(test has no .*'b'; val has no .*'a'|val has no .*'a'; test has no .*'b')",
            "class",
        ),
        ({"train/a": 3, "train/b": 3, "test": 0}, "test contains no images", "<folder>/<class>"),
        ({"test/a": 3, "test/b": 3}, "has test.* no train", "train/"),
        ({"train/a": 3, "Training/b": 3}, "two folders for train", "one"),
        ({"cat": 5, "dog": 1}, "'dog' has 1 image", "Add"),
    ],
)
def test_folders_that_are_no_data_set(make, tree, message, fix, tmp_path):
    root = make.tree(tmp_path / "set", tree)
    root.mkdir(exist_ok=True)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(str(root))
    assert caught.value.fix is not None
    assert str(root) in caught.value.message or "'dog'" in caught.value.message
    assert re.search(fix, caught.value.fix)


def test_options_belong_to_tables_only(make, tmp_path):
    root = make.tree(tmp_path, SPLIT)
    with pytest.raises(UnknownNameError, match="no option 'label'"):
        load_dataset(f"{root}?label=x")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [({"image_size": 4}, DataError, "4"), ({"resize": "stretch"}, ArgumentError, "stretch")],
)
def test_sizes_and_rules_that_there_are_not(make, options, error, message, tmp_path):
    with pytest.raises(error, match=message):
        load_dataset(str(make.tree(tmp_path, SPLIT)), **options)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="needs a user without all rights")
def test_files_without_permission_are_named(make, tmp_path):
    root = make.tree(tmp_path, SPLIT)
    (root / "train/cat/0.png").chmod(0)
    with pytest.raises(DataError, match=r"0\.png"):
        load_dataset(str(root))


def test_a_class_called_runs_stays_one(make, tmp_path):
    root = make.tree(tmp_path / "sports", {"runs": 3, "jumps": 3, "explained": 4})
    assert load_dataset(str(root)).classes == ("explained", "jumps", "runs")


def test_what_thirtytwo_wrote_is_no_data(make, tmp_path):
    root = make.tree(tmp_path / "set", {"a": 3, "b": 3, "runs/first/figures": 2, "a/deeper/figures": 2, "explained": 4})
    for run in (root / "runs" / "first", root / "a" / "deeper"):
        (run / "recipe.toml").write_text("")
        (run / "split.json").write_text("{}")
    told = '[{"overlay": "0.png"}, {"overlay": "1.png"}, {"file": "x", "error": "y"}]'
    (root / "explained" / "explanations.json").write_text(told)
    data = load_dataset(str(root))
    assert data.classes == ("a", "b", "explained"), "2.png and 3.png were put there by somebody else"
    for name in ("2.png", "3.png"):
        (root / "explained" / name).unlink()
    data = load_dataset(str(root))
    assert data.classes == ("a", "b")
    assert len(data.train) + len(data.test) == 6
    for place in ("runs/first: run directory", "a/deeper: run directory", "explained: written by"):
        assert any(note.startswith(f"skipped {place}") for note in data.skipped), (place, data.skipped)


def test_parquet_beside_our_runs_stays_parquet(make, tmp_path):
    make.parquet(tmp_path / "train.parquet", [0, 1] * 4)
    make.tree(tmp_path / "runs" / "first", {"figures": 2})
    make.parquet(tmp_path / "runs" / "first" / "predictions-test.parquet", [0, 1], first=50)
    for name in ("recipe.toml", "environment.json"):
        (tmp_path / "runs" / "first" / name).write_text("{}")
    data = load_dataset(str(tmp_path))
    assert len(data.train) + len(data.test) == 8


@pytest.mark.parametrize(
    ("tree", "stored"),
    [
        ({"a": 1}, {"train": 1}),
        ({"test/a": 2, "test/b": 1}, {"train": 0, "test": 3}),
        ({"val/a": 2, "test/b": 1}, {"train": 0, "val": 2, "test": 1}),
        ({"a": 1, "b": 1}, {"train": 2}),
    ],
)
def test_whole_data_is_taken_as_it_is_stored(make, tree, stored, tmp_path):
    root = make.tree(tmp_path / "set", tree)
    data = load_dataset(str(root), whole=True)
    assert {name: len(images) for name, images in data.stored.items()} == stored
    with pytest.raises(DataError):
        load_dataset(str(root))


def test_groups_by_pattern(make, tmp_path):
    root = make.tree(tmp_path / "set", {"a/p1": 2, "a/p2": 2, "a/p3": 2, "b/p1": 2, "b/p4": 2, "b/loose": 1})
    data = load_dataset(str(root), group_by=r"/(p\d)/")
    sides = [{file.split("/")[1] for file in part.files} for part in (data.train, data.test)]
    assert sides[0] | sides[1] == {"p1", "p2", "p3", "p4", "loose"}
    assert not sides[0] & sides[1]


def test_a_path_without_the_part_that_names_a_group_has_no_group(make, tmp_path):
    root = make.tree(tmp_path / "set", {"a": 8, "b": 8, "b/p1": 2})
    data = load_dataset(str(root), group_by=r"[ab]/(p\d/)?")
    for part in (data.train, data.test):
        assert {file[0] for file in part.files} == {"a", "b"}
