"""Prediction on a local Ray cluster of two workers, relative to two processes without Ray; a worker killed half-way.

    python benchmarks/scale_predict.py [MODEL] [--data-root DIR] [--images 60000]

Images of CIFAR-10 are classified as PNG files and as parquet, by two workers with one thread each, on two nodes of one
machine. The expected rows, and the rate to compare with, come from two processes that run plain prediction at the same
time, with one thread each, on half of the files. Rates leave out starts: of the processes their start and the loading
of the model, of the cluster what comes before the first finished shard, so that they mean something from tens of shards
on. Then both runs are repeated, and a worker is killed (SIGKILL) when half of the images are done. Every row is
compared.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

from thirtytwo.errors import ThirtytwoError
from thirtytwo.inference.library import find_model
from thirtytwo.inference.model_file import read_info
from thirtytwo.io import write_json
from thirtytwo.scale.cluster import import_ray
from thirtytwo.scale.predict import Progress, predict_on_cluster
from thirtytwo.scale.shards import SHARD

sys.path.insert(0, str(Path(__file__).parent))

from predict import hardware

RESULTS = Path(__file__).parent / "results" / "scale_predict.json"
MODEL = "cifar10-tiny"
"""A bundled model that takes about 2 ms of a core for an image: a slower one would hide the overhead of Ray."""
WORKERS = 2
TARGET = 0.85
TOP = 5
GROUP_ROWS = 1000
"""Rows of a row group in the parquet files."""

# Plain prediction with one thread: says that it is ready, waits for a line, and writes its rows.
ALONE = """
import json, sys, time
from thirtytwo.inference.classifier import load
model, names, out, top = sys.argv[1:]
files = open(names).read().splitlines()
classifier = load(model, threads=1)
print("ready", flush=True)
sys.stdin.readline()
start = time.perf_counter()
results = classifier.predict(files, int(top))
seconds = time.perf_counter() - start
with open(out, "w") as stream:
    json.dump([result.as_dict() for result in results], stream)
print(json.dumps({"images": len(results), "seconds": seconds}), flush=True)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description="Prediction on a Ray cluster of two workers.")
    parser.add_argument("model", nargs="?", default=MODEL, help="model; default: %(default)s")
    parser.add_argument("--data-root", type=Path, default=os.environ.get("THIRTYTWO_DATA"))
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.data_root is None or not (Path(options.data_root) / "cifar10").is_dir():
        print("skipped: CIFAR-10 was not found; set THIRTYTWO_DATA or give --data-root")
        return 0
    try:
        import_ray()
        model = find_model(options.model)
        with tempfile.TemporaryDirectory(prefix="thirtytwo-scale-") as place:
            measured = measure(model, Path(options.data_root) / "cifar10", Path(place), options.images)
    except ThirtytwoError as error:
        print(error, file=sys.stderr)
        return 2
    write_json(options.out, measured)
    print(json.dumps(measured, indent=1))
    return 0


def measure(model: Path, data: Path, place: Path, count: int) -> dict[str, Any]:
    files, tables = write_images(data, place, count)
    alone, expected = two_processes(model, files, place)
    runs = {}
    with two_nodes() as address:
        for name, source in (("files", files[0].parent), ("parquet", tables)):
            for killing in (False, True):
                out = place / f"{name}-{killing}"
                run = _Run(len(files) if killing else None)
                done = predict_on_cluster(
                    [str(source)],
                    str(out),
                    model=model,
                    name=str(model),
                    top=TOP,
                    on=address,
                    workers=WORKERS,
                    report=run.report,
                )
                found = run.result(done) | compare(expected, out, names=name == "files")
                print(f"{name}, {'worker killed' if killing else 'undisturbed'}: {found}", file=sys.stderr)
                runs[f"{name}{'_worker_killed' if killing else ''}"] = found
    ratios = {name: round(runs[name]["images_per_second"] / alone["summed_images_per_second"], 4) for name in SOURCES}
    return {
        "what": "thirtytwo predict --on, two workers on one machine, against two processes of plain prediction",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "model": {"bytes": model.stat().st_size, "architecture": read_info(model).architecture},
        "images": len(files),
        "workers": WORKERS,
        "shard": SHARD,
        "two_processes": alone,
        "cluster": runs,
        "ratio": ratios,
        "target_ratio": TARGET,
        "met": min(ratios.values()) >= TARGET and all(run["equal"] == len(files) for run in runs.values()),
    }


