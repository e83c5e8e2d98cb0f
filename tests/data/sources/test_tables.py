from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thirtytwo.data.load import load_dataset
from thirtytwo.errors import DataError, ImageError, UnknownNameError

NAMES = ("zebra", "ant")


def test_hub_layout_with_names_from_the_metadata(make, tmp_path):
    make.parquet(tmp_path / "set/data/train-00000-of-00002.parquet", [0, 1, 0], names=NAMES)
    make.parquet(tmp_path / "set/data/train-00001-of-00002.parquet", [1, 1], names=NAMES, first=3)
    make.parquet(tmp_path / "set/data/validation-00000-of-00001.parquet", [1, 0], names=NAMES, first=5)
    make.parquet(tmp_path / "set/data/test-00000-of-00001.parquet", [1, 0], names=NAMES, first=7)
    (tmp_path / "set/README.md").write_text("card")
    data = load_dataset(str(tmp_path / "set"))
    assert data.name == "set"
    assert data.classes == NAMES
    assert data.train.labels.tolist() == [0, 1, 0, 1, 1]
    assert data.val is not None
    assert data.test is not None
    assert data.train.files is None
    for part, first in ((data.train, 0), (data.val, 5), (data.test, 7)):
        for row, image in zip(part.rows, part.images, strict=True):
            np.testing.assert_array_equal(image, make.pixels(first + row))


@pytest.mark.parametrize(
    ("labels", "classes", "indices"),
    [
        ([5, 3, 3, 5], ("3", "5"), [1, 0, 0, 1]),
        (["b", "a10", "a9", "b"], ("a9", "a10", "b"), [2, 1, 0, 2]),
        ([True, False, True, True], ("False", "True"), [1, 0, 1, 1]),
        (pa.array(["x", "y", "x", "y"]).dictionary_encode(), ("x", "y"), [0, 1, 0, 1]),
        (pa.array([1, 0, 0, 1], pa.int8()), ("0", "1"), [1, 0, 0, 1]),
    ],
)
def test_labels_without_names(labels, classes, indices, make, tmp_path):
    for split in ("train", "test"):
        make.parquet(tmp_path / f"{split}.parquet", labels, first=10 * (split == "test"))
    data = load_dataset(str(tmp_path))
    assert data.classes == classes
    assert data.train.labels.tolist() == indices
    assert data.train.labels.dtype == np.int64


def test_one_file_is_divided_by_seed_and_long_files_are_read_piece_by_piece(make, tmp_path):
    make.parquet(tmp_path / "everything.parquet", [0, 1] * 300, names=NAMES)
    data = load_dataset(str(tmp_path), seed=4)
    assert data.test is not None
    assert len(data.train) + len(data.test) == 600
    assert len(data.test) == pytest.approx(120, abs=40)
    other = load_dataset(str(tmp_path), seed=5)
    assert other.test is not None
    assert data.test.rows.tolist() != other.test.rows.tolist()
    for part in (data.train, data.test):
        for row, label, image in zip(part.rows, part.labels, part.images, strict=True):
            assert label == row % 2
            np.testing.assert_array_equal(image, make.pixels(row))
    assert f"{len(data.test)} of 600" in data.skipped[-1]


def test_label_and_image_columns_can_be_chosen(make, tmp_path):
    more = {"coarse": pa.array(["x", "y", "x", "y"]), "thumb": pa.array([make.png(n, 9) for n in range(50, 54)])}
    for split in ("train", "test"):
        make.parquet(tmp_path / f"{split}/0.parquet", [0, 1, 0, 1], more=more)
    assert load_dataset(str(tmp_path)).train.images.shape == (4, 10, 10, 3)
    data = load_dataset(f"{tmp_path}?label=coarse&image=thumb")
    assert data.classes == ("x", "y")
    assert data.name.endswith("?image=thumb&label=coarse")
    np.testing.assert_array_equal(data.train.images[0], make.pixels(50, 9))


def test_configurations_must_be_chosen(make, tmp_path):
    for config, first in (("small", 0), ("large", 50)):
        for split in ("train", "test"):
            make.parquet(tmp_path / config / f"{split}-0.parquet", [0, 1], first=first)
    with pytest.raises(DataError, match="'large', 'small'"):
        load_dataset(str(tmp_path))
    np.testing.assert_array_equal(load_dataset(f"{tmp_path}?config=large").train.images[0], make.pixels(50))
    with pytest.raises(UnknownNameError, match="Did you mean 'large'"):
        load_dataset(f"{tmp_path}?config=larg")


def test_a_test_split_without_labels_is_left_out(make, tmp_path):
    make.parquet(tmp_path / "train.parquet", [0, 1] * 5, names=NAMES)
    make.parquet(tmp_path / "test.parquet", [-1, -1], names=NAMES, first=20)
    data = load_dataset(str(tmp_path))
    assert data.test is not None
    assert len(data.train) + len(data.test) == 10
    assert data.skipped[0].startswith("skipped split 'test'")


def test_classes_without_images_are_left_out(make, tmp_path):
    for split in ("train", "test"):
        make.parquet(tmp_path / f"{split}.parquet", [2, 0, 2], names=("a", "b", "c"))
    data = load_dataset(str(tmp_path))
    assert data.classes == ("a", "c")
    assert data.train.labels.tolist() == [1, 0, 1]
    assert "'b'" in data.skipped[0]


