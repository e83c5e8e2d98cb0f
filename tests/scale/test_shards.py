"""Plans of what to classify: images of folders, parquet files and stores, in shards. No cluster."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from thirtytwo.errors import DataError, InputError, ThirtytwoError, UnknownNameError

arrow = pytest.importorskip("pyarrow")
pytest.importorskip("fsspec", reason="needs the extra scale")
parquet = pytest.importorskip("pyarrow.parquet")

from thirtytwo.scale import shards  # noqa: E402
from thirtytwo.scale.shards import Shard, from_table, make_plan, to_table  # noqa: E402


def write_parquet(path: Path, count: int, *, group: int = 1000, column: str = "image") -> Path:
    cells = [{"bytes": bytes([index % 256]), "path": f"{index}.png"} for index in range(count)]
    image = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    table = arrow.table({column: arrow.array(cells, image), "label": arrow.array(range(count), arrow.int64())})
    parquet.write_table(table, path, row_group_size=group)
    return path


def test_images_of_a_folder_come_in_natural_order(image_folder: Path) -> None:
    plan = make_plan([str(image_folder)], size=3)
    names = [name for shard in plan.shards for name in shard.files]
    assert [os.path.basename(name) for name in names] == ["blue.png", "green.png", "grey.png", "red.png"]  # noqa: PTH119
    assert (plan.kind, plan.root, plan.images) == ("files", "", 4)
    assert [(shard.number, shard.images, shard.part) for shard in plan.shards] == [
        (0, 3, "part-00000.parquet"),
        (1, 1, "part-00001.parquet"),
    ]
    assert {path.name for path, _ in plan.skipped} == {"Thumbs.db", "notes.txt"}


@pytest.mark.parametrize("form", ["{}", "file://{}", "{}/*.png"])
def test_forms_of_a_folder(form: str, image_folder: Path) -> None:
    assert make_plan([form.format(image_folder)]).images == 4


def test_an_object_store_has_the_same_images(image_folder: Path) -> None:
    """fsspec's scheme `local` is read as any store is: listed by names, and read as bytes."""
    (image_folder / ".hidden.png").write_bytes(b"")
    plan = make_plan([f"local://{image_folder}"], size=3)
    assert plan.root == f"local://{image_folder}"
    assert [shard.files for shard in plan.shards] == [("blue.png", "green.png", "grey.png"), ("red.png",)]


@pytest.mark.parametrize(
    ("groups", "size", "count"),
    [
        ([10], 100, 1),
        ([100] * 10, 100, 10),
        ([100] * 10, 250, 4),
        ([50_000], 500, 16),
        ([1000, 10, 990], 500, 3),
        ([0, 0], 500, 0),
        ([1500], 500, 3),
        ([100, 5000, 100], 500, 12),
    ],
)
def test_ranges_cover_every_row_once(groups: list[int], size: int, count: int) -> None:
    found = [(start, stop) for start, stop in shards._ranges(groups, size) if stop > start]
    assert [row for start, stop in found for row in range(start, stop)] == list(range(sum(groups)))
    assert len(found) == count


@pytest.mark.parametrize("form", ["{folder}", "{folder}/b.parquet", "local://{folder}", "{folder}?image=image"])
def test_parquet_files_become_ranges_of_rows(form: str, tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", 7)
    write_parquet(tmp_path / "b.parquet", 5)
    plan = make_plan([form.format(folder=tmp_path)], size=3)
    files = [""] if form.endswith("b.parquet") else ["a.parquet", "b.parquet"]
    assert (plan.kind, plan.column, plan.images) == ("parquet", "image", 5 if files == [""] else 12)
    assert sorted({shard.files[0] for shard in plan.shards}) == files


@pytest.mark.skipif(sys.platform != "linux", reason="names of bytes")
def test_shards_round_trip_with_names_that_are_not_text() -> None:
    made = [Shard(0, 2, ("a.png", os.fsdecode(b"\xff.png"))), Shard(1, 3, ("t.parquet",), 20)]
    assert from_table(to_table(made)) == made


def both_kinds(folder: Path) -> str:
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    write_parquet(folder / "a.parquet", 1)
    return str(folder)


def damaged(folder: Path) -> str:
    (folder / "a.parquet").write_bytes(b"PAR1 and then nothing")
    return str(folder)


def other_column(folder: Path) -> str:
    return f"{write_parquet(folder / 'a.parquet', 1)}?image=photo"


@pytest.mark.parametrize(
    ("source", "error", "named"),
    [
        (lambda folder: str(folder), DataError, "No image"),
        (lambda folder: f"local://{folder}", DataError, "No image"),
        (lambda folder: str(folder / "none"), DataError, "none"),
        (lambda folder: f"local://{folder}/none", InputError, "none"),
        (lambda folder: f"nostore://{folder}", InputError, "nostore"),
        (both_kinds, DataError, "both"),
        (damaged, DataError, "a.parquet"),
        (other_column, UnknownNameError, "photo"),
        (lambda folder: str(write_parquet(folder / "a.parquet", 0)), DataError, "no rows"),
    ],
)
def test_bad_sources(source: Callable[[Path], str], error: type[ThirtytwoError], named: str, tmp_path: Path) -> None:
    with pytest.raises(error) as caught:
        make_plan([source(tmp_path)])
    assert named in caught.value.message
    assert caught.value.fix


@pytest.mark.long
def test_store_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thirtytwo.scale.store.STORE_SECONDS", 3.0)
    address = "s3://key:secret@bucket/folder?scheme=http&endpoint_override=127.0.0.1:9&region=eu-central-1"
    with pytest.raises(InputError) as caught:
        make_plan([address])
    assert "cannot be read" in caught.value.message
