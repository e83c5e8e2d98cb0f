"""What many images and requests cost: stages measured here, a simulation checked against the service, and a plan.

    python benchmarks/scale_model.py [--model cifar10-tiny] [--data-root DIR] [--photos DIR] [--seconds 15]
    python benchmarks/scale_model.py --plan      compute the plan again from the measurements

Each stage is measured alone: decoding an image, the model on batches of several sizes with and without the Python
around it, waking a thread, a timer, how much slower a core is while the other one is busy; and, from the processor time
of one client that sends one request after the other, the rest of the service and the client. From these
`serve_simulation.py` predicts throughput and latency of loads that are then run: several clients without pause, and
requests at random times at a given rate. `thirtytwo serve --threads 1` shares two cores with the clients, and with
whatever else runs: how much that took is measured with each load, and simulated too. The plan uses
`benchmarks/results/` and `ASSUMPTIONS`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from thirtytwo.errors import ThirtytwoError
from thirtytwo.images.decode import load_image
from thirtytwo.inference.classifier import Classifier, find_model
from thirtytwo.io import write_json

sys.path.insert(0, str(Path(__file__).parent))

from photo_speed import write_photos
from predict import hardware
from serve_simulation import Costs, Load, Machine, highest_rate, seconds_of, simulate

from serve import Answer, Outcome, Server, _read, body, encode, load, service

RESULTS = Path(__file__).parent / "results"
OUT = RESULTS / "scale_model.json"
ASSUMPTIONS: dict[str, Any] = {
    "date": "2026-11",
    "core_hour": 0.05,
    "get_per_million": 0.40,
    "cores_per_machine": 16,
    "gigabit_per_second": 10,
    "efficiency": 0.85,
    "reserve": 0.25,
    "latency_ms": 200,
}
"""Prices in USD, rounded from the lists of large clouds: a core with memory on demand, and reads of an object store.
`efficiency` is the share of the summed throughput that workers on one cluster reach; `reserve` is capacity beyond
the simulated need; `latency_ms` is the 99th percentile to keep."""
COUNTS = {10**6: 1, 10**9: 24}
"""Numbers of images, and the hours in which they are to be done."""
REQUESTS_PER_SECOND = 10_000
BATCHES = (1, 2, 4, 8, 16, 32)
CLIENTS = (1, 8, 32)
UTILIZATIONS = (0.5, 0.8)
WARM_UP = 500
"""Requests before measuring."""
SHARES = {"receive": 0.5, "submit": 0.1, "respond": 0.4}
"""Assumed shares of the event loop's work on a request; only their sum is measured."""


