from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from thirtytwo.data.export import export_dataset
from thirtytwo.data.load import load_dataset, open_undecoded, parse, survey
from thirtytwo.doctor import diagnose
from thirtytwo.errors import DataError, ThirtytwoError, UnknownNameError


@pytest.mark.parametrize(
    ("spec", "kind", "name", "options"),
    [
        ("cifar10", "name", "cifar10", {}),
        ("cifar100?label=coarse_label", "name", "cifar100", {"label": "coarse_label"}),
        ("digits", "name", "digits", {}),
        ("hf:owner/name", "hub", "owner/name", {}),
        ("hf:mnist", "hub", "mnist", {}),
        ("hf:owner/name?label=fine&config=x", "hub", "owner/name", {"label": "fine", "config": "x"}),
        ("flowers", "folder", "flowers", {}),
        ("./flowers?label=x", "folder", "./flowers", {"label": "x"}),
        ("what?", "folder", "what?", {}),
        ("./cifar10", "folder", "./cifar10", {}),
    ],
)
def test_specs(spec, kind, name, options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("flowers", "what?", "cifar10"):
        Path(folder).mkdir()
    found = parse(spec)
    assert (found.kind, found.name, dict(found.options)) == (kind, name, options)


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        ("cifar11", UnknownNameError, ["'cifar11'", "'cifar10'"]),
        ("CIFAR10", UnknownNameError, ["'CIFAR10'", "'cifar10'"]),
        ("zzz", UnknownNameError, ["'zzz'", "Known: cifar10, cifar100, digits", "hf:owner/name"]),
        ("flowrs", UnknownNameError, ["'flowrs'", "'flowers'"]),
        ("./flowrs", UnknownNameError, ["'./flowrs'", "'flowers'"]),
        ("flowers/2025/roses", UnknownNameError, ["'flowers/2025/roses'", "flowers has no '2025'"]),
        ("owner/name", UnknownNameError, ["'owner/name'", "hf:owner/name"]),
        ("/nowhere/at/all", UnknownNameError, ["'/nowhere/at/all'", "path"]),
        ("image.png", DataError, ["image.png", "file", "folder of images"]),
        ("cifar10?label", DataError, ["'label'", "cifar10?label=NAME"]),
        ("hf:a/b/c", UnknownNameError, ["hf:a/b/c", "hf:owner/name"]),
        ("hf:", UnknownNameError, ["hf:owner/name"]),
        ("digits?label=x", UnknownNameError, ["digits", "'label'"]),
        ("cifar10?lable=x", UnknownNameError, ["'lable'", "'label'"]),
        ("", UnknownNameError, ["Known"]),
    ],
)
def test_specs_that_name_nothing(spec, error, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("flowers").mkdir()
    Path("image.png").write_bytes(b"x")
    with pytest.raises(error) as caught:
        load_dataset(spec)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("others", "suggested"),
    [
        ((), False),
        (("hosts", "ssl/cert.pem"), False),
        (("a.jpg",), True),
        (("cat/1.png",), True),
        (("x/y/1.png",), False),
    ],
)
def test_the_folder_of_a_file_is_suggested_only_where_it_has_images(others, suggested, tmp_path):
    for name in ("passwd", *others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError) as caught:
        load_dataset(str(tmp_path / "passwd"))
    assert (f"such as {str(tmp_path)!r}" in str(caught.value.fix)) is suggested
    assert "CSV file" in str(caught.value.fix)


@pytest.mark.parametrize("given", ["environment", "option"])
def test_what_the_data_root_has_is_named(given, make, tmp_path, monkeypatch):
    root = make.tree(tmp_path / "root", {"flowers/rose": 2, "flowers/tulip": 2, "pets/cats/a": 2})
    (root / "table.csv").write_text("file,label")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    options = {}
    if given == "option":
        options["data_root"] = root
    else:
        monkeypatch.setenv("THIRTYTWO_DATA", str(root))
    for load in (load_dataset, open_undecoded, survey, diagnose):
        for name in ("flowers", "table.csv", "pets/cats"):
            with pytest.raises(UnknownNameError) as caught:
                load(name, **options)
            assert repr(str(root / name)) in str(caught.value)
        with pytest.raises(UnknownNameError, match="Did you mean") as caught:
            load("flowrs", **options)
        assert repr(str(root / "flowers")) in str(caught.value)
    with pytest.raises(UnknownNameError) as caught:
        export_dataset("flowers", "csv", tmp_path / "out", **options)
    assert repr(str(root / "flowers")) in str(caught.value)


