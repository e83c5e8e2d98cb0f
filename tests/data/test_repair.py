"""`data fix`: a clean copy of data in every form, complete or not there at all."""

from __future__ import annotations

import csv
import datetime
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from thirtytwo.cli.main import run_command
from thirtytwo.data.export import export_dataset
from thirtytwo.data.fixes import Fix, FixPlan, read_fix_plan, write_fix_plan
from thirtytwo.data.load import load_dataset
from thirtytwo.data.manifest import Manifest
from thirtytwo.data.repair import write_fixed
from thirtytwo.errors import DataError, InputError, OutputError
from thirtytwo.io import folded

SPLIT = {"train/cat": 4, "train/dog": 4, "test/cat": 2, "test/dog": 2}


def plan_of(*fixes: Fix, by_row: bool = False) -> FixPlan:
    return FixPlan(fixes, by_row=by_row, content=b"action,file\n")


def names(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


@pytest.fixture
def folder(make: SimpleNamespace, tmp_path: Path) -> Path:
    found: Path = make.tree(tmp_path / "pets", SPLIT)
    return found


PLAN = (
    Fix("drop", "train", "train/cat/0.png", "cat"),
    Fix("relabel", "train", "train/cat/1.png", "cat", "dog"),
    Fix("move", "test", "test/dog/1.png", "dog", "train"),
)


def test_split_folders(make, folder, tmp_path):
    before = {name: (folder / name).read_bytes() for name in names(folder)}
    written = write_fixed(str(folder), plan_of(*PLAN), tmp_path / "clean")
    assert written.images == 11
    assert written.counts == {"dropped": 1, "relabeled": 1, "moved": 1}
    assert names(tmp_path / "clean") == [
        "fixes.csv",
        *(f"test/{name}.png" for name in ("cat/0", "cat/1", "dog/0")),
        *(f"train/{name}.png" for name in ("cat/2", "cat/3", "dog/0", "dog/1-2", "dog/1-3", "dog/1", "dog/2", "dog/3")),
    ]
    assert {name: (folder / name).read_bytes() for name in names(folder)} == before
    fixed, applied = load_dataset(str(tmp_path / "clean")), load_dataset(str(folder), fix_plan=plan_of(*PLAN))
    assert sorted(zip(fixed.train.hashes.tolist(), fixed.train.labels.tolist(), strict=True)) == sorted(
        zip(applied.train.hashes.tolist(), applied.train.labels.tolist(), strict=True)
    )


def test_class_folders_with_folders_inside(make, tmp_path):
    root = make.tree(tmp_path / "pets", {"cat/p1": 3, "cat/p2": 3, "dog/p1": 3, "dog": 2})
    write_fixed(str(root), plan_of(Fix("relabel", "", "cat/p1/0.png", to="dog")), tmp_path / "clean")
    assert names(tmp_path / "clean") == [
        *(f"cat/p1/{number}.png" for number in (1, 2)),
        *(f"cat/p2/{number}.png" for number in range(3)),
        *(f"dog/{number}.png" for number in range(2)),
        *(f"dog/p1/{name}.png" for name in ("0-2", "0", "1", "2")),
        "fixes.csv",
    ]


@pytest.mark.parametrize("links", [True, False])
def test_links(links, folder, tmp_path, monkeypatch):
    def refuse(*args: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    assert run_fix(folder, tmp_path, "--link") == 0
    copy, original = tmp_path / "clean/train/dog/0.png", folder / "train/dog/0.png"
    assert copy.samefile(original)
    assert copy.is_symlink() is not links
    assert len(load_dataset(str(tmp_path / "clean")).train) == 8


def run_fix(data: Path, tmp_path: Path, *options: str, fixes: tuple[Fix, ...] = PLAN) -> int:
    plan = tmp_path / "plan.csv"
    write_fix_plan(plan, FixPlan(fixes), force=True)
    return run_command(["data", "fix", str(data), "--plan", str(plan), "--out", str(tmp_path / "clean"), *options])


def test_the_command(folder, tmp_path, capsys):
    assert run_fix(folder, tmp_path) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == str(tmp_path / "clean")
    assert "1 dropped" in captured.err
    assert (tmp_path / "clean/fixes.csv").read_bytes() == (tmp_path / "plan.csv").read_bytes()
    assert len(read_fix_plan(tmp_path / "clean/fixes.csv").fixes) == 3


def test_an_existing_folder_is_left_alone(folder, tmp_path, capsys):
    (tmp_path / "clean").mkdir()
    assert run_fix(folder, tmp_path) == 2
    assert names(tmp_path / "clean") == []
    assert "exists" in capsys.readouterr().err


def test_a_plan_that_does_not_fit_leaves_nothing(folder, tmp_path, capsys):
    assert run_fix(folder, tmp_path, fixes=(*PLAN, Fix("drop", "train", "train/cow/1.png"))) == 2
    assert "train/cow/1.png" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pets", "plan.csv"]


def test_an_interrupted_copy_leaves_nothing(folder, tmp_path, monkeypatch):
    copied: list[object] = []

    def interrupted(*args: object) -> None:
        copied.append(args)
        if len(copied) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("thirtytwo.data.repair.shutil.copy2", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_fixed(str(folder), plan_of(*PLAN), tmp_path / "clean")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pets"]


def test_not_into_the_data_itself(folder):
    with pytest.raises(OutputError):
        write_fixed(str(folder), plan_of(), folder / "clean")


def test_a_name_that_is_too_long_is_refused_at_once(folder, tmp_path):
    with pytest.raises(OutputError, match="at most 255"):
        write_fixed(str(folder), plan_of(*PLAN), tmp_path / ("o" * 256))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pets"]


def test_new_classes(folder, tmp_path):
    fixes = (Fix("relabel", "train", "train/cat/0.png", to="lynx"), Fix("relabel", "", "test/cat/0.png", to="lynx"))
    assert run_fix(folder, tmp_path, fixes=fixes) == 2
    assert run_fix(folder, tmp_path, "--new-classes", fixes=fixes) == 0
    assert load_dataset(str(tmp_path / "clean")).classes == ("cat", "dog", "lynx")


def test_a_table_becomes_image_files(make, tmp_path):
    root = tmp_path / "data"
    make.parquet(root / "train.parquet", [0, 1] * 4, names=["cat", "a/b"])
    make.parquet(root / "test.parquet", [0, 1] * 2, names=["cat", "a/b"], first=50)
    fixes = (Fix("drop", "train", "0", "cat"), Fix("move", "test", "3", "a/b", "train"))
    write_fixed(str(root), plan_of(*fixes, by_row=True), tmp_path / "clean")
    fixed = load_dataset(str(tmp_path / "clean"))
    assert fixed.classes == ("a/b", "cat")
    assert fixed.train.counts.tolist() == [5, 3]
    assert fixed.test is not None
    assert fixed.test.counts.tolist() == [1, 2]
    stored = load_dataset(str(root), fix_plan=plan_of(*fixes, by_row=True))
    assert sorted(fixed.train.hashes.tolist()) == sorted(stored.train.hashes.tolist())
    with pytest.raises(DataError, match="link"):
        write_fixed(str(root), plan_of(by_row=True), tmp_path / "linked", link=True)


@pytest.mark.parametrize(
    "labels",
    [("Cat", "cat"), ("K\u00e4fer", "Ka\u0308fer"), ("a/b", "class-a-b"), ("CAT", "a/b", "cat", "Cat")],
    ids=["case", "accents", "a replaced name", "several"],
)
@pytest.mark.parametrize("splits", [True, False])
def test_classes_stay_apart_where_file_systems_ignore_case(labels, splits, make, tmp_path):
    root = tmp_path / "data"
    make.parquet(root / "train.parquet", list(range(len(labels))) * 3, names=list(labels))
    if splits:
        make.parquet(root / "test.parquet", list(range(len(labels))) * 2, names=list(labels), first=50)
    written = write_fixed(str(root), plan_of(by_row=True), tmp_path / "clean")
    images = [name for name in names(tmp_path / "clean") if name.endswith(".png")]
    assert len({folded(name) for name in images}) == len(images) == written.images
    folders = {Path(name).parts[-2] for name in images}
    assert len({folded(name) for name in folders}) == len(labels)
    fixed, stored = (load_dataset(str(tmp_path / name), whole=True) for name in ("clean", "data"))
    assert sorted(fixed.classes) == sorted(labels)
    for split, part in fixed.stored.items():
        assert counts_of(fixed, part) == counts_of(stored, stored.stored[split])


def counts_of(data, part) -> dict[str, int]:
    return dict(zip(data.classes, part.counts.tolist(), strict=True))


def test_folders_inside_classes_stay_apart_where_file_systems_ignore_case(make, tmp_path):
    root = make.tree(tmp_path / "pets", {"cat/P1": 3, "cat/p1": 3, "dog": 2})
    images = [name for name in names(root) if name.endswith(".png")]
    if len(images) < 8:
        pytest.skip("this file system ignores case")
    write_fixed(str(root), plan_of(), tmp_path / "clean")
    assert len({folded(name) for name in names(tmp_path / "clean")}) == 9  # with the plan


def test_groups_of_a_table_of_files_are_kept(make, tmp_path):
    make.tree(tmp_path, {"photos": 12})
    rows = [f"photos/{number}.png,{'ab'[number % 2]},p{number // 4}" for number in range(12)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label,group", *rows]))
    write_fixed(str(tmp_path / "labels.csv"), plan_of(Fix("drop", "", "photos/0.png")), tmp_path / "clean")
    fixed = load_dataset(str(tmp_path / "clean"), whole=True)
    assert fixed.train.counts.tolist() == [5, 6]
    assert fixed.train.groups is not None
    assert len(np.unique(fixed.train.groups)) == 3


@pytest.mark.slow
def test_data_in_memory(tmp_path):
    data = load_dataset("digits", image_size=32)
    row = str(int(data.train.rows[0]))
    written = write_fixed("digits", plan_of(Fix("drop", "train", row), by_row=True), tmp_path / "clean")
    assert written.images == 1796
    assert len(load_dataset(str(tmp_path / "clean")).train) == len(data.train) - 1


def test_odd_names_survive(make, tmp_path):
    root = make.tree(tmp_path / "pets", {"=cat, 'x'": 6, "Käfer 虫": 6})
    latin = Path(os.fsdecode(os.fsencode(root) + b"/\xe9t\xe9"))
    latin.mkdir()
    for number in range(4):
        (latin / os.fsdecode(b'\xff, "%d".png' % number)).write_bytes(make.png(80 + number))
    data = load_dataset(str(root), whole=True)
    assert data.train.files is not None
    fixes = [Fix("drop", "train", file, label) for file, label in zip(data.train.files, map_labels(data), strict=True)]
    chosen = (fixes[0], fixes[7], fixes[12])
    assert run_fix(root, tmp_path, fixes=chosen) == 0
    fixed = load_dataset(str(tmp_path / "clean"), whole=True)
    assert fixed.classes == data.classes
    assert fixed.train.counts.tolist() == (data.train.counts - 1).tolist()


def map_labels(data: object) -> list[str]:
    return [data.classes[label] for label in data.train.labels]  # type: ignore[attr-defined]


@pytest.mark.parametrize("splits", [True, False])
def test_a_class_named_like_a_split(splits, make, tmp_path):
    names_of = ("train", "val")
    make.parquet(tmp_path / "data" / "train.parquet", [0, 1] * 6, names=names_of)
    if splits:
        make.parquet(tmp_path / "data" / "test.parquet", [0, 1] * 2, names=names_of, first=50)
    write_fixed(str(tmp_path / "data"), plan_of(by_row=True), tmp_path / "clean")
    fixed, stored = (load_dataset(str(tmp_path / name), whole=True) for name in ("clean", "data"))
    assert fixed.classes == stored.classes
    assert {name: part.counts.tolist() for name, part in fixed.stored.items()} == {
        name: part.counts.tolist() for name, part in stored.stored.items()
    }
    assert (tmp_path / "clean/metadata.csv").exists() is not splits


def test_a_relative_path_of_links(make, tmp_path, monkeypatch):
    make.tree(tmp_path / "pets", SPLIT)
    monkeypatch.chdir(tmp_path)
    write_fixed("pets", plan_of(), Path("clean"), link=True)
    assert len(load_dataset("clean").train) == 8


@pytest.mark.parametrize("name", ["clean", "pe"])
def test_an_image_that_is_gone_is_named(name, folder, tmp_path):
    (folder / "train/cat/lost.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(InputError, match=r"lost\.png"):
        write_fixed(str(folder), plan_of(), tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pets"]
    write_fixed(str(folder), plan_of(Fix("drop", "train", "train/cat/lost.png")), tmp_path / name)


def test_a_folder_that_cannot_be_created(folder, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError):
        write_fixed(str(folder), plan_of(), tmp_path / "file" / "clean")


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_other_columns_of_a_csv_file_are_kept(make, tmp_path):
    make.tree(tmp_path, {"photos": 8})
    rows = [
        f'photos/{number}.png,{"ab"[number % 2]},{number / 4},"says ""{number}"", éa",x{number}' for number in range(8)
    ]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label,age,note,path", *rows]), encoding="utf-8")
    fixes = (Fix("drop", "", "photos/0.png"), Fix("relabel", "", "photos/2.png", to="b"))
    write_fixed(str(tmp_path / "labels.csv"), plan_of(*fixes), tmp_path / "clean")
    kept = rows_of(tmp_path / "clean/metadata.csv")
    assert list(kept[0]) == ["file_name", "label", "split", "age", "note", "path"]
    by_name = {Path(row["file_name"]).name: row for row in kept}
    assert set(by_name) == {f"{number}.png" for number in range(1, 8)}
    assert by_name["2.png"] == {
        "file_name": "b/2.png", "label": "b", "split": "train", "age": "0.5", "note": 'says "2", éa', "path": "x2",
    }  # fmt: skip
    fixed = load_dataset(str(tmp_path / "clean"), whole=True)
    assert fixed.train.counts.tolist() == [2, 5]
    write_fixed(str(tmp_path / "clean"), plan_of(), tmp_path / "again")
    again = rows_of(tmp_path / "again/metadata.csv")
    assert sorted(map(sorted, map(dict.items, again))) == sorted(map(sorted, map(dict.items, kept)))


def test_columns_that_are_named_as_those_of_the_copy_get_a_number(make, tmp_path):
    make.tree(tmp_path, {"photos": 8})
    rows = [f"photos/{number}.png,{'ab'[number % 2]},{number}" for number in range(8)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,species,label", *rows]))
    write_fixed(f"{tmp_path / 'labels.csv'}?label=species", plan_of(), tmp_path / "clean")
    assert list(rows_of(tmp_path / "clean/metadata.csv")[0]) == ["file_name", "label", "split", "label-2"]
    assert load_dataset(str(tmp_path / "clean"), whole=True).classes == ("a", "b")


def test_another_column_of_labels_is_kept(make, tmp_path):
    make.tree(tmp_path, {"photos": 8})
    rows = [f"photos/{number}.png,{'ab'[number % 2]},{number}" for number in range(8)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label,class", *rows]))
    write_fixed(f"{tmp_path / 'labels.csv'}?label=label", plan_of(), tmp_path / "clean")
    assert list(rows_of(tmp_path / "clean/metadata.csv")[0]) == ["file_name", "label", "split", "class"]
    assert load_dataset(str(tmp_path / "clean"), whole=True).classes == ("a", "b")


def test_names_columns_and_order_of_a_table_are_kept(make, tmp_path):
    cells = [{"bytes": make.png(number), "path": f"in/a/photo {number}.png"} for number in range(6)]
    cells += [{"bytes": make.png(6), "path": "..\\x.PNG"}, {"bytes": make.png(7), "path": None}]
    cells[1]["path"], cells[3]["path"], cells[5]["path"] = "photo 0.png", "b", ".hidden.png"
    more = {
        "age": [None, *range(1, 8)],
        "tags": [["x", "y"]] * 8,
        "thumbnail": [b"\0"] * 8,
        "when": [datetime.date(2020, 1, 2)] * 8,
    }
    make.parquet(tmp_path / "data/train.parquet", [0, 1] * 4, names=["dog", "cat"], images=cells, more=more)
    fixes = (Fix("drop", "train", "0", "dog"),)
    write_fixed(str(tmp_path / "data"), plan_of(*fixes, by_row=True), tmp_path / "clean")
    rows = rows_of(tmp_path / "clean/metadata.csv")
    assert [row["file_name"] for row in rows] == [
        "cat/photo 0.png",
        "dog/photo 2.png",
        "cat/b.png",
        "dog/photo 4.png",
        "cat/000005.png",
        "dog/x.PNG",
        "cat/000007.png",
    ]
    assert [row["age"] for row in rows] == list("1234567")
    assert {(row["tags"], row["when"]) for row in rows} == {('["x", "y"]', "2020-01-02")}
    assert "thumbnail" not in rows[0]


def test_superclasses_and_the_order_of_the_classes_are_kept(make, tmp_path):
    make.tree(tmp_path / "pets", SPLIT)
    names = {"dog": "animal", "cat": "animal", "oak": "plant"}
    manifest = Manifest("", ("dog", "cat", "oak"), names).as_json(format="folder")
    (tmp_path / "pets/export.json").write_text(json.dumps(manifest))
    written = write_fixed(str(tmp_path / "pets"), plan_of(*PLAN), tmp_path / "clean")
    assert written.notes == ()
    fixed = load_dataset(str(tmp_path / "clean"))
    assert fixed.classes == ("dog", "cat")
    assert dict(fixed.superclasses or {}) == {"dog": "animal", "cat": "animal"}
    with pytest.raises(OutputError, match="no export"):
        export_dataset(str(tmp_path / "pets"), "folder", tmp_path / "clean", force=True)
    fixes = tuple(Fix("relabel", "", f"{name}/0.png", to="lynx") for name in ("train/cat", "test/cat"))
    written = write_fixed(str(tmp_path / "pets"), plan_of(*fixes), tmp_path / "new", new_classes=True)
    assert "lynx" in written.notes[0]
    assert not load_dataset(str(tmp_path / "new")).superclasses


def test_moved_images_of_a_table_keep_their_name_and_columns(make, tmp_path):
    for split, count, first in (("train", 6, 0), ("test", 4, 10)):
        cells = [{"bytes": make.png(first + n), "path": f"{first + n}.png"} for n in range(count)]
        more = {"age": list(range(first, first + count))} if split == "test" else {}
        labels = [0, 1] * (count // 2)
        make.parquet(tmp_path / f"data/{split}.parquet", labels, names=["cat", "dog"], images=cells, more=more)
    fixes = (Fix("move", "test", "3", "dog", "train"),)
    write_fixed(str(tmp_path / "data"), plan_of(*fixes, by_row=True), tmp_path / "clean")
    ages = {row["file_name"]: row["age"] for row in rows_of(tmp_path / "clean/metadata.csv")}
    assert ages["train/dog/13.png"] == "13"
    assert ages["train/dog/1.png"] == ""
    assert ages["test/cat/10.png"] == "10"


def test_files_outside_the_data_that_are_no_images_are_not_copied(make, tmp_path):
    """A table from elsewhere can name any file of this computer."""
    root = make.tree(tmp_path / "set", {"a": 3, "b": 3})
    make.tree(tmp_path / "more", {"a": 1})
    (tmp_path / "secret").write_text("a key")
    rows = [f"{path},{path.parent.name}" for path in sorted(root.rglob("*.png"))]
    table = root / "labels.csv"
    table.write_text("\n".join(["file,label", *rows, f"{tmp_path}/more/a/0.png,a", f"{tmp_path}/secret,a"]))
    with pytest.raises(DataError, match=r"secret, which the data names, is no image"):
        write_fixed(str(table), plan_of(), tmp_path / "clean")
    assert not (tmp_path / "clean").exists()
    table.write_text("\n".join(["file,label", *rows, f"{tmp_path}/more/a/0.png,a"]))
    assert write_fixed(str(table), plan_of(), tmp_path / "clean").images == 7
