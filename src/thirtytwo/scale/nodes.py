"""The nodes of a cluster: check that their workers can do the work, choose one, and report their loss."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from thirtytwo.errors import ClusterError
from thirtytwo.machine import package_version
from thirtytwo.scale.address import EXTRA, HEAD_PORT
from thirtytwo.text import first_line

PROBE_SECONDS = 60.0
"""Time for a worker to start and report what is installed."""
NEEDED = ("pandas", "pyarrow", "onnxruntime")
"""Modules that the extra installs and every worker needs."""
TRAINING = ("torch", "lightning", "optuna")
"""Modules that the extra `train` installs and workers need for trials of a tuning."""


def check_workers(ray: Any, modules: Sequence[str] = NEEDED) -> None:
    """Check that every node with CPU cores has thirtytwo in this version, and `modules`.

    Raises:
        ClusterError: one does not, or does not respond.
    """
    here = package_version("thirtytwo")
    probe = ray.remote(num_cpus=0, max_retries=1)(_make_probe(tuple(modules)))
    nodes = _worker_nodes(ray)
    if not nodes:
        raise ClusterError(
            "The Ray cluster has no worker with CPU cores.", f"Add one with: ray start --address HEAD:{HEAD_PORT}"
        )
    asked = [(node, probe.options(scheduling_strategy=_only_on(node["NodeID"])).remote()) for node in nodes]
    for node, answer in asked:
        where = f"The Ray worker {node.get('NodeManagerHostname') or node['NodeManagerAddress']}"
        try:
            found = ray.get(answer, timeout=PROBE_SECONDS)
        except ray.exceptions.GetTimeoutError:
            raise ClusterError(
                f"{where} did not start a process within {PROBE_SECONDS:g} seconds.", "Check it with: ray status"
            ) from None
        except ray.exceptions.RayError as error:
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise ClusterError(f"{where} failed: {reason.strip().rstrip('.')}.", "Check it with: ray status") from error
        if found["missing"]:
            extras = f"train,{EXTRA}" if set(TRAINING) & set(found["missing"]) else EXTRA
            raise ClusterError(
                f"{where} lacks {', '.join(map(repr, found['missing']))}.",
                f'Install it there with: pip install "thirtytwo[{extras}]"',
            )
        if found["version"] != here:
            raise ClusterError(
                f"{where} has thirtytwo {found['version']}; this process has {here}.",
                f'Install the same version there: pip install "thirtytwo[{EXTRA}]=={here}"',
            )


def _make_probe(modules: tuple[str, ...]) -> Callable[[], dict[str, Any]]:
    """A function that reports what is installed; a closure, which Ray sends by value to workers without thirtytwo."""

    def probe() -> dict[str, Any]:
        from importlib.metadata import PackageNotFoundError, version
        from importlib.util import find_spec

        missing = [name for name in ("thirtytwo", *modules) if find_spec(name) is None]
        try:
            return {"missing": missing, "version": version("thirtytwo")}
        except PackageNotFoundError:  # a checkout that is not installed
            return {"missing": missing, "version": "0+unknown"}

    return probe


def on_a_worker(ray: Any) -> Any:
    """Where a process runs that reserves no core: on a checked machine, unlike a head that has no cores for workers."""
    return _only_on(_worker_nodes(ray)[0]["NodeID"])


def _worker_nodes(ray: Any) -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]


def _only_on(node: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)


def enter_folder(folder: str) -> None:
    """Change to the folder in which a user's relative paths are meant, on a worker.

    Raises:
        ClusterError: the worker does not see the folder.
    """
    try:
        os.chdir(folder)
    except OSError as error:
        raise ClusterError(
            f"The Ray worker {platform.node()} does not see the folder {folder}: {error.strerror}.",
            "Run the command in a folder that all machines share, or give absolute paths or an address such as s3://….",
        ) from None


@contextmanager
def reported_losses(ray: Any) -> Iterator[None]:
    """Turn the loss of workers, or of the cluster, into an error; errors of what runs there stay as they are.

    Raises:
        ClusterError: workers are lost again and again, or the connection is.
    """
    try:
        yield
    except (ray.exceptions.RayError, ConnectionError) as error:
        cause: BaseException | None = error
        while isinstance(cause, ray.exceptions.RayTaskError):  # what ran there raised it, or could not begin
            cause = cause.cause
        if not isinstance(cause, ray.exceptions.RayError | ConnectionError):
            raise
        if isinstance(cause, ray.exceptions.UserCodeException):
            raise
        raise ClusterError(
            f"The Ray cluster lost the work: {first_line(cause)}.",
            "See ray status and Ray's logs for the reason, such as too little memory on a machine; the same command "
            "continues with what is missing.",
        ) from error