def test_a_missing_data_root_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="nowhere"):
        load_dataset("cifar10", data_root=tmp_path / "nowhere")
    monkeypatch.setenv("THIRTYTWO_DATA", str(tmp_path / "gone"))
    with pytest.raises(DataError, match="gone"):
        load_dataset("cifar10")


def test_a_known_set_comes_from_the_data_root(make, tmp_path, monkeypatch):
    from thirtytwo.data.sources.cifar import CIFAR10_CLASSES

    for split, first in (("train", 0), ("test", 100)):
        make.parquet(tmp_path / f"cifar10/plain_text/{split}-00000-of-00001.parquet", list(range(10)) * 2, first=first)
    monkeypatch.setenv("THIRTYTWO_DATA", str(tmp_path))
    for spec in ("cifar10", "hf:uoft-cs/cifar10"):
        data = load_dataset(spec)
        assert data.name == "cifar10"
        assert data.classes == CIFAR10_CLASSES


def test_a_known_data_set_with_other_classes_is_an_error(make, tmp_path):
    for split in ("train", "test"):
        make.parquet(tmp_path / f"cifar10/{split}.parquet", [0, 1], names=("ant", "bee"))
    with pytest.raises(DataError, match=r"cifar10.*'ant', 'bee'.*'airplane'"):
        load_dataset("cifar10", data_root=tmp_path)


def test_superclasses_are_known(make, tmp_path):
    from thirtytwo.data.sources.cifar import CIFAR100_GROUPS

    for split in ("train", "test"):
        make.parquet(tmp_path / f"cifar100/{split}.parquet", list(range(100)), label="fine_label",
                     more={"coarse_label": list(range(20)) * 5})  # fmt: skip
    data = load_dataset("cifar100", data_root=tmp_path)
    assert data.superclasses is not None
    assert data.superclasses["maple_tree"] == "trees"
    assert set(data.superclasses) == set(data.classes)
    assert {len(names) for names in CIFAR100_GROUPS.values()} == {5}
    coarse = load_dataset("cifar100?label=coarse_label", data_root=tmp_path)
    assert coarse.classes == tuple(CIFAR100_GROUPS)
    assert coarse.superclasses is None


def test_digits_need_nothing(tmp_path):
    data, other = load_dataset("digits"), load_dataset("digits", seed=5, image_size=8)
    assert data.classes == tuple("0123456789")
    assert data.val is None
    assert data.test is not None
    assert other.test is not None
    assert data.train.images.shape == (1439, 32, 32, 3)
    assert (data.train.images.min(), data.train.images.max()) == (0, 255)
    assert data.test.rows.tolist() == other.test.rows.tolist()
    assert data.test.counts.min() >= 20
    np.testing.assert_array_equal(data.train.images[..., 0], data.train.images[..., 2])


def test_digits_keep_every_grey_level():
    from sklearn.datasets import load_digits

    data = load_dataset("digits", image_size=8)
    raw = load_digits().images[data.train.rows]
    np.testing.assert_array_equal(data.train.images[..., 0], np.rint(raw * 255 / 16))


def test_loading_never_imports_torch(make, tmp_path):
    make.tree(tmp_path / "set", {"a": 3, "b": 3})
    code = (
        "import sys; from thirtytwo.data import load, explore, split; import thirtytwo.doctor\n"
        "assert not {'torch', 'sklearn', 'pyarrow', 'datasets', 'scipy'} & set(sys.modules), sys.modules.keys()\n"
        f"load.load_dataset({str(tmp_path / 'set')!r}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_broken_link_is_a_user_error(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(ThirtytwoError):
        load_dataset(str(tmp_path / "link"))


@pytest.mark.parametrize(
    ("classes", "named"), [(["crane", "crane", "dog"], "'crane'"), (["crane", " ", "dog"], "a class without a name")]
)
def test_classes_without_a_name_of_their_own_are_refused(classes, named, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", x_train=images, y_train=np.arange(30) % 3, classes=np.array(classes))
    with pytest.raises(DataError, match=named):
        load_dataset(str(tmp_path / "set.npz"))


def test_blank_names_of_classes_without_images_do_no_harm(tmp_path):
    """As of blank lines at the end of a list of classes."""
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    names = np.array(["cat", "dog", "", ""])
    np.savez(tmp_path / "set.npz", x_train=images, y_train=np.arange(30) % 2, classes=names)
    assert load_dataset(str(tmp_path / "set.npz")).classes == ("cat", "dog")
