"""Connect to a Ray cluster, or start one on this machine."""

from __future__ import annotations

import logging
import os
import platform
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

from thirtytwo.errors import ClusterError, require
from thirtytwo.io import expand_home
from thirtytwo.process import library_attribute, quiet_loggers
from thirtytwo.scale.address import CHECK, EXTRA, Address, check_reachable, is_open, parse_address
from thirtytwo.scale.nodes import NEEDED, check_workers
from thirtytwo.scale.versions import Versions, ask_versions, same_versions, versions_in

STARTS, STARTS_SECONDS = 6, 60.0
"""How often a client server is asked to start a process for this client, and the time after which it no longer is."""
_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""Variables that Ray reads when it is imported: no usage reports, and no warning about workers without a GPU."""
FORKING = "GRPC_ENABLE_FORK_SUPPORT=0"
"""Setting of a head node with which its client server does not fail to start processes."""
_MODE = "RAY_AUTH_MODE"
_FAILED_START = ("Starting Ray client server failed", "Proxy failed to Connect to backend")
"""Errors of a client server whose process for a client has died, or does not respond."""
_SHOWN = "_worker_logs_enabled"
"""Whether Ray prints on this command's standard output that workers died, although their work is repeated."""


_LOG_LEVEL = b"Set ray log level from environment variable"


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process is connected to.

    Attributes:
        ray: the module `ray`.
        address: where it is.
        started: whether this process started it, so that it ends with the connection.
        client: whether through Ray's client, from outside of the cluster.
        cpus: CPU cores of its workers.
    """

    ray: Any
    address: Address
    started: bool
    client: bool
    cpus: int

    def __str__(self) -> str:
        named = self.address.kind in ("client", "head")
        place = "a new Ray cluster" if self.started else f"the Ray cluster {self.address if named else 'here'}"
        return f"{place} with {self.cpus} CPU {'core' if self.cpus == 1 else 'cores'}"


def import_ray() -> Any:
    """The module `ray`, without its usage reports.

    Raises:
        MissingExtraError: it, or a library that it needs for data, is not installed.
    """
    os.environ.update(_ENVIRONMENT)
    if "ray" not in sys.modules and _has_token():  # Ray reads it once, and its processes must not read otherwise
        os.environ.setdefault(_MODE, "token")  # as Ray does by itself, except through ray://
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its processes would write on this command's terminal
    for module in ("ray", "pandas", "pyarrow"):
        require(module, EXTRA)
    return require("ray", EXTRA)


def _has_token() -> bool:
    """Whether this user has a token for clusters that ask for one; Ray writes it when it starts a cluster."""
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(named) or expand_home("~/.ray/auth_token").is_file()


@contextmanager
def open_cluster(on: str, *, cpus: int | None = None, modules: Sequence[str] = NEEDED) -> Iterator[Cluster]:
    """Connect to the cluster that `on` names, and disconnect at the end; a cluster that this started then ends.

    Args:
        on: `ray`, `auto`, `ray://HOST:PORT` or `HOST:PORT`; `ray` takes the cluster of RAY_ADDRESS or `ray start`, and
            starts one on this machine where there is none.
        cpus: CPU cores of a cluster that is started; all by default.
        modules: what every worker needs beside thirtytwo.

    Raises:
        MissingExtraError: Ray is not installed here.
        ClusterError: the cluster cannot be reached, runs other versions, or has workers without `modules`.
    """
    address = parse_address(on)
    ray = import_ray()
    if ray.is_initialized():  # the caller's own connection
        yield _checked(ray, address, started=False, modules=modules)
        return
    worker = ray._private.worker
    without_losses = library_attribute(worker, _SHOWN, False) if hasattr(worker, _SHOWN) else nullcontext()
    with without_losses, ExitStack() as connection:
        started = _connect(ray, address, cpus, connection)
        connection.callback(ray.shutdown)
        yield _checked(ray, address, started=started, modules=modules)


def _checked(ray: Any, address: Address, *, started: bool, modules: Sequence[str]) -> Cluster:
    check_workers(ray, modules)
    client = bool(ray.util.client.ray.is_connected())
    return Cluster(ray, address, started, client, int(ray.cluster_resources().get("CPU", 0)))


def _connect(ray: Any, address: Address, cpus: int | None, connection: ExitStack) -> bool:
    """Connect; returns whether a cluster was started for it. `connection` ends after it."""
    if address.kind == "any":
        named = os.environ.get("RAY_ADDRESS", "")
        if named in ("", "auto", "local"):
            return _connect_or_start(ray, cpus if named != "auto" else None, connection, start=named != "auto")
        address = parse_address(named)
    if address.kind == "running":
        return _connect_or_start(ray, None, connection, start=False)
    check_reachable(address)
    if address.kind == "head":
        _match_authentication(ray, str(address), connection)
    _init(ray, address, address=str(address))
    return False


def _connect_or_start(ray: Any, cpus: int | None, connection: ExitStack, *, start: bool) -> bool:
    """Connect to the cluster that `ray start` started on this machine, or start one if `start`.

    Without an address, Ray connects to no cluster that another program started for itself; with `auto`, it does.
    """
    options: dict[str, Any] = {"include_dashboard": False} if start else {"address": "auto"}
    try:
        if cpus is None or not start:
            _match_authentication(ray, _place_here(ray, options.get("address")), connection)
            with _same_signals(), _without_log_level():
                ray.init(**options, **_quiet())
            return bool(ray._private.worker._global_node.is_head())
    except Exception as error:  # none runs, it has ended without `ray stop`, or it has other versions
        ray.shutdown()
        connection.close()
        if versions_in(error):
            raise _connection_error(ray, Address("running"), error) from error
        if not start:
            raise ClusterError(
                "No Ray cluster runs on this machine.",
                "Start one with: ray start --head – or give --on ray, which starts one for this command.",
            ) from error
    _init(ray, Address("any"), address="local", num_cpus=cpus, include_dashboard=False)
    return True


def _place_here(ray: Any, address: str | None) -> str | None:
    """Where Ray finds the cluster of this machine; None if there is none, or it cannot say."""
    with quiet_loggers("ray._private.services"):
        try:
            place: str | None = ray._private.services.canonicalize_bootstrap_address(address)
        except Exception:  # raised again when Ray connects
            return None
    return place


def _init(ray: Any, place: Address, **options: Any) -> None:
    """Connect; again where a client server failed to start a process for this client.

    It forks while threads of it use gRPC, which ends one in some of the new processes: `F … ev_epoll1_linux.cc … Check
    failed: next_worker->state == KICKED` in ray_client_server.err.
    """
    end = time.monotonic() + STARTS_SECONDS
    for attempt in range(1, STARTS + 1):
        try:
            with _same_signals(), _without_log_level(), _streams_that_end(place):
                ray.init(**options, **_quiet())
            return
        except Exception as error:  # Ray raises errors of no class of its own
            ray.shutdown()
            if not _is_failed_start(place, error) or attempt == STARTS or time.monotonic() > end:
                raise _connection_error(ray, place, error) from error
        time.sleep(0.5)


def _is_failed_start(place: Address, error: BaseException) -> bool:
    return place.kind == "client" and any(reason in str(error) for reason in _FAILED_START)


@contextmanager
def _streams_that_end(place: Address) -> Iterator[None]:
    """End the streams of a client that gives up; the client server would hold them for 40 seconds."""
    if place.kind != "client":
        yield
        return
    over = threading.Event()
    watcher = threading.Thread(target=_end_streams, args=(over,), daemon=True)
    watcher.start()
    try:
        with quiet_loggers("ray.util.client", level=logging.CRITICAL):
            yield
    finally:
        over.set()
        watcher.join()


def _end_streams(over: threading.Event) -> None:
    from ray.util import client

    contexts: Any = client.ray
    with suppress(AttributeError):  # another version of Ray
        while not over.wait(0.1):
            worker = contexts.get_context().client_worker
            if worker is not None and worker._in_shutdown:
                worker.channel.close()
                return


def _quiet() -> dict[str, Any]:
    return {"logging_level": "ERROR", "log_to_driver": False}


def _connection_error(ray: Any, address: Address, error: BaseException) -> ClusterError:
    """The error for a connection that failed: different versions, else the reason.

    Ray compares versions last. Before, another version may not understand what this one sends, and the reason that it
    then gives is none for users. So a client server is asked for its versions.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]  # the last one of a server's traceback
    reason = (lines[-1] if lines else type(error).__name__).rstrip(".")
    if _is_failed_start(address, error):
        return ClusterError(
            f"The Ray cluster {address} could not start a process for this client: {reason}.",
            f"Run the command again. Where this happens often, start the head node with {FORKING}.",
        )
    found = versions_in(error)
    here = found[1] if found else Versions(ray.__version__, platform.python_version())
    there = found[0] if found else ask_versions(address) if address.kind == "client" else None
    if there is not None and (found or there.release != here.release):
        return ClusterError(
            f"The Ray cluster {address} runs {there}; this process runs {here}.", same_versions(there, here)
        )
    if address.kind == "any":  # there is no address that could be wrong
        return ClusterError(
            f"A Ray cluster could not be started on this machine: {reason}.",
            "Run the command again if the machine was busy; otherwise see Ray's logs.",
        )
    fix = CHECK
    if there is not None:
        fix = f"Both run {here}. See Ray's logs on the head node."
    elif address.kind == "client":
        fix = f"{CHECK} The cluster did not say which versions it runs; this process runs {here}, as it has to."
    return ClusterError(f"The connection to the Ray cluster {address} failed: {reason}.", fix)


def _match_authentication(ray: Any, place: str | None, connection: ExitStack) -> None:
    """Use no token, until `connection` ends, with a cluster that asks for none.

    Its processes send none when they call this one, which would refuse them because of a token of another cluster; the
    head node then takes this process for dead, and ends its actors.
    """
    before = os.environ.get(_MODE)
    if place is not None and before != "disabled" and is_open(place):
        connection.callback(set_authentication, ray, before)
        set_authentication(ray, "disabled")


def set_authentication(ray: Any, mode: str | None) -> None:
    """Set whether this process asks for a token: a value of RAY_AUTH_MODE, or None for Ray's default."""
    if mode is None:
        os.environ.pop(_MODE, None)
    else:
        os.environ[_MODE] = mode
    ray._raylet.Config.initialize("")  # reads it again


@contextmanager
def _same_signals() -> Iterator[None]:
    """Keep the handler of SIGTERM, which Ray replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _without_log_level() -> Iterator[None]:
    """Leave out the line in which Ray's C++ code names its log level, which it writes past Python's `sys.stderr`.

    The rest is written when the connection is there or has failed.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            written.seek(0)
            rest = b"".join(line for line in written if _LOG_LEVEL not in line)
            os.write(2, rest)
