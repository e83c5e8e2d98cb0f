"""The simulation behind docs/scale.md, where its result is known."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("scale_model")


@pytest.fixture
def simulation(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("serve_simulation")


def costs(simulation: ModuleType, **changed: Any) -> Any:
    """Costs of nothing but `changed`."""
    free = {"receive": 0.0, "decode": 0.0, "submit": 0.0, "respond": 0.0}
    nothing: dict[str, Any] = {"model": ((1, 0.0), (32, 0.0)), "python": ((1, 0.0), (32, 0.0))}
    return simulation.Costs(**(free | nothing | changed))


def test_one_client_waits_for_every_step(simulation: ModuleType) -> None:
    steps = {"receive": 0.001, "decode": 0.0005, "submit": 0.0002, "respond": 0.0003, "client": 0.002}
    batch = {"model": ((1, 0.003), (2, 0.005)), "python": ((1, 0.001), (2, 0.001))}
    found = simulation.simulate(costs(simulation, **steps, **batch, max_wait=0.002), clients=1, requests=500)
    assert found.rate == pytest.approx(1 / 0.010)
    assert (found.p50, found.p99) == (pytest.approx(10), pytest.approx(10))
    assert found.batch == 1
    slow = costs(simulation, **steps, **batch, max_wait=0.002, wake=0.0001, late=0.0003)
    later = simulation.simulate(slow, clients=1, requests=500)
    assert later.p50 == pytest.approx(10 + 0.3 + 0.7), "loop, decoder, loop, loop, model, loop and client wake up"
    costly = costs(simulation, **steps, **batch, max_wait=0.002, wake_work=0.0001)
    assert simulation.simulate(costly, clients=1, requests=500).p50 == pytest.approx(10 + 0.7)
    assert later.wakes == pytest.approx(6, abs=0.05), "of the service"


def test_steps_vary_around_their_mean(simulation: ModuleType) -> None:
    asked = costs(simulation, receive=0.01, spread=0.5, max_wait=0.0)
    found = simulation.simulate(asked, clients=1, requests=4000)
    assert found.rate == pytest.approx(100, rel=0.03)
    assert found.p50 < 10 < 20 < found.p99


def test_a_thread_keeps_the_lock_while_it_has_work(simulation: ModuleType) -> None:
    """The model's thread, which needs the lock at its end, waits for a burst of requests, though not for all of it."""
    asked = costs(simulation, respond=0.001, python=((1, 0.0002), (4, 0.0002)), receive=0.002, max_batch=4, max_wait=0)
    kept, given = [], []
    for switch, found in ((0.005, kept), (0.0, given)):
        simulation.SWITCH = switch
        found.append(simulation.simulate(asked, rate=250, requests=4000))
    simulation.SWITCH = 0.005
    assert kept[0].batch > given[0].batch


PER_IMAGE = ((1, 0.004), (8, 0.032))


@pytest.mark.parametrize(
    ("changed", "machine", "limit"),
    [
        ({"receive": 0.005}, {}, 1 / 0.005),
        ({"receive": 0.002, "decode": 0.001, "submit": 0.001, "respond": 0.001}, {}, 1 / 0.005),
        ({"python": PER_IMAGE, "receive": 0.001}, {}, 1 / 0.005),
        ({"model": ((1, 0.009), (8, 0.016)), "receive": 0.0001}, {}, 8 / 0.016),
        ({"receive": 0.003, "client": 0.006}, {}, 1 / 0.006),
        ({"receive": 0.003, "client": 0.006}, {"others": 1.0}, 1 / 0.009),
        ({"receive": 0.003, "client": 0.006}, {"cores": 1}, 1 / 0.009),
    ],
    ids=["requests", "lock", "Python of the model", "model", "clients", "others", "one core"],
)
def test_many_clients_fill_what_is_slowest(
    simulation: ModuleType, changed: dict[str, Any], machine: dict[str, float], limit: float
) -> None:
    asked = costs(simulation, **changed, max_batch=8, max_wait=0.0)
    found = simulation.simulate(asked, simulation.Machine(**machine), clients=32, requests=3000)
    assert found.rate == pytest.approx(limit, rel=0.05)
    assert found.p50 == pytest.approx(1000 * 32 / limit, rel=0.1), "Little's law"


