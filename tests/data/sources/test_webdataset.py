from __future__ import annotations

import io
import tarfile

import pytest

from thirtytwo.data.load import load_dataset, open_undecoded
from thirtytwo.errors import DataError


def write(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def shard(make, first, labels, folder=""):
    return [
        member
        for number, label in enumerate(labels)
        for member in (
            (f"{folder}{first + number:05d}.cls", f"{label}\n".encode()),
            (f"{folder}{first + number:05d}.png", make.png(first + number)),
        )
    ]


def test_shards_splits_and_names(make, tmp_path):
    root = tmp_path / "pets"
    write(root / "train-000001.tar", shard(make, 10, [2, 1], folder="./a/"))
    write(root / "train-000000.tar", shard(make, 0, [0, 1, 2, 0]))
    write(root / "val-000000.tar", shard(make, 20, [0, 1, 2]))
    (root / "classes.txt").write_text("zebra\nant\nyak\n")
    data = load_dataset(str(root), whole=True)
    assert (data.name, data.classes) == ("pets", ("zebra", "ant", "yak"))
    assert data.train.labels.tolist() == [0, 1, 2, 0, 2, 1]
    assert data.val is not None
    assert (data.train.images[4] == make.pixels(10)).all()


@pytest.mark.parametrize(
    ("labels", "names", "classes"),
    [
        (["cat", "dog", "cat"], None, ("cat", "dog")),
        (["10", "9", "10"], None, ("9", "10")),
        (["dog", "cat", "dog"], "dog\ncat\n", ("dog", "cat")),
        (["1", "0", "1"], "1\n0\n", ("1", "0")),
        (["dog", "cat", "dog"], "\ufeffdog\ncat\n", ("dog", "cat")),  # as an editor of Windows may write it
    ],
)
def test_labels_are_names_or_indices(make, tmp_path, labels, names, classes):
    write(tmp_path / "in" / "train-0.tar", shard(make, 0, labels))
    if names:
        (tmp_path / "in" / "classes.txt").write_text(names, encoding="utf-8")
    data = load_dataset(str(tmp_path / "in"), whole=True)
    assert data.classes == classes
    expected = [int(label) if names and label.isdigit() else classes.index(label) for label in labels]
    assert data.train.labels.tolist() == expected


def test_faults(make, tmp_path):
    root = tmp_path / "in"
    write(root / "train-0.tar", [*shard(make, 0, [0, 1]), ("x.png", make.png(9))])
    with pytest.raises(DataError, match="1 samples without an image or without a label: 'x'"):
        open_undecoded(str(root))
    write(root / "train-0.tar", shard(make, 0, [0, 7]))
    (root / "classes.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match="'7'; expected 0 to 1"):
        open_undecoded(str(root))
    (root / "train-0.tar").write_bytes(b"no tar file" * 100)
    with pytest.raises(DataError, match="not a tar file, or is damaged"):
        open_undecoded(str(root))
    (root / "train-0.tar").unlink()
    write(root / "test-0.tar", shard(make, 0, [0, 1]))
    with pytest.raises(DataError, match="no train split"):
        load_dataset(str(root))


def test_other_tar_files_are_not_data(make, tmp_path):
    make.tree(tmp_path / "in", {"cat": 2, "dog": 2})
    write(tmp_path / "in" / "backup.tar", shard(make, 0, [0, 1]))
    assert load_dataset(str(tmp_path / "in"), whole=True).classes == ("cat", "dog")