def test_a_class_that_test_lacks_is_a_remark(make, tmp_path):
    make.parquet(tmp_path / "train.parquet", [0, 1], names=NAMES)
    make.parquet(tmp_path / "test.parquet", [0, 0], names=NAMES)
    (note,) = load_dataset(str(tmp_path)).skipped
    assert note.startswith("test ")
    assert "'ant'" in note


def test_a_split_without_rows_is_no_split(make, tmp_path):
    make.parquet(tmp_path / "train.parquet", [0, 1] * 5, names=NAMES)
    pq.write_table(pq.read_table(tmp_path / "train.parquet").slice(0, 0), tmp_path / "validation.parquet")
    data = load_dataset(str(tmp_path))
    assert data.val is None
    assert data.skipped[0].startswith("skipped split 'val'")


def _bad_file(make, root):
    (root / "train.parquet").write_bytes(b"not parquet at all")


def _cut_file(make, root):
    data = (root / "train.parquet").read_bytes()
    (root / "train.parquet").write_bytes(data[: len(data) // 2])


def _empty_file(make, root):
    (root / "train.parquet").write_bytes(b"")


def _no_train(make, root):
    (root / "train.parquet").unlink()


def _no_image(make, root):
    pq.write_table(pa.table({"label": [0, 1]}), root / "train.parquet")


def _two_images(make, root):
    make.parquet(root / "train.parquet", [0, 1], image="left", more={"right": pa.array([b"", b""])})


def _no_label(make, root):
    make.parquet(root / "train.parquet", [0.5, 1.5])


def _two_labels(make, root):
    make.parquet(root / "train.parquet", [0, 1], label="class", more={"target": pa.array([0, 1])})


def _out_of_range(make, root):
    make.parquet(root / "train.parquet", [0, 7], names=NAMES)


def _null_label(make, root):
    make.parquet(root / "train.parquet", [0, None, 1], names=NAMES)


def _one_class(make, root):
    for split in ("train", "test"):
        make.parquet(root / f"{split}.parquet", [1, 1], names=NAMES)


def _train_lacks_one(make, root):
    make.parquet(root / "train.parquet", [1, 1], names=NAMES)


def _other_columns(make, root):
    make.parquet(root / "test.parquet", [1, 1], label="klass")


def _bad_image(make, root):
    good, bad = make.png(1), make.png(2)[:70]
    cells = [{"bytes": cell, "path": None} for cell in (good, b"", bad, None)]
    make.parquet(root / "train.parquet", [0, 1, 0, 1], images=cells, names=NAMES)


def _no_rows(make, root):
    empty = pa.table({"img": pa.array([], pa.binary()), "label": pa.array([], pa.int64())})
    for split in ("train", "test"):
        pq.write_table(empty, root / f"{split}.parquet")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_bad_file, r"train\.parquet is not a parquet file"),
        (_cut_file, r"train\.parquet is damaged or incomplete"),
        (_empty_file, r"train\.parquet is empty"),
        (_no_train, "no train split; found test"),
        (_no_image, "no image column.*'label'.*image="),
        (_two_images, "image columns.*'left', 'right'.*image=left"),
        (_no_label, "no label column.*label="),
        (_two_labels, "test has no column 'class'|several label columns"),
        (_out_of_range, "'label' .*7.*0 to 1"),
        (_null_label, "1 of 3 rows of train .*'label'"),
        (_one_class, "one class, 'ant'"),
        (_train_lacks_one, "train .*'zebra'"),
        (_other_columns, "test .*'label'"),
        (
            _bad_image,
            "3 of 6 .*train row 1 is empty.*train row 2 is damaged.*train row 3 is empty",
        ),
        (_no_rows, "no images"),
    ],
)
def test_tables_that_are_no_data_set(spoil, message, make, tmp_path):
    root = tmp_path / "set"
    for split in ("train", "test"):
        make.parquet(root / f"{split}.parquet", [0, 1], names=NAMES)
    spoil(make, root)
    with pytest.raises(DataError) as caught:
        load_dataset(str(root))
    assert re.search(message, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_rows_can_be_collected_instead(make, tmp_path):
    make.parquet(tmp_path / "test.parquet", [0, 1], names=NAMES, first=10)
    _bad_image(make, tmp_path)
    causes: list[ImageError] = []
    data = load_dataset(str(tmp_path), unreadable=causes)
    assert data.train.rows.tolist() == [0]
    assert len(causes) == 3


@pytest.mark.parametrize(
    ("query", "message"),
    [("label=lable", "Did you mean 'label'"), ("lable=label", "Did you mean 'label'"), ("image=x", "image column 'x'"),
     ("label", "'label'")],
)  # fmt: skip
def test_options_are_checked(query, message, make, tmp_path):
    for split in ("train", "test"):
        make.parquet(tmp_path / f"{split}.parquet", [0, 1], names=NAMES)
    with pytest.raises((UnknownNameError, DataError), match=message):
        load_dataset(f"{tmp_path}?{query}")


def test_groups_by_column(make, tmp_path):
    patients = pa.array([number // 4 for number in range(40)])
    make.parquet(tmp_path / "all.parquet", [n // 4 % 2 for n in range(40)], more={"patient": patients})
    data = load_dataset(str(tmp_path), group_by="patient")
    assert data.test is not None
    sides = [{int(row) // 4 for row in part.rows} for part in (data.train, data.test)]
    assert sides[0] | sides[1] == set(range(10))
    assert not sides[0] & sides[1]
    with pytest.raises(UnknownNameError, match="Did you mean 'patient'"):
        load_dataset(str(tmp_path), group_by="patiant")
