"""What many images and requests cost: stages measured here, a simulation checked against the service, and a plan.

    python benchmarks/scale_model.py [--model cifar10-tiny] [--data-root DIR] [--photos DIR] [--seconds 15]
    python benchmarks/scale_model.py --plan      compute the plan again from the measurements

Each stage is measured alone: decoding an image, the model on batches of several sizes with and without the Python
around it, waking a thread, a timer, how much slower a core is while the other one is busy; and, from the processor time
of the service with one and with several clients, the rest of a request and what it costs to wake a thread. From these
`serve_simulation.py` predicts throughput and latency of loads that are then run: several clients without pause, and
requests at random times at a given rate. `thirtytwo serve --threads 1` shares two cores with the clients. All of it
runs before other programs where the user may set that (root); otherwise what they took is measured with each load, and
simulated too. The plan uses `benchmarks/results/` and `ASSUMPTIONS`.
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
from thirtytwo.inference.classifier import Classifier
from thirtytwo.inference.library import find_model
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
CALIBRATION_CLIENTS = 16
SPREAD = 0.25
"""Assumed standard deviation of each step, as a share of its mean."""
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

    first = runs_first()
    model = find_model(options.model)
    test = load_dataset("cifar10", data_root=Path(options.data_root)).test
    assert test is not None
    files = [encode(image) for image in test.images[:1024]]
    with tempfile.TemporaryDirectory() as place:
        photos = [path.read_bytes() for path in write_photos(options.photos, Path(place) / "photos", 64)]
    classifier = Classifier(model, threads=1)
    small, wake, late = stages(classifier, files), *asyncio.run(delays())
    machine = Machine(both=speed_of_both(classifier, files))
    costs, calibration = calibrate(model, files, small, options.seconds, wake, late, machine)
    return {
        "what": __doc__.splitlines()[0],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "models": {"small": options.model, "photographs": options.photo_model},
        "stages": {
            "small": small,
            "photographs": stages(Classifier(find_model(options.photo_model), threads=1), photos),
        },
        "machine": {"both": round(machine.both, 3), "runs_first": first},
        "calibration": calibration,
        "checks": check(model, files, costs, machine, options.seconds, first),
    }


def runs_first() -> bool:
    """Give this process and those that it starts precedence over other programs; whether that is allowed."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except OSError:
        return False
    return True


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
    model: Path, files: list[bytes], small: dict[str, Any], seconds: float, wake: float, late: float, machine: Machine
) -> tuple[Costs, dict[str, Any]]:
    """Costs of a request, from the processor time of the service and the clients in two loads.

    One client wakes all threads for each request, several clients few of them: that tells both costs apart.
    """
    requests = [body([data]) for data in files]
    spent = []
    with service(model, "--threads", "1") as server:
        load(server, requests, clients=CALIBRATION_CLIENTS, count=WARM_UP)
        for clients in (1, CALIBRATION_CLIENTS):
            outcome, used = measured_load(server, partial(load, server, requests, clients=clients, seconds=seconds))
            spent.append((used.service / outcome.sent, used.client / outcome.sent))
    (alone, _), (together, client) = spent
    found = {"loop_seconds": together, "client_seconds": client, "wake_work_seconds": 0.0}
    found |= {"wake_seconds": wake, "late_seconds": late}
    for _ in range(6):  # the number of threads that wake up depends on the costs
        costs = costs_of(small, found)
        loads = [simulate(costs, machine, clients=clients, requests=3000) for clients in (1, CALIBRATION_CLIENTS)]
        rest, rest_together = (
            max(0.0, spent - _model_and_decoding(costs, round(load.batch)))
            for spent, load in zip((alone, together), loads, strict=True)
        )
        wakes, wakes_together = (load.wakes for load in loads)
        work = max(0.0, (rest - rest_together) / (wakes - wakes_together))
        found |= {"wake_work_seconds": work, "loop_seconds": max(0.0, rest_together - wakes_together * work)}
    return costs_of(small, found), {
        "clients": CALIBRATION_CLIENTS,
        "service_seconds": [round(one, 6) for one, _ in spent],
        "costs": {name: round(value, 7) for name, value in found.items()},
    }


def _model_and_decoding(costs: Costs, batch: int) -> float:
    """Seconds of a request outside of the event loop."""
    return costs.decode + (seconds_of(costs.model, batch) + seconds_of(costs.python, batch)) / batch


def costs_of(small: dict[str, Any], found: dict[str, float], client: float | None = None) -> Costs:
    """What the simulation needs, from measurements; `client` replaces the cost of the clients."""
    model, python = (
        tuple((int(size), float(seconds)) for size, seconds in small[name].items())
        for name in ("batch_seconds", "python_seconds")
    )
    return Costs(
        decode=small["decode_seconds"],
        model=model,
        python=python,
        client=found["client_seconds"] if client is None else client,
        wake_work=found["wake_work_seconds"],
        wake=found["wake_seconds"],
        late=found["late_seconds"],
        spread=SPREAD,
        **{name: share * found["loop_seconds"] for name, share in SHARES.items()},
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


def check(
    model: Path, files: list[bytes], costs: Costs, machine: Machine, seconds: float, first: bool
) -> list[dict[str, Any]]:
    """Loads, each as simulated and as run; `first` if other programs wait meanwhile."""
    requests = [body([data]) for data in files]
    found = []
    with service(model, "--threads", "1") as server:
        load(server, requests, clients=16, count=WARM_UP)
        for clients in CLIENTS:
            ran = measured_load(server, partial(load, server, requests, clients=clients, seconds=seconds))
            found.append({"clients": clients} | _compared(costs, machine, first, *ran, clients=clients))
        capacity = max(one["measured"]["rate"] for one in found)
        for share in UTILIZATIONS:
            rate = share * capacity
            ran = measured_load(server, partial(_at_random_times, server.port, requests, rate, seconds))
            found.append({"rate": round(rate, 1)} | _compared(costs, machine, first, *ran, rate=rate))
    return found


def _compared(costs: Costs, machine: Machine, first: bool, outcome: Outcome, used: Used, **sent: Any) -> dict[str, Any]:
    assert all(answer.status == 200 for answer in outcome.answers)
    simulated = simulate(costs, machine if first else replace(machine, others=used.others), **sent)
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
        status = 0
        while not status:
            kept = bool(idle)
            reader, writer = idle.pop() if kept else await asyncio.open_connection("127.0.0.1", port)
            writer.write(requests[number % len(requests)])
            try:
                status, answer = await _read(reader)
            except (OSError, asyncio.IncompleteReadError):
                if not kept:  # the service closes connections that are idle for some seconds
                    raise
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
    large = photo["models"]["cifar10"]
    per_core = {
        "small": predict["median_images_per_second"]["thirtytwo"] / predict["hardware"]["cores"],
        "photographs": large["median_images_per_second"]["predict"] / large["hardware"]["cores"],
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
    stage = measured["stages"]["small"]
    costs = costs_of(stage, measured["calibration"]["costs"], client=0.0)
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
