"""`thirtytwo predict`: formats, files, errors, memory and imports."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from thirtytwo.cli.main import run_command
from thirtytwo.inference.library import bundled_models

Output = tuple[int, str, str]
Predict = Callable[..., Output]


@pytest.fixture
def predict(colour_model: Path, capsys: pytest.CaptureFixture[str]) -> Predict:
    """Run `thirtytwo predict … --model`; return exit code, stdout and stderr."""

    def run(*arguments: str | Path, model: Path | None = colour_model) -> Output:
        chosen = ["--model", str(model)] if model else []
        code = run_command(["predict", *map(str, arguments), *chosen])
        return (code, *capsys.readouterr())

    return run


def test_table(predict: Predict, image_folder: Path) -> None:
    code, out, err = predict(image_folder / "red.png", image_folder / "grey.png", "--top", "2")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].split() == ["file", "size", "class", "confidence", "next", "best"]
    assert lines[1].startswith(f"{image_folder / 'red.png'}")
    assert " 8×10 " in lines[1]
    assert " red " in lines[1]
    assert " unknown " in lines[2]
    assert err == ""


def test_names_are_readable_in_the_table_and_unchanged_in_files(
    predict: Predict, image_folder: Path, write_model: Callable[..., Path], tmp_path: Path
) -> None:
    model = write_model(tmp_path / "named.onnx", classes=("sweet_pepper", "lawn_mower", "oak"))
    formats = ("table", "json", "csv")
    named = {kind: predict(image_folder / "red.png", "--format", kind, model=model)[1] for kind in formats}
    assert " sweet pepper " in named["table"]
    assert "lawn mower " in named["table"]
    assert "99.9 %" in named["table"]
    assert json.loads(named["json"])[0]["top"] == "sweet_pepper"
    assert next(csv.DictReader(io.StringIO(named["csv"])))["top"] == "sweet_pepper"


def test_further_views(predict: Predict, tmp_path: Path) -> None:
    file = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file)
    tiny = bundled_models()["cifar10-tiny"]
    found = {}
    for tta in ("off", "auto", "all"):
        code, out, _ = predict(file, "--format", "json", "--tta", tta, model=tiny)
        assert code == 0
        found[tta] = json.loads(out)[0]["confidence"]
    assert found["off"] < 0.9
    assert found["auto"] == found["all"] != found["off"]


def test_table_of_the_best_only(predict: Predict, image_folder: Path) -> None:
    _, out, _ = predict(image_folder / "red.png", "--top", "1")
    assert out.splitlines()[0].split() == ["file", "size", "class", "confidence"]


def test_json(predict: Predict, image_folder: Path) -> None:
    code, out, _ = predict(image_folder / "blue.png", "--format", "json", "--top", "2")
    (entry,) = json.loads(out)
    assert code == 0
    assert entry == {
        "file": str(image_folder / "blue.png"),
        "width": 24,
        "height": 30,
        "top": "blue",
        "confidence": pytest.approx(1, abs=0.001),
        "known": True,
        "predictions": [
            {"class": "blue", "confidence": entry["confidence"]},
            {"class": entry["predictions"][1]["class"], "confidence": pytest.approx(0, abs=0.001)},
        ],
    }


def test_csv(predict: Predict, image_folder: Path) -> None:
    code, out, _ = predict(image_folder / "green.png", image_folder / "notes.txt", "--format", "csv", "--top", "1")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 2
    assert list(rows[0]) == [
        *("file", "width", "height", "top", "confidence", "known", "class_1", "confidence_1", "error")
    ]
    assert (rows[0]["top"], rows[0]["known"], rows[0]["width"], rows[0]["error"]) == ("green", "true", "16", "")
    assert (rows[1]["top"], rows[1]["known"]) == ("", "")
    assert "notes.txt" in rows[1]["error"]


def test_folder_glob_and_file_each_once(predict: Predict, image_folder: Path) -> None:
    code, out, err = predict(image_folder, f"{image_folder}/*.png", image_folder / "red.png", "--format", "json")
    assert code == 0
    assert [Path(entry["file"]).name for entry in json.loads(out)] == ["blue.png", "green.png", "grey.png", "red.png"]
    assert "Thumbs.db" in err
    assert "notes.txt" in err


def truncated_jpeg(path: Path) -> None:
    Image.effect_noise((64, 64), 50).convert("RGB").save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:300])


def corrupt_png(path: Path) -> None:
    Image.effect_noise((64, 64), 50).save(path, "PNG")
    data = bytearray(path.read_bytes())
    data[60:200] = bytes(140)
    path.write_bytes(data)


def zero_bytes(path: Path) -> None:
    path.touch()


def one_pixel(path: Path) -> None:
    Image.new("RGB", (1, 1)).save(path, "PNG")


def huge(path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(path, "PNG")


def words(path: Path) -> None:
    path.write_text("only words")


def nothing(path: Path) -> None:
    pass


BAD = [
    (truncated_jpeg, "bad.png"),
    (corrupt_png, "bad.png"),
    (zero_bytes, "0 bytes"),
    (one_pixel, "1×1"),
    (huge, "20000×20000"),
    (words, "bad.png"),
    (nothing, "bad.png"),
]


@pytest.mark.slow
@pytest.mark.parametrize("format", ["table", "json", "csv"])
@pytest.mark.parametrize(("make", "value"), BAD)
def test_bad_file_among_good_ones(
    predict: Predict, image_folder: Path, tmp_path: Path, format: str, make: Callable[[Path], None], value: str
) -> None:
    bad = tmp_path / "bad.png"
    make(bad)
    code, out, err = predict(image_folder / "red.png", bad, image_folder / "blue.png", "--format", format)
    assert code == 2, "after the readable ones were classified"
    assert "red" in out
    assert "blue" in out
    assert "1 of 3 files" in err
    assert value in (err if format == "table" else out)
    assert str(bad) in (err if format == "table" else out)
    assert "Traceback" not in err
    if format == "json":
        entries: list[dict[str, Any]] = json.loads(out)
        assert list(entries[1]) == ["file", "error"]
        assert [entry.get("top") for entry in entries] == ["red", None, "blue"]


@pytest.mark.slow
@pytest.mark.parametrize(("make", "value"), BAD)
def test_bad_file_alone(predict: Predict, tmp_path: Path, make: Callable[[Path], None], value: str) -> None:
    bad = tmp_path / "bad.png"
    make(bad)
    code, _, err = predict(bad)
    assert code == 2
    assert value in err
    assert err.count("\n") == 1


def test_folder_without_images(predict: Predict, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    code, out, err = predict(tmp_path / "empty")
    assert (code, out) == (2, "")
    assert str(tmp_path / "empty") in err
    code, out, err = predict(f"{tmp_path}/*.jpg")
    assert (code, out) == (2, "")
    assert f"{tmp_path}/*.jpg" in err


# Models


def not_onnx(path: Path, model: Path) -> None:
    path.write_text("no model")


def truncated_onnx(path: Path, model: Path) -> None:
    path.write_bytes(model.read_bytes()[:200])


def other_onnx(path: Path, model: Path) -> None:
    import onnx

    changed = onnx.load(model)
    del changed.metadata_props[:]
    onnx.save(changed, path)


@pytest.mark.parametrize(
    ("make", "value"),
    [
        (not_onnx, "ONNX"),
        (truncated_onnx, "ONNX"),
        (other_onnx, "'thirtytwo'"),
        (lambda path, model: None, "model.onnx"),
    ],
)
def test_bad_model(
    predict: Predict,
    colour_model: Path,
    image_folder: Path,
    tmp_path: Path,
    make: Callable[[Path, Path], None],
    value: str,
) -> None:
    path = tmp_path / "model.onnx"
    make(path, colour_model)
    code, out, err = predict(image_folder / "red.png", "--out", tmp_path / "out.json", model=path)
    assert (code, out) == (2, "")
    assert value in err
    assert str(path) in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out.json").exists()


def test_default_model_is_logged(
    predict: Predict,
    colour_model: Path,
    image_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    nothing_bundled: None,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = predict(image_folder / "red.png", model=None)
    assert (code, out) == (2, "")
    assert "thirtytwo train" in err
    run = tmp_path / "runs" / "colours-1"
    run.mkdir(parents=True)
    (run / "model.onnx").write_bytes(colour_model.read_bytes())
    code, out, err = predict(image_folder / "red.png", model=None)
    assert code == 0
    assert "runs/colours-1/model.onnx" in err
    assert "--model" in err


# Output files


@pytest.mark.parametrize("format", ["table", "json", "csv"])
def test_out_equals_stdout(predict: Predict, image_folder: Path, tmp_path: Path, format: str) -> None:
    out = tmp_path / "new" / "results.txt"
    _, printed, _ = predict(image_folder, "--format", format)
    code, nothing_printed, _ = predict(image_folder, "--format", format, "--out", out)
    assert (code, nothing_printed) == (0, "")
    assert out.read_text(encoding="utf-8") == printed


@pytest.mark.parametrize(("name", "format"), [("r.json", "json"), ("r.CSV", "csv"), ("r.txt", "table"), ("r", "table")])
def test_the_suffix_of_out_chooses_the_format(
    predict: Predict, image_folder: Path, tmp_path: Path, name: str, format: str
) -> None:
    _, printed, _ = predict(image_folder, "--format", format)
    assert predict(image_folder, "--out", tmp_path / name)[0] == 0
    assert (tmp_path / name).read_text(encoding="utf-8") == printed
    assert predict(image_folder, "--out", tmp_path / name, "--format", "table", "--force")[0] == 0
    assert (tmp_path / name).read_text(encoding="utf-8").startswith("file  ")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("other.jpg", "JPEG"),
        ("other.WEBP", "WEBP"),
        ("other.jpe", "JPEG"),
        ("other.avif", "AVIF"),
        ("other.ppm", "PPM"),
        ("model.onnx", "ONNX"),
        ("weights.safetensors", "safetensors"),
        ("weights.pt", "PyTorch"),
        ("images.npy", "NumPy"),
        ("images.parquet", "Parquet"),
        ("report.html", "HTML"),
        ("marks.xlsx", "Excel"),
        ("marks.ods", "OpenDocument"),
        ("marks.tsv", "TSV"),
        ("marks.jsonl", "JSON Lines"),
    ],
)
@pytest.mark.parametrize("format", [(), ("--format", "table"), ("--format", "csv")])
def test_results_never_replace_another_kind_of_file(
    predict: Predict, image_folder: Path, tmp_path: Path, name: str, kind: str, format: tuple[str, ...]
) -> None:
    (tmp_path / name).write_bytes(b"kept")
    code, _, err = predict(image_folder, "--out", tmp_path / name, *format, "--force")
    assert (code, (tmp_path / name).read_bytes()) == (2, b"kept")
    assert f"has the suffix of {kind}" in err


def test_a_hyphen_is_standard_output(
    predict: Predict, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    printed = predict(image_folder, "--format", "csv")
    assert predict(image_folder, "--format", "csv", "--out", "-") == printed
    assert list(tmp_path.glob("-")) == []


def test_existing_out_is_an_error(predict: Predict, image_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    out.write_text("mine")
    code, _, err = predict(image_folder, "--format", "json", "--out", out)
    assert code == 2
    assert "results.json" in err
    assert "--force" in err
    assert out.read_text() == "mine"
    code, _, _ = predict(image_folder, "--format", "json", "--out", out, "--force")
    assert code == 0
    assert len(json.loads(out.read_text())) == 4
    assert list(tmp_path.glob(".results*")) == []


def test_out_that_is_a_folder(predict: Predict, image_folder: Path, tmp_path: Path) -> None:
    code, _, err = predict(image_folder, "--out", tmp_path)
    assert code == 2
    assert "is a folder" in err
    assert str(tmp_path) in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_device(predict: Predict, image_folder: Path) -> None:
    code, _, err = predict(image_folder, "--format", "json", "--out", "/dev/full")
    assert code == 2
    assert "/dev/full" in err
    assert "No space left on device" in err


def test_full_disk_leaves_nothing(colour_model: Path, image_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    code = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
from thirtytwo.cli.main import main
main()
"""
    arguments = ["predict", image_folder, "--model", colour_model, "--format", "json", "--out", folder / "results.json"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "results.json" in done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(folder.iterdir()) == []


def test_file_name_that_is_not_utf8(colour_model: Path, image_folder: Path, tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/odd-\xff.png"
    try:
        os.link(image_folder / "red.png", odd)
    except OSError:
        pytest.skip("this file system requires UTF-8 names")
    command = [sys.executable, "-m", "thirtytwo", "predict", odd, "--model", str(colour_model), "--format", "json"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert json.loads(done.stdout)[0]["top"] == "red"


# Memory and imports

COSTS = """
import json, sys
from thirtytwo.cli.main import run_command
code = run_command(sys.argv[1:])
# Not ru_maxrss: on Linux a child process inherits its parent's value.
peak = int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024
modules = sorted({name.split(".")[0] for name in sys.modules})
print(json.dumps({"code": code, "peak_mb": peak, "modules": modules}), file=sys.stderr)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc/self/status")
def test_memory_and_imports_of_predicting_a_photo(colour_model: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((4000, 3000)).save(photo, quality=90)
    command = [sys.executable, "-c", COSTS, "predict", str(photo), "--model", str(colour_model)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    costs = json.loads(done.stderr)
    assert costs["code"] == 0
    assert costs["peak_mb"] < 300
    assert not set(costs["modules"]) & {
        *("torch", "torchvision", "lightning", "timm", "sklearn", "scipy", "pandas", "pyarrow", "matplotlib", "onnx")
    }


def test_images_and_the_model_are_never_overwritten(
    predict: Predict, image_folder: Path, colour_model: Path, tmp_path: Path
) -> None:
    image, link, model = image_folder / "red.png", tmp_path / "link", tmp_path / "model"
    link.symlink_to(image)
    model.write_bytes(colour_model.read_bytes())
    for out in (image, link):
        before = image.read_bytes()
        code, _, err = predict(image_folder, "--out", out, "--format", "table", "--force")
        assert (code, image.read_bytes()) == (2, before)
        assert str(out) in err
    code, _, err = predict(image, "--out", model, "--force", model=model)
    assert (code, model.read_bytes()) == (2, colour_model.read_bytes())
    assert str(model) in err
