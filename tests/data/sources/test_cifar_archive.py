"""CIFAR in its official archives: files made here in their layout, byte by byte."""

from __future__ import annotations

import os
import pickle
import struct
import sys
import tarfile

import numpy as np
import pytest

from thirtytwo.data.load import load_dataset, open_undecoded
from thirtytwo.data.sources.cifar import CIFAR10_CLASSES, CIFAR100, CIFAR100_SUPERCLASSES
from thirtytwo.errors import DataError, ThirtytwoError, UnknownNameError

FINE, COARSE = CIFAR100.classes["fine_label"], CIFAR100.classes["coarse_label"]
FORMS = ["binary 10", "python 10", "python3 10", "binary 100", "python 100"]


def images(count, seed):
    """Planar pixels as in the files, uint8 `(N, 3072)`, and labels."""
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, 3072), dtype=np.uint8), np.arange(count) * 7


def python2_pickle(value):
    """Protocol 2 as Python 2 wrote it with NumPy 1: byte strings, and arrays by `_reconstruct`."""

    def dump(value):
        if isinstance(value, dict):
            return b"}(" + b"".join(dump(key) + dump(one) for key, one in value.items()) + b"u"
        if isinstance(value, list):
            return b"](" + b"".join(map(dump, value)) + b"e"
        if isinstance(value, bytes):
            short = len(value) < 256
            return (b"U" + bytes([len(value)]) if short else b"T" + struct.pack("<i", len(value))) + value
        if isinstance(value, int):
            return b"K" + bytes([value]) if 0 <= value < 256 else b"J" + struct.pack("<i", value)
        kind = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87q\x20R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        shape = b"".join(map(dump, value.shape)) + b"\x86"
        created = b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        return created + b"(K\x01" + shape + kind + b"\x89" + dump(value.tobytes()) + b"tb"

    return b"\x80\x02" + dump(value) + b"."


def batch(form, pixels, labels, number):
    if form == "binary 10":
        return b"".join(bytes([label % 10]) + row.tobytes() for label, row in zip(labels, pixels, strict=True))
    if form == "binary 100":
        return b"".join(
            bytes([COARSE.index(CIFAR100_SUPERCLASSES[FINE[label % 100]]), label % 100]) + row.tobytes()
            for label, row in zip(labels, pixels, strict=True)
        )
    found = {
        b"batch_label": b"training batch %d of 5" % number,
        b"data": pixels,
        b"filenames": [b"image_s_%06d.png" % row for row in range(len(labels))],
    }
    if form.endswith("100"):
        found[b"fine_labels"] = [int(label) % 100 for label in labels]
        found[b"coarse_labels"] = [COARSE.index(CIFAR100_SUPERCLASSES[FINE[label % 100]]) for label in labels]
    else:
        found[b"labels"] = [int(label) % 10 for label in labels]
    return pickle.dumps(found, protocol=2) if form == "python3 10" else python2_pickle(found)


def write(form, root, per_batch=4):
    """The unpacked archive, with 5 batches or one; returns its folder."""
    hundred, binary = form.endswith("100"), form.startswith("binary")
    folder = root / {"binary 10": "cifar-10-batches-bin", "binary 100": "cifar-100-binary", "python 100":
                     "cifar-100-python"}.get(form, "cifar-10-batches-py")  # fmt: skip
    folder.mkdir(parents=True)
    suffix = ".bin" if binary else ""
    names = ["train", "test"] if hundred else [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]
    for number, name in enumerate(names):
        pixels, labels = images(per_batch * (5 if hundred and name == "train" else 1), number)
        (folder / f"{name}{suffix}").write_bytes(batch(form, pixels, labels, number + 1))
    if binary and hundred:
        (folder / "fine_label_names.txt").write_text("\n".join(FINE) + "\n")
        (folder / "coarse_label_names.txt").write_text("\n".join(COARSE) + "\n")
    elif binary:
        (folder / "batches.meta.txt").write_text("\n".join(CIFAR10_CLASSES) + "\n\n")
    elif hundred:
        names = {b"fine_label_names": [*map(str.encode, FINE)], b"coarse_label_names": [*map(str.encode, COARSE)]}
        (folder / "meta").write_bytes(python2_pickle(names))
    else:
        names = {b"num_cases_per_batch": 10000, b"label_names": [*map(str.encode, CIFAR10_CLASSES)], b"num_vis": 3072}
        (folder / "batches.meta").write_bytes(python2_pickle(names))
    (folder / "readme.html").write_text("<html>")
    return folder


