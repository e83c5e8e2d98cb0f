from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from thirtytwo.arguments import given_paths, path_of
from thirtytwo.errors import ArgumentError, InputError, OutputError
from thirtytwo.io import (
    TEXT,
    atomic_folder,
    atomic_write,
    check_writable,
    folded,
    free_name,
    free_path,
    lock_directory,
    missing_folder,
    short_name,
    slug,
    write_bytes,
    write_json,
    write_text,
)

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX only")


def test_text_bytes_and_json_come_back(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "a.txt", "grün\n")
    write_bytes(tmp_path / "a.bin", b"\0\1")
    write_json(tmp_path / "a.json", {"größe": [1, None]})
    assert (tmp_path / "new" / "a.txt").read_text(encoding="utf-8") == "grün\n"
    assert (tmp_path / "a.bin").read_bytes() == b"\0\1"
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"größe": [1, None]}


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    expected = OutputError if isinstance(error, OSError) else type(error)

    def fail_halfway() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(expected):
        fail_halfway()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [float("-inf")]}])
def test_json_rejects_nan_and_infinity(tmp_path: Path, value: object) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", value)
    assert list(tmp_path.iterdir()) == []


def test_temporary_file_lies_beside_with_the_same_suffix(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "model.onnx") as temporary:
        assert (temporary.parent, temporary.suffix) == (tmp_path, ".onnx")
        assert not (tmp_path / "model.onnx").exists()
    assert (tmp_path / "model.onnx").exists()


@posix
def test_rights_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a.txt", "a")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


@posix
def test_the_umask_of_the_process_is_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed umask would affect files that other threads create at the same time."""

    def changed(mask: int) -> int:
        raise AssertionError(f"the umask was set to {mask}")

    monkeypatch.setattr(os, "umask", changed)
    write_text(tmp_path / "a.txt", "a")


def test_an_input_that_cannot_be_read_is_named_and_not_the_output(tmp_path: Path) -> None:
    missing, out = tmp_path / "missing.onnx", tmp_path / "out.onnx"

    def copy() -> None:
        with atomic_write(out) as temporary:
            temporary.write_bytes(missing.read_bytes())

    with pytest.raises(InputError) as caught:
        copy()
    assert str(missing) in caught.value.message
    assert str(out) not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_errors_that_are_not_about_writing_pass_as_they_are(tmp_path: Path) -> None:
    for error in (OSError("image file is truncated"), ConnectionResetError(104, "Connection reset by peer")):
        with pytest.raises(type(error)) as caught, atomic_write(tmp_path / "a.txt"):
            raise error
        assert caught.value is error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("case", ["folder is a file", "target is a folder", "name too long"])
def test_places_that_cannot_be_written_are_named(tmp_path: Path, case: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    path = {
        "folder is a file": tmp_path / "file" / "a.txt",
        "target is a folder": tmp_path / "folder",
        "name too long": tmp_path / ("a" * 300),
    }[case]
    with pytest.raises(OutputError) as caught:
        write_text(path, "a")
    assert str(path) in caught.value.message
    assert caught.value.fix is not None


@posix
@pytest.mark.parametrize(
    ("name", "format", "fits"),
    [
        ("x.pdf", "HTML", False),
        ("y.html", "PDF", False),
        ("y.HTM", "PNG", False),
        ("x.PDF", "PDF", True),
        ("page.html", "HTML", True),
        ("report", "PDF", True),
        ("v1.2", "HTML", True),
        ("x.pdf", "", True),
    ],
)
def test_a_suffix_of_another_format_is_refused(tmp_path: Path, name: str, format: str, fits: bool) -> None:
    with nullcontext() if fits else pytest.raises(OutputError, match=format):
        check_writable(tmp_path / name, force=False, format=format)


@pytest.mark.parametrize("name", ["marks.xlsx", "marks.xls", "marks.ods", "marks.tsv"])
def test_text_for_a_spreadsheet_is_refused_and_csv_suggested(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"\.csv"):
        check_writable(tmp_path / name, force=False, format=TEXT)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder in which nobody can create a file")
@pytest.mark.parametrize("path", ["/proc/x.csv", "/proc/new/x.csv"])
def test_a_folder_in_which_no_file_can_be_created_is_named_before_anything_is_done(path: str) -> None:
    for write in (lambda: check_writable(Path(path), force=False), lambda: write_text(Path(path), "")):
        with pytest.raises(OutputError) as caught:
            write()
        assert path in caught.value.message
        assert "Choose another" in str(caught.value.fix)
        assert "space" not in str(caught.value)


def test_checking_leaves_nothing_behind(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "x.csv", force=False)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "x.csv").write_text("mine")
    check_writable(tmp_path / "x.csv", force=True)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_the_folder_of_an_output_is_missing_or_not(tmp_path: Path) -> None:
    assert missing_folder(tmp_path / "x.csv") is None
    assert missing_folder(tmp_path / "new" / "deep" / "x.csv") == tmp_path / "new" / "deep"
    assert missing_folder(Path("x.csv")) is None


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    """A limit of 4 KB per file has the same effect as a full disk."""
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    script = (
        "import resource, signal, sys; from pathlib import Path; from thirtytwo.io import write_bytes\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "from thirtytwo.errors import InputError, OutputError\n"
        "try: write_bytes(Path(sys.argv[1]), bytes(100_000))\n"
        "except OutputError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(str(path))
    assert "File too large" in done.stdout
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_temporary_file_that_is_written_atomically_is_named_by_the_file(tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    with pytest.raises(OutputError) as caught, atomic_write(target) as temporary, atomic_write(temporary) as inner:
        raise OSError(errno.ENOSPC, "No space left on device", str(inner))
    assert caught.value.message == f"{target} could not be written: No space left on device."
    assert "Free disk space" in str(caught.value.fix)
    assert not list(tmp_path.iterdir())


def test_numbered_directories_and_names(tmp_path: Path) -> None:
    run = tmp_path / "cifar10-v1.5"
    assert free_path(run) == run
    run.mkdir()
    (tmp_path / "cifar10-v1.5-2").write_text("")
    assert free_path(run) == tmp_path / "cifar10-v1.5-3"
    assert free_name("Photo.png", {"photo.png", "photo-2.png"}) == "Photo-3.png"
    assert free_name("a.b.png", set()) == "a.b.png"
    composed, decomposed = "K\u00c4fer.png", "ka\u0308fer.png"
    assert free_name(composed, {folded(decomposed)}) == "K\u00c4fer-2.png"
    assert free_name(decomposed, {folded(composed)}) == "ka\u0308fer-2.png"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("hf:uoft-cs/cifar10", "cifar10"), ("my images/", "my-images"), ("a:b*c", "a-b-c"), ("", "data")],
)
def test_slugs_are_file_names(name: str, expected: str) -> None:
    assert slug(name) == expected
    assert slug("..") not in ("", ".", "..")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (".", "cats"),
        ("./", "cats"),
        ("../cats", "cats"),
        (".?imbalance=10", "cats-imbalance-10"),
        (".hidden", "hidden"),
    ],
)
def test_slugs_of_folders_are_their_names_and_not_hidden(text, expected, tmp_path, monkeypatch):
    (tmp_path / "cats").mkdir()
    monkeypatch.chdir(tmp_path / "cats")
    assert slug(text) == expected


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "猫" * 100 + ".png", "y" * 300, "short.png"])
def test_long_names_are_shortened_and_stay_apart(name):
    found = short_name(name)
    assert len(os.fsencode(found)) <= 255
    assert found.endswith(Path(name).suffix)
    assert (found == name) == (name == "short.png")
    assert short_name(f"a{name}") != found


def test_a_name_that_leaves_no_room_for_a_temporary_one_is_written(tmp_path):
    write_text(tmp_path / ("x" * 251 + ".txt"), "x")
    assert [path.name for path in tmp_path.iterdir()] == ["x" * 251 + ".txt"]


LEFTOVERS = (".metrics.json.0a1b2c3d.json", "checkpoints/.last.ckpt.ffffffff.ckpt", ".LICENSE.01234567")
OTHERS = (
    ".hidden",
    ".gitignore",
    ".metrics.json.0a1b2c3d.txt",
    "metrics.json",
    ".metrics.json.0A1B2C3D.json",
    ".a.b.json",
)


def test_leftovers_of_killed_processes_are_removed(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for name in (*LEFTOVERS, *OTHERS):
        (tmp_path / name).touch()
    with lock_directory(tmp_path):
        left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left - {".lock"} == set(OTHERS)


KILLED = """
import os, signal, sys
from pathlib import Path
from thirtytwo.io import atomic_folder
with atomic_folder(Path(sys.argv[1])) as folder:
    (folder / "a.txt").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@posix
