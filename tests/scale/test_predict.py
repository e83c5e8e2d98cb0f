"""Prediction on a real local cluster: the rows of plain prediction, also where workers or the command are killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from thirtytwo.cli.main import main
from thirtytwo.errors import ClusterError, OutputError, RunError
from thirtytwo.inference.classifier import Prediction, load

pytest.importorskip("ray", reason="needs the extra scale")
parquet = pytest.importorskip("pyarrow.parquet")
arrow = pytest.importorskip("pyarrow")

from thirtytwo.scale.predict import ATTEMPTS, Progress, predict_on_cluster  # noqa: E402

pytestmark = [pytest.mark.long, pytest.mark.timeout(900), pytest.mark.filterwarnings("default")]

Rows = Callable[..., list[dict[str, Any]]]
COUNT, BROKEN = 60, 17
SECONDS = 600.0
"""Longest time for what is sure to happen."""


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of several sizes and colors, large enough to take some milliseconds; one cannot be read."""
    folder = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    for number in range(COUNT):
        color = random.integers(0, 255, 3)
        pixels = np.clip(color + random.integers(-40, 40, (300 + number, 400, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"photo {number}.png", compress_level=1)
    (folder / f"photo {BROKEN}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "Thumbs.db").write_bytes(b"")
    return folder


def predict(cluster: Any, source: Path | str, out: Path | str, model: Path, **settings: Any) -> Progress:
    how: dict[str, Any] = {"model": model, "name": str(model), "on": cluster.address, "size": 4}
    return predict_on_cluster([str(source)], str(out), **{**how, **settings})


def plain(folder: Path, model: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What plain prediction gives for the images: predictions, and errors."""
    files = [folder / f"photo {number}.png" for number in range(COUNT)]
    results = load(model).predict(files)
    good = [result.as_dict() for result in results if isinstance(result, Prediction)]
    return good, [result.as_dict() for result in results if not isinstance(result, Prediction)]


def as_parquet(folder: Path, target: Path) -> Path:
    cells = [
        {"bytes": (folder / f"photo {number}.png").read_bytes(), "path": f"photo {number}.png"}
        for number in range(COUNT)
    ]
    table = arrow.table({"image": cells, "label": [0] * COUNT})
    target.mkdir()
    parquet.write_table(table.slice(0, 20), target / "train-0.parquet", row_group_size=7)
    parquet.write_table(table.slice(20), target / "train-1.parquet")
    return target


def workers() -> list[psutil.Process]:
    """The processes of this cluster that classify."""
    return [process for process in psutil.Process().children(recursive=True) if is_worker(process)]


def is_worker(process: psutil.Process) -> bool:
    try:
        return "MapWorker" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def test_rows_are_those_of_plain_prediction(
    cluster: Any, photographs: Path, colour_model: Path, tmp_path: Path, read_rows: Rows
) -> None:
    good, bad = plain(photographs, colour_model)
    reports: list[Progress] = []
    done = predict(cluster, photographs, tmp_path / "out", colour_model, report=reports.append)
    assert (done.images, done.done, done.unreadable) == (COUNT, COUNT, 1)
    assert read_rows(tmp_path / "out") == good
    assert read_rows(tmp_path / "out", "errors") == bad
    assert [report.done for report in reports] == sorted(report.done for report in reports)
    again = predict(cluster, photographs, tmp_path / "out", colour_model)
    assert (again.done, again.earlier, again.unreadable) == (COUNT, COUNT, 1)


def test_parquet_and_a_store_give_the_same(
    cluster: Any, photographs: Path, colour_model: Path, tmp_path: Path, read_rows: Rows
) -> None:
    good, bad = plain(photographs, colour_model)
    without_name = [{key: value for key, value in row.items() if key != "file"} for row in good]
    folder = as_parquet(photographs, tmp_path / "tables")
    predict(cluster, folder, tmp_path / "from tables", colour_model)
    found = read_rows(tmp_path / "from tables")
    assert [{key: value for key, value in row.items() if key != "file"} for row in found] == without_name
    assert found[0]["file"] == f"{folder}/train-0.parquet#0"
    assert found[-1]["file"] == f"{folder}/train-1.parquet#39"
    assert [row["file"] for row in read_rows(tmp_path / "from tables", "errors")] == [
        f"{folder}/train-0.parquet#{BROKEN}"
    ]
    predict(cluster, f"local://{photographs}", f"local://{tmp_path}/from store", colour_model)
    assert read_rows(tmp_path / "from store") == [{**row, "file": f"local://{row['file']}"} for row in good]
    assert len(read_rows(tmp_path / "from store", "errors")) == len(bad)


@pytest.mark.parametrize("form", ["tables", "./tables/", "tables/train-0.parquet", "tables?image=image"])
def test_relative_parquet(
    form: str,
    cluster: Any,
    photographs: Path,
    colour_model: Path,
    tmp_path: Path,
    read_rows: Rows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    as_parquet(photographs, tmp_path / "tables")
    done = predict(cluster, form, "out", colour_model)
    rows = read_rows(tmp_path / "out")
    assert len(rows) == done.images - 1 == (19 if form.endswith(".parquet") else COUNT - 1)
    assert Path(rows[0]["file"]) == Path("tables/train-0.parquet#0"), "named as the user gave it"


def test_killed_worker_loses_nothing(
    cluster: Any, photographs: Path, colour_model: Path, tmp_path: Path, read_rows: Rows
) -> None:
    killed: list[int] = []

    def report(progress: Progress) -> None:
        if progress.done and not killed:
            victim = workers()[0]
            killed.append(victim.pid)
            victim.send_signal(signal.SIGKILL)

    done = predict(cluster, photographs, tmp_path / "out", colour_model, size=1, report=report)
    assert killed
    assert done.done == COUNT
    assert read_rows(tmp_path / "out") == plain(photographs, colour_model)[0]


KILLED = """
import sys
from pathlib import Path
from thirtytwo.scale.predict import predict_on_cluster
source, out, model, on = sys.argv[1:]
predict_on_cluster([source], out, model=Path(model), name=model, on=on, size=1)
"""


def test_killed_command_is_continued(
    cluster: Any,
    photographs: Path,
    colour_model: Path,
    tmp_path: Path,
    read_rows: Rows,
    process_environment: dict[str, str],
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", KILLED, str(photographs), str(out), str(colour_model), cluster.address]
    with subprocess.Popen(command, env=process_environment, cwd=Path.cwd()) as process:
        try:
            wait_until(lambda: finished_parts(out) or process.poll() is not None)
            assert process.poll() is None, f"the command ended by itself after {len(finished_parts(out))} shards"
            stopped = workers()
            for worker in stopped:  # so that the command is not ready before it is killed
                worker.suspend()
            with pytest.raises(RunError):  # one command at a time
                predict(cluster, photographs, out, colour_model, size=1)
        finally:
            process.kill()
    before = finished_parts(out)
    assert 0 < len(before) < COUNT
    (out / "predictions" / ".part-00059.parquet.0123abcd").write_bytes(b"PAR1")  # half-written
    for worker in stopped:
        with suppress(psutil.NoSuchProcess):
            worker.resume()
    wait_until(lambda: not any(map(is_worker, stopped)))
    done = predict(cluster, photographs, out, colour_model, size=1)
    assert done.earlier >= len(before)
    assert done.done == COUNT
    assert read_rows(out) == plain(photographs, colour_model)[0]
    after = finished_parts(out)
    assert {name: after[name] for name in before} == before
    assert not list(out.glob("predictions/.part*"))


def test_killed_worker_is_not_reported(
    cluster: Any, photographs: Path, colour_model: Path, tmp_path: Path, process_environment: dict[str, str]
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", KILLED, str(photographs), str(out), str(colour_model), cluster.address]
    with subprocess.Popen(
        command, env=process_environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        wait_until(lambda: finished_parts(out) or process.poll() is not None)
        workers()[0].kill()
        shown, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, shown
    assert len(finished_parts(out)) == COUNT
    assert "raylet" not in shown


def finished_parts(out: Path) -> dict[str, int]:
    """When each part was written."""
    return {part.name: part.stat().st_mtime_ns for part in out.glob("predictions/part*")}


def wait_until(condition: Callable[[], object]) -> None:
    """Wait for what is sure to happen: a busy machine may take a minute to start the processes of a command."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_images_that_end_their_workers_end_the_command(
    cluster: Any, photographs: Path, colour_model: Path, tmp_path: Path
) -> None:
    """Their file is a pipe without a writer; a worker that opens it waits, and is killed, as for lack of memory."""
    folder = as_parquet(photographs, tmp_path / "tables")
    file = folder / "train-0.parquet"
    content = file.read_bytes()
    killed: list[int] = []
    over = threading.Event()

    def kill_readers() -> None:
        while not over.wait(0.05):
            for worker in filter(waits_for_a_writer, workers()):
                killed.append(worker.pid)
                worker.kill()
                worker.wait()

    killer = threading.Thread(target=kill_readers, daemon=True)

    def report(progress: Progress) -> None:
        if not progress.done and not killer.ident:
            file.unlink()
            os.mkfifo(file)
            killer.start()

    try:
        with pytest.raises(ClusterError, match="lost the work") as caught:
            predict(cluster, folder, tmp_path / "out", colour_model, size=20, report=report)
    finally:
        over.set()
        killer.join(10)
    assert "\n" not in str(caught.value)
    assert len(killed) == ATTEMPTS + 1
    file.unlink()
    file.write_bytes(content)
    assert predict(cluster, folder, tmp_path / "out", colour_model, size=20).done == COUNT


def waits_for_a_writer(process: psutil.Process) -> bool:
    """Whether a process opens a pipe."""
    with suppress(OSError):
        return "wait_for_partner" in {place.read_text() for place in Path(f"/proc/{process.pid}/task").glob("*/wchan")}
    return False


def test_outside_of_the_cluster(
    photographs: Path,
    colour_model: Path,
    cluster: Any,
    tmp_path: Path,
    read_rows: Rows,
    thirtytwo_process: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    out = tmp_path / "out"
    ended = thirtytwo_process("predict", photographs, "--on", cluster.client, "--out", out, "--model", colour_model)
    assert ended.returncode == 2, ended.stderr  # one image cannot be read
    assert "1 of 60" in ended.stderr
    assert ended.stdout.splitlines()[-1] == str(out)
    assert read_rows(out) == plain(photographs, colour_model)[0]


def test_command_and_its_errors(
    cluster: Any,
    image_folder: Path,
    colour_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    read_rows: Rows,
) -> None:
    def run(*arguments: str | Path) -> tuple[int, str]:
        with pytest.raises(SystemExit) as caught:
            main(["predict", *map(str, arguments), "--on", cluster.address])
        shown = capsys.readouterr()
        return int(caught.value.code or 0), shown.out + shown.err

    model, out = ("--model", colour_model), tmp_path / "out"
    code, shown = run(image_folder, *model, "--out", out, "--top", "2")
    assert code == 0, shown
    assert "4 images" in shown
    assert [row["top"] for row in read_rows(out)] == ["blue", "green", "red", "red"]
    assert [len(row["predictions"]) for row in read_rows(out)] == [2] * 4
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "folders" / "flowers").mkdir(parents=True)
    left = tmp_path / "left"
    for folder, name, content in (
        ("parts alone", "predictions/part-00000.parquet", b"PAR1"),
        ("job", "job.json", b'{"request": {"source": ['),
        ("errors", "errors/part-00000.parquet", b"PAR1"),
    ):
        (left / folder / name).parent.mkdir(parents=True)
        (left / folder / name).write_bytes(content)
    shutil.copytree(out, left / "shards")
    (left / "shards" / "shards.parquet").write_bytes(b"PAR1")
    shutil.copytree(out, left / "part")
    (left / "part" / "predictions" / "part-00000.parquet").write_bytes(b"PAR1")
    for arguments, named in (
        ((image_folder, *model), "--out"),
        ((image_folder, *model, "--out", out, "--format", "json"), "--format"),
        ((image_folder, *model, "--out", out, "--top", "3"), "--top"),
        ((image_folder, *model, "--out", out, "--top", "2", "--tta", "all"), "--tta"),
        ((tmp_path / "empty", *model, "--out", out, "--top", "2"), "the images"),
        ((tmp_path / "empty", *model, "--out", tmp_path / "new"), "No image"),
        ((image_folder, *model, "--out", tmp_path / "other"), "other files"),
        ((image_folder, *model, "--out", tmp_path / "other" / "file"), "is a file"),
        ((image_folder, *model, "--out", tmp_path / "other" / "file" / "below"), "cannot be created"),
        ((image_folder, *model, "--out", tmp_path), "other files"),
        ((image_folder, *model, "--out", tmp_path / "folders"), "other files (flowers)"),
        ((image_folder, *model, "--out", left / "parts alone"), "no job.json of an interrupted prediction"),
        ((image_folder, *model, "--out", left / "errors"), "no job.json of an interrupted prediction"),
        ((image_folder, *model, "--out", left / "job"), "job.json is damaged"),
        ((image_folder, *model, "--out", left / "shards", "--top", "2"), "shards.parquet is damaged"),
        ((image_folder, *model, "--out", left / "part", "--top", "2"), "part-00000.parquet is damaged"),
        (("nostore://bucket/images", *model, "--out", tmp_path / "new"), "nostore"),
        ((image_folder, *model, "--out", "nostore://bucket/out"), "nostore"),
        ((f"local://{tmp_path}/none", *model, "--out", tmp_path / "new"), "nothing at"),
        (("@none.txt", *model, "--out", tmp_path / "new"), "none.txt"),
    ):
        code, shown = run(*arguments)
        assert code == 2, shown
        assert named in shown
        assert len(shown.splitlines()) <= 2, shown
    assert not (tmp_path / "new").exists()
    code, shown = run(image_folder, *model, "--out", out, "--top", "1", "--tta", "all", "--force")
    assert code == 0, shown
    expected = load(colour_model).predict(sorted(image_folder.glob("*.png")), tta="all")
    assert [row["confidence"] for row in read_rows(out)] == pytest.approx([one.confidence for one in expected])
    assert [len(row["predictions"]) for row in read_rows(out)] == [1] * 4


def test_half_written_folders_are_refused(
    cluster: Any, image_folder: Path, colour_model: Path, write_model: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    predict(cluster, image_folder, out, colour_model)
    other = write_model(tmp_path / "other.onnx", classes=("a", "b", "c"))
    with pytest.raises(OutputError, match="model"):
        predict(cluster, image_folder, out, other)
    job = json.loads((out / "job.json").read_text())
    (out / "job.json").write_text("{")
    with pytest.raises(OutputError, match="damaged"):
        predict(cluster, image_folder, out, colour_model)
    (out / "job.json").write_text(json.dumps(job))
    (out / "shards.parquet").unlink()
    with pytest.raises(OutputError, match="damaged"):
        predict(cluster, image_folder, out, colour_model)
    (out / "job.json").unlink()
    with pytest.raises(OutputError, match="other files"):
        predict(cluster, image_folder, out, colour_model)


def test_files_that_workers_do_not_see(cluster: Any, photographs: Path, colour_model: Path, tmp_path: Path) -> None:
    """Images that vanish after the plan was made look to a worker as those on another machine do."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(8):
        os.link(photographs / f"photo {number}.png", folder / f"{number}.png")

    def report(progress: Progress) -> None:
        if not progress.done:
            for file in folder.iterdir():
                file.unlink()

    with pytest.raises(ClusterError, match="does not see") as caught:
        predict(cluster, folder, tmp_path / "out", colour_model, report=report)
    assert "Ray worker" in str(caught.value)


def test_absolute_paths_do_not_need_the_working_directory(
    cluster: Any,
    image_folder: Path,
    colour_model: Path,
    tmp_path: Path,
    read_rows: Rows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A working directory that is renamed after the plan was made looks to a worker as one on another machine does."""
    names = (tmp_path / name for name in ("here", "moved", "moved again"))
    here = next(names)
    here.mkdir()
    os.link(image_folder / "red.png", here / "red.png")

    def report(progress: Progress) -> None:
        nonlocal here
        if not progress.done:
            here = here.rename(next(names))

    monkeypatch.chdir(here)
    assert predict(cluster, image_folder, tmp_path / "out", colour_model, report=report).done == 4
    assert len(read_rows(tmp_path / "out")) == 4
    monkeypatch.chdir(here)
    with pytest.raises(ClusterError, match="does not see the folder"):
        predict(cluster, "red.png", tmp_path / "relative", colour_model, report=report)