def pack(folder):
    """The archive, beside the folder, with the test images first as in the official ones."""
    name = {"cifar-10-batches-bin": "cifar-10-binary", "cifar-10-batches-py": "cifar-10-python"}
    file = folder.with_name(f"{name.get(folder.name, folder.name)}.tar.gz")
    with tarfile.open(file, "w:gz") as archive:
        for path in sorted(folder.iterdir(), reverse=True):
            archive.add(path, f"{folder.name}/{path.name}")
    return file


def pixels_of(part):
    planar = part.images.transpose(0, 3, 1, 2)
    return planar.reshape(len(planar), 3072)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_every_form(tmp_path, form, packed):
    folder = write(form, tmp_path)
    data = load_dataset(str(pack(folder) if packed else folder), whole=True)
    assert data.classes == (FINE if form.endswith("100") else CIFAR10_CLASSES)
    batches = [images(20, 0)] if form.endswith("100") else [images(4, number) for number in range(5)]
    np.testing.assert_array_equal(pixels_of(data.train), np.concatenate([pixels for pixels, _ in batches]))
    expected = np.concatenate([labels for _, labels in batches]) % len(data.classes)
    np.testing.assert_array_equal(data.train.labels, expected)
    np.testing.assert_array_equal(pixels_of(data.test), images(4, 1 if form.endswith("100") else 5)[0])


@pytest.mark.parametrize("form", ["binary 100", "python 100"])
def test_coarse_labels_and_superclasses(tmp_path, form):
    folder = write(form, tmp_path, per_batch=100)
    assert open_undecoded(str(folder)).superclasses == CIFAR100_SUPERCLASSES
    coarse = open_undecoded(f"{folder}?label=coarse_label")
    assert coarse.classes == COARSE
    assert coarse.superclasses is None
    with pytest.raises(UnknownNameError, match="coarse_label"):
        open_undecoded(f"{folder}?label=coarse")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("inside", [False, True])
def test_known_name_finds_the_archive_below_the_data_root(tmp_path, form, packed, inside):
    name = "cifar100" if form.endswith("100") else "cifar10"
    root = tmp_path / "data"
    folder = write(form, root / name if inside else root)
    if packed:
        pack(folder)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    data = open_undecoded(name, data_root=root)
    assert data.name == name
    assert {split: len(part.rows) for split, part in data.parts.items()} == {"train": 20, "test": 4}


def test_other_classes_are_not_cifar(tmp_path):
    folder = write("binary 10", tmp_path / "data")
    (folder / "batches.meta.txt").write_text("\n".join("abcdefghij"))
    assert open_undecoded(str(folder)).classes == tuple("abcdefghij")
    with pytest.raises(DataError, match="is not cifar10"):
        open_undecoded("cifar10", data_root=tmp_path / "data")


@pytest.mark.parametrize(
    ("form", "file", "change", "message"),
    [
        ("binary 10", "data_batch_2.bin", lambda content: content[:-1], "not a multiple of 3,073"),
        ("binary 10", "data_batch_2.bin", lambda content: b"", "not a multiple"),
        ("binary 10", "data_batch_2.bin", lambda content: b"\x0c" + content[1:], "expected 0 to 9"),
        ("python 10", "data_batch_2", lambda content: content[:-100], "its end is missing"),
        ("python 10", "data_batch_2", lambda content: b"", "its end is missing"),
        ("python 10", "data_batch_2", lambda content: b"\x80\x05" + content[2:], "protocol 5"),
        ("python 10", "data_batch_2", lambda content: python2_pickle({b"data": 1}), "has no images"),
        ("python 10", "data_batch_2", lambda content: python2_pickle([1]), "a list instead of a dictionary"),
        ("python 10", "batches.meta", lambda content: python2_pickle({b"x": 1}), "label_names"),
    ],
)
def test_damage(tmp_path, form, file, change, message):
    folder = write(form, tmp_path)
    (folder / file).write_bytes(change((folder / file).read_bytes()))
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(str(folder))
    assert str(folder) in caught.value.message


