"""The table of the classic notebook's steps, from results in the formats of the benchmark scripts."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TOOLS = Path(__file__).parents[1] / "tools"
MACHINE = {"gpu": "NVIDIA H100", "cores": 16, "cpu": "Xeon", "date": "2026-11-26"}


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    tool = importlib.import_module("classic_table")
    assert tool is sys.modules["classic_table"]
    monkeypatch.setattr(importlib.import_module("result_tables"), "RESULTS", tmp_path)
    return tool


def recipe(size: int) -> dict[str, Any]:
    return {"model": {"options": {"input_size": size}}}


def classic(folder: Path, *, tiny: bool = False) -> None:
    names = {"classic-frozen": (32, 0.5), "classic-finetuned": (32, 0.7), "classic-96": (96, 0.9)}
    runs = [
        {"name": name, "epochs": 5, "seconds": 20.4, "test": {"value": value, "n": 1000}, "recipe": recipe(size)}
        for name, (size, value) in names.items()
    ]
    write(folder / "gpu" / "classic-cifar10.json", tiny, {"data": "cifar10", "runs": runs})


def write(path: Path, tiny: bool, results: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"machine": MACHINE, "tiny": tiny, "results": results}), encoding="utf-8")


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [[cell.strip().replace("\u00a0", " ") for cell in line.strip("|").split("|")] for line in lines]


def test_a_row_for_each_measured_step(table: ModuleType, tmp_path: Path) -> None:
    assert rows(table.classic()) == []
    classic(tmp_path)
    photos = {"test_accuracy": 0.97, "n_test": 1000, "seconds": 600.0, "history": ["head", "1", "2"]}
    write(tmp_path / "gpu" / "photos-cifar100.json", False, photos | {"recipe": recipe(224)})
    found = rows(table.classic())
    assert [row[1] for row in found] == ["`classic-frozen`", "`classic-finetuned`", "`classic-96`", "`transfer-lite2`"]
    assert found[2][2:] == ["96", "**90.00 %** (88.0–91.7 %)", "–", "88.8 %"]
    assert found[3][2:] == ["224", "–", "**97.00 %** (95.7–97.9 %)", "–"]
    costs = rows(table.classic_costs())
    assert costs[0] == ["`classic-frozen`", "CIFAR-10", "5", "20 s", "NVIDIA H100, 2026-11-26"]
    assert costs[3] == ["`transfer-lite2`", "CIFAR-100", "2", "10 minutes", "NVIDIA H100, 2026-11-26"]


def test_an_unfinished_training_has_no_row(table: ModuleType, tmp_path: Path) -> None:
    write(tmp_path / "gpu" / "photos-cifar100.json", False, {"note": "cut off", "log": []})
    assert rows(table.classic()) == []


def test_a_trial_run_is_not_published(table: ModuleType, tmp_path: Path) -> None:
    classic(tmp_path, tiny=True)
    with pytest.raises(ValueError, match="trial run"):
        table.classic()