def main() -> int:
    root = os.environ.get("THIRTYTWO_DATA")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="cifar10-tiny", help="model for 32-pixel images")
    parser.add_argument("--photo-model", default="cifar10", help="model for photographs")
    parser.add_argument("--data-root", type=Path, default=root)
    parser.add_argument("--photos", type=Path, default=Path(root) / "photos" if root else None)
    parser.add_argument("--seconds", type=float, default=15, help="of each load")
    parser.add_argument("--plan", action="store_true", help="compute the plan again, without measuring")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--busy", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.busy:
        keep_busy()
    if options.plan:
        measured = json.loads(options.out.read_text(encoding="utf-8"))
    elif options.data_root is None or not (Path(options.data_root) / "cifar10").is_dir():
        print("skipped: CIFAR-10 was not found; set THIRTYTWO_DATA or give --data-root")
        return 0
    elif options.photos is None or not options.photos.is_dir():
        print("skipped: name a folder of photographs with --photos, or set THIRTYTWO_DATA")
        return 0
    else:
        try:
            measured = measure(options)
        except ThirtytwoError as error:
            print(error, file=sys.stderr)
            return 2
    measured["assumptions"], measured["plan"] = ASSUMPTIONS, plan(measured)
    write_json(options.out, measured)
    print(json.dumps(measured, indent=1))
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Stages, and the loads that the simulation has to predict."""
    from thirtytwo.data.load import load_dataset

    model = find_model(options.model)
    test = load_dataset("cifar10", data_root=Path(options.data_root)).test
    assert test is not None
    files = [encode(image) for image in test.images[:1024]]
    with tempfile.TemporaryDirectory() as place:
        photos = [path.read_bytes() for path in write_photos(options.photos, Path(place) / "photos", 64)]
    classifier = Classifier(model, threads=1)
    small, wake, late = stages(classifier, files), *asyncio.run(delays())
    machine = Machine(both=speed_of_both(classifier, files))
    costs, calibration = calibrate(model, files, small, options.seconds, wake, late)
    return {
        "what": __doc__.splitlines()[0],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "models": {"small": options.model, "photographs": options.photo_model},
        "stages": {
            "small": small,
            "photographs": stages(Classifier(find_model(options.photo_model), threads=1), photos),
        },
        "machine": {"both": round(machine.both, 3)},
        "calibration": calibration,
        "checks": check(model, files, costs, machine, options.seconds),
    }


def stages(classifier: Classifier, files: list[bytes]) -> dict[str, Any]:
    """Seconds of processor time of decoding and of the model with one thread, and bytes of a file."""
    info = classifier.info
    started = time.process_time()
    pixels = np.stack([load_image(data, info.input_size, info.resize, "image").pixels for data in files])
    decode = (time.process_time() - started) / len(files)
    sizes = [size for size in BATCHES if size <= classifier.largest_batch]
    model = {size: least_seconds(partial(classifier.run, pixels[:size])) for size in sizes}
    whole = {size: least_seconds(partial(classifier.classify, pixels[:size])) for size in sizes}
    size = sum(map(len, files)) / len(files)
    return {
        "input_size": info.input_size,
        "file_bytes": round(size),
        "decode_seconds": round(decode, 7),
        "decode_seconds_per_gb": round(decode / size * 1e9, 1),
        "batch_seconds": {str(size): round(seconds, 6) for size, seconds in model.items()},
        "python_seconds": {str(size): round(max(0.0, whole[size] - model[size]), 6) for size in sizes},
    }


def least_seconds(run: Callable[[], object], repeats: int = 15) -> float:
    """Processor time of a call, the least of several: what else runs on the machine only adds to it."""
    run()
    found = []
    for _ in range(repeats):
        started = time.process_time()
        run()
        found.append(time.process_time() - started)
    return min(found)


def speed_of_both(classifier: Classifier, files: list[bytes]) -> float:
    """Speed of a core while the other one is busy, from 0 to 1: they may be two threads of one core."""
    info = classifier.info
    pixels = np.stack([load_image(data, info.input_size, info.resize, "image").pixels for data in files[:8]])

    def measure() -> float:
        return least_seconds(partial(classifier.classify, pixels), 60)

    alone = measure()
    others = [subprocess.Popen([sys.executable, __file__, "--busy"]) for _ in range((os.cpu_count() or 2) - 1)]
    try:
        time.sleep(2)  # until they have started
        both = measure()
    finally:
        for other in others:
            other.kill()
            other.wait()
    return min(1.0, alone / both)


def keep_busy() -> None:
    """Decode an image until killed: Python and C code, as in the service."""
    file = encode(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    while True:
        load_image(file, 32, "squash", "image")


async def delays() -> tuple[float, float]:
    """Seconds until a sleeping thread runs, and until a timer of the event loop that is due does."""
    loop, wake, late = asyncio.get_running_loop(), [], []
    with ThreadPoolExecutor(1) as pool:
        for _ in range(300):
            await asyncio.sleep(0.003)
            started, worked = time.perf_counter(), time.process_time()
            await loop.run_in_executor(pool, time.perf_counter)
            wake.append((time.perf_counter() - started - (time.process_time() - worked)) / 2)  # there and back
    wait = Costs.max_wait
    for _ in range(300):
        done, started = loop.create_future(), time.perf_counter()
        loop.call_later(wait, done.set_result, None)
        await done
        late.append(time.perf_counter() - started - wait)
    return max(0.0, statistics.median(wake)), max(0.0, statistics.median(late))


def calibrate(
    model: Path, files: list[bytes], small: dict[str, Any], seconds: float, wake: float, late: float
) -> tuple[Costs, dict[str, Any]]:
    """Costs of a request, from the processor time of the service and the client for one after the other."""
    requests = [body([data]) for data in files]
    with service(model, "--threads", "1") as server:
        load(server, requests, clients=1, count=WARM_UP)
        outcome, used = measured_load(server, partial(load, server, requests, clients=1, seconds=seconds))
    alone = small["batch_seconds"]["1"] + small["python_seconds"]["1"] + small["decode_seconds"]
    loop = max(0.0, used.service / outcome.sent - alone)
    costs = costs_of(small, loop, used.client / outcome.sent, wake, late)
    figures = {
        "requests": outcome.sent,
        "loop_seconds": round(loop, 7),
        "client_seconds": round(costs.client, 7),
        "wake_seconds": round(wake, 7),
        "late_seconds": round(late, 7),
        "others": round(used.others, 2),
    }
    return costs, figures


def costs_of(small: dict[str, Any], loop: float, client: float, wake: float, late: float) -> Costs:
    """What the simulation needs, from measurements."""
    model, python = (
        tuple((int(size), float(seconds)) for size, seconds in small[name].items())
        for name in ("batch_seconds", "python_seconds")
    )
    parts = {name: share * loop for name, share in SHARES.items()}
    return Costs(
        decode=small["decode_seconds"], model=model, python=python, client=client, wake=wake, late=late, **parts
    )


@dataclass(frozen=True)
class Used:
    """Processor time of the service and of this process, the clients, in seconds; cores that other programs used."""

    service: float
    client: float
    others: float


def measured_load(server: Server, run: Callable[[], Outcome]) -> tuple[Outcome, Used]:
    """Run a load, and measure the processor time meanwhile."""

    def now() -> tuple[float, float, float, float]:
        return time.perf_counter(), _seconds_of(server.process.pid), time.process_time(), _seconds_of_all()

    before, outcome = now(), run()
    seconds, served, client, whole = (end - start for start, end in zip(before, now(), strict=True))
    return outcome, Used(served, client, max(0.0, whole - served - client) / seconds)


def _seconds_of(process: int) -> float:
    """Processor time of a process."""
    words = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def _seconds_of_all() -> float:
    """Processor time of all programs, and what this machine's host took from it."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def check(model: Path, files: list[bytes], costs: Costs, machine: Machine, seconds: float) -> list[dict[str, Any]]:
    """Loads, each as simulated and as run."""
    requests = [body([data]) for data in files]
    found = []
    with service(model, "--threads", "1") as server:
        load(server, requests, clients=16, count=WARM_UP)
        for clients in CLIENTS:
            ran = measured_load(server, partial(load, server, requests, clients=clients, seconds=seconds))
            found.append({"clients": clients} | _compared(costs, machine, *ran, clients=clients))
        capacity = max(one["measured"]["rate"] for one in found)
        for share in UTILIZATIONS:
            rate = share * capacity
            ran = measured_load(server, partial(_at_random_times, server.port, requests, rate, seconds))
            found.append({"rate": round(rate, 1)} | _compared(costs, machine, *ran, rate=rate))
    return found


