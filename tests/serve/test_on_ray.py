"""The service with replicas on Ray: lost replicas, a change of models, and the command."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from thirtytwo.serve.api import create_app

pytestmark = pytest.mark.filterwarnings("ignore")


class Load:
    """Clients that send image after image until `stop`."""

    def __init__(self, post: Callable[[], Any], clients: int = 4) -> None:
        self.answers: list[Any] = []
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(post,), daemon=True) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _run(self, post: Callable[[], Any]) -> None:
        while not self._ended.is_set():
            self.answers.append(post())

    def wait_for(self, count: int) -> None:
        count += len(self.answers)
        deadline = time.monotonic() + 60
        while len(self.answers) < count and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(self.answers) >= count

    def stop(self) -> list[Any]:
        self._ended.set()
        for thread in self._threads:
            thread.join(60)
        return self.answers


@pytest.mark.long
def test_a_lost_replica_loses_no_request(replicas: Callable[..., Any], make: SimpleNamespace) -> None:
    import ray

    service = replicas(None, replicas=2)
    with TestClient(create_app(service)) as client:
        load = Load(lambda: client.post("/predict?top=1", files=make.parts(("a.png", make.image("blue")))))
        load.wait_for(40)
        names = [name for name in _actors(ray) if "SERVE_REPLICA" in name and "#models#" in name and "test-" in name]
        assert len(names) == 2
        ray.kill(ray.get_actor(names[0], namespace="serve"))
        load.wait_for(200)
        answers = load.stop()
    service.end()
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()[0]["top"] for answer in answers} == {"blue"}
    assert service.limits.images == service.limits.held == 0


def _actors(ray: Any) -> list[str]:
    return [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)]


@pytest.mark.long
def test_missing_cores_are_announced_only_where_replicas_wait_for_them(
    cluster: str, colour_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replicas that start hold their cores already, although nothing is missing."""
    import ray
    from ray import serve

    from thirtytwo.scale import replicas as module
    from thirtytwo.serve.settings import ServeSettings

    monkeypatch.setattr(module, "_WAITING_SECONDS", 0)
    models = module.read_models({"colours": colour_model})
    half = int(ray.available_resources()["CPU"]) // 2
    settings = ServeSettings(replicas=2, threads=half)

    class Announced(Exception):
        pass

    def on_wait(message: str) -> None:
        raise Announced(message)

    try:
        module.deploy(models, settings, name="fits", on_wait=on_wait)
        with pytest.raises(Announced, match=f"needs {half}"):
            module.deploy(models, settings, name="waits", on_wait=on_wait)
    finally:
        for name in serve.status().applications:
            if name in ("fits", "waits"):
                serve.delete(name)


@pytest.mark.long
def test_models_change_without_a_failed_request(
    replicas: Callable[..., Any],
    write_model: Callable[..., Path],
    make: SimpleNamespace,
    colour_model: Path,
    tmp_path: Path,
) -> None:
    from thirtytwo.scale.replicas import deploy, read_models

    other = write_model(tmp_path / "farben.onnx", classes=("rot", "grün", "blau"))
    service = replicas({"colours": colour_model}, replicas=2)
    name = service._methods["describe"].app_name
    with TestClient(create_app(service)) as client:
        load = Load(lambda: client.post("/predict?top=1", files=make.parts(("a.png", make.image("green")))))
        load.wait_for(20)
        deploy(read_models({"farben": other}), service.settings, name=name)
        load.wait_for(20)
        answers = load.stop()
        assert [model["name"] for model in client.get("/models").json()] == ["farben"]
        sent = make.parts(("a.png", make.image("green")))
        assert client.post("/predict?model=farben", files=sent).json()[0]["top"] == "grün"
        assert client.post("/predict?model=colours", files=sent).status_code == 404
    service.end()
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()[0]["top"] for answer in answers} == {"green", "grün"}
    assert answers[-1].json()[0]["top"] == "grün"


