"""Addresses of clusters, and the errors of those that cannot be used."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from thirtytwo.cli.main import run_command
from thirtytwo.errors import ClusterError, MissingExtraError
from thirtytwo.scale import address, versions
from thirtytwo.scale import cluster as module
from thirtytwo.scale.address import Address, parse_address
from thirtytwo.scale.cluster import open_cluster
from thirtytwo.scale.nodes import check_workers, on_a_worker, reported_losses
from thirtytwo.scale.versions import Versions, same_versions

pytestmark = pytest.mark.timeout(900)
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra scale")


@pytest.mark.parametrize(
    ("text", "expected", "shown"),
    [
        ("ray", Address("any"), "ray"),
        ("auto", Address("running"), "auto"),
        ("ray://head:10001", Address("client", "head", 10001), "ray://head:10001"),
        ("ray://head", Address("client", "head", 10001), "ray://head:10001"),
        ("10.0.0.1:6379", Address("head", "10.0.0.1", 6379), "10.0.0.1:6379"),
        ("ray://[::1]:10001", Address("client", "[::1]", 10001), "ray://[::1]:10001"),
    ],
)
def test_addresses(text: str, expected: Address, shown: str) -> None:
    assert parse_address(text) == expected
    assert str(parse_address(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rays",
        "http://head:10001",
        "ray://",
        "://head:10001",
        "://head",
        "head:port",
        "head:0",
        "head:70000",
        "a b:1",
    ],
)
def test_invalid_addresses(text: str) -> None:
    with pytest.raises(ClusterError) as caught:
        parse_address(text)
    assert "ray://HOST:PORT" in str(caught.value.fix)


def test_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError) as caught, open_cluster("ray"):
        pass
    assert "thirtytwo[scale]" in str(caught.value.fix)


@pytest.fixture
def web_server() -> Iterator[int]:
    """The port of a server that is not Ray's: it accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def accept() -> None:
            try:
                while True:
                    held.append(server.accept()[0])
            except OSError:
                return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        for connection in held:
            connection.close()


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("form", ["ray://127.0.0.1:{}", "127.0.0.1:{}"])
def test_wrong_addresses_are_found_soon(form: str, monkeypatch: pytest.MonkeyPatch, web_server: int) -> None:
    monkeypatch.setattr(address, "REACH_SECONDS", 1.0)
    with pytest.raises(ClusterError, match="not a Ray cluster"):
        address.check_reachable(parse_address(form.format(web_server)))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ClusterError, match="can be reached"):
            address.check_reachable(parse_address(form.format(unused.getsockname()[1])))


BEHIND_PROXY = """
import sys
from concurrent.futures import ThreadPoolExecutor
import grpc
from thirtytwo.scale.address import check_reachable, is_open, parse_address

class Head(grpc.GenericRpcHandler):
    def service(self, call):
        return grpc.unary_unary_rpc_method_handler(lambda request, context: b"")

server = grpc.server(ThreadPoolExecutor(2))
server.add_generic_rpc_handlers((Head(),))
place = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
server.start()
check_reachable(parse_address(place))
print(is_open(place))
server.stop(None)
"""
"""What answers every call is reached as a head node would be."""