def _compared(costs: Costs, machine: Machine, outcome: Outcome, used: Used, **sent: Any) -> dict[str, Any]:
    assert all(answer.status == 200 for answer in outcome.answers)
    simulated = simulate(costs, replace(machine, others=used.others), **sent)
    latencies = np.array([answer.seconds for answer in outcome.answers]) * 1000
    p50, p99 = (float(np.quantile(latencies, share)) for share in (0.5, 0.99))
    measured = Load(len(outcome.answers) / outcome.seconds, p50, p99)
    return {
        "simulated": {name: round(value, 1) for name, value in asdict(simulated).items()},
        "measured": {name: round(value, 1) for name, value in asdict(measured).items() if value},
        "rate_error": round(simulated.rate / measured.rate - 1, 3),
        "p50_error": round(simulated.p50 / measured.p50 - 1, 3),
        "p99_error": round(simulated.p99 / measured.p99 - 1, 3),
        "others": round(used.others, 2),
        "service_seconds": round(used.service / outcome.sent, 6),
        "client_seconds": round(used.client / outcome.sent, 6),
    }


def _at_random_times(port: int, requests: list[bytes], rate: float, seconds: float) -> Outcome:
    """Requests at random times (a Poisson process), each over an idle connection or a new one."""
    return asyncio.run(_send_at_random_times(port, requests, rate, seconds))


async def _send_at_random_times(port: int, requests: list[bytes], rate: float, seconds: float) -> Outcome:
    outcome, idle = Outcome(), list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]()

    async def send(number: int, due: float) -> None:
        reader, writer = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", port)
        writer.write(requests[number % len(requests)])
        status, answer = await _read(reader)
        outcome.answers.append(Answer(number, status, answer, time.perf_counter() - due))
        idle.append((reader, writer))

    pauses = np.random.default_rng(1).exponential(1 / rate, math.ceil(rate * seconds))
    started = due = time.perf_counter()
    tasks = []
    for number, pause in enumerate(pauses):
        due += float(pause)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(send(number, due)))
    await asyncio.gather(*tasks)
    outcome.sent, outcome.seconds = len(tasks), time.perf_counter() - started
    for _, writer in idle:
        writer.close()
    return outcome


