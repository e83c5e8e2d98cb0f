"""Connect to a Ray cluster, or start one on this machine, and check that its workers can do the work."""

from __future__ import annotations

import logging
import os
import platform
import re
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from thirtytwo.errors import ClusterError, require
from thirtytwo.io import expand_home
from thirtytwo.machine import package_version
from thirtytwo.process import library_attribute, quiet_loggers
from thirtytwo.scale.address import CHECK, EXTRA, HEAD_PORT, Address, check_reachable, is_open, parse_address
from thirtytwo.text import first_line

PROBE_SECONDS = 60.0
"""Time for a worker to start and report what is installed."""
VERSIONS_SECONDS = 30.0
"""Time for a cluster to say which versions it runs, for which it starts a process."""
ATTEMPTS = 3
"""How often it is asked."""
STARTS, STARTS_SECONDS = 6, 60.0
"""How often a client server is asked to start a process for this client, and the time after which it no longer is."""
NEEDED = ("pandas", "pyarrow", "onnxruntime")
"""Modules that the extra installs and every worker needs."""
TRAINING = ("torch", "lightning", "optuna")
"""Modules that the extra `train` installs and workers need for trials of a tuning."""
_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""Variables that Ray reads when it is imported: no usage reports, and no warning about workers without a GPU."""
FORKING = "GRPC_ENABLE_FORK_SUPPORT=0"
"""Setting of a head node with which its client server does not fail to start processes."""
_MODE = "RAY_AUTH_MODE"
_FAILED_START = ("Starting Ray client server failed", "Proxy failed to Connect to backend")
"""Errors of a client server whose process for a client has died, or does not respond."""
_SHOWN = "_worker_logs_enabled"
"""Whether Ray prints on this command's standard output that workers died, although their work is repeated."""
_VERSIONS = re.compile(r"Ray: (\S+)\s+Python: (\S+)")


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
        if _versions(error):
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
    found = _versions(error)
    here = found[1] if found else Versions(ray.__version__, platform.python_version())
    there = found[0] if found else _ask_versions(address) if address.kind == "client" else None
    if there is not None and (found or there.release != here.release):
        return ClusterError(
            f"The Ray cluster {address} runs {there}; this process runs {here}.", _same_versions(there, here)
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


class Versions(NamedTuple):
    """Versions of Ray and Python of a process."""

    ray: str
    python: str

    @property
    def release(self) -> tuple[str, str]:
        """What has to be equal: Ray, and Python's minor version."""
        return self.ray, ".".join(self.python.split(".")[:2])

    def __str__(self) -> str:
        return f"Ray {self.ray} and Python {self.python}"


def _same_versions(there: Versions, here: Versions) -> str:
    """How to make the versions equal."""
    if there.ray == here.ray:
        return f"Use Python {there.python} here, or start the cluster with Python {here.python}."
    python = "" if there.release[1] == here.release[1] else f"under Python {there.release[1]} "
    return f'Install the same versions, for example here {python}with: pip install "ray=={there.ray}"'


def _versions(error: BaseException) -> tuple[Versions, Versions] | None:
    """Versions of the cluster and of this process, where an error says that they differ."""
    chain: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        chain.append(str(cause))
        cause = cause.__cause__ or cause.__context__
    found = [Versions(*pair) for pair in _VERSIONS.findall("\n".join(chain))]
    return (found[0], found[1]) if len(found) > 1 else None


def _ask_versions(address: Address) -> Versions | None:
    """The versions of a client server; None if it does not say them.

    The server starts a process for each client, which can fail on a busy machine, so that it is asked again.
    """
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(1)
        try:
            found = _ask_once(f"{address.host}:{address.port}")
        except Exception:  # another protocol, or no access: the error that led here is reported
            return None
        if found is not None:
            return found
    return None


def _ask_once(place: str) -> Versions | None:
    """The versions of a client server; None if it starts no process for this client.

    The messages are protocol buffers alone, which all versions understand, while `ray.init` also sends pickled objects.
    """
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated import ray_client_pb2, ray_client_pb2_grpc

    messages: Any = ray_client_pb2  # generated modules, without types
    stubs: Any = ray_client_pb2_grpc
    sent = [
        messages.DataRequest(req_id=1, init=messages.InitRequest(ray_init_kwargs="{}")),
        messages.DataRequest(req_id=2, connection_info=messages.ConnectionInfoRequest()),
        messages.DataRequest(req_id=3, connection_cleanup=messages.ConnectionCleanupRequest()),
    ]
    client = [("client_id", uuid.uuid4().hex), ("reconnecting", "False")]
    channel = init_grpc_channel(place, asynchronous=False)  # with the user's token or TLS
    try:
        ask = stubs.RayletDataStreamerStub(channel).Datapath
        for answer in ask(iter(sent), metadata=client, timeout=VERSIONS_SECONDS):
            if answer.WhichOneof("type") == "connection_info":
                return Versions(answer.connection_info.ray_version, answer.connection_info.python_version)
    finally:
        channel.close()
    return None


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


def on_a_worker(ray: Any) -> Any:
    """Where a process runs that reserves no core: on a checked machine, unlike a head that has no cores for workers."""
    return _only_on(_worker_nodes(ray)[0]["NodeID"])


def _worker_nodes(ray: Any) -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]


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


def _only_on(node: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)


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
