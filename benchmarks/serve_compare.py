"""The service beside LitServe and BentoML with the same model file: requests per second, latency and memory.

    python benchmarks/serve_compare.py [--seconds 20] [--rounds 3] [--images 512] [--workloads png photographs]

One image a request from 64 connections that stay open, sent by wrk (Debian: `apt-get install wrk`). The other servers
are the short ones in `peers/`, with two workers, Pillow's `draft` and one thread a core in all; LitServe classifies up
to 32 images at a time, BentoML one, as its batches are slower here. They get an environment of their own
(`--environment`), with the same versions of ONNX Runtime, Pillow and NumPy as here. PNG files are of CIFAR-10, for
`cifar10-tiny`; photographs are JPEGs of 1024×768 pixels for `cifar10`, made as in `photo_speed.py`.

In each round every server is started, checked, warmed, loaded and stopped, in an order that alternates; ONNX Runtime
alone gets decoded arrays at its best settings, and `peers/empty.py`, two workers of Uvicorn, reads uploads and answers
without computing anything. The sum of both estimates what a service on Uvicorn takes at least, before it parses and
decodes an upload. wrk shares the cores with them. Memory is the peak of the proportional
set size of all processes of a server. CPU milliseconds per request, also of all its processes, can be compared even
where other programs use the cores. Written to `benchmarks/results/serve_compare.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import platformdirs
import psutil

from thirtytwo.inference.classifier import Classifier, DecodedImage, Prediction
from thirtytwo.inference.library import find_model, model_name
from thirtytwo.inference.session import MOST_THREADS
from thirtytwo.io import write_json
from thirtytwo.machine import cpu_count, package_version

sys.path.insert(0, str(Path(__file__).parent))

from photo_speed import write_photos
from predict import BATCH_SIZES, exclusive, hardware, write_images

PEERS = Path(__file__).parent / "peers"
RESULTS = Path(__file__).parent / "results" / "serve_compare.json"
MODELS = {"png": "cifar10-tiny", "photographs": "cifar10"}
LIBRARIES = ("onnxruntime", "pillow", "numpy", "fastapi", "uvicorn", "uvloop", "httptools")
CLIENTS = 64
WORKERS = 2
EMPTY = "empty"
TARGETS = {"of_the_better": 1.25, "of_onnxruntime": 0.85}
PHOTOGRAPHS = 64
"""wrk sends them over and over; more would only take its memory."""
CHECKED = 32
START_SECONDS = 120.0
WARM_SECONDS = 3
BOUNDARY = b"thirtytwo-benchmark"


@dataclass(frozen=True)
class Workload:
    """Images to send, the model that classifies them, and its answers for the first `CHECKED` of them."""

    name: str
    model: Path
    files: list[Path]
    pixels: npt.NDArray[np.uint8]
    """Decoded by thirtytwo, uint8 `(N, S, S, 3)`, for ONNX Runtime alone."""
    expected: list[Prediction]


@dataclass(frozen=True)
class Peer:
    """How a server is started; `{port}` is replaced."""

    command: list[str]
    folder: Path
    variables: dict[str, str]


def main() -> int:
    root = os.environ.get("THIRTYTWO_DATA")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, default=Path(root) if root else None)
    parser.add_argument("--workloads", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--servers", nargs="+", default=["thirtytwo", "litserve", "bentoml"])
    parser.add_argument("--png-model", help="model.onnx or run for the PNG files, instead of cifar10-tiny")
    parser.add_argument("--images", type=int, default=512, help="PNG files")
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--wrk", default=shutil.which("wrk"), help="the load generator")
    parser.add_argument(
        "--environment", type=Path, default=Path(platformdirs.user_cache_dir("thirtytwo")) / "benchmark-peers"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.data_root is None or not (options.data_root / "cifar10").is_dir():
        print("skipped: CIFAR-10 and photographs are needed; set THIRTYTWO_DATA or give --data-root")
        return 0
    if options.wrk is None:
        print("skipped: wrk was not found; install it, in Debian with `apt-get install wrk`, or name it with --wrk")
        return 0
    versions = install_peers(options.environment)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        for name in options.workloads:
            workload = prepare(name, options, Path(place))
            found[name] = measure(workload, options)
            print(name, json.dumps(found[name], indent=1), flush=True)
            write_json(options.out, summary(options, found, versions))
    return 0


def summary(options: argparse.Namespace, found: dict[str, Any], versions: dict[str, str]) -> dict[str, Any]:
    return {
        "what": __doc__.splitlines()[0],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "versions": {name: package_version(name) for name in ("onnxruntime", "pillow", "uvicorn", "fastapi")}
        | versions,
        "load": {"clients": CLIENTS, "seconds": options.seconds, "generator": "wrk, one thread"},
        "workers_of_peers": WORKERS,
        "n": options.rounds,
        "targets": TARGETS,
        "workloads": found,
    }


def install_peers(folder: Path) -> dict[str, str]:
    """The other frameworks in an environment of their own, with the versions that are installed there."""
    python = folder / "bin" / "python"
    same = [f"{name}=={package_version(name)}" for name in ("onnxruntime", "pillow", "numpy")]
    if not python.is_file():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "litserve", "bentoml", *same], check=True)
    code = "import importlib.metadata as m; print(m.version('litserve'), m.version('bentoml'))"
    done = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    return dict(zip(("litserve", "bentoml"), done.stdout.split(), strict=True))


def prepare(name: str, options: argparse.Namespace, folder: Path) -> Workload:
    if name == "png":
        from thirtytwo.data.load import load_dataset

        test = load_dataset("cifar10", data_root=options.data_root).test
        assert test is not None
        files = write_images(np.ascontiguousarray(test.images[: options.images]), folder / name)
    else:
        files = write_photos(options.data_root / "photos", folder / name, PHOTOGRAPHS)
    model = find_model((name == "png" and options.png_model) or MODELS[name])
    classifier = Classifier(model)
    decoded = [classifier.decode(file) for file in files]
    expected = [result for result in classifier.predict(files[:CHECKED]) if isinstance(result, Prediction)]
    return Workload(
        name, model, files, np.stack([image.pixels for image in decoded if isinstance(image, DecodedImage)]), expected
    )


def measure(workload: Workload, options: argparse.Namespace) -> dict[str, Any]:
    """Every server in turn, and ONNX Runtime alone."""
    threads = max(1, cpu_count(MOST_THREADS) // WORKERS)
    known = servers(workload.model, options.environment, threads)
    peers = {name: known[name] for name in [*options.servers, EMPTY]}
    session, batch = best_settings(workload)
    loads: dict[str, list[dict[str, Any]]] = {name: [] for name in peers}
    alone, alone_cpu = [], []
    listing = workload.files[0].parent / "list.txt"
    listing.write_text("".join(f"{file}\n" for file in workload.files))
    for number in range(options.rounds):
        order = [*peers, "onnxruntime"]
        for name in order if number % 2 == 0 else reversed(order):
            if name == "onnxruntime":
                started = time.process_time()
                alone.append(rate_alone(session, workload.pixels, batch, options.seconds))
                alone_cpu.append((time.process_time() - started) / (alone[-1] * options.seconds))
                continue
            with running(peers[name]) as (process, port):
                wait_until_ready(process, port, workload.files[0])
                agreement = check_answers(port, workload) if name != EMPTY else {}
                load(options.wrk, port, listing, WARM_SECONDS)
                before = cpu_seconds(process.pid)
                with peak_memory(process.pid) as memory:
                    found = load(options.wrk, port, listing, options.seconds)
                used = cpu_seconds(process.pid) - before
                found["cpu_ms"] = round(1000 * used / found["requests_per_second"] / options.seconds, 3)
                loads[name].append(found | agreement | {"peak_mb": round(memory[0] / 2**20, 1)})
            print(workload.name, name, loads[name][-1], flush=True)
    medians = {name: median_of(rounds) for name, rounds in loads.items()}
    limit, empty = statistics.median(alone), medians.pop(EMPTY)
    return {
        "model": model_name(workload.model),
        "images": len(workload.files),
        "rounds": loads,
        "median": medians,
        "onnxruntime_alone": {
            "images_per_second": [round(value, 1) for value in alone],
            "median": round(limit, 1),
            "cpu_ms": round(1000 * statistics.median(alone_cpu), 3),
        },
        "onnxruntime_batch_size": batch,
        "http_alone": empty,
        "most_of_onnxruntime": round(1 / (1 + limit / empty["requests_per_second"]), 4),
        "ratio": ratios(medians, limit),
    }


def median_of(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}


def ratios(medians: dict[str, dict[str, float]], limit: float) -> dict[str, float]:
    """The service relative to the better of the others, and to ONNX Runtime alone."""
    ours = medians.get("thirtytwo")
    others = [value for name, value in medians.items() if name != "thirtytwo"]
    if ours is None:
        return {}
    found = {"of_onnxruntime": round(ours["requests_per_second"] / limit, 4)}
    if others:
        better = max(others, key=lambda one: one["requests_per_second"])
        found["of_the_better"] = round(ours["requests_per_second"] / better["requests_per_second"], 4)
        found["cpu_of_the_better"] = round(ours["cpu_ms"] / better["cpu_ms"], 4)
        found["memory_of_the_better"] = round(ours["peak_mb"] / better["peak_mb"], 4)
    return found


def servers(model: Path, environment: Path, threads: int) -> dict[str, Peer]:
    variables = {
        "THIRTYTWO_PEER_MODEL": str(model),
        "THIRTYTWO_PEER_THREADS": str(threads),
        "BENTOML_DO_NOT_TRACK": "True",
        "ORT_DISABLE_TELEMETRY": "1",
    }
    programs = environment.absolute() / "bin"
    ours = [sys.executable, "-m", "thirtytwo", "serve", "--port", "{port}", "--model", str(model)]
    bento = [str(programs / "bentoml"), "serve", "bento:Classifier", "--host", "127.0.0.1", "--port", "{port}"]
    uvicorn = [sys.executable, "-m", "uvicorn", "empty:app", "--port", "{port}"]
    return {
        "thirtytwo": Peer(ours, Path.cwd(), {}),
        "litserve": Peer([str(programs / "python"), "lit.py", "{port}"], PEERS, variables),
        "bentoml": Peer(bento, PEERS, variables),
        EMPTY: Peer([*uvicorn, "--workers", str(WORKERS), "--log-level", "warning"], PEERS, {}),
    }


@contextmanager
def running(peer: Peer) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A server in a process group of its own, on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [word.replace("{port}", str(port)) for word in peer.command]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            cwd=peer.folder,
            env=os.environ | peer.variables,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process, port
        except Exception:
            log.seek(0)
            print(log.read().decode(errors="replace")[-4000:], file=sys.stderr)
            raise
        finally:
            children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            for child in [*children, process]:
                with suppress(psutil.NoSuchProcess, ProcessLookupError):
                    child.kill()
            process.wait()


def post(port: int, file: Path) -> Any:
    """The answer to one image."""
    kind = b"image/png" if file.suffix == ".png" else b"image/jpeg"
    disposition = b'Content-Disposition: form-data; name="files"; filename="%b"' % file.name.encode()
    body = b"--%b\r\n%b\r\nContent-Type: %b\r\n\r\n%b\r\n--%b--\r\n" % (
        *(BOUNDARY, disposition, kind),
        *(file.read_bytes(), BOUNDARY),
    )
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY.decode()}"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/predict", body, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def wait_until_ready(process: subprocess.Popen[bytes], port: int, file: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        assert process.poll() is None, "the server ended"
        try:
            post(port, file)
            return
        except (OSError, urllib.error.HTTPError):
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def check_answers(port: int, workload: Workload) -> dict[str, float]:
    """The share of images with thirtytwo's class, and the largest difference in its confidence among those."""
    alike, differences = [], [0.0]
    for file, expected in zip(workload.files, workload.expected, strict=False):
        answer = post(port, file)
        best = (answer[0] if isinstance(answer, list) else answer)["predictions"][0]
        alike.append(best["class"] == expected.top)
        if alike[-1]:
            differences.append(abs(best["confidence"] - expected.confidence))
    return {"same_class": round(sum(alike) / len(alike), 4), "largest_difference": round(max(differences), 4)}