SOURCES = ("files", "parquet")


def write_images(data: Path, place: Path, count: int) -> tuple[list[Path], Path]:
    """The first images of CIFAR-10 as PNG files, in order, and the folder of parquet files with the same."""
    folder, tables = place / "images", place / "tables"
    folder.mkdir()
    tables.mkdir()
    files: list[Path] = []
    for source in sorted((data / "data").glob("*.parquet"), reverse=True):  # train before test
        table = pq.read_table(source).slice(0, count - len(files))
        column = next(name for name in ("img", "image") if name in table.column_names)
        for cell in table.column(column).to_pylist():
            files.append(folder / f"{len(files):05d}.png")
            files[-1].write_bytes(cell["bytes"])
        if len(table):
            pq.write_table(table, tables / f"{len(list(tables.iterdir()))}.parquet", row_group_size=GROUP_ROWS)
        if len(files) == count:
            break
    return files, tables


def two_processes(model: Path, files: list[Path], place: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Rates of two processes that run at the same time, each on half of the files, and their rows in order."""
    half = max(1, round(len(files) / 2 / SHARD)) * SHARD
    processes = []
    for number, part in enumerate((files[:half], files[half:])):
        names = place / f"alone-{number}.txt"
        names.write_text("".join(f"{file}\n" for file in part))
        command = [sys.executable, "-c", ALONE, model, names, place / f"alone-{number}.json", TOP]
        words = [str(word) for word in command]
        processes.append(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("start\n")
        process.stdin.flush()
    found = [json.loads(process.communicate()[0]) for process in processes]
    rates = [one["images"] / one["seconds"] for one in found]
    rows = [row for number in range(WORKERS) for row in json.loads((place / f"alone-{number}.json").read_text())]
    shown = [round(rate, 1) for rate in rates]
    return {"images_per_second": shown, "summed_images_per_second": round(sum(rates), 1)}, rows


@contextmanager
def two_nodes() -> Iterator[str]:
    """A local Ray cluster of two nodes with one CPU core each; yields its address."""
    from ray.cluster_utils import Cluster

    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        yield cluster.address
    finally:
        cluster.shutdown()


@dataclass
class _Run:
    """Times of a run, in which a worker is killed when half of `kill_of` images are done."""

    kill_of: int | None
    times: list[tuple[float, int]] = field(default_factory=list)
    killed_at: int | None = None
    start: float = field(default_factory=time.perf_counter)

    def report(self, progress: Progress) -> None:
        self.times.append((time.perf_counter(), progress.done))
        if self.kill_of and self.killed_at is None and progress.done >= self.kill_of / 2:
            victim = next(process for process in psutil.Process().children(recursive=True) if is_worker(process))
            victim.send_signal(signal.SIGKILL)
            self.killed_at = progress.done

    def result(self, done: Progress) -> dict[str, Any]:
        first = next(entry for entry in self.times if entry[1])
        last = self.times[-1]
        seconds = last[0] - first[0]
        unfinished = (
            WORKERS - 1
        ) * SHARD  # at most: what the other workers had done of theirs when the first one finished
        rate = max(0, last[1] - first[1] - unfinished) / seconds if seconds else math.nan
        return {
            "images": done.done,
            "unreadable": done.unreadable,
            "images_per_second": round(rate, 1),
            "seconds_with_start": round(last[0] - self.start, 1),
            "worker_killed_after": self.killed_at,
        }


def is_worker(process: psutil.Process) -> bool:
    try:
        return "MapWorker" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def compare(expected: list[dict[str, Any]], out: Path, *, names: bool) -> dict[str, Any]:
    """Compare the rows in an output folder with the expected ones; `names`: also the names of the files."""
    found = [row for part in sorted((out / "predictions").glob("*.parquet")) for row in pq.read_table(part).to_pylist()]
    pairs = list(zip(expected, found, strict=False))
    return {
        "rows": len(found),
        "equal": sum(one == (other if names else {**other, "file": one["file"]}) for one, other in pairs),
        "same_class": sum(one["top"] == other["top"] for one, other in pairs),
        "largest_difference": max((abs(one["confidence"] - other["confidence"]) for one, other in pairs), default=0.0),
    }


if __name__ == "__main__":
    sys.exit(main())
