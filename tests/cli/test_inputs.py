"""What people give where images or a folder are expected: lists, addresses, archives, notebooks."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import thirtytwo
from thirtytwo.cli.main import run_command

URL = "https://example.com/a/cat.jpg?x=1"


def classify(arguments: list[str], model: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert run_command(["predict", *arguments, "--model", str(model), "--format", "json"]) == 0
    return [Path(entry["file"]).name for entry in json.loads(capsys.readouterr().out)]


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\0", "\n\n"])
@pytest.mark.parametrize("how", ["-", "@list.txt", "@~/list.txt"])
def test_lists_of_paths(
    how: str,
    separator: str,
    colour_model: Path,
    image_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = separator.join(str(image_folder / name) for name in ("red.png", "blue.png")) + separator
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    Path("list.txt").write_bytes(text.encode())
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))
    assert classify([how, str(image_folder / "green.png")], colour_model, capsys) == [
        "red.png",
        "blue.png",
        "green.png",
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_lists_written_on_windows(
    encoding: str, colour_model: Path, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (image_folder / "red.png").rename(image_folder / "größe.png")
    listed = tmp_path / "list.txt"
    listed.write_bytes(f"{image_folder / 'größe.png'}\r\n{image_folder / 'blue.png'}\r\n".encode(encoding))
    assert classify([f"@{listed}"], colour_model, capsys) == ["größe.png", "blue.png"]


def test_lists_with_the_paths_that_windows_copies(
    colour_model: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(image_folder)
    Path("more").mkdir()
    for name in ("red.png", "green.png"):
        Path(name).rename(Path("more", name))
    Path("list.txt").write_text('more\\red.png\n"blue.png"\n".\\more\\green.png"\n')
    assert classify(["@list.txt"], colour_model, capsys) == ["red.png", "blue.png", "green.png"]


def test_a_file_whose_name_starts_with_the_mark(
    colour_model: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(image_folder)
    Path("red.png").rename("@red.png")
    assert classify(["@red.png"], colour_model, capsys) == ["@red.png"]


@pytest.mark.parametrize("verb", ["predict", "explain"])
@pytest.mark.parametrize(
    ("arguments", "stdin", "expected"),
    [
        ([URL], "", [URL, f"curl -L -o cat.jpg '{URL}'"]),
        (["@list.txt"], "", ["list.txt", "one path a line"]),
        (["-"], "file,width,height,top\na.png,2,2,red\n", ["a table in standard input", "one path a line"]),
        (["https://x.org/taken.jpg"], "", ["curl -L -o taken-2.jpg https", "give the file 'taken-2.jpg'"]),
        (["taken.zip"], "", ["taken.zip is an archive", "unzip -q taken.zip -d taken-2 – then give taken-2."]),
        (["-"], "\n \n", ["standard input", "one path a line"]),
        (["-"], f"{URL}\n", [URL]),
        (["-"], "BM photos/1.jpg\n", ["BM photos/1.jpg"]),
    ],
)
def test_advice(
    verb: str,
    arguments: list[str],
    stdin: str,
    expected: list[str],
    colour_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taken").mkdir()
    for name in ("taken.jpg", "taken.zip"):
        Path(name).write_bytes(b"PK\x03\x04" + bytes(64))
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(stdin.encode())))
    assert run_command([verb, *arguments, "--model", str(colour_model)]) == 2
    error = capsys.readouterr().err
    assert all(text in error for text in expected), error


@pytest.mark.parametrize("verb", ["predict", "explain"])
@pytest.mark.parametrize("argument", ["-", "@red.png"])
def test_an_image_instead_of_a_list(
    verb: str,
    argument: str,
    colour_model: Path,
    image_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(image_folder)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(Path("red.png").read_bytes())))
    assert run_command([verb, argument, "--model", str(colour_model)]) == 2
    error = capsys.readouterr().err
    where = "standard input" if argument == "-" else "red.png"
    assert f"an image in {where}" in error
    assert "one path a line" in error


def test_an_address_in_python(colour_model: Path) -> None:
    (found,) = thirtytwo.load(colour_model).predict(URL)
    assert URL in found.error  # type: ignore[union-attr]


DATA = [
    ("my photos.zip", "unzip -q 'my photos.zip' -d 'my photos'"),
    ("taken.zip", "unzip -q taken.zip -d taken-2 – then give taken-2."),
    ("photos.tar.gz", "mkdir -p photos && tar -xf photos.tar.gz -C photos"),
    ("photos.TGZ", "tar -xf photos.TGZ -C photos"),
    ("photos.7z", "7z x photos.7z -ophotos"),
    ("train.ipynb", "notebook"),
    ("labels.json", "table"),
    ("model.onnx", "--model"),
    ("recipe.toml", "--recipe"),
    ("x.parquet", "folder that contains it"),
    ("clip.mp4", "ffmpeg"),
    ("notes", "not a folder"),
]


@pytest.mark.parametrize(
    "command", [["train"], ["data", "doctor"], ["data", "show"], ["teach"]], ids=["train", "doctor", "show", "teach"]
)
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *DATA,
        ("https://example.com/photos.zip", "curl -L -o photos.zip https://example.com/photos.zip"),
        ("https://huggingface.co/datasets/owner/name", "hf:owner/name"),
        ("s3://bucket/photos.zip", "aws s3 cp s3://bucket/photos.zip photos.zip"),
        ("gs://bucket/photos.zip", "gcloud storage cp gs://bucket/photos.zip photos.zip"),
        ("smb://server/photos", "Download it first, then"),
        ("file:///my%20photos/x", "Give the path: '/my photos/x'"),
    ],
)
def test_other_things_as_data(
    command: list[str],
    name: str,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    command = [*command, "--out", "new.onnx"] if command == ["teach"] else command
    if "://" not in name:
        Path(name).write_bytes(b"PK")
    Path("taken").mkdir()
    Path("taken.jpg").touch()
    assert run_command([*command, name]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert "Did you mean '.'" not in error
    assert name.rpartition("://")[2].lstrip("/") in error


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["evaluate", "report"])
def test_a_model_file_as_run_is_refused_before_slow_imports(verb: str, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").touch()
    program = f"import sys; from thirtytwo.cli.main import run_command; code = run_command(['{verb}', 'm.onnx']); "
    program += "assert code == 2 and not {'torch', 'onnxruntime', 'matplotlib'} & set(sys.modules), code"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "m.onnx is a model file, not a run directory" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["train", "images", "--apply", "pipe"],
        ["train", "images", "--recipe", "pipe"],
        ["train", "pipe"],
        ["tune", "images", "--space", "pipe", "--run", "tuned"],
        ["data", "fix", "images", "--plan", "pipe", "--out", "fixed"],
        ["data", "doctor", "images", "--predictions", "pipe"],
        ["predict", "images", "--model", "pipe"],
        ["explain", "pipe", "--model", "MODEL"],
        ["teach", "pipe", "--out", "new.onnx"],
        ["evaluate", "pipe"],
    ],
    ids=lambda words: " ".join(words[:2]) + words[-1],
)
def test_named_pipes_are_not_waited_for(
    words: list[str], colour_model: Path, tiny: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.folder(tmp_path / "images", 12)
    os.mkfifo("pipe")

    def late(*_: object) -> None:
        raise TimeoutError

    monkeypatch.setattr("thirtytwo.cli.main._bug", late)
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    try:
        assert run_command([word.replace("MODEL", str(colour_model)) for word in words]) == 2
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_a_folder_of_archives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("photos.zip", "readme.txt"):
        (tmp_path / name).write_bytes(b"PK\x03\x04")
    assert run_command(["data", "show", str(tmp_path)]) == 2
    assert f"unzip -q {tmp_path}/photos.zip -d {tmp_path}/photos" in capsys.readouterr().err