def load(wrk: str, port: int, listing: Path, seconds: int) -> dict[str, Any]:
    """What wrk reports; a failed request is an error of the benchmark."""
    command = [wrk, "-t1", f"-c{CLIENTS}", f"-d{seconds}s", "--timeout", "30s", "--latency", "-s", PEERS / "load.lua"]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{port}/predict", "--", listing], check=True, capture_output=True, text=True
    )
    failed = re.search(r"Non-2xx.*|Socket errors: .*", done.stdout)
    assert failed is None, failed
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    assert rate is not None, done.stdout
    found = {"requests_per_second": float(rate[1])}
    for share in ("50", "99"):
        value = re.search(rf"{share}%\s+([\d.]+)(us|ms|s)", done.stdout)
        assert value is not None, done.stdout
        found[f"p{share}_ms"] = round(float(value[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[value[2]], 1)
    return found


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and its descendants so far."""
    process = psutil.Process(pid)
    times = [one.cpu_times() for one in [process, *process.children(recursive=True)]]
    return sum(one.user + one.system for one in times)


@contextmanager
def peak_memory(pid: int) -> Iterator[list[int]]:
    """The largest sum of the proportional set sizes of a process and its descendants, in bytes."""
    peak, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.5):
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                tree = [process, *process.children(recursive=True)]
                peak[0] = max(peak[0], sum(one.memory_full_info().pss for one in tree))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def best_settings(workload: Workload) -> tuple[Any, int]:
    """The session and the batch size with which ONNX Runtime alone is fastest."""
    sessions = [
        onnxruntime.InferenceSession(str(workload.model), providers=["CPUExecutionProvider"]),
        Classifier(workload.model).session,
    ]
    return max(product(sessions, BATCH_SIZES[:4]), key=lambda pair: rate_alone(pair[0], workload.pixels, pair[1], 1.0))


def rate_alone(session: Any, pixels: npt.NDArray[np.uint8], batch: int, seconds: float) -> float:
    """Images per second of a session, for about so many seconds, after a run that is not timed."""
    exclusive(session, pixels[:batch], batch)
    count, start = 0, time.perf_counter()
    while (taken := time.perf_counter() - start) < seconds:
        exclusive(session, pixels, batch)
        count += len(pixels)
    return count / taken


if __name__ == "__main__":
    sys.exit(main())
