"""A trial run of `benchmarks/gpu.py` on the CPU, so that time on a GPU is not lost to a mistake in the script."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
PHOTOS = {"recipe", "mean", "std", "seconds", "history", "val_rows", "val_accuracy", "test_accuracy", "n_test"}
STAGES: dict[str, set[str]] = {
    "check": {"float32", "synchronizations", "waits", "largest_cpu_ms"},
    "fast": {"recipes", "runs", "target", "reached"},
    "layouts": {"channels_last float32", "contiguous_format float32"},
    "steps": {"fast", "photos", "profile"},
    "sweep-0.1": {"recipes", "runs"},
    "distilled-0.1": {"recipes", "teacher", "val_fraction", "runs"},
    "photos-cifar10": PHOTOS,
    "photos-cifar100": PHOTOS,
    "classic-cifar10": {"data", "runs"},
    "classic-cifar100": {"data", "runs"},
}
"""Keys of the results of each stage."""


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def results(folder: Path, stage: str) -> dict[str, Any]:
    """The results of a stage, after a check of what all stages write."""
    whole: dict[str, Any] = json.loads((folder / f"{stage}.json").read_text(encoding="utf-8"))
    assert whole["tiny"] is True
    assert {"cpu", "gpu", "torch", "date"} <= set(whole["machine"])
    found: dict[str, Any] = whole["results"]
    assert set(found) == STAGES[stage]
    return found


@pytest.mark.slow
def test_fast_in_this_process(
    gpu: ModuleType, noise_cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["gpu.py", "--tiny", "--stage", "fast", "--data-root", str(noise_cifar), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    assert gpu.main() == 0
    runs = results(tmp_path, "fast")["runs"]
    assert set(runs) == set(gpu.FAST)
    for (run,) in runs.values():
        assert set(run) == {"seed", "seconds", "whole", "trained_on", "steps", "test_single", "test_tta"}
        assert all(0 <= run[name] <= 1 for name in ("test_single", "test_tta"))


@pytest.mark.long
@pytest.mark.parametrize("stage", STAGES)
def test_a_trial_run_of_each_stage(stage: str, gpu: ModuleType, noise_cifar: Path, tmp_path: Path) -> None:
    assert gpu.export_weights(tmp_path / "weights") == 0
    lite0 = str(tmp_path / "weights" / "lite0.safetensors")
    out = tmp_path / "out"
    words = [
        sys.executable,
        str(SCRIPT),
        "--tiny",
        "--stages",
        stage,
        "--data-root",
        str(noise_cifar),
        "--out",
        str(out),
    ]
    words += ["--architecture", "tf_efficientnet_lite0", "--size", "64", "--weights", lite0, "--weights-lite0", lite0]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = results(out, stage)
    if stage.startswith("photos"):
        assert {f"{stage}.safetensors", f"{stage}-logits.npz"} <= {path.name for path in out.iterdir()}
    if stage.startswith("classic"):
        assert [run["name"] for run in found["runs"]] == list(gpu.CLASSIC)
        for run in found["runs"]:
            assert run["test"]["n"] == 100
            low, high = run["test"]["ci95"]
            assert low <= run["test"]["value"] <= high
            assert run["recipe"]["transfer"]["pretrained"] == "lite0.safetensors", "a name without folders"