def test_truncated_archive(tmp_path):
    file = pack(write("python 10", tmp_path, per_batch=40))
    file.write_bytes(file.read_bytes()[:-200_000])
    with pytest.raises(DataError, match="damaged or incomplete"):
        open_undecoded(str(file))


def test_other_archives_are_refused_as_before(tmp_path):
    (tmp_path / "x.txt").write_text("x")
    with tarfile.open(tmp_path / "photos.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "x.txt", "x.txt")
    with pytest.raises(ThirtytwoError, match="Unpack it"):
        open_undecoded(str(tmp_path / "photos.tar.gz"))


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def malicious(tmp_path):
    """Pickles that would create a file if they were executed."""
    mark = str(tmp_path / "executed")
    command = f"touch {mark}"
    for protocol in range(6):
        yield pickle.dumps({b"data": Evil(os.system, command), b"labels": []}, protocol)
        yield pickle.dumps({b"data": Evil(exec, f"open({mark!r}, 'w')")}, protocol)
    yield b"cposix\nsystem\n(S'" + command.encode() + b"'\ntR."
    yield b"\x80\x02cposix\nsystem\nU" + bytes([len(command)]) + command.encode() + b"\x85R."
    yield b"(ios\nsystem\nS'x'\no."
    yield b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x01x\x85R."
    yield b"\x80\x02\x82\x01."  # a registered extension
    yield b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncposix\nsystem\nK\x00\x85U\x01b\x87R."
    yield b"\x80\x02}U\x04dataccopy_reg\n_reconstructor\ns."
    yield b"\x80\x02cnumpy\nndarray\n)\x81."
    yield b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R}U\x01aK\x01sb."
    yield b"Pwhatever\n."


def test_malicious_pickles_are_refused_and_not_executed(tmp_path):
    folder = write("python 10", tmp_path)
    before = set(sys.modules)
    for content in malicious(tmp_path):
        for name in ("data_batch_3", "batches.meta"):
            good = (folder / name).read_bytes()
            (folder / name).write_bytes(content)
            with pytest.raises(DataError) as caught:
                load_dataset(str(folder))
            assert name in caught.value.message
            (folder / name).write_bytes(good)
    assert not (tmp_path / "executed").exists()
    assert not {name for name in set(sys.modules) - before if "copy_reg" in name or name == "posix"}


@pytest.mark.parametrize("seed", range(200))
def test_random_bytes_never_raise_anything_else(tmp_path, seed):
    import io

    from thirtytwo.data.sources.pickled import read_pickle

    random = np.random.default_rng(seed)
    good = bytearray(python2_pickle({b"data": np.zeros((2, 4), np.uint8), b"labels": [1, 300], b"batch_label": b"x"}))
    for place in random.integers(0, len(good), 1 + seed % 4):
        good[place] = random.integers(0, 256)
    try:
        found = read_pickle(io.BytesIO(bytes(good)), "x")
    except DataError:
        return
    assert isinstance(found, dict)


def test_huge_file_is_refused_unread(tmp_path):
    folder = write("python 10", tmp_path)
    with (folder / "data_batch_1").open("wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(DataError, match="expected at most"):
        load_dataset(str(folder))


@pytest.mark.realdata
@pytest.mark.long
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_real_images_are_bit_identical(data_root, tmp_path, name):
    """The parquet files as Python archives of full size, packed and unpacked; the tests of exports have binary ones."""
    before = load_dataset(name, data_root=data_root)
    hundred = name == "cifar100"
    form = "python 100" if hundred else "python 10"
    folder = write(form, tmp_path)
    parts = {"train": before.train, "test": before.test}
    if not hundred:
        batches = {f"data_batch_{n + 1}": before.train.take(np.arange(10_000 * n, 10_000 * (n + 1))) for n in range(5)}
        parts = batches | {"test_batch": before.test}
    for number, (file, part) in enumerate(parts.items()):
        content = batch(form, pixels_of(part), part.labels, number)
        (folder / file).write_bytes(content)
    for place in (folder, pack(folder)):
        after = open_undecoded(str(place))
        assert after.classes == before.classes
        assert after.superclasses == before.superclasses
        for split, stored in before.stored.items():
            part = after.parts[split]
            np.testing.assert_array_equal(part.labels, stored.labels)
            for image, source in zip(stored.images, part.stream(part.rows), strict=True):
                assert source.endswith(image.tobytes())
