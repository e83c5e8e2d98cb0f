from __future__ import annotations

import zipfile

import numpy as np
import pytest

from thirtytwo.data.load import load_dataset, open_undecoded
from thirtytwo.errors import DataError, ThirtytwoError


def images(count, *shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def write(path, save=np.savez, **arrays):
    with path.open("wb") as stream:
        save(stream, **arrays)
    return str(path)


LABELS = np.arange(12) % 3


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 28), (28, 28, 1)])
def test_arrays_as_keras_has_them(tmp_path, save, shape):
    x_train, x_test = images(12, *shape), images(6, *shape, seed=1)
    file = write(
        tmp_path / "mnist.npz", save, x_train=x_train, y_train=LABELS.astype(np.uint8), x_test=x_test, y_test=LABELS[:6]
    )
    data = load_dataset(file)
    assert data.name == "mnist"
    (tmp_path / "digits").mkdir()
    same = (tmp_path / "mnist.npz").rename(tmp_path / "digits" / "data.npz")
    assert load_dataset(str(same)).name == load_dataset(str(same.parent)).name == "digits"
    same.rename(tmp_path / "mnist.npz")
    assert data.classes == ("0", "1", "2")
    np.testing.assert_array_equal(data.train.labels, LABELS)
    colored = np.broadcast_to(x_train.reshape(12, *shape[:2], -1), (12, *shape[:2], 3))
    np.testing.assert_array_equal(data.train.images, colored)
    assert data.test is not None
    assert load_dataset(str(tmp_path)).fingerprint == data.fingerprint


def test_column_of_labels_and_class_names(tmp_path):
    classes = np.array(["zebra", "ant", "Übung"])
    file = write(tmp_path / "a.npz", x_train=images(12, 8, 8, 3), y_train=LABELS[:, None], classes=classes)
    assert load_dataset(file, whole=True).classes == ("zebra", "ant", "Übung")


def test_uncompressed_arrays_are_not_read_into_memory(tmp_path):
    from thirtytwo.data.sources.npz import _open

    write(tmp_path / "a.npz", x_train=images(12, 8, 8, 3), y_train=LABELS)
    arrays = _open(tmp_path / "a.npz")
    assert isinstance(arrays["x_train"], np.memmap)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": LABELS}, "no array 'x_train'; found a"),
        ({"x_train": images(12, 8, 8, 3)}, "no array 'y_train'"),
        ({"x_train": images(12, 8, 8, 3) / 255, "y_train": LABELS}, "float64"),
        ({"x_train": images(12, 3, 8, 8), "y_train": LABELS}, r"expected uint8 \(N, H, W, 3\)"),
        ({"x_train": images(12, 8, 8, 3), "y_train": LABELS[:5]}, r"expected integers \(12,\)"),
        ({"x_train": images(12, 8, 8, 3), "y_train": np.eye(3)[LABELS]}, r"float64 \(12, 3\)"),
        ({"x_train": images(12, 8, 8, 3), "y_train": LABELS - 1}, "contains -1"),
        ({"x_train": images(12, 8, 8, 3), "y_train": LABELS, "classes": np.array(["a", "b"])}, "at least 3 strings"),
        ({"x_train": images(12, 8, 8, 3), "y_train": np.array([object()] * 12)}, "without objects"),
    ],
)
def test_faults(tmp_path, arrays, message):
    with pytest.raises(DataError, match=message):
        open_undecoded(write(tmp_path / "a.npz", **arrays))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY"])
def test_damage(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz is damaged, incomplete, or not a file of NumPy"):
        open_undecoded(str(tmp_path / "a.npz"))


def test_truncated_and_foreign_members(tmp_path):
    file = write(tmp_path / "a.npz", x_train=images(12, 8, 8, 3), y_train=LABELS)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("notes.txt", "hello")
    assert len(load_dataset(file, whole=True).train) == 12
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError):
        open_undecoded(file)


@pytest.mark.parametrize(("offset", "value"), [((6, 8), 1), ((8, 10), 9)], ids=["encrypted", "Deflate64"])
def test_members_that_cannot_be_unpacked(offset, value, tmp_path):
    """`offset`: of the flags, and of the compression method, in the local and the central header of a member."""
    file = tmp_path / "a.npz"
    write(file, np.savez_compressed, x_train=images(12, 8, 8, 3), y_train=LABELS)
    content = bytearray(file.read_bytes())
    for start, place in zip((b"PK\x03\x04", b"PK\x01\x02"), offset, strict=True):
        content[content.find(start) + place] = value
    file.write_bytes(content)
    with pytest.raises(DataError, match="encrypted, or compressed in a way"):
        open_undecoded(str(file))


def test_images_beside_an_npz_file_come_first(make, tmp_path):
    make.tree(tmp_path, {"cat": 2, "dog": 2})
    write(tmp_path / "features.npz", x_train=images(12, 8, 8, 3), y_train=LABELS)
    assert load_dataset(str(tmp_path), whole=True).classes == ("cat", "dog")


def test_options_are_refused(tmp_path):
    file = write(tmp_path / "a.npz", x_train=images(12, 8, 8, 3), y_train=LABELS)
    with pytest.raises(ThirtytwoError, match="no option 'label'"):
        open_undecoded(f"{file}?label=x")
