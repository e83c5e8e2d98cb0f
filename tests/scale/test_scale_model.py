"""The simulation behind docs/scale.md, where its result is known."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("scale_model")


def test_one_client_waits_for_every_step(model: ModuleType) -> None:
    costs = model.Costs(request=0.003, batch=0.001, image=0.004, max_wait=0.002)
    found = model.simulate(costs, clients=1, requests=500)
    assert found.rate == pytest.approx(1 / 0.010)
    assert (found.p50, found.p99) == (pytest.approx(10), pytest.approx(10))


@pytest.mark.parametrize(
    ("request_seconds", "batch", "image", "limit"),
    [(0.005, 0.001, 0.001, 1 / 0.005), (0.0001, 0.008, 0.001, 8 / 0.016)],
    ids=["requests", "model"],
)
def test_many_clients_fill_the_slower_station(
    model: ModuleType, request_seconds: float, batch: float, image: float, limit: float
) -> None:
    costs = model.Costs(request_seconds, batch, image, max_batch=8)
    found = model.simulate(costs, clients=32, requests=3000)
    assert found.rate == pytest.approx(limit, rel=0.01)
    assert found.p50 == pytest.approx(1000 * 32 / limit, rel=0.05), "Little's law"


def test_latency_grows_with_the_rate_up_to_the_limit(model: ModuleType) -> None:
    costs = model.Costs(0.001, 0.001, 0.001)
    low, high = (model.simulate(costs, rate=rate, requests=5000) for rate in (100, 800))
    assert (low.rate, high.rate) == (pytest.approx(100, rel=0.1), pytest.approx(800, rel=0.1))
    assert low.p50 < high.p50 < high.p99
    assert low.p99 < 20
    found = model.highest_rate(costs, latency_ms=50)
    assert 800 < found < 1000
    assert model.simulate(costs, rate=found).p99 <= 50


def test_plan_of_images(model: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assumed = {"efficiency": 0.5, "cores_per_machine": 10, "core_hour": 0.1, "gigabit_per_second": 1}
    monkeypatch.setattr(model, "ASSUMPTIONS", assumed | {"get_per_million": 0.4})
    stage = {"file_bytes": 10_000, "decode_seconds": 0.002, "fit": {"batch": 0.0, "image": 0.008}}
    row = model.batch_job("small", 100.0, stage | {"batch_seconds": {"1": 0.008, "4": 0.032}}, 10**6)
    assert row["core_hours"] == pytest.approx(10**6 / 50 / 3600, abs=0.05)
    assert (row["machines"], row["cost"], row["cost_of_reads"]) == (1, pytest.approx(0.56, abs=0.01), 0.4)
    assert (row["network_share"], row["decoding_share"], row["bottleneck"]) == (0.08, 0.2, "model")
