"""Where the time of `import thirtytwo`, `predict`, `serve` and `train` goes.

    python benchmarks/costs.py [import] [predict] [serve] [train] [--data-root DIR] [--seconds 10]

For Linux. `import` sums Python's own `-X importtime` by package. `predict` and `serve` run in a process of their own
with a thread that looks every five milliseconds at what all others do: the processor time that each has used since is
added to the nearest of a few known places in its call stack. The time of threads that libraries started belongs to ONNX
Runtime there; in `train`, a training of one epoch, to the place of the main thread. `train` adds the operations of
single steps of `fast` by PyTorch's profiler, each stage of the schedule with its number of steps. The results of the
parts that ran replace theirs in `results/costs.json`.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "costs.json"
SAMPLES = HERE.parent / "src" / "thirtytwo" / "app" / "samples"
INTERVAL = 0.005
MOST_COSTS = 8
OTHER = "other"
INTERRUPTED = 130
"""Exit code of a service that is stopped by a signal."""
_OF_THE_ENVIRONMENT = {"_distutils_hack", "sitecustomize", "usercustomize", "_virtualenv"}
"""Modules that Python runs at its start, before any statement."""
INSIDE = "--inside"
"""First argument of a process that samples itself."""
IMPORTS = {
    "import thirtytwo": "import thirtytwo",
    "the command line": "import thirtytwo.cli.main",
    "predicting": "import thirtytwo.inference.classifier",
}
RUNTIME, OPENING = "ONNX Runtime", "opening the model"
IMPORTING = ("<frozen importlib._bootstrap", "imports")
PLACES: dict[str, tuple[tuple[str, str], ...]] = {
    "predict": (
        IMPORTING,
        ("thirtytwo/images/discover.py", "finding files"),
        ("thirtytwo/images/", "decoding and resizing"),
        ("inference_collection.py:_create_inference_session", OPENING),
        ("inference/session.py:", OPENING),
        ("onnxruntime/capi/", RUNTIME),
        ("thirtytwo/inference/output.py", "writing the results"),
        ("thirtytwo/", "other code of thirtytwo"),
    ),
    "serve": (
        IMPORTING,
        ("thirtytwo/images/", "decoding and resizing"),
        ("inference_collection.py:_create_inference_session", OPENING),
        ("inference/session.py:", OPENING),
        ("onnxruntime/capi/", RUNTIME),
        ("multipart", "reading uploads"),
        ("thirtytwo/serve/uploads.py", "reading uploads"),
        ("thirtytwo/serve/", "the service's own code"),
        ("thirtytwo/inference/", "results of a batch"),
        ("/fastapi/", "FastAPI and Starlette"),
        ("/starlette/", "FastAPI and Starlette"),
        ("/uvicorn/", "Uvicorn: HTTP"),
        ("/asyncio/", "event loop"),
    ),
    "train": (
        IMPORTING,
        ("thirtytwo/report/", "report"),
        ("thirtytwo/export/", "model.onnx and its comparison with the network"),
        ("thirtytwo/workflows/scoring.py", "calibration and evaluation"),
        ("workflows/finish.py", "calibration and evaluation"),
        ("training/precision.py", "choosing the precision"),
        ("training/fit.py", "training"),
        ("workflows/prepare.py", "reading and dividing the data"),
    ),
}
"""For each command, parts of `file:function` and the cost that they stand for; innermost frames are compared first."""
OPERATIONS = (
    ("convolution_backward", "convolutions, backward"),
    ("convolution", "convolutions, forward"),
    ("batch_norm", "BatchNorm"),
    ("silu", "activations"),
    ("gelu", "activations"),
    ("max_pool", "max-pooling"),
    ("mm", "matrix products (smallest maps, Muon, head)"),
    ("copy_", "copies and changes of format"),
    ("upsample", "resizing images"),
    ("index", "gathering images"),
)
"""Parts of the names of PyTorch's operations, and the cost that they stand for."""


def main() -> int:
    if sys.argv[1:2] == [INSIDE]:
        return sampled(Path(sys.argv[2]), sys.argv[3], sys.argv[4:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=["import", "predict", "serve", "train"])
    parser.add_argument("--data-root", default=os.environ.get("THIRTYTWO_DATA"))
    parser.add_argument("--photographs", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10, help="of each load of the service")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--tiny", action="store_true", help="a trial run: tiny networks, a few hundred images")
    options = parser.parse_args()
    measured: dict[str, Callable[[argparse.Namespace], Any]] = {
        "import": measure_imports,
        "predict": measure_predict,
        "serve": measure_serve,
        "train": measure_train,
    }
    from record import machine

    from thirtytwo.io import write_json

    for part in options.parts:
        if part == "train" and (options.data_root is None or not (Path(options.data_root) / "cifar10").is_dir()):
            print("skipped train: CIFAR-10 was not found; set THIRTYTWO_DATA or give --data-root")
            continue
        found = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {}
        found[part] = {"costs": measured[part](options), **machine()}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.out, found)
        print(part, json.dumps(found[part]["costs"], indent=1), flush=True)
    return 0


