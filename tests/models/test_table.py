"""The committed table behind `thirtytwo models` agrees with the networks and the benchmarks."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from thirtytwo.models import MODELS

ROOT = Path(__file__).resolve().parents[2]
MODELS_FOLDER = ROOT / "src" / "thirtytwo" / "models"
TABLE: dict[str, Any] = json.loads((MODELS_FOLDER / "networks.json").read_text(encoding="utf-8"))
CHECKED = ("textbook", "fastnet", "fastnet-m", "resnet18", "densenet", "efficientnet_b0", "convnext_atto")
"""Fast networks, enough to detect an outdated table."""


def tool(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_every_network_is_listed() -> None:
    made_of_others = {"ensemble", "zero_shot"}
    assert set(MODELS.names()) - made_of_others == {row["name"] for row in TABLE["networks"]}
    script = tool("write_networks")
    assert [(row["name"], row["options"]) for row in TABLE["networks"]] == [tuple(row) for row in script.LISTED]
    assert TABLE["sizes"] == list(script.SIZES)


@pytest.mark.long
@pytest.mark.parametrize("name", CHECKED)
def test_table_is_current(name: str) -> None:
    (row,) = (row for row in TABLE["networks"] if row["options"].get("architecture", row["name"]) == name)
    found = tool("write_networks").measure(row["name"], row["options"], (32,))
    assert found == row | {"flops": {"32": row["flops"]["32"]}}, "run: python tools/write_networks.py"


def test_flops_of_a_convolution_are_counted_as_two_for_a_multiply_add() -> None:
    (row,) = (row for row in TABLE["networks"] if row["name"] == "textbook")
    places = [32 * 32, 16 * 16, 8 * 8]
    convolutions = [(3, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128)]
    products = sum(9 * a * b * places[index // 2] for index, (a, b) in enumerate(convolutions))
    products += 2048 * 512 + 512 * 256 + 256 * 10
    assert row["flops"]["32"] == 2 * products


def test_measured_accuracies_equal_benchmark_results() -> None:
    script = tool("measured_accuracies")
    assert (MODELS_FOLDER / "measured.json").read_text(encoding="utf-8") == script.text(), "run: make docs"
    by_hand = json.loads((ROOT / "benchmarks/results/accuracy-cifar10-fast-cpu.json").read_text(encoding="utf-8"))
    rows = {(row["data"], row["recipe"]): row["accuracy"] for row in script.measured()}
    assert rows["cifar10", "fast"] >= by_hand["summary"]["accuracy"]["mean"]
