"""A local Ray cluster of two nodes for all tests, commands in their own processes, and an object store that fails."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import thirtytwo

EXTRA = 'needs the extra scale: pip install "thirtytwo[scale]"'


@dataclass(frozen=True)
class Running:
    """A cluster: the module `ray`, its address inside and, through Ray's client, outside, and its nodes."""

    ray: Any
    address: str
    client: str
    nodes: Any


ATTEMPTS = 6
"""How often a node is started, for which Ray waits half a minute: a busy machine may need longer."""


def start_node(nodes: Any, **options: Any) -> Any:
    """Start a node of a cluster, or of a new one where its head does not start; returns the cluster."""
    for attempt in range(ATTEMPTS):
        try:
            nodes.add_node(**options)
            break
        except Exception as error:  # Ray raises errors of no class of its own
            if "timed out" not in str(error) or attempt == ATTEMPTS - 1:
                raise
            if nodes.head_node is None:
                nodes = type(nodes)()
    return nodes


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A cluster of two nodes with one CPU core each, to which this process is connected.

    It asks for no token, whether or not the user has one.
    """
    pytest.importorskip("ray", reason=EXTRA)
    from thirtytwo.scale.cluster import import_ray, set_authentication

    ray = import_ray()
    if ray.is_initialized():
        pytest.fail("already connected to the cluster of tests/serve: run them in turn, as make test-long does")
    from ray.cluster_utils import Cluster

    before = os.environ.get("RAY_AUTH_MODE")
    set_authentication(ray, "disabled")

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    node: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    own: Any = Cluster()
    try:
        own = start_node(own, **node, include_dashboard=False, ray_client_server_port=port)
        start_node(own, **node)
        ray.init(address=own.address, logging_level="ERROR", log_to_driver=False)
        yield Running(ray, own.address, f"ray://127.0.0.1:{port}", own)
    finally:
        ray.shutdown()
        own.shutdown()
        set_authentication(ray, before)


@pytest.fixture(scope="session")
def read_rows() -> Callable[..., list[dict[str, Any]]]:
    """Reads the rows of the results in an output folder, in order."""
    parquet = pytest.importorskip("pyarrow.parquet")

    def read(out: Path, folder: str = "predictions") -> list[dict[str, Any]]:
        parts = sorted((out / folder).glob("*.parquet")) if (out / folder).is_dir() else []
        return [row for part in parts for row in parquet.read_table(part).to_pylist()]

    return read


@pytest.fixture(scope="session")
def process_environment() -> dict[str, str]:
    """The environment of a process that runs this checkout."""
    return {**os.environ, "PYTHONPATH": str(Path(thirtytwo.__file__).parent.parent)}


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def thirtytwo_process(process_environment: dict[str, str]) -> Run:
    """Runs a command of thirtytwo in a process of its own, after a `program` that changes what it finds there."""

    def run(*arguments: object, program: str = "", seconds: float = 600) -> subprocess.CompletedProcess[str]:
        program = f"{program}\nimport sys\nfrom thirtytwo.cli.main import main\nmain(sys.argv[1:])"
        return subprocess.run(
            [sys.executable, "-c", program, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            env=process_environment,
            timeout=seconds,
        )

    return run


@pytest.fixture(scope="session")
def mistake(thirtytwo_process: Run) -> Callable[..., str]:
    """Runs a command like `thirtytwo_process` that must end with one line and exit code 2; returns the line."""

    def run(*arguments: object, program: str = "") -> str:
        ended = thirtytwo_process(*arguments, program=program)
        assert (ended.returncode, ended.stdout) == (2, ""), ended.stderr
        assert "Traceback" not in ended.stderr
        (line,) = [line for line in ended.stderr.splitlines() if line.startswith("thirtytwo: ")]
        return line

    return run


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An object store at `remote://user:secret@host/PATH`, whose files are those of this machine.

    Before each access, `remote.check` is called with `list`, `read`, `write` or `remove` and the path; what it raises
    is an error of the store.
    """
    registry = pytest.importorskip("fsspec.registry", reason=EXTRA)
    from fsspec.implementations.local import LocalFileSystem

    class Remote(LocalFileSystem):  # type: ignore[misc]
        protocol = "remote"
        cachable = False
        check = staticmethod(lambda access, path: None)

        @classmethod
        def _strip_protocol(cls, path: Any) -> str:
            text = os.fspath(path)
            if text.startswith("remote://"):
                text = "/" + text.partition("://")[2].partition("?")[0].partition("/")[2]
            return str(super()._strip_protocol(text))

        def info(self, path: Any, **options: Any) -> Any:
            self.check("list", os.fspath(path))
            return super().info(path, **options)

        def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
            self.check("read" if "r" in mode else "write", path)
            return super()._open(path, mode, **options)

        def rm(self, path: str, **options: Any) -> None:
            self.check("remove", path)
            super().rm(path, **options)

    monkeypatch.setitem(registry._registry, "remote", Remote)
    return Remote
