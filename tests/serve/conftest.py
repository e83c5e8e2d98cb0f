"""The service in this process, with a model that classifies red, green and blue; also with replicas on Ray.

Tests that use `client` or `start` run with the plain service, and once more with replicas.
"""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from thirtytwo.cli.main import run_command
from thirtytwo.machine import listen
from thirtytwo.serve.api import create_app
from thirtytwo.serve.service import Service
from thirtytwo.serve.settings import ServeSettings

COLOURS = {"red": (250, 5, 5), "green": (5, 250, 5), "blue": (5, 5, 250), "grey": (128, 128, 128)}

Start = Callable[..., TestClient]
Output = tuple[int, str, str]


def encode(colour: str = "red", size: tuple[int, int] = (10, 8), format: str = "PNG", **options: Any) -> bytes:
    """An image of one colour as a file's bytes."""
    stream = io.BytesIO()
    Image.new("RGB", size, COLOURS[colour]).save(stream, format, **options)
    return stream.getvalue()


def noise(width: int, height: int) -> bytes:
    """A PNG that does not compress."""
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def parts(*files: tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    """What httpx takes for a multipart body."""
    return [("files", file) for file in files]


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """`image`, `noise` and `parts`, for tests that send images."""
    return SimpleNamespace(image=encode, noise=noise, parts=parts)


Replicas = Callable[..., Any]


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """The address of a Ray cluster of this test run; it has more cores than the machine, as replicas reserve some."""
    pytest.importorskip("ray")
    from thirtytwo.scale.cluster import import_ray

    ray = import_ray()
    if ray.is_initialized():
        pytest.fail("already connected to the cluster of tests/scale: run them in turn, as make test-long does")
    ray.init(address="local", num_cpus=16, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    from ray import serve

    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    # Ray's own proxy is for the application of Kubernetes; the command uses none.
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    yield ray.get_runtime_context().gcs_address
    serve.shutdown()
    ray.shutdown()


@pytest.fixture(scope="session")
def replicas(cluster: str, colour_model: Path) -> Replicas:
    """`replicas(models, settings)`: the service in front of replicas.

    Without models and settings of the replicas, tests share one application.
    """
    from ray import serve

    from thirtytwo.scale.replicas import deploy, read_models
    from thirtytwo.scale.serve import RayService

    handles: dict[str, Any] = {}

    def begin(models: dict[str, Path] | None = None, **settings: Any) -> Any:
        read = ServeSettings(**settings)
        files = models or {"colours": colour_model}
        theirs = read.model_dump(include=REPLICA_SETTINGS)
        plain = theirs == ServeSettings().model_dump(include=REPLICA_SETTINGS) and models is None
        name = "shared" if plain else f"test-{len(handles)}"
        if name not in handles:
            handles[name] = deploy(read_models(files), read, name=name)
        service = RayService(handles[name], read)
        service.end = lambda: None if plain else serve.delete(name)  # type: ignore[attr-defined]
        return service

    return begin


REPLICA_SETTINGS = frozenset({"max_batch", "threads", "max_megapixels", "max_decode_mb", "replicas", "replica_batches"})
BACKENDS = ["plain", pytest.param("ray", marks=[pytest.mark.long, pytest.mark.filterwarnings("ignore")])]


@pytest.fixture
def start_plain(colour_model: Path) -> Iterator[Start]:
    """Starts plain services with settings and stops them; `models` are files by name, `service` is an attribute."""
    with ExitStack() as running:

        def begin(models: dict[str, Path] | None = None, **settings: Any) -> TestClient:
            service = Service(models or {"colours": colour_model}, ServeSettings(**settings))
            return running.enter_context(_client(service))

        yield begin


@pytest.fixture(params=BACKENDS)
def start(request: pytest.FixtureRequest, start_plain: Start) -> Iterator[Start]:
    """Like `start_plain`, and once more with replicas."""
    if request.param == "plain":
        yield start_plain
        return
    with ExitStack() as running:

        def begin(models: dict[str, Path] | None = None, **settings: Any) -> TestClient:
            service = request.getfixturevalue("replicas")(models, **settings)
            running.callback(service.end)
            return running.enter_context(_client(service))

        yield begin


def _client(service: Any) -> TestClient:
    client = TestClient(create_app(service), raise_server_exceptions=False)
    client.service = service  # type: ignore[attr-defined]
    return client


@dataclass
class Running:
    """`thirtytwo serve` as a process of its own."""

    process: subprocess.Popen[str]
    port: int
    log: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def memory_mb(self, field: str = "VmRSS") -> float:
        """Memory from /proc: VmRSS is the current resident set, VmHWM its peak."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)


Launch = Callable[..., Running]


@pytest.fixture(scope="module")
def launch(colour_model: Path) -> Iterator[Launch]:
    """Starts `thirtytwo serve` on a free port with more arguments and environment variables."""
    started: list[Running] = []

    def begin(*arguments: str, models: Sequence[str] | None = None, **environment: str) -> Running:
        command = [sys.executable, "-m", "thirtytwo", "serve", "--port", "0", *arguments]
        for model in [str(colour_model)] if models is None else models:
            command += ["--model", model]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | environment)
        assert process.stderr is not None
        log = ""
        while (found := re.search(r"http://[^:]+:(\d+)", log)) is None:
            line = process.stderr.readline()
            assert line, f"it did not start: {log}"
            log += line
        started.append(Running(process, int(found[1]), log))
        return started[-1]

    yield begin
    for running in started:
        if running.process.poll() is None:
            running.process.kill()
        running.process.wait()
        if running.process.stderr is not None:
            running.process.stderr.close()


@pytest.fixture(scope="module", params=BACKENDS)
def client(request: pytest.FixtureRequest, colour_model: Path) -> Iterator[TestClient]:
    """A service with the default settings, with both backends."""
    if request.param == "plain":
        service: Any = Service({"colours": colour_model}, ServeSettings())
    else:
        service = request.getfixturevalue("replicas")()
    with TestClient(create_app(service)) as client:
        client.service = service  # type: ignore[attr-defined]
        yield client


@pytest.fixture
def serve(capsys: pytest.CaptureFixture[str]) -> Callable[..., Output]:
    """Run `thirtytwo serve` with arguments that fail; return exit code, stdout and stderr."""

    def run(*arguments: str) -> Output:
        capsys.readouterr()
        code = run_command(["serve", *arguments])
        return code, *capsys.readouterr()

    return run