def plan(measured: dict[str, Any]) -> dict[str, Any]:
    """Machines, hours and cost."""
    predict, photo = (json.loads((RESULTS / f"{name}.json").read_text()) for name in ("predict", "photo_speed"))
    per_core = {
        "small": predict["median_images_per_second"]["thirtytwo"] / predict["hardware"]["cores"],
        "photographs": photo["models"]["cifar10"]["median_images_per_second"]["predict"] / photo["hardware"]["cores"],
    }
    images = [batch_job(kind, rate, measured["stages"][kind], n) for kind, rate in per_core.items() for n in COUNTS]
    return {"images_per_second_per_core": per_core, "images": images, "service": service_plan(measured)}


def batch_job(kind: str, per_core: float, stage: dict[str, Any], images: int) -> dict[str, Any]:
    """What it takes to classify so many images."""
    cores, hours = ASSUMPTIONS["cores_per_machine"], COUNTS[images]
    core_hours = images / per_core / ASSUMPTIONS["efficiency"] / 3600
    machines = math.ceil(core_hours / cores / hours)
    gigabit = per_core * cores * stage["file_bytes"] * 8 / 1e9
    model = model_seconds(stage)
    share = gigabit / ASSUMPTIONS["gigabit_per_second"]
    return {
        "kind": kind,
        "images": images,
        "gigabytes": round(images * stage["file_bytes"] / 1e9, 1),
        "core_hours": round(core_hours, 1),
        "machines": machines,
        "hours": round(core_hours / cores / machines, 2),
        "cost": round(core_hours * ASSUMPTIONS["core_hour"], 2),
        "cost_of_reads": round(images / 1e6 * ASSUMPTIONS["get_per_million"], 2),
        "network_share": round(share, 4),
        "decoding_share": round(stage["decode_seconds"] / (stage["decode_seconds"] + model), 3),
        "bottleneck": "network" if share > 1 else "decoding" if stage["decode_seconds"] > model else "model",
    }


def model_seconds(stage: dict[str, Any]) -> float:
    """Seconds of the model for an image, in the largest batch."""
    size = max(stage["batch_seconds"], key=int)
    return float(stage["batch_seconds"][size] + stage["python_seconds"][size]) / int(size)


def service_plan(measured: dict[str, Any]) -> dict[str, Any]:
    """Processes of two cores each for `REQUESTS_PER_SECOND` with one small image each."""
    stage, found = measured["stages"]["small"], measured["calibration"]
    costs = costs_of(stage, found["loop_seconds"], 0.0, found["wake_seconds"], found["late_seconds"])
    machine = Machine(both=measured["machine"]["both"])
    rate = highest_rate(costs, machine, ASSUMPTIONS["latency_ms"])
    used = rate / (1 + ASSUMPTIONS["reserve"])
    processes = math.ceil(REQUESTS_PER_SECOND / used)
    at_load = simulate(costs, machine, rate=REQUESTS_PER_SECOND / processes)
    needs = {
        "lock": costs.locked() / machine.both,
        "model": (costs.unlocked() + seconds_of(costs.python, costs.max_batch) / costs.max_batch) / machine.both,
        "cores": (costs.locked() + costs.unlocked()) / 2 / machine.both,
    }
    cores = 2 * processes
    return {
        "requests_per_second": REQUESTS_PER_SECOND,
        "highest_rate_per_process": round(rate, 1),
        "processes": processes,
        "cores": cores,
        "machines": math.ceil(cores / ASSUMPTIONS["cores_per_machine"]),
        "p50_ms": round(at_load.p50, 1),
        "p99_ms": round(at_load.p99, 1),
        "cost_per_hour": round(cores * ASSUMPTIONS["core_hour"], 2),
        "megabit_per_second": round(REQUESTS_PER_SECOND * stage["file_bytes"] * 8 / 1e6),
        "bottleneck": max(needs, key=lambda name: needs[name]),
    }


if __name__ == "__main__":
    sys.exit(main())
