"""Addresses of clusters, and the errors of those that cannot be used."""

from __future__ import annotations

import platform
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from thirtytwo.errors import ClusterError, MissingExtraError
from thirtytwo.scale import cluster as module
from thirtytwo.scale.cluster import Address, open_cluster, parse_address

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
    "text", ["", "rays", "http://head:10001", "ray://", "head:port", "head:0", "head:70000", "a b:1"]
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
    monkeypatch.setattr(module, "REACH_SECONDS", 1.0)
    with pytest.raises(ClusterError, match="not a Ray cluster"):
        module._check_reachable(parse_address(form.format(web_server)))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ClusterError, match="can be reached"):
            module._check_reachable(parse_address(form.format(unused.getsockname()[1])))


@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_workers_without_the_extra(cluster: Any) -> None:
    module.check_workers(cluster.ray)
    with pytest.raises(ClusterError) as caught:
        module.check_workers(cluster.ray, ("pyarrow", "no_such_library"))
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


@pytest.mark.long
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("program", "client"),
    [(OTHER_VERSION, False), (OTHER_VERSION, True), (UNREADABLE + OTHER_VERSION, True)],
    ids=["inside", "ray://", "ray://, not understood"],
)
def test_other_version_than_the_head(
    cluster: Any,
    image_folder: Path,
    colour_model: Path,
    tmp_path: Path,
    process_environment: dict[str, str],
    program: str,
    client: bool,
) -> None:
    address = cluster.client if client else cluster.address
    command = ["predict", image_folder, "--on", address, "--out", tmp_path / "out", "--model", colour_model]
    ended = subprocess.run(
        [sys.executable, "-c", program, *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        env=process_environment,
        timeout=120,
    )
    assert ended.returncode == 2, ended.stderr
    there = f"Ray {cluster.ray.__version__} and Python {platform.python_version()}"
    assert f"runs {there}; this process runs Ray 1.2.3 and Python" in ended.stderr, ended.stderr
    assert f"ray=={cluster.ray.__version__}" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_failure_with_the_same_versions_names_its_reason(
    cluster: Any, image_folder: Path, colour_model: Path, tmp_path: Path, process_environment: dict[str, str]
) -> None:
    program = f"import sys\n{UNREADABLE}\nfrom thirtytwo.cli.main import main\nmain(sys.argv[1:])"
    command = ["predict", image_folder, "--on", cluster.client, "--out", tmp_path / "out", "--model", colour_model]
    ended = subprocess.run(
        [sys.executable, "-c", program, *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        env=process_environment,
        timeout=120,
    )
    assert ended.returncode == 2, ended.stderr
    assert "UnpicklingError" in ended.stderr
    assert f"Both run Ray {cluster.ray.__version__}" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("there", "here", "advice"),
    [
        (("2.60.0", "3.12.1"), ("2.60.0", "3.11.9"), "Use Python 3.12.1 here"),
        (("2.61.0", "3.11.4"), ("2.60.0", "3.11.9"), 'here with: pip install "ray==2.61.0"'),
        (("2.61.0", "3.12.1"), ("2.60.0", "3.11.9"), 'under Python 3.12 with: pip install "ray==2.61.0"'),
    ],
)
def test_advice_fits_what_differs(there: tuple[str, str], here: tuple[str, str], advice: str) -> None:
    assert advice in module._same_versions(module.Versions(*there), module.Versions(*here))


@needs_ray
@pytest.mark.slow
def test_a_cluster_that_does_not_say_its_versions(monkeypatch: pytest.MonkeyPatch, web_server: int) -> None:
    monkeypatch.setattr(module, "VERSIONS_SECONDS", 1.0)
    ray = module.import_ray()
    error = module._connection_error(ray, parse_address(f"ray://127.0.0.1:{web_server}"), ValueError("a\n  last line."))
    assert error.message.endswith("failed: last line.")
    assert f"this process runs Ray {ray.__version__}" in str(error.fix)