@pytest.mark.parametrize("name", ["out", "o" * 255])
def test_folder_of_a_killed_process_is_removed(name: str, tmp_path: Path) -> None:
    out = tmp_path / name
    subprocess.run([sys.executable, "-c", KILLED, str(out)], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    mine = [tmp_path / ".out.0a1b2c3d", tmp_path / ".other.0a1b2c3d"]
    for folder in mine:
        folder.mkdir()
        (folder / "mine.txt").write_text("kept")
    with atomic_folder(out) as folder:
        (folder / "a.txt").write_text("whole")
    assert sorted(tmp_path.iterdir()) == sorted([out, *mine])
    assert [path.name for path in out.iterdir()] == ["a.txt"]
    assert all((folder / "mine.txt").read_text() == "kept" for folder in mine)


@posix
def test_folder_of_a_running_process_is_kept(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "out") as first:
        (first / "a.txt").write_text("first")
        with atomic_folder(tmp_path / "out") as second:
            (second / "a.txt").write_text("second")
        assert (first / "a.txt").read_text() == "first"
        (tmp_path / "out").rename(tmp_path / "moved")
    assert (tmp_path / "out/a.txt").read_text() == "first"


def test_files_of_a_process_that_holds_a_lock_below_are_left_alone(tmp_path: Path) -> None:
    inner = tmp_path / "runs" / "mine" / "checkpoints"
    inner.mkdir(parents=True)
    (inner / LEFTOVERS[0]).touch()
    (tmp_path / LEFTOVERS[0]).touch()
    with lock_directory(inner.parent):
        (inner / LEFTOVERS[0]).touch()
        with lock_directory(tmp_path):
            assert (inner / LEFTOVERS[0]).exists()
            assert not (tmp_path / LEFTOVERS[0]).exists()


@pytest.mark.parametrize("value", [None, 5, b"runs/mine", ["runs/mine"]])
def test_what_is_no_path_is_refused(value: object) -> None:
    with pytest.raises(ArgumentError, match=r"^run must be a path; found "):
        path_of("run", value)


def test_one_path_or_several() -> None:
    assert given_paths("runs", "a") == given_paths("runs", Path("a")) == given_paths("runs", ("a",)) == [Path("a")]
    assert given_paths("runs", iter([Path("a"), "b"])) == [Path("a"), Path("b")]
    with pytest.raises(ArgumentError, match="found 3"):
        given_paths("runs", ["a", 3])
