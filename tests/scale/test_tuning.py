"""Tuning on a real local cluster: the same study, table and best recipe as without one."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from thirtytwo.config.resolve import read_recipe
from thirtytwo.errors import ClusterError

for _module in ("torch", "optuna", "ray"):
    pytest.importorskip(_module, reason="needs the extras train and scale")

from thirtytwo.scale.address import Address  # noqa: E402
from thirtytwo.scale.cluster import Cluster, open_cluster  # noqa: E402
from thirtytwo.scale.tuning import RaySearch, _train  # noqa: E402
from thirtytwo.workflows.tune import Tuned, tune  # noqa: E402

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("default")]

TINY: dict[str, Any] = {
    "data.image_size": 8,
    "model.options": {"groups": [{"width": 8}]},
    "schedule.epochs": 3,
    "schedule.batch_size": 64,
    "train.precision": "float32",
    "train.compile": "off",
}
SPACE = {"optimizer.lr": {"low": 1e-6, "high": 0.8, "log": True}, "augment.translate": {"low": 0, "high": 2}}


def tuned(run: Path, cluster: Any, trials: int, **settings: Any) -> Tuned:
    how: dict[str, Any] = {"recipe": "digits", "space": SPACE, "overrides": TINY, "limit_train": 300, "seed": 0}
    how |= {"run": run, "show": False, "device": "cpu", "trials": trials, "pruner": "asha", **settings}
    if cluster is None:
        return tune("digits", **how)
    with open_cluster(cluster.address) as opened:
        return tune("digits", **how, search=RaySearch(opened, workers=2))


def table(path: Path) -> list[dict[str, str]]:
    with (path / "trials.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_tuning_on_a_cluster_continues_without_one(cluster: Any, tmp_path: Path) -> None:
    run = tmp_path / "tuning"
    found = tuned(run, cluster, 5)
    assert len(found.trials) == 5
    assert {trial.outcome for trial in found.trials} <= {"done", "pruned"}
    assert found.trials[0].drawn["optimizer.lr"] == read_recipe("digits").optimizer.lr
    assert found.best.outcome == "done"
    assert found.best.epochs == 3
    assert all(0 < trial.epochs <= 3 for trial in found.trials)
    assert read_recipe(found.recipe).optimizer.lr == pytest.approx(found.best.drawn["optimizer.lr"])
    assert not (run / ".ray").exists()
    assert len(table(run)) == 5
    more = tuned(run, cluster, 1, recipe=None, space=None, overrides=None, resume=True)
    here = tuned(run, None, 1, recipe=None, space=None, overrides=None, resume=True)
    assert (len(more.trials), len(here.trials)) == (6, 7)
    assert len(table(run)) == 7


@pytest.mark.parametrize(
    ("nodes", "workers", "expected", "at_once"),
    [
        ([{"CPU": 8}, {"CPU": 8, "GPU": 1}], None, {"cpu": 8, "gpu": 1}, 1),
        ([{"CPU": 2}] * 8, None, {"cpu": 2, "gpu": 0}, 4),
        ([{"CPU": 2}] * 8, 1, {"cpu": 2, "gpu": 0}, 1),
        ([{"CPU": 16}], 2, {"cpu": 8, "gpu": 0}, 2),
        ([{"CPU": 16, "GPU": 4}], None, {"cpu": 4, "gpu": 1}, 4),
    ],
)
def test_one_machine_has_what_a_trial_reserves(
    nodes: list[dict[str, int]], workers: int | None, expected: dict[str, int], at_once: int
) -> None:
    total = {kind: sum(node.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU")}
    ray = SimpleNamespace(
        nodes=lambda: [{"Alive": True, "Resources": node} for node in nodes], cluster_resources=lambda: total
    )
    cluster = Cluster(ray, Address("running"), started=False, client=False, cpus=total["CPU"])
    assert RaySearch(cluster, workers)._resources(SimpleNamespace(device="auto")) == (expected, at_once)  # type: ignore[arg-type]


def test_connection_from_outside_is_refused() -> None:
    outside = Cluster(None, Address("client", "head", 10001), started=False, client=True, cpus=2)
    with pytest.raises(ClusterError, match="outside"):
        RaySearch(outside)


def test_a_working_directory_that_workers_do_not_see(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="does not see the folder"):
        _train({"job": None, "folder": str(tmp_path / "none"), "epochs": 1})