@needs_ray
@pytest.mark.slow
def test_a_cluster_is_not_reached_through_a_proxy(process_environment: dict[str, str]) -> None:
    """As Ray itself does it: a proxy for web pages knows nothing of the machines of a cluster."""
    proxy = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    command = [sys.executable, "-c", BEHIND_PROXY]
    done = subprocess.run(
        command, env=process_environment | proxy, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout == "True\n", done.stderr


@needs_ray
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    "address",
    ["rays", "http://127.0.0.1:10001", "10.0.0..1:6379", "ray://10.0.0..1", "127.0.0.1:{}", "ray://127.0.0.1:{}"],
)
@pytest.mark.parametrize("verb", ["predict", "serve", "tune"])
def test_a_wrong_address_is_one_line(
    verb: str, address: str, colour_model: Path, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments: dict[str, list[object]] = {
        "predict": [image_folder, "--out", tmp_path / "out", "--model", colour_model],
        "serve": ["--model", colour_model, "--port", "0"],
        "tune": ["digits", "--run", tmp_path / "out"],
    }
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        on = address.format(unused.getsockname()[1])
        assert run_command([verb, *map(str, arguments[verb]), "--on", on]) == 2
    shown = capsys.readouterr()
    (line,) = [line for line in shown.err.splitlines() if line.startswith("thirtytwo: ")]
    assert on in line
    assert shown.out == ""
    assert not (tmp_path / "out").exists()


@needs_ray
@pytest.mark.slow
def test_a_cluster_that_does_not_start_here_has_no_wrong_address() -> None:
    error = module._connection_error(module.import_ray(), Address("any"), Exception("The current node timed out.\n"))
    assert error.message == "A Ray cluster could not be started on this machine: The current node timed out."
    assert "address" not in str(error.fix)


def test_without_a_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose user has none."""
    pwd = pytest.importorskip("pwd")

    def unknown(user: int) -> None:
        raise KeyError(user)

    for name in ("HOME", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert not module._has_token()


@needs_ray
@pytest.mark.slow
def test_lost_work_is_one_sentence_and_bugs_stay() -> None:
    ray = module.import_ray()
    errors = ray.exceptions
    for lost in (errors.RayActorError(), errors.NodeDiedError("The node died.\nMore."), ConnectionError("closed")):
        with pytest.raises(ClusterError) as caught, reported_losses(ray):
            raise lost
        assert "\n" not in str(caught.value)
    lost_there = errors.RayTaskError("work", "Traceback", errors.NodeDiedError("The node died.")).as_instanceof_cause()
    with pytest.raises(ClusterError, match="The node died"), reported_losses(ray):
        raise lost_there
    bug = errors.RayTaskError("work", "Traceback", ValueError("a bug")).as_instanceof_cause()
    with pytest.raises(ValueError, match="Traceback"), reported_losses(ray):
        raise bug


@needs_ray
@pytest.mark.slow
def test_a_job_is_not_followed_on_a_head_without_cores() -> None:
    """Such a head may have Ray alone, and is not checked."""
    module.import_ray()
    nodes = [{"Alive": True, "Resources": {"CPU": 4.0}, "NodeID": "b" * 56}]
    nodes.insert(0, {"Alive": True, "Resources": {}, "NodeID": "a" * 56})
    assert on_a_worker(SimpleNamespace(nodes=lambda: nodes)).node_id == "b" * 56


@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_workers_without_the_extra(cluster: Any) -> None:
    check_workers(cluster.ray)
    with pytest.raises(ClusterError) as caught:
        check_workers(cluster.ray, ("pyarrow", "no_such_library"))
    assert "'no_such_library'" in caught.value.message
    assert "pyarrow" not in caught.value.message
    assert "thirtytwo[scale]" in str(caught.value.fix)


OTHER_VERSION = """
import sys
import ray
import ray._private.utils as utils
utils.compute_version_info = lambda: ("1.2.3", "3.4.5")
ray.__version__ = "1.2.3"
from thirtytwo.cli.main import main
main(sys.argv[1:])
"""
UNREADABLE = """
import ray.util.client.worker as worker
prepare = worker.prepare_init_request_args
worker.prepare_init_request_args = lambda *given: (b"of another version", prepare(*given)[1])
"""
"""What the head cannot read, before versions are compared."""


@pytest.fixture
def command(image_folder: Path, colour_model: Path, tmp_path: Path) -> Callable[[str], list[object]]:
    """A command that predicts on the cluster at an address."""

    def predict(on: str) -> list[object]:
        return ["predict", image_folder, "--on", on, "--out", tmp_path / "out", "--model", colour_model]

    return predict


@pytest.mark.long
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("program", "client"),
    [(OTHER_VERSION, False), (OTHER_VERSION, True), (UNREADABLE + OTHER_VERSION, True)],
    ids=["inside", "ray://", "ray://, not understood"],
)
def test_other_version_than_the_head(
    cluster: Any,
    command: Callable[[str], list[object]],
    mistake: Callable[..., str],
    tmp_path: Path,
    program: str,
    client: bool,
) -> None:
    line = mistake(*command(cluster.client if client else cluster.address), program=program)
    there = f"Ray {cluster.ray.__version__} and Python {platform.python_version()}"
    assert f"runs {there}; this process runs Ray 1.2.3 and Python" in line
    assert f"ray=={cluster.ray.__version__}" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_failure_with_the_same_versions_names_its_reason(
    cluster: Any, command: Callable[[str], list[object]], mistake: Callable[..., str]
) -> None:
    line = mistake(*command(cluster.client), program=UNREADABLE)
    assert "UnpicklingError" in line
    assert f"Both run Ray {cluster.ray.__version__}" in line


FAILED_STARTS = """
import ray.util.client.worker as worker
connect, fails = worker.Worker._server_init, iter(range({}))
def start(*given):
    for number in fails:
        with open({!r}, "a") as file:
            file.write("failed")
        raise ConnectionAbortedError("Traceback\\nRuntimeError: Starting Ray client server failed. See the .err file.")
    return connect(*given)
worker.Worker._server_init = start
"""
"""As where the process dies that the client server starts for a client."""


@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_a_client_server_that_fails_to_start_is_asked_again(
    cluster: Any, command: Callable[[str], list[object]], thirtytwo_process: Callable[..., Any], tmp_path: Path
) -> None:
    failed = tmp_path / "failed"
    ended = thirtytwo_process(*command(cluster.client), program=FAILED_STARTS.format(2, str(failed)))
    assert ended.returncode == 0, ended.stderr
    assert failed.read_text() == "failed" * 2
    assert "Starting" not in ended.stderr
    assert "channel" not in ended.stderr


@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_a_client_server_that_never_starts(
    cluster: Any, command: Callable[[str], list[object]], mistake: Callable[..., str], tmp_path: Path
) -> None:
    failed = tmp_path / "failed"
    line = mistake(*command(cluster.client), program=FAILED_STARTS.format(100, str(failed)))
    assert failed.read_text() == "failed" * module.STARTS
    assert f"{cluster.client} could not start a process for this client" in line
    assert module.FORKING in line
    assert not (tmp_path / "out").exists()


@pytest.mark.long
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("client", [True, False])
def test_the_other_port_of_a_head(
    cluster: Any, command: Callable[[str], list[object]], mistake: Callable[..., str], client: bool
) -> None:
    head, server = cluster.address, cluster.client.removeprefix("ray://")
    line = mistake(*command(f"ray://{head}" if client else server))
    if client:
        assert f"ray://{head} is a head node" in line
        assert f"--on {head}" in line
    else:
        assert f"{server} is not the head node" in line


AUTHENTICATION = """
import os, sys
from thirtytwo.scale.cluster import open_cluster
with open_cluster(sys.argv[1], modules=()) as cluster:
    from ray._private.authentication.authentication_utils import is_token_auth_enabled
    inside = is_token_auth_enabled()
    class Actor:
        def answer(self):
            return 42
    actor = cluster.ray.remote(num_cpus=0)(Actor).remote()
    answer = cluster.ray.get(actor.answer.remote())
print(answer, inside, is_token_auth_enabled(), os.environ.get("RAY_AUTH_MODE"))
"""
"""Whether an actor answers, and whether the process asks for a token, while it is connected and afterwards."""
HEAD_WITH_TOKEN = """
import subprocess, sys
from thirtytwo.scale.cluster import import_ray
ray = import_ray()
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
place = ray.get_runtime_context().gcs_address
print(subprocess.run([sys.executable, "-c", *sys.argv[1:], place], capture_output=True, text=True, check=True).stdout)
"""


def run_with_token(environment: dict[str, str], *arguments: str) -> str:
    """Runs a program of a user who has a token of a cluster; returns the last line that it wrote."""
    changed = {**environment, "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
    changed.pop("RAY_AUTH_MODE", None)
    ended = subprocess.run(
        [sys.executable, "-c", *arguments], capture_output=True, text=True, check=False, env=changed, timeout=600
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip().splitlines()[-1]


@pytest.mark.long
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("named", [False, True], ids=["address", "auto"])
def test_token_of_another_cluster(cluster: Any, process_environment: dict[str, str], named: bool) -> None:
    """A cluster that asks for no token ends the actors of a process that asks for one."""
    environment = {**process_environment, "RAY_ADDRESS": cluster.address} if named else process_environment
    shown = run_with_token(environment, AUTHENTICATION, "auto" if named else cluster.address)
    assert shown == "42 False True token"


@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_token_of_the_cluster(process_environment: dict[str, str]) -> None:
    pytest.importorskip("ray")
    assert run_with_token(process_environment, HEAD_WITH_TOKEN, AUTHENTICATION) == "42 True True token"


STARTED_AT_SECOND = """
import ray
import ray._private.worker as worker
from thirtytwo.scale.cluster import open_cluster
init, calls = ray.init, []

def fail_once(**options):
    calls.append(options)
    if len(calls) == 1:
        raise ConnectionError("The cluster has ended.")
    return init(**options)

ray.init = fail_once
with open_cluster("ray", modules=()) as cluster:
    print(cluster.started, worker._worker_logs_enabled)
"""
"""Whether a cluster was started after the one of this machine has ended, and whether Ray prints that workers died."""


@needs_ray
@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_dead_workers_are_not_reported_after_a_second_connection(process_environment: dict[str, str]) -> None:
    command = [sys.executable, "-c", STARTED_AT_SECOND]
    done = subprocess.run(command, env=process_environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.stdout == "True False\n", done.stderr


OTHER_TOKEN = """
import os, sys
from thirtytwo.errors import ClusterError
from thirtytwo.scale.cluster import open_cluster
os.environ["RAY_AUTH_TOKEN"] = "f" * 64
try:
    with open_cluster(sys.argv[1]):
        print("connected")
except ClusterError as error:
    print(error)
"""


@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_another_token_than_that_of_the_cluster(process_environment: dict[str, str]) -> None:
    pytest.importorskip("ray")
    assert "asks for a token" in run_with_token(process_environment, HEAD_WITH_TOKEN, OTHER_TOKEN)


def alive(ray: Any) -> int:
    """Number of nodes that run."""
    return sum(node["Alive"] for node in ray.nodes())


WITHOUT_ONNX_RUNTIME = "import sys\nsys.modules['onnxruntime'] = None\n"
OTHER_THIRTYTWO = "Metadata-Version: 2.1\nName: thirtytwo\nVersion: 9.9.9\n"


@pytest.mark.long
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("file", "content", "found", "fix"),
    [
        ("sitecustomize.py", WITHOUT_ONNX_RUNTIME, "lacks 'onnxruntime'", '"thirtytwo[scale]"'),
        ("thirtytwo-9.9.9.dist-info/METADATA", OTHER_THIRTYTWO, "has thirtytwo 9.9.9; this process has", "[scale]=="),
    ],
    ids=["without the extra", "another version"],
)
def test_a_worker_that_cannot_do_the_work(
    cluster: Any,
    command: Callable[[str], list[object]],
    mistake: Callable[..., str],
    process_environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    content: str,
    found: str,
    fix: str,
) -> None:
    """The worker is a node whose Python finds other packages."""
    packages = tmp_path / "packages" / file
    packages.parent.mkdir(parents=True)
    packages.write_text(content)
    place = str(tmp_path / "packages")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([place, process_environment["PYTHONPATH"]]))
    before = alive(cluster.ray)
    node = cluster.nodes.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    monkeypatch.undo()
    try:
        line = mistake(*command(cluster.address))
    finally:
        cluster.nodes.remove_node(node)
        while alive(cluster.ray) > before:
            time.sleep(0.1)
    assert f"The Ray worker {platform.node()} {found}" in line
    assert fix in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("there", "here", "advice"),
    [
        (("2.60.0", "3.12.1"), ("2.60.0", "3.11.9"), "Use Python 3.12.1 here"),
        (("2.61.0", "3.11.4"), ("2.60.0", "3.11.9"), 'here with: pip install "ray==2.61.0"'),
        (("2.61.0", "3.12.1"), ("2.60.0", "3.11.9"), 'under Python 3.12 with: pip install "ray==2.61.0"'),
    ],
)
def test_advice_fits_what_differs(there: tuple[str, str], here: tuple[str, str], advice: str) -> None:
    assert advice in same_versions(Versions(*there), Versions(*here))


@needs_ray
@pytest.mark.slow
def test_a_cluster_that_does_not_say_its_versions(monkeypatch: pytest.MonkeyPatch, web_server: int) -> None:
    monkeypatch.setattr(versions, "VERSIONS_SECONDS", 1.0)
    ray = module.import_ray()
    error = module._connection_error(ray, parse_address(f"ray://127.0.0.1:{web_server}"), ValueError("a\n  last line."))
    assert error.message.endswith("failed: last line.")
    assert f"this process runs Ray {ray.__version__}" in str(error.fix)
