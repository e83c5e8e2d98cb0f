"""Round trips: what an export wrote is read again with the same images, labels, splits and class order."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from thirtytwo.cli.main import run_command
from thirtytwo.data.export import EXPORTS, export_dataset, run
from thirtytwo.data.load import load_dataset, open_undecoded
from thirtytwo.errors import DataError, OutputError, RunError, UnknownNameError
from thirtytwo.images.content import hash_pixels
from thirtytwo.images.decode import decode
from thirtytwo.io import lock_directory

ALL = ("cifar-binary", "csv", "folder", "npz", "parquet", "webdataset")
SPLIT = {"train/cat": 4, "train/dog 10": 4, "train/dog 9": 3, "test/cat": 2, "test/dog 10": 2, "test/dog 9": 1}


def content(spec, data_root=None):
    """Classes, superclasses, and for each split how often each pair of class name and pixels occurs."""
    data = open_undecoded(str(spec), data_root=data_root)
    found = {}
    for split, part in data.parts.items():
        pixels = (hash_pixels(decode(source)) for source in part.stream(part.rows))
        found[split] = Counter(zip((data.classes[label] for label in part.labels), pixels, strict=True))
    return data.classes, data.superclasses, found


def encoded(spec):
    """For each split how often each pair of class name and encoded image occurs."""
    data = open_undecoded(str(spec))
    return {
        split: Counter(
            (data.classes[label], source if isinstance(source, bytes) else source.read_bytes())
            for label, source in zip(part.labels, part.stream(part.rows), strict=True)
        )
        for split, part in data.parts.items()
    }


@pytest.fixture
def pets(make, tmp_path):
    return make.tree(tmp_path / "pets", SPLIT, side=32)


def test_formats_are_registered():
    assert tuple(EXPORTS) == ALL


@pytest.mark.parametrize("format", ALL)
def test_folder_to_every_format_and_back(pets, tmp_path, format):
    done = export_dataset(str(pets), format, tmp_path / "out")
    assert content(done.path) == content(pets)
    assert done.images == {"train": 11, "test": 5}
    export_dataset(str(done.path), "folder", tmp_path / "back")
    assert content(tmp_path / "back") == content(pets)


@pytest.mark.parametrize("format", ["folder", "csv", "parquet", "webdataset"])
def test_encoded_images_stay_byte_for_byte(make, tmp_path, format):
    root = make.tree(tmp_path / "pets", {"a": 3, "b": 3})
    Image.fromarray(make.pixels(9, 20)).save(root / "a" / "photo of me.JPEG", quality=50)
    Image.fromarray(make.pixels(8, 20)).save(root / "b" / "wrongly named.png", "WEBP")
    done = export_dataset(str(root), format, tmp_path / "out")
    assert encoded(done.path) == encoded(root)


@pytest.mark.parametrize("format", ALL)
def test_class_order_and_superclasses_survive(make, tmp_path, format):
    """Also where the names are not in alphabetical order, or a class is missing in a split or has no images."""
    names = ["zebra", "ant", "Über-Tier", "empty", "yak"]
    images = [{"bytes": make.png(number, 32), "path": None} for number in range(11)]
    for split, labels in {"train": [0, 0, 1, 2, 1, 4], "test": [2, 0, 2, 4, 0]}.items():
        make.parquet(tmp_path / "in" / f"{split}.parquet", labels, names=names, images=images[: len(labels)])
        images.reverse()
    done = export_dataset(str(tmp_path / "in"), format, tmp_path / "out")
    assert content(done.path) == content(tmp_path / "in")
    before, after = (load_dataset(str(path)) for path in (tmp_path / "in", done.path))
    assert before.classes == after.classes == ("zebra", "ant", "Über-Tier", "yak")


@pytest.mark.parametrize("format", ALL)
def test_checksums_are_those_of_the_files(pets, tmp_path, format):
    done = export_dataset(str(pets), format, tmp_path / "out")
    lines = (done.path / "checksums.sha256").read_text(encoding="utf-8").splitlines()
    listed = {line[66:]: line[:64] for line in lines}
    present = {
        path.relative_to(done.path).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in done.path.rglob("*")
        if path.is_file() and path.name != "checksums.sha256"
    }
    assert listed == present
    assert not any(name.startswith(".") for name in present)
    assert subprocess.run(["sha256sum", "-c", "--quiet", "checksums.sha256"], cwd=done.path).returncode == 0


def test_layout_of_a_folder(pets, tmp_path):
    export_dataset(str(pets), "folder", tmp_path / "out")
    assert (tmp_path / "out/train/dog 9").is_dir()
    assert sorted(path.name for path in (tmp_path / "out/test/cat").iterdir()) == ["000000-0.png", "000001-1.png"]


@pytest.mark.slow
def test_digits_become_png(tmp_path):
    done = export_dataset("digits", "folder", tmp_path / "digits")
    assert content(done.path) == content("digits")
    assert {path.suffix for path in (done.path / "train").rglob("*.*")} == {".png"}
    assert load_dataset(str(done.path)).skipped == ()


def test_names_of_any_kind(make, tmp_path):
    """Class names with line breaks, quotes, slashes or formulas survive where the format allows them."""
    names = ["=1+1", 'say "hi", or; not', "tab\there", "日本語 🐱", "back\\slash", "-x", "a'b"]
    images = [{"bytes": make.png(number), "path": None} for number in range(14)]
    make.parquet(tmp_path / "in" / "train.parquet", [*range(7), *range(7)], names=names, images=images)
    for format in ("folder", "csv", "parquet", "npz", "webdataset"):
        done = export_dataset(str(tmp_path / "in"), format, tmp_path / format)
        assert content(done.path) == content(tmp_path / "in"), format
    with (tmp_path / "csv" / "labels.csv").open(encoding="utf-8", newline="") as stream:
        cells = [cell for row in csv.reader(stream) for cell in row]
    assert {"'=1+1", "'-x"} <= set(cells)
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]


@pytest.mark.parametrize(
    ("name", "format"),
    [("a/b", "folder"), ("..", "folder"), (".hidden", "folder"), ("x" * 300, "folder"), ("OTHER", "folder"),
     (" space", "csv"), ("two\nlines", "webdataset"), ("two\nlines", "cifar-binary")],
)  # fmt: skip
def test_names_that_a_format_cannot_hold_are_refused(make, tmp_path, name, format):
    images = [{"bytes": make.png(number, 32), "path": None} for number in range(4)]
    make.parquet(tmp_path / "in" / "train.parquet", [0, 1, 0, 1], names=[name, "other"], images=images)
    with pytest.raises(DataError, match="class"):
        export_dataset(str(tmp_path / "in"), format, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir() if "cache" not in path.name) == ["in"]


def test_file_names_of_any_kind(make, tmp_path):
    root = make.tree(tmp_path / "odd", {"a": 1, "b": 2})
    for number, name in enumerate(["x y.png", "ü" * 120 + ".png", "-rf.png", "new\nline.png", "%s?*.png", "noext"]):
        (root / "a" / name).write_bytes(make.png(50 + number))
    Path(os.fsdecode(os.fsencode(root / "b") + b"/\xe9.png")).write_bytes(make.png(90))
    for format in ("folder", "csv", "parquet", "webdataset"):
        done = export_dataset(str(root), format, tmp_path / format)
        assert encoded(done.path) == encoded(root)


def test_parquet_is_read_by_the_datasets_library(pets, tmp_path):
    datasets = pytest.importorskip("datasets")
    done = export_dataset(str(pets), "parquet", tmp_path / "out")
    file = str(done.path / "data" / "train-00000-of-00001.parquet")
    table = datasets.Dataset.from_parquet(file, cache_dir=str(tmp_path / "hf"))
    assert table.features["label"].names == ["cat", "dog 9", "dog 10"]
    assert table.features["image"] == datasets.Image()
    assert table[0]["image"].size == (32, 32)


def test_npz_arrays(pets, tmp_path):
    done = export_dataset(str(pets), "npz", tmp_path / "out")
    with np.load(done.path / "data.npz", allow_pickle=False) as arrays:
        assert arrays["x_train"].shape == (11, 32, 32, 3)
        assert arrays["x_train"].dtype == np.uint8
        assert arrays["y_test"].tolist() == [0, 0, 1, 2, 2]
        assert arrays["classes"].tolist() == ["cat", "dog 9", "dog 10"]


def test_webdataset_members(pets, tmp_path):
    done = export_dataset(str(pets), "webdataset", tmp_path / "out")
    with tarfile.open(done.path / "test-000000.tar") as tar:
        assert tar.getnames()[:3] == ["test00000000.png", "test00000000.cls", "test00000000.json"]
        details = json.load(tar.extractfile("test00000004.json"))
    assert (details["label"], details["class"], details["file"]) == (2, "dog 10", "test/dog 10/1.png")
    assert (done.path / "classes.txt").read_text(encoding="utf-8").splitlines() == ["cat", "dog 9", "dog 10"]


def test_csv_columns(pets, tmp_path):
    done = export_dataset(str(pets), "csv", tmp_path / "out")
    rows = list(csv.reader(io.StringIO((done.path / "labels.csv").read_text(encoding="utf-8"))))
    assert rows[0] == ["file", "label", "split", "source"]
    assert rows[1] == ["images/train/000000-0.png", "cat", "train", "train/cat/0.png"]
    assert content(done.path / "labels.csv") == content(pets)


def test_groups_of_a_table_survive(make, tmp_path):
    make.tree(tmp_path / "in", {"a": 4, "b": 4})
    rows = [f"{name}/{number}.png,{name},patient {number // 2}" for name in "ab" for number in range(4)]
    (tmp_path / "in" / "labels.csv").write_text("\n".join(["file,label,group", *rows]))
    done = export_dataset(str(tmp_path / "in" / "labels.csv"), "csv", tmp_path / "out")
    assert open_undecoded(str(done.path)).parts["train"].groups == (*["group patient 0", "group patient 1"] * 0, *(
        f"group patient {number // 2}" for _ in "ab" for number in range(4)
    ))  # fmt: skip


def test_png_on_request(make, tmp_path):
    root = make.tree(tmp_path / "in", {"a": 2, "b": 2})
    Image.fromarray(make.pixels(1)).save(root / "a" / "x.jpg")
    done = export_dataset(str(root), "folder", tmp_path / "out", png=True)
    assert content(done.path) == content(root)
    assert {path.suffix for path in (done.path / "train").rglob("*.*")} == {".png"}


# Bad input


def test_unknown_format(pets, tmp_path):
    with pytest.raises(UnknownNameError, match="Did you mean 'parquet'"):
        export_dataset(str(pets), "parkuet", tmp_path / "out")


def test_existing_output_is_kept(pets, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept")
    for force in (False, True):
        with pytest.raises(OutputError, match="exists"):
            export_dataset(str(pets), "folder", tmp_path / "out", force=force)
    assert (tmp_path / "out" / "mine.txt").read_text() == "kept"


def test_force_replaces_an_export(pets, tmp_path):
    export_dataset(str(pets), "csv", tmp_path / "out")
    with pytest.raises(OutputError, match="--force"):
        export_dataset(str(pets), "npz", tmp_path / "out")
    export_dataset(str(pets), "npz", tmp_path / "out", force=True)
    assert not (tmp_path / "out" / "labels.csv").exists()
    assert sorted(path.name for path in tmp_path.iterdir() if "cache" not in path.name) == ["out", "pets"]


@pytest.mark.parametrize("name", ["notes.txt", "train/cat/added.png"])
def test_force_keeps_files_that_were_added_to_an_export(pets, tmp_path, name):
    out = tmp_path / "out"
    export_dataset(str(pets), "folder", out)
    (out / ".DS_Store").write_text("written by a file manager")
    export_dataset(str(pets), "folder", out, force=True)
    added = out / name
    added.write_text("mine")
    with pytest.raises(OutputError, match=re.escape(name)):
        export_dataset(str(pets), "csv", out, force=True)
    assert added.read_text() == "mine"


def test_output_inside_of_the_data_is_refused(pets):
    for out in (pets / "out", pets, pets / "train", pets.parent):
        with pytest.raises(OutputError):
            export_dataset(str(pets), "folder", out, force=True)


def test_a_name_that_is_too_long_is_refused(pets, tmp_path):
    with pytest.raises(OutputError, match="at most 255"):
        export_dataset(str(pets), "folder", tmp_path / ("o" * 250))


@pytest.mark.parametrize("name", ["data.npz", "x.tar.gz", "labels.csv"])
def test_output_that_looks_like_a_file_is_refused(pets, tmp_path, name):
    with pytest.raises(OutputError, match="folder to create"):
        export_dataset(str(pets), "npz", tmp_path / name)


def test_two_exports_to_one_place(pets, tmp_path):
    (tmp_path / "out.partial").mkdir()
    with lock_directory(tmp_path / "out.partial"), pytest.raises(RunError, match="in use"):
        export_dataset(str(pets), "folder", tmp_path / "out", force=True)


def test_folder_in_the_place_of_an_unfinished_export_is_kept(pets, tmp_path):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "mine.txt").write_text("kept")
    with pytest.raises(OutputError, match="no unfinished export"):
        export_dataset(str(pets), "folder", tmp_path / "out", force=True)
    assert (tmp_path / "out.partial" / "mine.txt").is_file()


@pytest.mark.parametrize("format", ["npz", "cifar-binary"])
def test_sizes_that_differ(make, tmp_path, format):
    root = make.tree(tmp_path / "in", {"a": 3, "b": 2})
    (root / "a" / "other.png").write_bytes(make.png(9, 12))
    with pytest.raises(DataError, match=r"12×12"):
        export_dataset(str(root), format, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unreadable_images(make, tmp_path):
    root = make.tree(tmp_path / "in", {"a": 3, "b": 3})
    (root / "a" / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"a/1.png is empty"):
        export_dataset(str(root), "folder", tmp_path / "out")
    done = export_dataset(str(root), "folder", tmp_path / "out", skip_unreadable=True)
    assert done.images == {"train": 5}
    assert "a/1.png" in done.skipped[0]


def test_a_folder_without_permission(make, unprivileged):
    root = make.tree(unprivileged / "in", {"a": 3, "b": 3, "c": 3})
    (root / "b").chmod(0)
    with pytest.raises(DataError, match=r"The folder b of .* cannot be read: Permission denied"):
        export_dataset(str(root), "folder", unprivileged / "out")
    done = export_dataset(str(root), "folder", unprivileged / "out", skip_unreadable=True)
    assert done.images == {"train": 6}


@pytest.mark.parametrize("format", ["folder", "csv", "parquet", "webdataset", "npz"])
def test_images_whose_header_alone_can_be_read(make, tmp_path, format):
    """An image that is cut short in its pixels is as unreadable as one without a header."""
    root = make.tree(tmp_path / "in", {"a": 3, "b": 3}, side=32)
    stream = io.BytesIO()
    Image.fromarray(make.pixels(9, 32)).save(stream, "JPEG")
    (root / "a" / "cut.jpg").write_bytes(stream.getvalue()[:-200])
    (root / "b" / "cut.png").write_bytes(make.png(8, 32)[:-900])
    with pytest.raises(DataError) as caught:
        export_dataset(str(root), format, tmp_path / "out")
    assert all(name in caught.value.message for name in ("2 of 8 images", "a/cut.jpg", "b/cut.png"))
    assert not any(tmp_path.glob("out*"))
    done = export_dataset(str(root), format, tmp_path / "out", skip_unreadable=True)
    assert done.images == {"train": 6}
    assert all(name in done.skipped[0] for name in ("a/cut.jpg", "b/cut.png"))
    assert sum(len(part.rows) for part in open_undecoded(str(done.path)).parts.values()) == 6


def test_progress_covers_checking_and_writing(pets, tmp_path):
    checked, written = [], []
    export_dataset(
        str(pets), "folder", tmp_path / "out",
        checking=lambda *done: checked.append(done), progress=lambda *done: written.append(done),
    )  # fmt: skip
    assert checked == [(number + 1, 16) for number in range(16)]
    assert written[-1] == (16, 16)


def test_imbalance_cannot_be_exported(tmp_path):
    with pytest.raises(DataError, match="imbalance"):
        export_dataset("digits?imbalance=10", "folder", tmp_path / "out")


# Kill and resume

SLOW = """
import sys, time
from thirtytwo.data.export import EXPORTS, items
from thirtytwo.cli.main import run_command
read = items._read
def slowly(source, name):
    time.sleep(0.01)
    return read(source, name)
