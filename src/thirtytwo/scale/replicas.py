"""The models as replicas on Ray Serve: one process each, with the decoder and the batches of the plain service."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray
from ray import serve
from ray.serve.api import RunTarget
from ray.serve.handle import DeploymentHandle

from thirtytwo.errors import ModelFileError, ServiceError
from thirtytwo.serve.service import Service
from thirtytwo.serve.settings import ServeSettings
from thirtytwo.serve.uploads import Upload

NAME = "thirtytwo"
"""Name of the application on Ray Serve; a cluster has one."""
MODELS = "models"
"""Name of the deployment with the models."""
MAX_MODEL_BYTES = 512 * 1024 * 1024
"""Maximum size of all models; they are sent to the replicas, so that no other machine needs the files."""
START_SECONDS = 300.0
_WAITING_SECONDS = 15.0  # until a message says what the replicas wait for
_POLL = 0.2
_QUIET = {"log_level": "ERROR", "enable_access_log": False}


class Replica:
    """One replica: the plain service, without its HTTP interface.

    Args:
        models: contents of the model files by name; the first is the default.
        settings: values of `ServeSettings`, without the key of clients.
    """

    def __init__(self, models: Mapping[str, bytes], settings: Mapping[str, Any]) -> None:
        read = ServeSettings(**{**settings, "api_key": None, "threads": replica_threads(settings)})
        self._settings = dict(settings)
        # Ray ends replicas in a way that leaves files behind, and an open model does not need its file.
        with TemporaryDirectory(prefix="thirtytwo-models-", ignore_cleanup_errors=True) as folder:
            files: dict[str, Path] = {}
            for number, (name, content) in enumerate(models.items()):
                files[name] = Path(folder) / f"{number}.onnx"
                files[name].write_bytes(content)
            self._service = Service(files, read)
        self._service.start()

    async def describe(self) -> dict[str, Any]:
        """The models, as the HTTP interface lists them, and the settings."""
        return {"models": await self._service.list_models(), "settings": self._settings}

    async def classify(
        self, model: str, files: list[tuple[str, bytes]], top: int, heatmap: bool
    ) -> dict[str, Any] | None:
        """The name of the model and one entry per file, in order.

        Args:
            model: its name; empty for the default.
            files: name and content of each.
            top: number of classes per file.
            heatmap: whether to add heatmaps.

        Returns:
            None if there is no such model.
        """
        name = model or self._service.default
        served = self._service.models.get(name)
        if served is None or (heatmap and not served.has_heatmaps):
            return None
        uploads = [Upload(file, data) for file, data in files]
        return {"model": name, "entries": await self._service.classify(uploads, name, top=top, heatmap=heatmap)}

    def check_health(self) -> None:
        """Called by Ray Serve; a replica that raises is replaced."""
        if not self._service.ready:
            raise RuntimeError("The models are not loaded.")


def replica_threads(settings: Mapping[str, Any]) -> int:
    """Number of threads of a replica, and of CPU cores that it reserves."""
    return int(settings.get("threads") or 1)


def read_models(models: Mapping[str, Path]) -> dict[str, bytes]:
    """Contents of the model files by name, checked.

    Raises:
        ModelFileError: a file is not a thirtytwo model.
        ServiceError: they are too large to be sent to replicas.
    """
    from thirtytwo.inference.model_file import read_info

    contents: dict[str, bytes] = {}
    for name, path in models.items():
        read_info(path)
        try:
            contents[name] = path.read_bytes()
        except OSError as error:
            raise ModelFileError(f"Cannot read {path}: {error.strerror or error}.") from None
    size = sum(map(len, contents.values()))
    if size > MAX_MODEL_BYTES:
        found, most = (f"{number / 2**20:,.0f} MB" for number in (size, MAX_MODEL_BYTES))
        raise ServiceError(f"The models have {found}; replicas take at most {most}.", "Serve fewer with --model.")
    return contents


def bind(models: Mapping[str, bytes], settings: ServeSettings, *, surge: bool = False) -> serve.Application:
    """The deployment of the models, for `serve.run`.

    Args:
        models: contents of the model files by name.
        settings: `replicas`, `max_replicas`, `replica_batches`, `threads`, and what the service needs.
        surge: whether a change of models may start new replicas before the old ones end.
    """
    values = settings.model_dump(exclude={"api_key"})
    scaling: dict[str, Any] = {"num_replicas": settings.replicas}
    if settings.most_replicas > settings.replicas:
        scaling = {
            "autoscaling_config": {
                "min_replicas": settings.replicas,
                "max_replicas": settings.most_replicas,
                "target_ongoing_requests": settings.replica_batches,
            }
        }
    deployment: Any = serve.deployment(
        Replica,
        name=MODELS,
        max_ongoing_requests=settings.replica_batches,
        ray_actor_options={"num_cpus": replica_threads(values)},
        graceful_shutdown_timeout_s=settings.timeout + 5,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=2,
        max_constructor_retry_count=2,
        max_surge_percent=100 if surge else 0,
        **scaling,
    )
    bound: serve.Application = deployment.bind(dict(models), values)
    return bound


def is_deployed(name: str = NAME) -> bool:
    """Whether the cluster serves models already."""
    return name in serve.status().applications


def deploy(
    models: Mapping[str, bytes],
    settings: ServeSettings,
    *,
    name: str = NAME,
    on_wait: Callable[[str], None] = lambda message: None,
) -> DeploymentHandle[Any]:
    """Start the replicas, or replace the running ones one after the other, and wait until all are ready.

    New replicas start before old ones end if the cluster has free CPU cores for them; otherwise requests wait until a
    replica is ready.

    Args:
        models: contents of the model files by name.
        settings: see `bind`.
        name: name of the application.
        on_wait: called with a message if replicas wait for CPU cores that others use.

    Raises:
        ServiceError: a replica could not start.
    """
    needed = replica_threads({"threads": settings.threads})
    free = _free_cores()
    surge = free >= needed
    scarce = free + needed * _count_replicas(name) < needed * settings.replicas
    serve.start(proxy_location="Disabled", logging_config=_QUIET)
    target = RunTarget(bind(models, settings, surge=surge), name, route_prefix=None, logging_config=_QUIET)
    (handle,) = serve.run_many([target], wait_for_applications_running=False)
    _wait_until_running(name, needed if scarce else 0, on_wait)
    return handle


def _wait_until_running(name: str, needed: int, on_wait: Callable[[str], None]) -> None:
    """Wait for all replicas; `needed` are the free CPU cores that each waits for, 0 if there are enough for all.

    Replicas hold their cores while they start, so that too few may be free although none waits for one.
    """
    started, logged = time.monotonic(), False
    while True:
        found = serve.status().applications[name]
        if found.status == "RUNNING":
            return
        if found.status == "DEPLOY_FAILED":
            reasons = [found.message, *(deployment.message for deployment in found.deployments.values())]
            raise ServiceError(f"The replicas could not start: {_reason(reasons)}.", "Check them with: serve status")
        waited = time.monotonic() - started
        if waited > START_SECONDS:
            raise ServiceError(f"The replicas did not start within {START_SECONDS:g} s.", "Check the nodes: ray status")
        if waited > _WAITING_SECONDS and not logged and _free_cores() < needed:
            logged = True
            on_wait(f"Waiting for free CPU cores: each replica needs {needed}")
        time.sleep(_POLL)


def _free_cores() -> float:
    cluster: Any = ray
    return float(cluster.available_resources().get("CPU", 0))


def _count_replicas(name: str) -> int:
    """How many replicas an application has, whose cores a new version takes over; 0 if it does not run."""
    running = serve.status().applications.get(name)
    deployments = running.deployments.values() if running else ()
    return sum(sum(deployment.replica_states.values()) for deployment in deployments)


def _reason(messages: list[str]) -> str:
    """The last line of the longest message, which is that of the exception."""
    lines = [line.strip() for line in max(messages, key=len).splitlines() if line.strip()]
    return (lines[-1] if lines else "unknown").rstrip(".")


def remove(name: str = NAME) -> None:
    """End the replicas; ends Ray Serve as well if it runs no other application."""
    serve.delete(name)
    if not serve.status().applications:
        serve.shutdown()  # type: ignore[no-untyped-call]
