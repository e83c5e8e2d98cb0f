"""Classify the images of a source on a Ray cluster with Ray Data, into a folder of parquet files; resumable."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from thirtytwo.errors import ThirtytwoError
from thirtytwo.inference.views import Tta
from thirtytwo.io import lock_directory
from thirtytwo.process import quiet_loggers
from thirtytwo.scale.cluster import Cluster, import_ray, open_cluster
from thirtytwo.scale.failures import NO_FAILURE, as_failure, raise_failure
from thirtytwo.scale.job import Job, Request, count_results, finished, make_request, start_or_continue
from thirtytwo.scale.nodes import on_a_worker, reported_losses
from thirtytwo.scale.shards import Shard, to_table
from thirtytwo.scale.store import Store, open_store
from thirtytwo.scale.worker import ShardClassifier

IN_FLIGHT = 2
"""Shards that a worker holds: the one that it classifies, and the next one."""
ATTEMPTS = 5
"""How often a shard is repeated whose worker died: an image that ends its worker must not do so for ever."""
POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Progress:
    """How far a job is.

    Attributes:
        out: the output folder, without a password in its address.
        images: number of images in the source.
        done: number of those that are classified or could not be read.
        unreadable: number of those that could not be read.
        earlier: number of images that an earlier command had done.
        skipped: files of the source that are no images, as text with the reason; only at the start.
    """

    out: str
    images: int
    done: int
    unreadable: int
    earlier: int
    skipped: tuple[tuple[Path, str], ...] = ()


Report = Callable[[Progress], None]


def predict_on_cluster(
    source: Sequence[str],
    out: str,
    *,
    model: Path,
    name: str,
    top: int = 5,
    tta: Tta = "off",
    on: str = "ray",
    workers: int | None = None,
    size: int | None = None,
    force: bool = False,
    report: Report | None = None,
    log: Callable[[str], None] | None = None,
) -> Progress:
    """Classify images on a Ray cluster; the same call continues where an earlier one was stopped.

    `out` then has the folder `predictions` of parquet files with the columns of `thirtytwo predict --format json`, in
    the order of the images, and the folder `errors` with the files that could not be read.

    Args:
        source: images as for `thirtytwo predict`, a folder of parquet files, or an address of an object store.
        out: the output folder, or its address in an object store.
        model: the model file.
        name: the model's name for messages.
        top: number of classes in each prediction.
        tta: images that get further views, as in `Classifier.predict`.
        on: the cluster (`cluster.open_cluster`).
        workers: number of workers, each with one CPU core; by default the cores of the cluster.
        size: number of images in a shard, which is what a worker classifies at once.
        force: start again where `out` holds another job, or this one.
        report: called with the progress.
        log: called with messages.

    Raises:
        ThirtytwoError: the cluster, the source, the model or the output folder cannot be used.
    """
    show = report or (lambda progress: None)
    with open_cluster(on) as cluster:
        if log is not None:
            log(f"Classifying on {cluster}")
        request = make_request(source, out, model, name, top, size, absolute=cluster.client, tta=tta)
        count = workers or max(1, cluster.cpus)
        content = model.read_bytes()
        if cluster.client:
            return _run_inside(cluster, request, content, count, force, show)
        return run_job(request, content, count, force, show)


def run_job(request: Request, model: bytes, workers: int, force: bool, report: Report) -> Progress:
    """Do a job, or what is left of it, in a process that is connected to the cluster; raises as `predict_on_cluster`.

    Args:
        request: what to classify.
        model: the content of the model file.
        workers: number of workers.
        force: start again.
        report: called with the progress, at least at the start and after every shard.
    """
    store = open_store(request.out)
    with _locked(store):
        job, shards, plan = start_or_continue(store, request, force=force)
        store.remove_unfinished("predictions")
        store.remove_unfinished("errors")
        complete = finished(store)
        good, bad = count_results(store, sorted(complete))
        skipped = plan.skipped if plan is not None else ()
        progress = Progress(store.address, job.images, good + bad, bad, good + bad)
        report(replace(progress, skipped=skipped))
        left = [shard for shard in shards if shard.part not in complete]
        for row in _classified(job, model, left, workers) if left else ():
            raise_failure(row)
            done, bad = progress.done + row["images"] + row["unreadable"], progress.unreadable + row["unreadable"]
            progress = replace(progress, done=done, unreadable=bad)
            report(progress)
        return progress


@contextmanager
def _locked(store: Store) -> Iterator[None]:
    """Hold the lock of a local output folder, which is created; removed again where an error leaves it empty."""
    kind = store.kind() if store.local else "file"
    try:
        with ExitStack() as stack:
            if kind != "file":
                store.make_folder()
                stack.enter_context(lock_directory(Path(store.root)))
            yield
    except ThirtytwoError:
        if not kind:
            with suppress(OSError):  # not empty
                Path(store.root).rmdir()
        raise


def _classified(job: Job, model: bytes, shards: Sequence[Shard], workers: int) -> Iterator[dict[str, Any]]:
    """Classify shards with Ray Data; yields the numbers of each when it is finished, in any order.

    Ray Data restarts workers that die, and repeats their shards up to `ATTEMPTS` times.

    Raises:
        ClusterError: the workers of a shard died more often.
    """
    ray = import_ray()
    import ray.data as ray_data

    context = ray_data.DataContext.get_current()
    context.enable_progress_bars = False
    size = min(workers, len(shards))
    # By default, the first worker that dies while it starts, for example with its machine, ends the job.
    context.max_consecutive_actor_init_deaths = size + ATTEMPTS
    pool = ray_data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=IN_FLIGHT)
    with reported_losses(ray), quiet_loggers("ray.data", level=logging.CRITICAL):
        work = ray_data.from_blocks([to_table([shard]) for shard in shards])  # from_arrow would run a task for each
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of `max_task_retries`, which has no other name yet
            results = work.map_batches(
                ShardClassifier,
                fn_constructor_args=(job, ray.put(model)),
                compute=pool,
                batch_size=1,
                batch_format="pyarrow",
                num_cpus=1,
                **_retries(work.map_batches),
            )
        yield from results.iter_rows()


def _retries(map_batches: Callable[..., Any]) -> dict[str, int]:
    """How often a shard is repeated, where this version of Ray lets it be set; otherwise it is repeated for ever."""
    options = signature(map_batches).parameters.values()
    return {"max_task_retries": ATTEMPTS} if any(option.kind == Parameter.VAR_KEYWORD for option in options) else {}


def _run_inside(
    cluster: Cluster, request: Request, model: bytes, workers: int, force: bool, report: Report
) -> Progress:
    """`run_job` in a process of the cluster: Ray Data does not run through Ray's client."""
    shown: Progress | None = None
    for current in _followed(cluster.ray, request, model, workers, force):
        if current != shown:
            report(current)
            shown = current
    assert shown is not None
    return shown


