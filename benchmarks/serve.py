"""Load test of the service: throughput relative to ONNX Runtime, 64 clients for a minute, memory over many requests.

    python benchmarks/serve.py MODEL [--data-root DIR] [--images 4096] [--repeats 3] [--seconds 60] [--requests 20000]

The service is a separate process; this one sends it PNG files over loopback and shares the machine with it. ONNX
Runtime alone gets decoded uint8 arrays of the same images, at the best of several batch sizes and of two settings.
Rounds alternate the order; medians and their ratio are reported. Every response is compared with ONNX Runtime's result.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image

from thirtytwo.errors import ThirtytwoError
from thirtytwo.inference.library import find_model
from thirtytwo.inference.session import MOST_THREADS, open_session
from thirtytwo.io import write_json
from thirtytwo.machine import cpu_count

sys.path.insert(0, str(Path(__file__).parent))

from predict import BATCH_SIZES, exclusive, hardware

RESULTS = Path(__file__).parent / "results" / "serve.json"
TARGET = 0.7
MOST_GROWTH = 0.1
CLIENTS = 64
PICTURES_A_REQUEST = {"one_image_per_request": 1, "32_images_per_request": 32}
IN_FLIGHT = 512
"""Maximum of images of all clients: half of the length of the service's queue, beyond which it returns 503."""
BOUNDARY = b"thirtytwo-benchmark"
RESPONSE_TIMEOUT = 30.0  # seconds for one response


def main() -> int:
    parser = argparse.ArgumentParser(description="Throughput, latency and memory of thirtytwo serve.")
    parser.add_argument("model", nargs="?", help="model.onnx or run directory trained on CIFAR-10")
    parser.add_argument("--data-root", type=Path, default=os.environ.get("THIRTYTWO_DATA"))
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.model is None:
        print("skipped: no model given; train one with: thirtytwo train cifar10")
        return 0
    if options.data_root is None or not (Path(options.data_root) / "cifar10").is_dir():
        print("skipped: CIFAR-10 was not found; set THIRTYTWO_DATA or give --data-root")
        return 0
    from thirtytwo.data.load import load_dataset

    try:
        model = find_model(options.model)
        test = load_dataset("cifar10", data_root=Path(options.data_root)).test
        assert test is not None
        pixels = np.ascontiguousarray(test.images[: options.images])
        measured = measure(model, pixels, options)
    except ThirtytwoError as error:
        print(error, file=sys.stderr)
        return 2
    write_json(options.out, measured)
    print(json.dumps(measured, indent=1))
    return 0


def measure(model: Path, pixels: npt.NDArray[np.uint8], options: argparse.Namespace) -> dict[str, Any]:
    """All measurements, for images uint8 `(N, S, S, 3)`."""
    files = [encode(image) for image in pixels]
    return {
        "what": "thirtytwo serve, PNG files over loopback, compared with ONNX Runtime alone on decoded arrays",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "model": {"bytes": model.stat().st_size, "architecture": open_session(model)[1].architecture},
        "throughput": measure_throughput(model, pixels, files, options.repeats),
        "load": measure_load(model, pixels, files, options.seconds),
        "memory": measure_memory(model, files, options.requests),
    }


