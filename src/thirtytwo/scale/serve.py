"""`thirtytwo serve --on`: the HTTP interface of the plain service, in front of replicas on Ray Serve.

The process of the command, or a deployment of its own on Kubernetes (`application`), takes the requests with the same
web application, limits and metrics as the plain service. It sends the images in batches to the replicas, and again to
another one if a replica was lost: classifying an image twice does no harm.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from ray import serve
from ray.exceptions import ObjectLostError, RayActorError, RpcError, TaskCancelledError, WorkerCrashedError
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp

from thirtytwo.errors import ServiceError
from thirtytwo.machine import listen
from thirtytwo.process import quiet_loggers
from thirtytwo.scale.cluster import Cluster, open_cluster
from thirtytwo.scale.dispatch import Batch, Dispatcher, Entry
from thirtytwo.scale.replicas import NAME, bind, deploy, is_deployed, read_models, remove, replica_threads
from thirtytwo.serve.api import create_app
from thirtytwo.serve.limits import RequestLimits, Reservation
from thirtytwo.serve.metrics import Metrics
from thirtytwo.serve.server import run
from thirtytwo.serve.service import check_readable, choose_models, find_entry
from thirtytwo.serve.settings import KEY_VARIABLE, ServeSettings, read_settings
from thirtytwo.serve.uploads import Upload

LIBRARIES = ("onnxruntime", "fastapi", "uvicorn", "python_multipart", "prometheus_client", "pydantic_settings")
"""Modules that every worker needs."""
_LOST = (RayActorError, WorkerCrashedError, ObjectLostError, RpcError, TaskCancelledError)
"""What a call raises whose replica, or its machine, was lost: it is repeated."""
_ATTEMPTS = 5  # an image that ends the process of its replica must not end all of them
_PAUSE = 0.1  # seconds before the second attempt; then twice as long each time
_AHEAD_BYTES = 4 * 1024 * 1024  # of uploads of one request that may wait for replicas while more are read
_SMOOTHING = 0.1  # weight of the latest batch in the moving average of seconds per image


class RayService:
    """The service of the HTTP interface, with the models in replicas; see `thirtytwo.serve.service.Backend`.

    Args:
        handle: the deployment of `Replica`.
        settings: limits and sizes.
    """

    def __init__(self, handle: DeploymentHandle[Any], settings: ServeSettings) -> None:
        self._methods = {name: handle.options(method_name=name) for name in ("classify", "describe")}
        self._models: list[dict[str, Any]] = []
        self._seconds_per_image = 0.0
        self.settings = settings
        self.limits = RequestLimits(settings.queue, settings.max_held_mb, lambda: self._seconds_per_image)
        self.metrics = Metrics(lambda: self.limits.images, settings.max_batch)
        self.ready = False
        self._dispatcher = Dispatcher(
            self._classify,
            max_size=settings.max_batch,
            max_wait=settings.max_wait_ms / 1000,
            parallel=settings.replica_batches * settings.most_replicas,
        )

    def start(self) -> None:
        """Wait for a replica."""
        self._models = self._methods["describe"].remote().result()["models"]
        self.ready = True

    def close(self) -> None:
        """The replicas stay: others may use them."""
        self.ready = False

    @property
    def names(self) -> list[str]:
        """Names of the models, as last read."""
        return [entry["name"] for entry in self._models]

    async def list_models(self) -> list[dict[str, Any]]:
        """One entry per model, the default first, as a replica has them now."""
        described = await self._ask("describe")
        self._models = described["models"]
        return self._models

    async def find(self, name: str | None, *, heatmap: bool) -> str:
        """The name of the model to use; empty for the default, which replicas may exchange at any time.

        Raises:
            Problem: there is no such model, or it has no heatmaps and they are requested.
        """
        known = self._models if name is None or name in self.names else await self.list_models()
        find_entry(known, name, heatmap=heatmap)
        return name or ""

    async def predict(
        self, uploads: AsyncIterator[Upload], model: str, reservation: Reservation, *, top: int, heatmap: bool
    ) -> list[Entry]:
        """Classify uploads; one entry per upload, in order; the first are classified while others still arrive.

        Raises:
            Problem: there is no upload, none can be read, or a limit is exceeded.
        """
        entries: list[Entry] = []
        waiting: deque[tuple[int, asyncio.Future[Entry]]] = deque()
        ahead = 0

        async def collect() -> int:
            size, done = waiting[0]
            entries.append(await done)
            waiting.popleft()
            reservation.release(size)
            return size

        try:
            async for upload in uploads:
                reservation.add_image()
                done = self._dispatcher.submit(upload, model, top=top, heatmap=heatmap)
                waiting.append((len(upload.data), done))
                ahead += len(upload.data)
                while waiting and ahead > _AHEAD_BYTES:
                    ahead -= await collect()
            while waiting:
                await collect()
        finally:
            for _, done in waiting:
                if not done.cancel() and not done.cancelled():
                    done.exception()  # marks it as seen
        check_readable(entries)
        return entries

    async def _classify(self, batch: Batch) -> list[Entry]:
        started = perf_counter()
        files = [(upload.name, upload.data) for upload in batch.uploads]
        for attempt in range(_ATTEMPTS):
            found = await self._ask("classify", batch.model, files, batch.top, batch.heatmap)
            if found is not None:
                break
            # The models are being exchanged: this replica lacks the model, which others may have.
            find_entry(await self.list_models(), batch.model or None, heatmap=batch.heatmap)
            await asyncio.sleep(_pause(attempt))
        else:
            raise self.limits.problem("busy", "The models are being replaced.")
        self._observe(found["model"], found["entries"], perf_counter() - started)
        entries: list[Entry] = found["entries"]
        return entries

    async def _ask(self, method: str, *arguments: Any) -> Any:
        """The answer of a replica; of another one if the first was lost."""
        for attempt in range(_ATTEMPTS):
            try:
                return await self._methods[method].remote(*arguments)
            except DeploymentUnavailableError:
                raise self.limits.problem("busy", "No replica of the models can start.") from None
            except asyncio.CancelledError:  # of this task, or of a call whose replica ended
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
            except _LOST:
                if attempt == _ATTEMPTS - 1:
                    raise
            await asyncio.sleep(_pause(attempt))
        raise self.limits.problem("busy", "The replicas of the models are ending.")

    def _observe(self, model: str, entries: list[Entry], seconds: float) -> None:
        self.metrics.count_images(model, entries)
        if readable := sum("error" not in entry for entry in entries):
            self.metrics.batch_size.labels(model).observe(readable)
            self.metrics.batch_seconds.labels(model).observe(seconds)
        per_image = seconds / len(entries) / self.settings.replicas
        self._seconds_per_image += _SMOOTHING * (per_image - self._seconds_per_image)


def _pause(attempt: int) -> float:
    return _PAUSE * float(2**attempt)


@contextmanager
def _quiet_ray() -> Iterator[None]:
    """Suppress Ray's messages; its client logs calls that Ray Serve has canceled as errors."""
    with quiet_loggers("ray.serve"), quiet_loggers("ray.util.client", level=logging.CRITICAL):
        yield