def _followed(ray: Any, request: Request, model: bytes, workers: int, force: bool) -> Iterator[Progress]:
    """Start the job on a machine of the cluster; yields its progress now and then, at last that of the finished job."""
    place = {"num_cpus": 0, "scheduling_strategy": on_a_worker(ray)}
    with reported_losses(ray):
        board = ray.remote(**place)(_Board).remote()
        task = ray.remote(**place, max_retries=0)(_run_and_tell).remote(board, request, model, workers, force)
        while not ray.wait([task], timeout=POLL_SECONDS)[0]:
            if (current := ray.get(board.read.remote())) is not None:
                yield current
        result = ray.get(task)
    raise_failure(result)
    yield result["progress"]


class _Board:
    """An actor that holds the progress of a job for a process outside of the cluster."""

    def __init__(self) -> None:
        self._progress: Progress | None = None

    def write(self, progress: Progress) -> None:
        skipped = progress.skipped or (self._progress.skipped if self._progress is not None else ())
        self._progress = replace(progress, skipped=skipped)

    def read(self) -> Progress | None:
        return self._progress


def _run_and_tell(board: Any, request: Request, model: bytes, workers: int, force: bool) -> dict[str, Any]:
    def tell(progress: Progress) -> None:
        board.write.remote(progress)

    try:
        return {"progress": run_job(request, model, workers, force, tell), **NO_FAILURE}
    except ThirtytwoError as error:
        return {"progress": None, **as_failure(error)}
