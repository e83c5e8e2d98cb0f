"""Trial runs of `benchmarks/record.py`, its port of the published network, `benchmarks/costs.py`, and their tables."""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import psutil
import pytest
import torch

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "benchmarks"


def load(folder: str, name: str) -> ModuleType:
    """A script, with its folder on the path, as where it is run."""
    sys.path.insert(0, str(ROOT / folder))
    try:
        spec = importlib.util.spec_from_file_location(f"{name}_script", ROOT / folder / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look there
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(ROOT / folder))
    return module


def load_tables(results: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script that makes tables, with its results in a folder."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    tables = load("tools", "speed_tables")
    for module in (tables, sys.modules["result_tables"]):
        monkeypatch.setattr(module, "RESULTS", results)
    return tables


@pytest.fixture(scope="module")
def record() -> ModuleType:
    return load("benchmarks", "record")


@pytest.fixture(scope="module")
def sides() -> ModuleType:
    return load("benchmarks", "sides")


@pytest.fixture(scope="module")
def airbench() -> ModuleType:
    return load("benchmarks", "airbench")


@pytest.fixture
def on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of the scripts on the path, from which they import each other."""
    monkeypatch.syspath_prepend(str(SCRIPTS))


def words(data: Path, out: Path, *more: str) -> list[str]:
    return [*more, "--tiny", "--data-root", str(data), "--out", str(out), "--runs", str(out / "runs")]


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def blobs(count: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy images of one color a class: uint8 `(N, 32, 32, 3)`, and labels."""
    random = np.random.default_rng(0)
    labels = np.arange(count) % classes
    colors = random.integers(60, 196, (classes, 3))
    pixels = colors[labels][:, None, None] + random.normal(0, 20, (count, 32, 32, 3))
    return torch.from_numpy(pixels.clip(0, 255).astype(np.uint8)), torch.from_numpy(labels)


def training(airbench: ModuleType, count: int = 120, **settings: Any) -> Any:
    small = {"widths": (8, 16, 16), "batch_size": 20, "epochs": 4}
    return airbench.Training(
        *blobs(count, 3), 3, 0, torch.device("cpu"), torch.float32, airbench.Settings(**(small | settings))
    )


def test_stages_cover_all_steps_once(sides: ModuleType) -> None:
    sizes = [20] * 3 + [24] * 7 + [32] * 10
    found = sides.stages(20, lambda step: (sizes[step], step < 6, 2 * (step >= 15)))
    assert [(one.size, one.stem, one.frozen, one.first, one.count) for one in found] == [
        (20, True, 0, 0, 3),
        (24, True, 0, 3, 3),
        (24, False, 0, 6, 4),
        (32, False, 0, 10, 5),
        (32, False, 2, 15, 5),
    ]
    assert found[-1].name == "32 px, stem fixed, 2 layers frozen"


@pytest.mark.parametrize(
    "given", [["train", "--val", "--final"], ["steps", "fast", "half", "--name", "x"], ["train", "fast", "half"]]
)
def test_contradictory_options_are_refused(given: list[str], record: ModuleType) -> None:
    with pytest.raises(SystemExit) as refused:
        record.parse(given)
    assert refused.value.code == 2


def test_the_port_has_the_published_size(airbench: ModuleType) -> None:
    net = airbench.Net(10, airbench.Settings().widths)
    assert sum(one.numel() for one in net.parameters() if one.ndim == 4) == 1_967_904
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_whitened_patches_are_uncorrelated(airbench: ModuleType) -> None:
    net = airbench.Net(3, (8, 16, 16))
    images = torch.randn(200, 3, 32, 32) @ torch.randn(32, 32) / 6
    net.whiten(images)
    out = net.whitening(images).permute(1, 0, 2, 3).flatten(1)[:12]
    covariance = out @ out.T / out.shape[1]
    assert torch.allclose(covariance, torch.eye(12), atol=0.05)


def test_orthogonalized_matrices_have_singular_values_near_one(airbench: ModuleType) -> None:
    torch.manual_seed(0)
    for shape in ((16, 64), (64, 16)):
        found = airbench.orthogonalized(torch.randn(shape))
        assert found.shape == shape
        values = torch.linalg.svdvals(found)
        assert values.min() > 0.5
        assert values.max() < 1.4


def test_images_are_flipped_every_other_epoch_and_moved_by_two_pixels(airbench: ModuleType) -> None:
    one = training(airbench, count=20, translate=0)
    original = one.normalized(one._pixels)
    seen = {}
    for number in range(2):
        images, labels = one.batch(number)
        order = one._order
        assert torch.equal(labels, one._labels[order])
        mirrored = [torch.equal(image, original[place].flip(2)) for image, place in zip(images, order, strict=True)]
        seen[number] = torch.tensor(mirrored)[order.argsort()]
    assert torch.equal(seen[0], ~seen[1])
    moved = training(airbench, count=20)
    images, _ = moved.batch(0)
    wide = torch.nn.functional.pad(moved.normalized(moved._pixels[moved._order]), (2,) * 4, mode="reflect")
    wide = torch.cat([wide, wide.flip(3)])
    for place, image in enumerate(images):
        views = [
            wide[which, :, y : y + 32, x : x + 32] for which in (place, place + 20) for y in range(5) for x in range(5)
        ]
        assert any(torch.equal(image, view) for view in views)


@pytest.mark.slow
def test_the_port_learns(airbench: ModuleType) -> None:
    one = training(airbench)
    before = one.accuracies(*blobs(120, 3))
    one.train()
    after = one.accuracies(*blobs(120, 3))
    assert min(after.values()) > 0.9
    assert max(before.values()) < 0.9
    assert not one.net.whitening.bias.requires_grad, "it is trained in the first steps only"


@pytest.fixture(scope="module")
def steps(record: ModuleType, noise_cifar: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Measured steps of `fast`."""
    out = tmp_path_factory.mktemp("steps")
    options = record.parse(words(noise_cifar, out, "steps", "fast", "--rounds", "2"))
    assert record.measure_steps(options) == 0
    (written,) = out.glob("record-steps-cifar10*.json")
    assert written.stem.endswith("-float32") == (next(iter(read(written)["sides"].values()))["precision"] == "float32")
    return written


@pytest.mark.long
def test_steps(steps: Path) -> None:
    found = read(steps)
    ports = ["airbench94", "airbench94, keeping freed memory"]
    assert list(found["sides"]) == [*ports, "fast"]
    assert found["n"] == 2
    assert [found["sides"][port][key] for port, key in zip(ports, ("ratio", "ratio_keeping"), strict=True)] == [1, 1]
    for name, side in found["sides"].items():
        assert sum(side["steps"].values()) == (8 if name in ports else 4)
        counted = sum(count * side["seconds_per_step"][stage] for stage, count in side["steps"].items())
        assert side["seconds"] == pytest.approx(counted, abs=0.01)
        assert side["flops"] > 0


def test_the_source_is_that_which_the_process_started_with(
    record: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = record.source_hash()
    record.source_hash.cache_clear()
    monkeypatch.setattr(sys, "argv", ["record.py", "--data-root", str(tmp_path)])
    assert record.main() == 0, "without data, it ends here"
    monkeypatch.setattr(record, "SCRIPTS", ("record.py",))  # as if the source had changed meanwhile
    assert record.source_hash() == before


@pytest.mark.slow
@pytest.mark.usefixtures("on_path")
def test_trainings_are_added_seed_by_seed(record: ModuleType, noise_cifar: Path, tmp_path: Path) -> None:
    for seeds in ("0", "0,1"):
        assert record.train_seeds(record.parse(words(noise_cifar, tmp_path, "train", "fast", "--seeds", seeds))) == 0
        found = read(tmp_path / "record-cifar10-fast-test.json")
        first = found["runs"][0]
        if seeds == "0":
            kept = first
    assert first == kept, "a seed that is there already is not trained again"
    assert [run["seed"] for run in found["runs"]] == found["summary"]["seeds"] == [0, 1]
    assert found["flops"] > 0
    assert not any((tmp_path / "runs").iterdir()), "run directories of finished trainings are removed"
    for run in found["runs"]:
        assert {"hardware", "versions", "source", "seconds", "threads", "recipe"} <= set(run)
        assert run["n"] == 100
        assert 0 <= run["single"] <= 1
    again = words(noise_cifar, tmp_path, "train", "fast", "--set", "optimizer.lr=0.1", "--name", "fast")
    assert record.train_seeds(record.parse(again)) == 2, "results of other settings are not mixed with these"


def test_trainings_that_end_together_are_all_kept(record: ModuleType, tmp_path: Path) -> None:
    options = record.parse(["train", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)])
    out, what = tmp_path / "record.json", {"settings": {"split": "test"}}
    together = threading.Barrier(8)

    def add(seed: int) -> None:
        together.wait()
        record.add_run(out, {"seed": seed, "single": 0.9, "tta": 0.91, "seconds": 1.0}, what, options)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(8)))
    assert [run["seed"] for run in read(out)["runs"]] == list(range(8))
    assert read(out)["summary"]["n"] == 8


@pytest.mark.slow
@pytest.mark.usefixtures("on_path")
def test_final_trainings_use_all_images_and_validation_keeps_test_unused(
    record: ModuleType, noise_cifar: Path, tmp_path: Path
) -> None:
    for kind, name in (("--final", "record-cifar10-airbench94"), ("--val", "record-cifar10-airbench94-val")):
        assert record.train_seeds(record.parse(words(noise_cifar, tmp_path, "train", "airbench94", kind))) == 0
        (run,) = read(tmp_path / f"{name}.json")["runs"]
        held_out = 400 - run["trained_on"]
        assert (held_out, run["n"]) == (0, 100) if kind == "--final" else (run["n"], held_out)
        assert held_out > 0 or kind == "--final"


@pytest.mark.slow
@pytest.mark.usefixtures("on_path")
def test_a_training_that_was_cut_off_continues(record: ModuleType, noise_cifar: Path, tmp_path: Path) -> None:
    from thirtytwo.rundir import RunDir
    from thirtytwo.training.fit import fit
    from thirtytwo.workflows.prepare import prepare, write_plan

    options = record.parse(words(noise_cifar, tmp_path, "train", "fast"))
    chosen = record.candidate("fast", options)
    chosen.changes["schedule.epochs"] = 2
    changes = {"train.validate_every": 1_000_000, **chosen.changes, "seed": 0}
    directory = RunDir.create(tmp_path / "runs" / "record-cifar10-fast-test-seed0")
    plan = prepare("cifar10", "fast", changes, "auto", noise_cifar)
    write_plan(plan, directory)
    stopped = fit(
        plan.recipe,
        plan.parts.train,
        plan.parts.val,
        directory,
        plan.hardware,
        show=False,
        should_stop=lambda row: True,
    )
    assert stopped.epochs == 1
    run = record.train_once(chosen, options, 0, "test")
    assert run["resumed"]
    assert [row["epoch"] for row in run["epochs"]] == [1, 2]
    assert run["seconds"] > stopped.seconds


@pytest.mark.long
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs a system that can stop processes for a while")
@pytest.mark.usefixtures("on_path")
def test_whole_trainings_take_turns(noise_cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["fast", "--tiny", "--data-root", str(noise_cifar), "--out", str(tmp_path), "--turn", "0.5"]
    assert load("benchmarks", "turns").main(given) == 0
    found = read(tmp_path / "record-turns-cifar10.json")
    (own,), (port,) = found["runs"]["fast"], found["runs"]["airbench94"]
    assert found["ratio"] == pytest.approx(own["processor_seconds"] / port["processor_seconds"], abs=1e-3)
    assert found["turns"] > 10, "both take seconds for their imports alone"
    assert own["n"] == port["n"] == 100
    tables = load_tables(tmp_path, monkeypatch)
    assert f"mean **{found['ratio']:.2f}**" in tables.record_turns()
    assert tables.record_trainings() == tables.NOTHING, "trainings in turns have their own table"


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs a system that can stop processes for a while")
@pytest.mark.usefixtures("on_path")
@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["fast", "--turn", "0"], "--turn"),
        (["fast", "--turn", "nan"], "--turn"),
        (["fast", "--tiny"], "--out"),
        (["nosuch"], "'nosuch'"),
        (["airbench94"], "airbench94"),
    ],
)
def test_turns_refuse_what_they_cannot_measure(
    given: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    turns = load("benchmarks", "turns")
    with pytest.raises(SystemExit, match="2"):
        turns.parse(given)
    assert named in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs a system that can stop processes for a while")
@pytest.mark.usefixtures("on_path")
def test_turns_that_are_stopped_end_both_trainings(noise_cifar: Path, tmp_path: Path) -> None:
    words = [sys.executable, str(SCRIPTS / "turns.py"), "fast", "--tiny", "--data-root", str(noise_cifar)]
    process = subprocess.Popen([*words, "--out", str(tmp_path)])
    while len(started := psutil.Process(process.pid).children()) < 2:
        time.sleep(0.05)
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM
    assert not any(child.is_running() for child in started)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs a system that can stop processes for a while")
@pytest.mark.usefixtures("on_path")
def test_a_failed_training_ends_the_turns() -> None:
    turns = load("benchmarks", "turns")
    codes = ("import time; time.sleep(100)", "raise SystemExit(3)")
    endless, failing = (subprocess.Popen([sys.executable, "-c", code]) for code in codes)
    with pytest.raises(SystemExit, match="failing ended with 3"):
        turns.take_turns({"endless": endless, "failing": failing}, 0.1)
    assert endless.returncode == -signal.SIGKILL


@pytest.mark.long
def test_costs(noise_cifar: Path, tmp_path: Path) -> None:
    out = tmp_path / "costs.json"
    command = [sys.executable, str(SCRIPTS / "costs.py"), "--tiny", "--data-root", str(noise_cifar), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = read(out)
    assert list(found) == ["import", "predict", "serve", "train"]
    for part in found.values():
        for case in part["costs"].values():
            assert sum(case["seconds"].values()) == pytest.approx(case["total"], abs=0.01)
    assert "thirtytwo" in found["import"]["costs"]["the command line"]["seconds"]
    assert found["predict"]["costs"]["4 photographs"]["seconds"]["decoding and resizing"] > 0
    for case in found["serve"]["costs"].values():
        assert case["requests_per_second"] > 0
        assert case["seconds"]["ONNX Runtime"] > 0
    assert "report" in found["train"]["costs"]["a training of one epoch"]["seconds"]
    assert "convolutions, backward" in found["train"]["costs"]["the steps of a training"]["seconds"]


@pytest.mark.long
@pytest.mark.usefixtures("on_path")
def test_tables_state_what_was_measured(
    record: ModuleType, steps: Path, noise_cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = load_tables(tmp_path, monkeypatch)
    for table in (tables.record_steps, tables.record_trainings, tables.costs_train, tables.serve_compare):
        assert table() == tables.NOTHING
    shutil.copy(steps, tmp_path)
    record.train_seeds(record.parse(words(noise_cifar, tmp_path, "train", "fast", "--final")))
    record.train_seeds(record.parse(words(noise_cifar, tmp_path, "train", "half", "--val")))
    for key in ("ratio", "ratio_keeping"):
        assert f"**{read(steps)['sides']['fast'][key]:.2f}**" in tables.record_steps()
    row = read(tmp_path / "record-cifar10-fast.json")["summary"]
    assert f"**{100 * row['single']['mean']:.2f}" in tables.record_trainings()
    assert "half" not in tables.record_trainings(), "results on validation are for choices"
