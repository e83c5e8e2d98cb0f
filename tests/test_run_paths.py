from __future__ import annotations

from pathlib import Path

import pytest

from thirtytwo.run_paths import RunPaths, default_path


def test_every_artefact_has_its_name(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    names = {
        path.name
        for path in (
            run.recipe, run.environment, run.split, run.history, run.weights, run.checkpoints, run.predictions("test"),
            run.metrics, run.onnx, run.report, run.figures, run.card,
        )
    }  # fmt: skip
    assert names == {
        "recipe.toml", "environment.json", "split.json", "history.csv", "weights.safetensors", "checkpoints",
        "predictions-test.parquet", "metrics.json", "model.onnx", "report.html", "figures", "README.md",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("cifar10", "cifar10-fast-seed0"),
        ("../cats", "cats-fast-seed0"),
        ("cats/", "cats-fast-seed0"),
        (".", "cats-fast-seed0"),
        ("./", "cats-fast-seed0"),
        ("..", "zoo-fast-seed0"),
        ("hf:owner/flowers", "flowers-fast-seed0"),
    ],
)
def test_unnamed_runs_are_named_after_their_data(
    data: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zoo" / "cats").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "zoo" / "cats")
    assert default_path(data, "fast", "seed0") == Path("runs") / name