def measure_throughput(model: Path, pixels: npt.NDArray[np.uint8], files: list[bytes], repeats: int) -> dict[str, Any]:
    sessions = {
        "default": onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"]),
        "thirtytwo's": open_session(model)[0],
    }
    few = pixels[:1024]
    settings, batch_size = max(
        product(sessions, BATCH_SIZES),
        key=lambda pair: _rate(len(few), lambda: exclusive(sessions[pair[0]], few, pair[1])),
    )
    chosen = sessions[settings]
    expected = best_of(exclusive(chosen, pixels, batch_size))
    requests = {
        name: [body(files[at : at + size]) for at in range(0, len(files), size)]
        for name, size in PICTURES_A_REQUEST.items()
    }
    rates: dict[str, list[float]] = {"onnxruntime": [], **{name: [] for name in PICTURES_A_REQUEST}}
    with service(model) as server:
        clients = {name: min(CLIENTS, IN_FLIGHT // size) for name, size in PICTURES_A_REQUEST.items()}
        for name in PICTURES_A_REQUEST:
            load(server, requests[name][:64], clients=clients[name])  # warm
        for number in range(repeats):
            order = list(rates) if number % 2 == 0 else list(reversed(rates))
            for side in order:
                if side == "onnxruntime":
                    rates[side].append(_rate(len(pixels), lambda: exclusive(chosen, pixels, batch_size)))
                    continue
                outcome = load(server, requests[side], clients=clients[side])
                outcome.check(expected, PICTURES_A_REQUEST[side])
                rates[side].append(len(pixels) / outcome.seconds)
    medians = {side: statistics.median(values) for side, values in rates.items()}
    ratios = {name: medians[name] / medians["onnxruntime"] for name in PICTURES_A_REQUEST}
    return {
        "images": len(pixels),
        "n": repeats,
        "clients": clients,
        "threads": cpu_count(MOST_THREADS),
        "onnxruntime_batch_size": batch_size,
        "onnxruntime_settings": settings,
        "images_per_second": {side: [round(value, 1) for value in values] for side, values in rates.items()},
        "median_images_per_second": {side: round(value, 1) for side, value in medians.items()},
        "ratio": {name: round(value, 4) for name, value in ratios.items()},
        "target_ratio": TARGET,
        "met": {name: value >= TARGET for name, value in ratios.items()},
    }


def measure_load(model: Path, pixels: npt.NDArray[np.uint8], files: list[bytes], seconds: float) -> dict[str, Any]:
    """Clients that send one image after the other for a given time."""
    expected = best_of(exclusive(open_session(model)[0], pixels, 32))
    with service(model) as server:
        outcome = load(server, [body([file]) for file in files], clients=CLIENTS, seconds=seconds)
    return load_figures(outcome, outcome.check(expected, 1, strict=False))


def load_figures(outcome: Outcome, wrong: int) -> dict[str, Any]:
    """What is reported of a load with one image per request."""
    latencies = np.sort([answer.seconds for answer in outcome.answers])
    return {
        "clients": CLIENTS,
        "seconds": round(outcome.seconds, 1),
        "requests": outcome.sent,
        "answers": len(outcome.answers),
        "lost": outcome.sent - len(outcome.answers),
        "errors": sum(answer.status != 200 for answer in outcome.answers),
        "wrong_answers": wrong,
        "requests_per_second": round(len(outcome.answers) / outcome.seconds, 1),
        "milliseconds": {
            name: round(1000 * float(np.quantile(latencies, share)), 1)
            for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))
        },
    }