def serve_on_ray(
    on: str,
    models: list[str] | None,
    given: Mapping[str, Any],
    *,
    on_start: Callable[[RayService, str], None],
    log: Callable[[str], None],
) -> bool:
    """Serve models with replicas on a Ray cluster until SIGTERM or Ctrl-C.

    Args:
        on: address of the cluster, see `open_cluster`.
        models: see `choose_models`.
        given: settings that are given.
        on_start: called with the service and its address once requests are accepted.
        log: called with messages for the user.

    Returns:
        Whether it was stopped with Ctrl-C.

    Raises:
        ClusterError: the cluster cannot be used.
        ServiceError: the address is in use, or the replicas cannot start.
    """
    settings = read_settings(**given)
    listen(settings.host, settings.port).close()  # before the work of starting replicas
    contents = read_models(choose_models(models or ()))
    with open_cluster(on, modules=LIBRARIES) as cluster, _quiet_ray():
        _check_cores(cluster, settings)
        shared = is_deployed()
        if shared:
            log(
                f"{cluster} already serves models: they are replaced, also for other commands that serve them, and "
                "stay when this command ends. `serve shutdown` ends them."
            )
        log(f"Starting {settings.replicas} × {', '.join(contents)} on {cluster}")
        try:
            service = RayService(deploy(contents, settings, on_wait=log), settings)
            return run(service, lambda address: on_start(service, address))
        finally:
            if not (cluster.started or shared):
                remove()