def measure_imports(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of importing each of `IMPORTS`, by package; the fastest of three processes."""
    found = {}
    for name, statement in IMPORTS.items():
        tries = [_import_times(statement) for _ in range(1 if options.tiny else 3)]
        found[name] = _ranked(min(tries, key=lambda one: sum(one.values())))
    return found


def _import_times(statement: str) -> Counter[str]:
    """Seconds of each package's own modules, Python's start included."""
    words = [sys.executable, "-X", "importtime", "-c", statement]
    lines = subprocess.run(words, check=True, capture_output=True, text=True).stderr.splitlines()
    seconds: Counter[str] = Counter()
    for line in lines:
        own, _, name = line.removeprefix("import time:").split("|")
        if own.strip().isdigit():
            root = name.strip().partition(".")[0]
            seconds["Python" if root in sys.stdlib_module_names | _OF_THE_ENVIRONMENT else root] += int(own) / 1e6  # type: ignore[assignment]
    return seconds


def measure_predict(options: argparse.Namespace) -> dict[str, Any]:
    """Costs of `thirtytwo predict` for one photograph and for a folder of them."""
    count = 4 if options.tiny else options.photographs
    with tempfile.TemporaryDirectory() as name:
        folder = photographs(Path(name), count)
        one = run_sampled("predict", ["predict", str(next(folder.iterdir())), "--model", "cifar10"])
        many = run_sampled("predict", ["predict", str(folder), "--model", "cifar10", "--format", "csv"])
    return {"one photograph": one, f"{count} photographs": many}


def photographs(folder: Path, count: int) -> Path:
    """A new folder in `folder` with `count` JPEG files of 1600×1200 pixels."""
    from PIL import Image

    place = folder / "photographs"
    place.mkdir()
    sources = sorted(SAMPLES.glob("*.jpg"))
    for number in range(count):
        with Image.open(sources[number % len(sources)]) as image:
            image.convert("RGB").resize((1600, 1200)).save(place / f"{number}.jpg", quality=85)
    return place


def measure_serve(options: argparse.Namespace) -> dict[str, Any]:
    """Costs of `thirtytwo serve` under load, with small PNG files and with photographs."""
    import numpy as np
    from PIL import Image

    from serve import body, encode

    random = np.random.default_rng(0)
    small = [body([encode(pixels)]) for pixels in random.integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)]
    with Image.open(SAMPLES / "cat.jpg") as image:
        stream = io.BytesIO()
        image.convert("RGB").resize((1600, 1200)).save(stream, "JPEG", quality=85)
    loads = {"PNG files of 32 pixels": small, "photographs of 1600×1200": [body([stream.getvalue()])]}
    return {name: _serve(requests, options) for name, requests in loads.items()}


def _serve(requests: list[bytes], options: argparse.Namespace) -> dict[str, Any]:
    from serve import Server, load

    seconds = 1.0 if options.tiny else options.seconds

    def send(process: subprocess.Popen[str], log: str) -> dict[str, Any]:
        port = int(log.rpartition("http://127.0.0.1:")[2].split("/")[0].split()[0])
        outcome = load(Server(process, port), requests, clients=options.clients, seconds=seconds)
        failed = sum(answer.status != 200 for answer in outcome.answers)
        assert not failed, f"{failed} requests failed"
        return {"requests_per_second": round(len(outcome.answers) / outcome.seconds, 1), "clients": options.clients}

    return run_sampled("serve", ["serve", "--port", "0", "--model", "cifar10"], send)


def measure_train(options: argparse.Namespace) -> dict[str, Any]:
    """Costs of a training of one epoch, and of single steps of the recipe `fast`."""
    with tempfile.TemporaryDirectory() as name:
        words = ["train", "cifar10", "--recipe", "fast", "--run", str(Path(name) / "run")]
        words += ["--data-root", str(options.data_root), "--set", "schedule.epochs=1"]
        if options.tiny:
            words += ["--set", "data.limit_train=220", "--set", "schedule.batch_size=50"]
            words += ["--set", "model.options.groups=[{width=8},{width=16}]"]
        command = run_sampled("train", words)
    return {"a training of one epoch": command, "the steps of a training": operations(options)}


def operations(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of each kind of operation in all steps of `fast`, from one step of each stage."""
    import record
    import sides
    from torch.profiler import ProfilerActivity, profile

    from thirtytwo.process import own_process

    words = ["steps", "fast", "--data-root", str(options.data_root), *(["--tiny"] if options.tiny else [])]
    order = record.parse(words)
    seconds: Counter[str] = Counter()
    with own_process():  # with the command line's allocator setting
        product = sides.Product(record.candidate("fast", order), order)
        for stage in product.stages:
            product.step(stage.first)  # to warm up
            with profile(activities=[ProfilerActivity.CPU]) as trace:
                product.step(stage.first)
            for event in trace.key_averages():
                place = next((cost for part, cost in OPERATIONS if part in event.key), OTHER)
                seconds[place] += stage.count * event.self_cpu_time_total / 1e6  # type: ignore[assignment]
    return {**_ranked(seconds), "steps": sum(stage.count for stage in product.stages), "precision": product.precision}


def run_sampled(
    kind: str, words: Sequence[str], use: Callable[[subprocess.Popen[str], str], dict[str, Any]] | None = None
) -> dict[str, Any]:
    """Run a command line of thirtytwo in a process that samples itself; a service is stopped after `use`."""
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "costs.json"
        command = [sys.executable, __file__, INSIDE, str(out), kind, *words]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        log, used = "", {}
        try:
            if use is not None:
                while "http://127.0.0.1:" not in log:
                    line = process.stderr.readline()
                    assert line, f"{kind} did not start: {log}"
                    log += line
                used = use(process, log)
        finally:
            if use is not None:
                process.send_signal(signal.SIGTERM)
        log += process.communicate()[1]
        assert out.is_file(), log
        assert process.returncode in (0, INTERRUPTED), log
        return {**json.loads(out.read_text(encoding="utf-8")), **used}


def sampled(out: Path, kind: str, words: Sequence[str]) -> int:
    """Run a command line in this process, and write its costs to `out`."""
    start = time.perf_counter()
    sampler = Sampler(PLACES[kind], None if kind == "train" else RUNTIME)
    sampler.start()
    from thirtytwo.cli.start import main

    try:
        main(words)
    except SystemExit as exit:
        code = int(exit.code or 0)
    seconds = time.perf_counter() - start
    found = {**_ranked(sampler.stop()), "wall_seconds": round(seconds, 2)}
    out.write_text(json.dumps(found), encoding="utf-8")
    return code


class Sampler(threading.Thread):
    """Adds up the processor time of this process by the places that its threads are in.

    `rest` is the cost of the threads that libraries started; None: that of the main thread.
    """

    def __init__(self, places: Sequence[tuple[str, str]], rest: str | None, interval: float = INTERVAL) -> None:
        super().__init__(name="sampler", daemon=True)
        self._places, self._rest, self._interval = places, rest, interval
        self._seconds: Counter[str] = Counter()
        self._used: dict[threading.Thread, float] = {}
        self._ended = threading.Event()

    def stop(self) -> Counter[str]:
        """Seconds of each cost."""
        self._ended.set()
        self.join()
        return self._seconds

    def run(self) -> None:
        main, process = threading.main_thread(), time.process_time()
        self._used = {main: _processor_time(main)}
        while not self._ended.wait(self._interval):
            frames = sys._current_frames()
            before, process = process, time.process_time()
            spent = sum(self._spend(thread, frames.get(thread.ident or 0)) for thread in threading.enumerate())
            rest = self._rest or cost_of(frames.get(main.ident or 0), self._places)
            self._seconds[rest] += max(0.0, process - before - spent)  # type: ignore[assignment]

    def _spend(self, thread: threading.Thread, frame: FrameType | None) -> float:
        """Seconds that a thread has used since the last sample, added to its cost; this thread costs nothing."""
        now = _processor_time(thread)
        seconds = max(0.0, now - self._used.get(thread, 0.0))
        self._used[thread] = now
        if thread is not self:
            self._seconds[cost_of(frame, self._places)] += seconds  # type: ignore[assignment]
        return seconds


def _processor_time(thread: threading.Thread) -> float:
    """Seconds of processor time of a thread; 0 for one that has ended."""
    try:
        return int(Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text().split()[0]) / 1e9
    except OSError:
        return 0.0


def cost_of(frame: FrameType | None, places: Sequence[tuple[str, str]]) -> str:
    """The cost of what a thread in `frame` does."""
    while frame is not None:
        place = f"{frame.f_code.co_filename}:{frame.f_code.co_name}"
        for part, cost in places:
            if part in place:
                return cost
        frame = frame.f_back
    return OTHER


def _ranked(seconds: Counter[str]) -> dict[str, Any]:
    """The largest costs in seconds, the rest as `other`, and their sum."""
    first = [pair for pair in seconds.most_common() if pair[0] != OTHER][:MOST_COSTS]
    total = sum(seconds.values())
    shown = {name: round(value, 4) for name, value in first}
    rest = round(total - sum(value for _, value in first), 4)
    return {"seconds": shown | ({OTHER: rest} if rest > 0 else {}), "total": round(total, 4)}


if __name__ == "__main__":
    sys.exit(main())
