"""What many images and requests cost: stages measured here, a simulation checked against the service, and a plan.

    python benchmarks/scale_model.py [--model cifar10-tiny] [--data-root DIR] [--photos DIR] [--seconds 15]
    python benchmarks/scale_model.py --plan      compute the plan again from the measurements

Measured, with one thread: seconds to decode an image and bytes of its file, seconds of the model for batches of several
sizes, and the processor time of the service and its clients per request beside that. The simulation has one process of
the service with two stations: requests are read and decoded one after the other, and the model takes batches as
`thirtytwo.serve.batching` forms them. It predicts throughput and latency of loads that are then run: clients that send
without pause, and requests at random times at a given rate. `thirtytwo serve --threads 1` runs on two cores that it
shares with the clients. The plan uses `benchmarks/results/` and `ASSUMPTIONS`.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import math
import os
import re
import sys
import tempfile
import time
import urllib.request
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from thirtytwo.errors import ThirtytwoError
from thirtytwo.images.decode import load_image
from thirtytwo.inference.classifier import Classifier, find_model
from thirtytwo.io import write_json

sys.path.insert(0, str(Path(__file__).parent))

from photo_speed import write_photos
from predict import hardware

from serve import Answer, Outcome, _read, body, encode, load, service

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
SIMULATED = 20_000


@dataclass(frozen=True)
class Costs:
    """Seconds: of a request outside of the model, of a batch, and of each image in it."""

    request: float
    batch: float
    image: float
    max_batch: int = 32
    max_wait: float = 0.002


@dataclass(frozen=True)
class Load:
    """Requests per second, and milliseconds of their latency."""

    rate: float
    p50: float
    p99: float


def simulate(costs: Costs, *, clients: int = 0, rate: float = 0, requests: int = SIMULATED, seed: int = 0) -> Load:
    """Discrete-event simulation of one process; of `clients` that send without pause, or of `rate` requests a second.

    The first tenth of the requests is left out of the result.
    """
    events: list[tuple[float, int, Callable[[float], None]]] = []
    order = count()
    arrived: dict[int, float] = {}
    done: list[tuple[float, float]] = []  # when, latency
    reading: deque[int] = deque()
    waiting: deque[tuple[int, float]] = deque()
    busy = {"reader": False, "model": False}
    numbers = count()

    def at(when: float, what: Callable[[float], None]) -> None:
        heapq.heappush(events, (when, next(order), what))

    def arrive(now: float) -> None:
        number = next(numbers)
        arrived[number] = now
        reading.append(number)
        read(now)

    def read(now: float) -> None:
        if not busy["reader"] and reading:
            busy["reader"] = True
            number = reading.popleft()
            at(now + costs.request, lambda when: finish_reading(when, number))

    def finish_reading(now: float, number: int) -> None:
        busy["reader"] = False
        waiting.append((number, now))
        start_batch(now)
        read(now)

    def start_batch(now: float) -> None:
        if busy["model"] or not waiting:
            return
        due = waiting[0][1] + costs.max_wait
        if len(waiting) < costs.max_batch and now < due:
            at(due, start_batch)
            return
        busy["model"] = True
        batch = [waiting.popleft()[0] for _ in range(min(len(waiting), costs.max_batch))]
        at(now + costs.batch + costs.image * len(batch), lambda when: finish_batch(when, batch))

    def finish_batch(now: float, batch: list[int]) -> None:
        busy["model"] = False
        for number in batch:
            done.append((now, now - arrived.pop(number)))
            if clients:
                arrive(now)
        start_batch(now)

    if clients:
        for number in range(clients):
            at(number * costs.request, arrive)
    else:
        for when in np.cumsum(np.random.default_rng(seed).exponential(1 / rate, requests)):
            at(float(when), arrive)
    while events and len(done) < requests:
        now, _, what = heapq.heappop(events)
        what(now)
    kept = done[len(done) // 10 :]
    latencies = np.array([latency for _, latency in kept]) * 1000
    p50, p99 = (float(np.quantile(latencies, share)) for share in (0.5, 0.99))
    return Load((len(kept) - 1) / (kept[-1][0] - kept[0][0]), p50, p99)


def highest_rate(costs: Costs, latency_ms: float) -> float:
    """The highest rate of requests at random times whose 99th percentile stays below a latency."""
    low, high = 0.0, 1 / max(costs.request, costs.image)
    for _ in range(12):
        middle = (low + high) / 2
        found = simulate(costs, rate=middle)
        low, high = (middle, high) if found.p99 <= latency_ms else (low, middle)
    return low


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
    options = parser.parse_args()
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

    load_before = os.getloadavg()[0]  # another program on the machine changes what is measured
    model = find_model(options.model)
    test = load_dataset("cifar10", data_root=Path(options.data_root)).test
    assert test is not None
    files = [encode(image) for image in test.images[:1024]]
    with tempfile.TemporaryDirectory() as place:
        photos = [path.read_bytes() for path in write_photos(options.photos, Path(place) / "photos", 64)]
    small = stages(Classifier(model, threads=1), files)
    costs, calibration = calibrate(model, files, small, options.seconds)
    return {
        "what": __doc__.splitlines()[0],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "load_average_before": round(load_before, 1),
        "models": {"small": options.model, "photographs": options.photo_model},
        "stages": {
            "small": small,
            "photographs": stages(Classifier(find_model(options.photo_model), threads=1), photos),
        },
        "calibration": calibration,
        "checks": check(model, files, costs, options.seconds),
    }


def stages(classifier: Classifier, files: list[bytes]) -> dict[str, Any]:
    """Seconds of processor time of decoding and of the model with one thread, and bytes of a file."""
    info = classifier.info
    started = time.process_time()
    pixels = np.stack([load_image(data, info.input_size, info.resize, "image").pixels for data in files])
    decode = (time.process_time() - started) / len(files)
    sizes = [size for size in BATCHES if size <= classifier.largest_batch]
    seconds = [_median_seconds(classifier, pixels, size) for size in sizes]
    image, batch = np.polyfit(sizes, seconds, 1, w=1 / np.array(seconds))
    size = sum(map(len, files)) / len(files)
    return {
        "input_size": info.input_size,
        "file_bytes": round(size),
        "decode_seconds": round(decode, 7),
        "decode_seconds_per_gb": round(decode / size * 1e9, 1),
        "batch_seconds": {str(key): round(value, 6) for key, value in zip(sizes, seconds, strict=True)},
        "fit": {"batch": round(max(0.0, float(batch)), 6), "image": round(float(image), 7)},
    }


def _median_seconds(classifier: Classifier, pixels: npt.NDArray[np.uint8], size: int, repeats: int = 9) -> float:
    classifier.classify(pixels[:size])
    found = []
    for number in range(repeats):
        start = number * size % (len(pixels) - size + 1)
        started = time.process_time()
        classifier.classify(pixels[start : start + size])
        found.append(time.process_time() - started)
    return float(np.median(found))


def calibrate(model: Path, files: list[bytes], small: dict[str, Any], seconds: float) -> tuple[Costs, dict[str, Any]]:
    """Costs from the processor time of one load: of the service without its model, and of the clients."""
    requests = [body([data]) for data in files]
    with service(model, "--threads", "1") as server:
        load(server, requests, clients=CALIBRATION_CLIENTS, count=500)
        before, own = _metrics(server.port), time.process_time()
        outcome = load(server, requests, clients=CALIBRATION_CLIENTS, seconds=seconds)
        client = (time.process_time() - own) / outcome.sent
        after = _metrics(server.port)
    spent = {name: after[name] - before[name] for name in after}
    fit = small["fit"]
    model_seconds = (
        fit["batch"] * spent["thirtytwo_batch_size_count"] + fit["image"] * spent["thirtytwo_batch_size_sum"]
    )
    request = max(0.0, spent["process_cpu_seconds_total"] - model_seconds) / outcome.sent
    costs = Costs(request + client, fit["batch"], fit["image"])
    figures = {"request_seconds": round(request, 7), "client_seconds": round(client, 7), "requests": outcome.sent}
    return costs, figures | {"clients": CALIBRATION_CLIENTS, "costs": asdict(costs)}


def _metrics(port: int) -> dict[str, float]:
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    names = ("process_cpu_seconds_total", "thirtytwo_batch_size_count", "thirtytwo_batch_size_sum")
    return {name: sum(map(float, re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))) for name in names}


def check(model: Path, files: list[bytes], costs: Costs, seconds: float) -> list[dict[str, Any]]:
    """Loads, each as simulated and as run."""
    requests = [body([data]) for data in files]
    found = []
    with service(model, "--threads", "1") as server:
        load(server, requests, clients=CALIBRATION_CLIENTS, count=500)
        for clients in CLIENTS:
            outcome = load(server, requests, clients=clients, seconds=seconds)
            found.append({"clients": clients} | _compared(simulate(costs, clients=clients), outcome))
        capacity = max(one["measured"]["rate"] for one in found)
        for share in UTILIZATIONS:
            rate = share * capacity
            outcome = asyncio.run(_at_random_times(server.port, requests, rate, seconds))
            found.append({"rate": round(rate, 1)} | _compared(simulate(costs, rate=rate), outcome))
    return found


def _compared(simulated: Load, outcome: Outcome) -> dict[str, Any]:
    assert all(answer.status == 200 for answer in outcome.answers)
    latencies = np.array([answer.seconds for answer in outcome.answers]) * 1000
    p50, p99 = (float(np.quantile(latencies, share)) for share in (0.5, 0.99))
    measured = Load(len(outcome.answers) / outcome.seconds, p50, p99)
    return {
        "simulated": {name: round(value, 1) for name, value in asdict(simulated).items()},
        "measured": {name: round(value, 1) for name, value in asdict(measured).items()},
        "rate_error": round(simulated.rate / measured.rate - 1, 3),
        "p50_error": round(simulated.p50 / measured.p50 - 1, 3),
    }


async def _at_random_times(port: int, requests: list[bytes], rate: float, seconds: float) -> Outcome:
    """Requests at random times (a Poisson process), each over an idle connection or a new one."""
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
    model = stage["fit"]["image"] + stage["fit"]["batch"] / max(map(int, stage["batch_seconds"]))
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


def service_plan(measured: dict[str, Any]) -> dict[str, Any]:
    """Processes of two cores each for `REQUESTS_PER_SECOND` with one small image each."""
    fit, stage = measured["stages"]["small"]["fit"], measured["stages"]["small"]
    costs = Costs(measured["calibration"]["request_seconds"], fit["batch"], fit["image"])
    rate = highest_rate(costs, ASSUMPTIONS["latency_ms"])
    used = rate / (1 + ASSUMPTIONS["reserve"])
    processes = math.ceil(REQUESTS_PER_SECOND / used)
    at_load = simulate(costs, rate=REQUESTS_PER_SECOND / processes)
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
        "bottleneck": "model" if fit["image"] + fit["batch"] / costs.max_batch > costs.request else "requests",
    }


if __name__ == "__main__":
    sys.exit(main())
