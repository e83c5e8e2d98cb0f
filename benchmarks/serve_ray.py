"""The service with replicas on Ray under load: throughput, a killed replica, and a change of the model.

    python benchmarks/serve_ray.py [MODEL] [--other MODEL] [--data-root DIR] [--images 2048] [--replicas 2]
        [--seconds 30] [--repeats 3]

The Ray cluster is one that this process starts on the machine, which the clients share with it. 64 clients send one
image per request over loopback, without pause; every response is compared with ONNX Runtime's result. The plain service
and `thirtytwo serve --on ADDRESS` take turns. Then one replica's process is killed with SIGKILL after a third of the
time, and in another load `--update` replaces MODEL by the other one: responses are then those of either.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

from thirtytwo.errors import ThirtytwoError
from thirtytwo.inference.library import find_model
from thirtytwo.inference.session import open_session
from thirtytwo.io import write_json
from thirtytwo.machine import cpu_count, package_version
from thirtytwo.scale.cluster import import_ray

sys.path.insert(0, str(Path(__file__).parent))

from predict import exclusive, hardware

from serve import CLIENTS, Outcome, Server, best_of, body, encode, load, load_figures, service

RESULTS = Path(__file__).parent / "results" / "serve_ray.json"
REPLICA = "ServeReplica:thirtytwo:models"
"""Part of the title of a replica's process."""
WARM_REQUESTS = 256


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="cifar10-tiny", help="model.onnx, run directory or bundled model")
    parser.add_argument("--other", default="cifar100-tiny", help="model that replaces it")
    parser.add_argument("--data-root", type=Path, default=os.environ.get("THIRTYTWO_DATA"))
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.data_root is None or not (Path(options.data_root) / "cifar10").is_dir():
        print("skipped: CIFAR-10 was not found; set THIRTYTWO_DATA or give --data-root")
        return 0
    from thirtytwo.data.load import load_dataset

    try:
        models = find_model(options.model), find_model(options.other)
        test = load_dataset("cifar10", data_root=Path(options.data_root)).test
        assert test is not None
        pixels = np.ascontiguousarray(test.images[: options.images])
        with cluster(options.replicas) as address:
            measured = measure(models, pixels, address, options)
    except ThirtytwoError as error:
        print(error, file=sys.stderr)
        return 2
    write_json(options.out, measured)
    print(json.dumps(measured, indent=1))
    return 0


@contextmanager
def cluster(cores: int) -> Iterator[str]:
    """The address of a Ray cluster that ends with the context."""
    ray = import_ray()
    cores = max(cores, cpu_count())
    ray.init(address="local", num_cpus=cores, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        yield ray.get_runtime_context().gcs_address
    finally:
        ray.shutdown()


def measure(
    models: tuple[Path, Path], pixels: npt.NDArray[np.uint8], address: str, options: argparse.Namespace
) -> dict[str, Any]:
    """All measurements, for images uint8 `(N, S, S, 3)`."""
    requests = [body([encode(image)]) for image in pixels]
    model, other = models
    expected, expected_other = (best_of(exclusive(open_session(path)[0], pixels, 32)) for path in models)
    on_ray = ("--on", address, "--replicas", str(options.replicas))
    rounds: dict[str, list[dict[str, Any]]] = {"single_process": [], "ray": []}
    for number in range(options.repeats):
        for side in rounds if number % 2 == 0 else reversed(rounds):
            with service(model, *(on_ray if side == "ray" else ())) as server:
                load(server, requests, clients=CLIENTS, count=WARM_REQUESTS)
                outcome = load(server, requests, clients=CLIENTS, seconds=options.seconds)
            rounds[side].append(load_figures(outcome, outcome.check(expected, 1, strict=False)))
            print(side, rounds[side][-1], flush=True)
    with service(model, *on_ray) as server:
        load(server, requests, clients=CLIENTS, count=WARM_REQUESTS)
        before, outcome = during(server, requests, options.seconds, kill_replica)
        kill = load_figures(outcome, outcome.check(expected, 1, strict=False)) | {"replicas_before": before}
        print("kill", kill, flush=True)
        switched, outcome = during(server, requests, options.seconds, lambda: switch(address, other))
        switch_figures = load_figures(outcome, 0) | switched | shares(outcome, expected, expected_other)
        after = load(server, requests, clients=CLIENTS, count=WARM_REQUESTS)
        switch_figures["old_afterwards"] = after.check(expected_other, 1, strict=False)
    medians = {side: statistics.median(one["requests_per_second"] for one in found) for side, found in rounds.items()}
    every = [*rounds["ray"], kill, switch_figures]
    return {
        "what": __doc__.splitlines()[0],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "ray": package_version("ray"),
        "model": {"bytes": model.stat().st_size, "architecture": open_session(model)[1].architecture},
        "replicas": options.replicas,
        "n": options.repeats,
        "rounds": rounds,
        "median_requests_per_second": medians,
        "ratio": round(medians["ray"] / medians["single_process"], 4),
        "replica_killed": kill,
        "model_switched": switch_figures,
        "met": {
            "no_errors": all(one["errors"] == one["wrong_answers"] == 0 for one in every),
            "nothing_lost": all(one["lost"] == 0 for one in every),
            "switched": switch_figures["new"] > 0 == switch_figures["old_afterwards"],
        },
    }


def during(server: Server, requests: list[bytes], seconds: float, act: Callable[[], Any]) -> tuple[Any, Outcome]:
    """Act during a load, a third of the time before and two thirds after it; the result of that, and of the load."""
    outcomes: list[Outcome] = []
    stop = threading.Event()
    loading = threading.Thread(
        target=lambda: outcomes.append(load(server, requests, clients=CLIENTS, stop=stop)), daemon=True
    )
    loading.start()
    time.sleep(seconds / 3)
    try:
        result = act()
        time.sleep(seconds * 2 / 3)
    finally:
        stop.set()
    loading.join()
    return result, outcomes[0]


def kill_replica() -> int:
    """Kill one replica of the service with SIGKILL; returns how many there were."""
    found = [process for process in psutil.Process().children(recursive=True) if REPLICA in " ".join(process.cmdline())]
    found[0].kill()
    return len(found)


def switch(address: str, model: Path) -> dict[str, Any]:
    """Replace the model of the running service; returns the seconds that the command took."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "thirtytwo", "serve", "--on", address, "--update", "--model", str(model)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {"seconds_to_switch": round(time.perf_counter() - started, 1)}


def shares(outcome: Outcome, old: list[float], new: list[float]) -> dict[str, Any]:
    """How many responses came from the old and from the new model, and from neither."""
    counts = {"old": 0, "new": 0, "wrong_answers": 0}
    for answer in outcome.answers:
        if answer.status == 200:
            found = json.loads(answer.body)[0]["confidence"]
            matches = (
                side for side, values in (("old", old), ("new", new)) if abs(found - values[answer.number]) < 1e-4
            )
            counts[next(matches, "wrong_answers")] += 1
    return counts


if __name__ == "__main__":
    sys.exit(main())
