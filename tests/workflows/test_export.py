"""Export to other formats, compared with the original model."""

from __future__ import annotations

import shutil
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import onnx
import pytest

import thirtytwo
from thirtytwo.cli.main import run_command
from thirtytwo.data.load import load_dataset
from thirtytwo.errors import ExportError, OutputError
from thirtytwo.export.quantize import EXPORTS, ExportFormat
from thirtytwo.inference.integrity import with_checksum
from thirtytwo.inference.model_file import read_info
from thirtytwo.rundir import RunDir
from thirtytwo.text import for_terminal, percent
from thirtytwo.workflows.export import export_model
from thirtytwo.workflows.train import train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "digits"
    train("digits", recipe="digits", run=path, epochs=1, limit_train=400, device="cpu", show=False)
    return path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> RunDir:
    shutil.copytree(trained, tmp_path / "digits")
    return RunDir(tmp_path / "digits")


@pytest.mark.parametrize(("kind", "part"), [("onnx-float16", 0.6), ("onnx-int8", 0.4)])
def test_every_built_in_format(run: RunDir, kind: str, part: float, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["export", str(run.path), "--format", kind]) == 0
    out = capsys.readouterr().out
    made = run.path / f"model-{kind.removeprefix('onnx-')}.onnx"
    assert out.splitlines()[-1] == str(made)
    assert made.stat().st_size < part * run.onnx.stat().st_size
    info = read_info(made)
    assert info.accuracy is None, "the accuracy was measured with other weights"
    assert info == read_info(run.onnx).model_copy(update={"accuracy": None})

    found = export_model(run.path, kind, force=True)
    agreement = found.agreement
    assert agreement is not None
    predictions, truth = run.read_predictions("val"), run.read_predictions("val").truth
    assert (agreement.split, agreement.n) == ("validation", len(truth))
    assert agreement.before == pytest.approx((predictions.predicted == truth).mean())
    digits = load_dataset("digits", image_size=info.input_size, resize=info.resize).train
    pixels = digits.images[[digits.rows.tolist().index(row) for row in predictions.rows]]
    answers = thirtytwo.load(made).classify(pixels)
    right = np.mean([answer.top == predictions.classes[label] for answer, label in zip(answers, truth, strict=True)])
    assert agreement.accuracy == pytest.approx(right)
    assert agreement.same > 0.9
    assert 0 < agreement.largest < 0.2
    assert for_terminal(percent(agreement.same)) in out
    assert set(agreement.outputs) == {"probabilities", "logits", "features", "heatmaps", "known_score"}
    assert all(0 < value < agreement.allowed for value in agreement.outputs.values())
    written = run.read_json(run.exports)
    assert list(written) == [made.name]
    assert written[made.name]["format"] == kind
    assert written[made.name]["outputs"] == agreement.outputs
    assert written[made.name]["n"] == agreement.n


@pytest.mark.parametrize("output", ["probabilities", "logits", "features", "heatmaps", "known_score"])
def test_a_format_that_breaks_an_output(output: str, run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def negate(source: Path, target: Path) -> None:
        model = onnx.load(str(source))
        for node in model.graph.node:
            for names in (node.input, node.output):
                for place, name in enumerate(names):
                    if name == output:
                        names[place] = "before"
        model.graph.node.append(onnx.helper.make_node("Neg", ["before"], [output]))
        target.write_bytes(with_checksum(model.SerializeToString()))

    monkeypatch.setitem(EXPORTS._entries, "onnx-broken", ExportFormat("-broken.onnx", "one output negated", negate))
    with pytest.raises(ExportError) as caught:
        export_model(run.path, "onnx-broken")
    assert f"{output} by 200.0\u00a0%" in caught.value.message
    assert not (run.path / "model-broken.onnx").exists()
    assert not run.exports.exists()


def test_format_of_another_package(run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def count(source: Path, target: Path) -> None:
        target.write_text(str(source.stat().st_size))

    monkeypatch.setattr(EXPORTS, "_plugins", {"size": EntryPoint("size", "elsewhere:size", "thirtytwo.export_formats")})
    monkeypatch.setattr(EntryPoint, "load", lambda self: ExportFormat(".txt", "its size", count, same_contract=False))
    monkeypatch.setattr(EXPORTS, "_entries", dict(EXPORTS._entries))
    found = export_model(run.path, "size", out=tmp_path / "size.txt")
    assert found.agreement is None
    assert found.path.read_text() == str(run.onnx.stat().st_size)


def test_a_model_without_its_run(run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone = tmp_path / "elsewhere" / "alone.onnx"
    alone.parent.mkdir()
    shutil.copyfile(run.onnx, alone)
    assert run_command(["export", str(alone), "--format", "onnx-int8"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == str(alone.with_name("alone-int8.onnx"))
    assert f"{alone} is not in a run directory" in err


def test_existing_files_are_not_overwritten(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    place = run.path / "model-int8.onnx"
    place.write_text("mine")
    assert run_command(["export", str(run.path), "--format", "onnx-int8"]) == 2
    err = capsys.readouterr().err
    assert str(place) in err
    assert "--force" in err
    assert place.read_text() == "mine"
    with pytest.raises(OutputError) as caught:
        export_model(run.path, "onnx-int8", out=run.onnx, force=True)
    assert str(run.onnx) in caught.value.message
    assert "--out" in (caught.value.fix or "")


@pytest.mark.parametrize(
    ("kind", "name"), [("web-page", "page.html"), ("web-page", "page.onnx"), ("onnx-int8", "small.zip")]
)
def test_a_suffix_of_another_format_is_refused(kind: str, name: str, colour_model: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="suffix"):
        export_model(colour_model, kind, out=tmp_path / name)
    assert not (tmp_path / name).exists()


def test_quantized_model_is_refused(run: RunDir) -> None:
    small = export_model(run.path, "onnx-int8").path
    with pytest.raises(ExportError) as caught:
        export_model(small, "onnx-float16")
    assert "float32" in caught.value.message


def test_an_unknown_format(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["export", str(run.path), "--format", "onnx-int4"]) == 2
    err = capsys.readouterr().err
    assert "'onnx-int4'" in err
    assert "'onnx-int8'" in err


def test_a_file_that_could_not_be_compared_has_no_record_of_another(run: RunDir, tmp_path: Path) -> None:
    target = run.path / "m.onnx"
    export_model(run.path, "onnx-int8", out=target)
    assert list(run.read_json(run.exports)) == ["m.onnx"]
    environment = run.read_json(run.environment)
    run.write_json(
        run.environment, environment | {"data": environment["data"] | {"spec": "nowhere", "path": "nowhere"}}
    )
    assert export_model(run.path, "onnx-float16", out=target, force=True).agreement is None
    assert run.read_json(run.exports) == {}