@pytest.mark.long
def test_command_serves_updates_and_ends(
    cluster: str,
    write_model: Callable[..., Path],
    make: SimpleNamespace,
    colour_model: Path,
    tmp_path: Path,
) -> None:
    import ray

    environment = os.environ | {"THIRTYTWO_API_KEY": "sesame"}
    command = [sys.executable, "-m", "thirtytwo", "serve", "--on", cluster]
    nowhere = [*command[:-1], "127.0.0.1:1", "--port", "0", "--model", str(colour_model)]
    failed = subprocess.run(nowhere, capture_output=True, text=True)
    assert (failed.returncode, failed.stderr.count("\n")) == (2, 1), failed.stderr
    assert "127.0.0.1:1" in failed.stderr
    update = subprocess.run([*command, "--update", "--model", str(colour_model)], capture_output=True, text=True)
    assert (update.returncode, update.stderr.count("\n")) == (2, 1), update.stderr
    assert f"thirtytwo serve --on {cluster}" in update.stderr

    started = [*command, "--port", "0", "--model", f"mine={colour_model}"]
    with running(started, environment) as (process, log, url):
        assert log.count("\n") == 2, log
        with httpx.Client(base_url=url, headers={"Authorization": "Bearer sesame"}, timeout=30) as client:
            assert [model["name"] for model in client.get("/models").json()] == ["mine"]
            assert httpx.get(f"{url}/models").status_code == 401
            sent = make.parts(("a.png", make.image("red")))
            assert client.post("/predict", files=sent).json()[0]["top"] == "red"
            other = write_model(tmp_path / "farben.onnx", classes=("rot", "grün", "blau"))
            done = subprocess.run([*command, "--update", "--model", f"new={other}"], capture_output=True, text=True)
            assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr
            assert client.post("/predict", files=sent).json()[0]["top"] == "rot"
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=60)
        assert process.returncode == 130, rest
        assert rest.count("\n") <= 1, rest
    assert not [name for name in _actors(ray) if "SERVE_REPLICA::thirtytwo#" in name], "its replicas end with it"


@contextmanager
def running(command: list[str], environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """A process of the service, what it logged, and its address."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    try:
        log = ""
        while (found := re.search(r"http://[^:]+:(\d+)", log)) is None:
            line = process.stderr.readline()
            assert line, f"it did not start: {log}"
            log += line
        yield process, log, found[0]
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stderr.close()


@pytest.mark.long
def test_application_behind_ray_s_proxies(cluster: str, make: SimpleNamespace, colour_model: Path) -> None:
    from ray import serve

    from thirtytwo.scale.serve import application

    serve.run(application({"model": f"colours={colour_model}", "max_files": 2}), name="front")
    with httpx.Client(base_url=_proxy_url(), timeout=60) as client:
        assert client.get("/health/ready").json() == {"status": "ready"}
        assert [model["name"] for model in client.get("/models").json()] == ["colours"]
        (entry,) = client.post("/predict?top=1&heatmap=1", files=make.parts(("a.png", make.image("blue")))).json()
        assert entry["top"] == "blue"
        assert len(entry["heatmap"]["values"]) == 8
        problem = client.post("/predict", files=make.parts(*[("a.png", make.image())] * 3))
        assert (problem.status_code, problem.headers["content-type"]) == (413, "application/problem+json")
        assert client.get("/nothing").json()["detail"].endswith("GET /nothing.")
        assert "thirtytwo_requests_total" in client.get("/metrics").text
    serve.delete("front")


def _proxy_url() -> str:
    from ray.serve.context import _get_global_client

    options = _get_global_client().http_config
    return f"http://{options.host}:{options.port}"


Output = tuple[int, str, str]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        (["--on", "elsewhere"], ["'elsewhere'", "ray://HOST:PORT"]),
        (["--on", "http://localhost:1"], ["http://localhost:1"]),
        (["--on", "ray", "--model", "gone.onnx"], ["gone.onnx"]),
        (["--on", "ray", "--model", "MODEL", "--port", "TAKEN"], ["TAKEN", "--port"]),
        (["--on", "ray", "--replicas", "4", "--max-replicas", "2"], ["max_replicas", "2", "4"]),
        (["--replicas", "2", "--model", "MODEL"], ["--on ray"]),
        (["--update", "--model", "MODEL"], ["--on ray"]),
    ],
)
def test_mistakes_are_one_line(
    serve: Callable[..., Output], colour_model: Path, arguments: list[str], values: list[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        known = {"MODEL": str(colour_model), "TAKEN": str(taken.getsockname()[1])}
        code, out, err = serve(*(known.get(argument, argument) for argument in arguments))
    assert (code, out) == (2, "")
    assert all(known.get(value, value) in err for value in values), err
    assert "Value error" not in err
    assert err.count("\n") == 1


def test_without_the_extra(serve: Callable[..., Output], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, err = serve("--on", "ray")
    assert code == 2
    assert 'pip install "thirtytwo[scale]"' in err
