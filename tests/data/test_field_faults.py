"""Folders of images as people really have them: each fault is left out and named, or does not matter."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from thirtytwo.data.load import load_dataset
from thirtytwo.data.types import DataSet
from thirtytwo.doctor import diagnose
from thirtytwo.errors import DataError, ThirtytwoError
from thirtytwo.fewshot import find_class_files
from thirtytwo.images import discover
from thirtytwo.images.discover import find_images

LATIN = os.fsdecode(b"K\xe4fer")
HEIC_HEAD = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 300


def image(seed: int, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def folders(root: Path, *names: str, count: int = 4) -> Path:
    """Class folders with `count` images each."""
    for place, name in enumerate(names):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (root / name / f"{number}.png").write_bytes(image(100 * place + number))
    return root


def total(data: DataSet) -> int:
    return sum(len(part) for part in data.stored.values())


def seen(root: Path) -> tuple[int, int, int]:
    """The number of images that training, teaching and predicting see."""
    taught = find_class_files(root).files
    return total(load_dataset(str(root))), sum(map(len, taught.values())), len(find_images([root])[0])


def _nas_thumbnails(root: Path) -> None:
    for place in (root, root / "a", root / "a" / "0.png.d"):
        folders(place / "@eaDir" / "0.png", ".", count=2)
    folders(
        root, "#recycle/a", "@Recycle", "$RECYCLE.BIN/S-1-5", ".thumbnails", "a/.AppleDouble", "__MACOSX/a", count=2
    )
    folders(root, "System Volume Information", "@SynoResource", count=2)


def _pipes(root: Path) -> None:
    os.mkfifo(root / "a" / "pipe.png")
    os.mkfifo(root / "a" / "pipe")
    os.mkfifo(root / "pipe.parquet")
    (root / "a" / "device.png").symlink_to("/dev/zero")
    before = Path.cwd()
    os.chdir(root / "a")  # its path must be short
    try:
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind("socket.png")
    finally:
        os.chdir(before)


def _links_upwards(root: Path) -> None:
    (root / "a" / "up").symlink_to("..", target_is_directory=True)
    (root / "a" / "far").symlink_to("../..", target_is_directory=True)
    (root / "a" / "self").symlink_to(".", target_is_directory=True)
    (root / "a" / "loop.png").symlink_to("loop.png")
    (root / "a" / "loop.png").unlink()
    (root / "whole").symlink_to(".", target_is_directory=True)
    (root / "a" / "circle").symlink_to("circle")


def _not_images(root: Path) -> None:
    for name, data in {
        "Makefile": b"all:\n",
        "P1 notes": b"P1 is the first point",
        "BMW": b"BMW makes cars" + b" " * 40,
        "raw.nef": b"II*\0" + b"\0" * 40,
        "rest.jpg.part": image(7),
        "film.mp4": b"\0\0\0\x18ftypisom\0\0\0\0mp42isom",
        "empty": b"",
    }.items():
        (root / "a" / name).write_bytes(data)


@pytest.mark.parametrize("spoil", [_nas_thumbnails, _pipes, _links_upwards, _not_images], ids=lambda one: one.__name__)
def test_what_is_not_an_image_of_the_class_is_left_out(spoil, tmp_path):
    root = folders(tmp_path / "set", "a", "b")
    spoil(root)
    before = Path.cwd()
    taught = {name: len(files) for name, files in discovered(root).items() if files}
    assert taught == {"a": 4, "b": 4}
    assert total(load_dataset(str(root))) == 8
    assert load_dataset(str(root)).classes == ("a", "b")
    assert len(find_images([root])[0]) == 8
    assert len(find_images([str(root / "*" / "*.png")])[0]) >= 8
    assert Path.cwd() == before
    found = diagnose(str(root))
    dataset, findings = found.data, found.findings
    assert dataset is not None
    assert not [finding for finding in findings if finding.severity == "error"]


def discovered(root: Path) -> dict[str, list[Path]]:
    from thirtytwo.data.sources.folder import class_images

    return class_images(root)[0]


def test_a_recursive_glob_leaves_out_system_folders(tmp_path):
    root = folders(tmp_path, "a", "a/@eaDir/0.png")
    assert len(find_images([str(root / "**" / "*.png")])[0]) == 4
    assert len(find_images([str(root / "a" / "@eaDir" / "**" / "*.png")])[0]) == 4


@pytest.mark.parametrize(
    "name",
    ["0", "0.mpo", "0.jpg_large", "0.jpg?width=200", "0.jfif", "0.JPG", "0.bin", "0.webp~", "0.png.1", "0.txt"],
)
@pytest.mark.parametrize("kind", ["JPEG", "BMP"])
def test_the_content_decides_and_not_the_suffix(name, kind, tmp_path):
    root = folders(tmp_path / "set", "b")
    (root / "a").mkdir()
    for number in range(4):
        (root / "a" / name.replace("0", str(number), 1)).write_bytes(image(number, kind))
    assert seen(root) == (8, 8, 8)


def test_heic_is_counted_and_named_with_the_install_line(tmp_path, monkeypatch):
    monkeypatch.setattr(discover, "heif_is_readable", lambda: False)
    root = folders(tmp_path / "set", "a", "b")
    for number in range(12):
        (root / "a" / f"{number}.heic").write_bytes(HEIC_HEAD)
    found = diagnose(str(root))
    data, findings = found.data, found.findings
    assert data is not None
    assert total(data) == 8
    (named,) = (finding for finding in findings if "HEIC" in finding.what)
    assert named.severity == "warning"
    assert "12 HEIC" in named.what
    assert "pip install pillow-heif" in named.what
    assert any("HEIC" in reason for _, reason in find_images([root])[1])


def test_a_class_of_only_heic_is_named_when_teaching(tmp_path, monkeypatch):
    monkeypatch.setattr(discover, "heif_is_readable", lambda: False)
    root = folders(tmp_path / "set", "b", "c")
    (root / "a").mkdir()
    (root / "a" / "0.heic").write_bytes(HEIC_HEAD)
    with pytest.raises(DataError, match=r"'a' .*1 HEIC.*pip install pillow-heif"):
        find_class_files(root)


def test_only_heic_is_an_error_with_the_install_line(tmp_path, monkeypatch):
    monkeypatch.setattr(discover, "heif_is_readable", lambda: False)
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "0.heic").write_bytes(HEIC_HEAD)
    for read in (lambda root: load_dataset(str(root)), lambda root: find_images([root]), find_class_files):
        with pytest.raises(DataError) as caught:
            read(tmp_path / "set")
        assert "2 HEIC" in str(caught.value) or "HEIC images (2)" in str(caught.value)
        assert str(caught.value).count("pip install pillow-heif") == 1


def test_the_advice_on_unreadable_images_names_the_folder(tmp_path):
    root = folders(tmp_path / "my set", "a", "b")
    (root / "a" / "bad.png").write_bytes(b"words")
    with pytest.raises(DataError) as caught:
        load_dataset(str(root))
    assert str(caught.value).endswith(f"thirtytwo data doctor '{root}'")


def test_names_that_are_not_utf8_are_quoted_with_single_backslashes(tmp_path):
    root = folders(tmp_path / "set", "a")
    (root / "a").rename(root / LATIN)
    findings = diagnose(str(folders(root, "b"))).findings
    assert any("'K\\xe4fer'" in finding.what for finding in findings)


def test_hidden_class_folders_are_named(tmp_path):
    root = folders(tmp_path / "set", "a", "b", ".c", ".git", ".Trash-1000")
    found = diagnose(str(root))
    data, findings = found.data, found.findings
    assert data is not None
    assert data.classes == ("a", "b")
    hidden = [finding for finding in findings if "hidden" in finding.what]
    assert [finding.severity for finding in hidden] == ["warning"]
    assert ".c" in hidden[0].what
    assert "4 images" in hidden[0].what


@pytest.mark.parametrize("names", [("Cat", "cat"), ("\u00e4", "a\u0308"), ("cat", "cat ")])
def test_classes_with_almost_the_same_name_are_a_warning(names, tmp_path):
    findings = diagnose(str(folders(tmp_path / "set", *names, "dog"))).findings
    assert [finding.severity for finding in findings if "almost the same name" in finding.what] == ["warning"]


@pytest.mark.parametrize("mode", [0o000, 0o300])
@pytest.mark.parametrize("place", ["lost+found", "a/private", "zebra"])
def test_folders_without_permission_are_left_out_and_named(place, mode, unprivileged, monkeypatch):
    monkeypatch.setenv("THIRTYTWO_CACHE", str(unprivileged / "cache"))
    root = folders(unprivileged / "set", "a", "b", place)
    (root / place).chmod(mode)
    found = diagnose(str(root))
    data, findings = found.data, found.findings
    (root / place).chmod(mode)
    assert data is not None
    assert (total(data), data.classes) == (8, ("a", "b"))
    named = [finding for finding in findings if place in finding.what]
    assert [finding.severity for finding in named] == ["warning" if place == "lost+found" else "error"]
    assert "ermission" in named[0].what
    images, skipped = find_images([root])
    assert len(images) == 8
    assert [path for path, reason in skipped if "ermission" in reason] == [root / place]
    assert load_dataset(str(root), skip_unreadable=True).classes == ("a", "b")
    if place == "lost+found":
        assert load_dataset(str(root)).classes == ("a", "b")
        assert find_class_files(root).files.keys() == {"a", "b"}
    else:
        with pytest.raises(DataError, match=f"The folder {place} of .* cannot be read: Permission denied") as raised:
            load_dataset(str(root))
        assert "--skip-unreadable" in str(raised.value.fix)
        with pytest.raises(DataError, match=f"The folder {place} of .* cannot be read") as raised:
            find_class_files(root)
        assert raised.value.fix == "Correct its permissions."
    (root / place).chmod(0o700)


def test_a_class_without_permission_is_named_where_only_one_remains(unprivileged, monkeypatch):
    monkeypatch.setenv("THIRTYTWO_CACHE", str(unprivileged / "cache"))
    root = folders(unprivileged / "set", "a", "b")
    (root / "b").chmod(0)
    with pytest.raises(DataError, match="b of .* cannot be read"):
        load_dataset(str(root))
    with pytest.raises(DataError, match="b: cannot be read"):
        load_dataset(str(root), skip_unreadable=True)


@pytest.mark.parametrize(
    "read",
    [
        lambda root: load_dataset(str(root)),
        lambda root: load_dataset(str(root / "deeper")),
        lambda root: load_dataset("cifar10", data_root=root),
        lambda root: find_images([root]),
        lambda root: find_images([root / "*.png"]),
        find_class_files,
    ],
    ids=["train", "train below", "data root", "predict", "glob", "teach"],
)
@pytest.mark.parametrize("mode", [0o000, 0o600])
def test_a_root_without_permission_is_one_sentence(read, mode, unprivileged, monkeypatch):
    monkeypatch.setenv("THIRTYTWO_CACHE", str(unprivileged / "cache"))
    root = folders(unprivileged / "set", "a", "b")
    root.chmod(mode)
    with pytest.raises(ThirtytwoError):
        read(root)


def test_names_that_are_not_utf8_are_escaped(tmp_path):
    root = folders(tmp_path / LATIN, "a", LATIN)
    (root / "a" / f"{LATIN}.png").write_bytes(image(50))
    data = load_dataset(str(root))
    assert data.name == "K\\xe4fer"
    assert data.classes == ("a", "K\\xe4fer")
    names = [name for part in data.stored.values() for name in part.files or ()]
    assert "a/K\\xe4fer.png" in names
    for name in (*names, *data.classes, data.name, *data.skipped):
        name.encode()
    assert find_class_files(root).files.keys() == {"a", "K\\xe4fer"}


def _broken_link(path: Path) -> None:
    path.symlink_to("gone.png")


def _no_permission(path: Path) -> None:
    path.write_bytes(image(9))
    path.chmod(0)


@pytest.mark.parametrize("spoil", [_broken_link, _no_permission, lambda path: path.write_bytes(b"")])
def test_every_unreadable_image_is_named_and_the_rest_examined(
    spoil: Callable[[Path], None], unprivileged, monkeypatch
):
    monkeypatch.setenv("THIRTYTWO_CACHE", str(unprivileged / "cache"))
    root = folders(unprivileged / "set", "a", "b")
    for number in range(7):
        spoil(root / "a" / f"bad{number}.png")
    found = diagnose(str(root))
    data, findings = found.data, found.findings
    assert data is not None
    assert total(data) == 8
    errors = [finding.what for finding in findings if finding.severity == "error"]
    assert len(errors) == 7
    assert all(f"a/bad{number}.png" in what for number, what in enumerate(errors))
    with pytest.raises(DataError, match="7 of 15"):
        load_dataset(str(root))


@pytest.mark.parametrize(("images", "found"), [(2, "2 images"), (1, "1 image,"), (0, "contains no images")])
def test_only_files_with_the_content_of_an_image_are_counted(tmp_path, images, found):
    for number in range(3):
        if number < images:
            Image.new("RGB", (4, 4)).save(tmp_path / f"{number}.png")
        else:
            (tmp_path / f"{number}.png").write_text("not an image")
    with pytest.raises(DataError) as caught:
        load_dataset(str(tmp_path))
    assert found in str(caught.value)