@pytest.mark.parametrize(
    ("machine", "threads", "speed"),
    [
        ({}, 1, 1.0),
        ({}, 2, 1.0),
        ({}, 4, 0.5),
        ({"both": 0.6}, 1, 1.0),
        ({"both": 0.6}, 2, 0.6),
        ({"both": 0.6, "others": 1.0}, 1, 0.6),
        ({"others": 1.5}, 1, 0.5),
        ({"cores": 1}, 2, 0.5),
        ({"cores": 4}, 3, 1.0),
    ],
)
def test_threads_share_the_cores(simulation: ModuleType, machine: dict[str, float], threads: int, speed: float) -> None:
    assert simulation.Machine(**machine).speed(threads) == pytest.approx(speed)


def test_a_batch_between_two_measured_ones(simulation: ModuleType) -> None:
    assert simulation.seconds_of(((1, 0.001), (2, 0.002), (4, 0.006)), 3) == pytest.approx(0.004)
    asked = costs(simulation, model=((1, 0.001), (4, 0.004)), python=((1, 0.0), (4, 0.002)), receive=0.01, max_batch=4)
    assert (asked.unlocked(), asked.locked()) == (pytest.approx(0.001), pytest.approx(0.0105))


@pytest.mark.slow
def test_latency_grows_with_the_rate_up_to_the_limit(simulation: ModuleType) -> None:
    asked = costs(simulation, receive=0.001, model=((1, 0.002), (32, 0.033)))
    low, high = (simulation.simulate(asked, rate=rate, requests=5000) for rate in (100, 800))
    assert (low.rate, high.rate) == (pytest.approx(100, rel=0.1), pytest.approx(800, rel=0.1))
    assert low.p50 < high.p50 < high.p99
    assert low.p99 < 20
    assert low.batch < high.batch
    machine = simulation.Machine()
    found = simulation.highest_rate(asked, machine, latency_ms=50, requests=2000)
    assert 500 < found < 970
    assert simulation.simulate(asked, machine, rate=found, requests=2000).p99 <= 50


def test_plan_of_a_service(model: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "highest_rate", lambda *given: 500.0)
    stage = {"file_bytes": 2000, "decode_seconds": 0.0001}
    stage |= {"batch_seconds": {"1": 0.001, "32": 0.032}, "python_seconds": {"1": 0.0, "32": 0.0}}
    names = ("client_seconds", "wake_work_seconds", "wake_seconds", "late_seconds")
    found = {"costs": {"loop_seconds": 0.0005} | dict.fromkeys(names, 0.0)}
    plan = model.service_plan({"stages": {"small": stage}, "calibration": found, "machine": {"both": 1.0}})
    assert plan["processes"] == 25, "10,000 / (500 / 1.25)"
    assert (plan["cores"], plan["machines"], plan["bottleneck"]) == (50, 4, "model")


def test_plan_of_images(model: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assumed = {"efficiency": 0.5, "cores_per_machine": 10, "core_hour": 0.1, "gigabit_per_second": 1}
    monkeypatch.setattr(model, "ASSUMPTIONS", assumed | {"get_per_million": 0.4})
    stage: dict[str, Any] = {"file_bytes": 10_000, "decode_seconds": 0.002}
    stage |= {"batch_seconds": {"1": 0.008, "4": 0.028}, "python_seconds": {"1": 0.001, "4": 0.004}}
    row = model.batch_job("small", 100.0, stage, 10**6)
    assert row["core_hours"] == pytest.approx(10**6 / 50 / 3600, abs=0.05)
    assert (row["machines"], row["cost"], row["cost_of_reads"]) == (1, pytest.approx(0.56, abs=0.01), 0.4)
    assert (row["network_share"], row["decoding_share"], row["bottleneck"]) == (0.08, 0.2, "model")