items._read = slowly
for kind in (EXPORTS.get(name) for name in EXPORTS):
    kind.shard_images = min(kind.shard_images, 7)
sys.exit(run_command(sys.argv[1:]))
"""


def start(arguments):
    return subprocess.Popen([sys.executable, "-c", SLOW, *map(str, arguments)], stderr=subprocess.PIPE, text=True)


@pytest.mark.long
@pytest.mark.parametrize(
    ("format", "sent"),
    [
        ("folder", signal.SIGTERM),
        *((format, signal.SIGKILL) for format in ("folder", "csv", "parquet", "npz", "webdataset")),
    ],
)
def test_killed_export_is_resumed(make, tmp_path, format, sent):
    root = make.tree(tmp_path / "in", {"a": 40, "b": 40})
    arguments = ["data", "export", root, "--format", format, "--out", tmp_path / "out"]
    process = start(arguments)
    journal = tmp_path / "out.partial" / ".journal.jsonl"
    while process.poll() is None and (not journal.exists() or journal.read_text().count("\n") < 4):
        time.sleep(0.01)
    process.send_signal(sent)
    messages = process.communicate()[1]
    assert process.returncode in (-9, 130), messages
    assert sent == signal.SIGKILL or "--resume" in messages
    assert not (tmp_path / "out").exists()
    done = journal.read_text().splitlines()
    assert len(done) >= 4
    assert run_command(list(map(str, arguments))) == 2
    kept = {
        name: (tmp_path / "out.partial" / name).stat().st_mtime_ns for name in json.loads(done[1])["files"]
    }  # fmt: skip
    resumed = start([*arguments, "--resume"])
    assert "continued after" in resumed.communicate()[1]
    assert resumed.returncode == 0
    assert content(tmp_path / "out") == content(root)
    assert not (tmp_path / "out.partial").exists()
    if format == "folder":
        assert kept == {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in kept}


@pytest.mark.long
def test_resuming_repairs_damage_and_refuses_other_data(make, tmp_path):
    root = make.tree(tmp_path / "in", {"a": 20, "b": 20})
    arguments = ["data", "export", root, "--format", "folder", "--out", tmp_path / "out"]
    process = start(arguments)
    journal = tmp_path / "out.partial" / ".journal.jsonl"
    while process.poll() is None and (not journal.exists() or journal.read_text().count("\n") < 3):
        time.sleep(0.01)
    process.kill()
    process.communicate()
    damaged = sorted((tmp_path / "out.partial" / "train" / "a").iterdir())[2]
    damaged.write_bytes(b"damaged")
    (tmp_path / "out.partial" / "train" / "a" / "stray.png").write_bytes(make.png(1))
    with pytest.raises(RunError, match="--force"):
        export_dataset(str(root), "csv", tmp_path / "out", resume=True)
    done = export_dataset(str(root), "folder", tmp_path / "out", resume=True)
    assert content(done.path) == content(root)


@pytest.mark.parametrize("stage", ["_complete", "_verify", "_replace"])
@pytest.mark.parametrize("format", ALL)
def test_interruption_at_the_end_is_resumed(pets, tmp_path, monkeypatch, format, stage):
    """Also where files were joined or renamed already."""
    finished = getattr(run, stage)

    def interrupted(*arguments):
        if stage != "_replace":
            finished(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run, stage, interrupted)
        with pytest.raises(KeyboardInterrupt):
            export_dataset(str(pets), format, tmp_path / "out")
    done = export_dataset(str(pets), format, tmp_path / "out", resume=True)
    assert content(done.path) == content(pets)
    names = [path.name for path in done.path.rglob("*") if path.is_file()]
    assert len(names) == done.files
    assert sum(name.endswith((".parquet", ".tar", ".bin", ".npz")) for name in names) <= 2


def test_resume_without_an_unfinished_export_starts_one(pets, tmp_path):
    done = export_dataset(str(pets), "folder", tmp_path / "out", resume=True)
    assert content(done.path) == content(pets)


def test_command(pets, tmp_path, capsys):
    assert run_command(["data", "export", str(pets), "--format", "csv", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path / 'out'}\n"
    assert "16 images" in printed.err
    assert run_command(["data", "export", str(pets), "--format", "cvs", "--out", str(tmp_path / "no")]) == 2
    assert "Did you mean 'csv'?" in capsys.readouterr().err


@pytest.mark.realdata
@pytest.mark.long
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_to_binary_and_back(data_root, tmp_path, name):
    done = export_dataset(name, "cifar-binary", tmp_path / "out", data_root=data_root)
    before, after = load_dataset(name, data_root=data_root), open_undecoded(str(done.path))
    assert (after.classes, after.superclasses) == (before.classes, before.superclasses)
    for split, stored in before.stored.items():
        part = after.parts[split]
        np.testing.assert_array_equal(part.labels, stored.labels)
        for image, source in zip(stored.images, part.stream(part.rows), strict=True):
            assert source.endswith(image.tobytes())


@pytest.mark.parametrize("name", ["exp:1", os.fsdecode(b"K\xe4fer")], ids=["colon", "not UTF-8"])
@pytest.mark.parametrize("format", ALL)
def test_folders_of_any_name(pets, tmp_path, format, name, monkeypatch):
    """Relative paths such as exp:1/x are no addresses."""
    monkeypatch.chdir(tmp_path)
    done = export_dataset(str(pets), format, Path(name))
    assert content(done.path) == content(pets)
    open_undecoded(str(done.path)).name.encode()