def measure_memory(model: Path, files: list[bytes], most: int) -> dict[str, Any]:
    """Memory of the service's process after some and after many requests of one image."""
    some = max(1, most // 20)
    requests = [body([file]) for file in files]
    with service(model) as server:
        load(server, requests, clients=CLIENTS, count=some)
        before = server.resident_mb()
        load(server, requests, clients=CLIENTS, count=most - some)
        after = server.resident_mb()
    return {
        "requests": [some, most],
        "resident_mb": [round(before, 1), round(after, 1)],
        "growth": round(after / before - 1, 4),
        "most_growth": MOST_GROWTH,
        "met": after <= before * (1 + MOST_GROWTH),
    }


@dataclass(frozen=True)
class Server:
    """A running service."""

    process: subprocess.Popen[str]
    port: int

    def resident_mb(self, field: str = "VmRSS") -> float:
        """Current (VmRSS) or peak (VmHWM) memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"{field}:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) / 1024


@contextmanager
def service(model: Path | None, *options: str) -> Iterator[Server]:
    """`thirtytwo serve` in its own process, on a free port; without `model`, of the bundled models."""
    command = [sys.executable, "-m", "thirtytwo", "serve", "--port", "0", *options]
    command += ["--model", str(model)] if model else []
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        log = ""
        while (found := re.search(r"http://127\.0\.0\.1:(\d+)", log)) is None:
            line = process.stderr.readline()
            assert line, f"it did not start: {log}"
            log += line
        yield Server(process, int(found[1]))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@dataclass(frozen=True, slots=True)
class Answer:
    """The response to the request of that number."""

    number: int
    status: int
    body: bytes
    seconds: float


@dataclass
class Outcome:
    """Results of a load: responses in the order of arrival."""

    sent: int = 0
    seconds: float = 0.0
    answers: list[Answer] = field(default_factory=list)

    def check(self, expected: Sequence[float], per_request: int, *, strict: bool = True) -> int:
        """Number of responses that differ from ONNX Runtime's; must be 0 if strict."""
        wrong = sum(not _agrees(answer, expected, per_request) for answer in self.answers)
        assert not strict or (wrong == 0 and len(self.answers) == self.sent), f"{wrong} wrong, {self.sent} sent"
        return wrong


def _agrees(answer: Answer, expected: Sequence[float], per_request: int) -> bool:
    if answer.status != 200:
        return False
    found = [entry["confidence"] for entry in json.loads(answer.body)]
    start = answer.number * per_request
    return bool(np.allclose(found, expected[start : start + len(found)], atol=1e-4))


def load(
    server: Server,
    requests: list[bytes],
    *,
    clients: int,
    seconds: float | None = None,
    count: int | None = None,
    stop: threading.Event | None = None,
) -> Outcome:
    """Send requests over as many connections as there are clients, each waiting for its response first.

    Each request once; or, over and over, so many of them, for so many seconds, or until an event is set.
    """
    return asyncio.run(_load(server.port, requests, clients, seconds, count, stop))


async def _load(
    port: int,
    requests: list[bytes],
    clients: int,
    seconds: float | None,
    count: int | None,
    stop: threading.Event | None,
) -> Outcome:
    outcome = Outcome()
    most = count if count is not None else len(requests) if seconds is None and stop is None else None
    started = time.perf_counter()
    end = None if seconds is None else started + seconds

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (most is None or outcome.sent < most) and (end is None or time.perf_counter() < end):
            if stop is not None and stop.is_set():
                break
            number = outcome.sent % len(requests)
            outcome.sent += 1
            asked = time.perf_counter()
            writer.write(requests[number])
            try:
                status, answer = await asyncio.wait_for(_read(reader), RESPONSE_TIMEOUT)
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                continue
            outcome.answers.append(Answer(number, status, answer, time.perf_counter() - asked))
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    outcome.seconds = time.perf_counter() - started
    return outcome


async def _read(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    assert length is not None, head
    return int(head[9:12]), await reader.readexactly(int(length[1]))


def body(files: Sequence[bytes], query: bytes = b"top=5") -> bytes:
    """A complete HTTP request with these files."""
    disposition = b'Content-Disposition: form-data; name="files"; filename="%d.png"'
    part = b"--%b\r\n" + disposition + b"\r\nContent-Type: image/png\r\n\r\n%b\r\n"
    parts = b"".join(part % (BOUNDARY, number, file) for number, file in enumerate(files))
    parts += b"--%b--\r\n" % BOUNDARY
    head = b"POST /predict?%b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=%b\r\n"
    return head % (query, BOUNDARY) + b"Content-Length: %d\r\n\r\n" % len(parts) + parts


def best_of(batches: Sequence[npt.NDArray[np.float32]]) -> list[float]:
    """The probability of each image's top class."""
    best: list[float] = np.concatenate(batches).max(axis=1).tolist()
    return best


def encode(image: npt.NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def _rate(count: int, run: Any) -> float:
    start = time.perf_counter()
    run()
    return count / (time.perf_counter() - start)


if __name__ == "__main__":
    sys.exit(main())