def update_on_ray(on: str, models: list[str] | None, *, log: Callable[[str], None]) -> None:
    """Replace the models of a running service; its requests go on, and its settings stay.

    Args:
        on: address of the cluster, see `open_cluster`.
        models: see `choose_models`.
        log: called with messages for the user.

    Raises:
        ClusterError: the cluster cannot be used.
        ServiceError: nothing is running there, or the new replicas cannot start.
    """
    contents = read_models(choose_models(models or ()))
    with open_cluster("auto" if on == "ray" else on, modules=LIBRARIES) as cluster, _quiet_ray():
        if not is_deployed():
            raise ServiceError(
                f"No models are served on {cluster}.", f"Start the service first: thirtytwo serve --on {on}"
            )
        described = serve.get_app_handle(NAME).options(method_name="describe").remote().result()
        deploy(contents, read_settings(**described["settings"]), on_wait=log)
        log(f"{cluster} now serves {', '.join(contents)}")


def _check_cores(cluster: Cluster, settings: ServeSettings) -> None:
    """Check that a cluster that was started for this service has the cores that its replicas reserve."""
    threads = replica_threads({"threads": settings.threads})
    needed = settings.replicas * threads
    if cluster.started and needed > cluster.cpus:
        raise ServiceError(
            f"The replicas need {needed} CPU cores (--replicas {settings.replicas} × --threads {threads}); this "
            f"machine has {cluster.cpus}.",
            "Choose fewer with --replicas or --threads.",
        )


class Front:
    """The HTTP interface as a deployment of its own, for clusters whose requests come in through Ray's proxies.

    Args:
        handle: the deployment of `Replica`.
        settings: values of `ServeSettings`; the key of clients is read from the environment of the worker.
        keyed: whether clients must send a key; it is not sent to the worker, where others could read it.

    Raises:
        ServiceError: clients must send a key, and this worker has none.
    """

    def __init__(self, handle: DeploymentHandle[Any], settings: Mapping[str, Any], keyed: bool = False) -> None:
        read = ServeSettings(**settings)
        if keyed and read.api_key is None:
            raise ServiceError(
                f"{KEY_VARIABLE} is set where the service is started, but not on this worker of the cluster.",
                f"Set {KEY_VARIABLE} on all its machines before Ray is started there.",
            )
        self._service = RayService(handle, read)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return create_app(self._service)


def application(arguments: dict[str, Any]) -> serve.Application:
    """The service for `serve run`, `serve deploy` and KubeRay: `import_path: thirtytwo.scale.serve:application`.

    Args:
        arguments: `model`, a value of `thirtytwo serve --model` or a list of them; `fronts`, the number of replicas of
            the HTTP interface; and settings of `thirtytwo serve` by name.

    Raises:
        ServiceError: a setting is invalid.
        ModelFileError: a file is not a thirtytwo model.
    """
    given = dict(arguments)
    wanted, fronts = given.pop("model", []), given.pop("fronts", 1)
    settings = read_settings(**given)
    contents = read_models(choose_models([wanted] if isinstance(wanted, str) else wanted))
    front: Any = serve.deployment(
        serve.ingress()(Front),
        name="front",
        num_replicas=int(fronts),
        max_ongoing_requests=settings.queue,
        ray_actor_options={"num_cpus": 1},
        graceful_shutdown_timeout_s=settings.timeout + 5,
        max_surge_percent=100,
    )
    values = settings.model_dump(exclude={"api_key"})
    bound: serve.Application = front.bind(bind(contents, settings, surge=True), values, settings.api_key is not None)
    return bound
