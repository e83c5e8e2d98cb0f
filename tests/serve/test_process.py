"""The service as a process: start, graceful shutdown, invalid settings and memory."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

Launch = Callable[..., Any]


@pytest.mark.slow
def test_several_models_settings_and_shutdown(
    launch: Launch, make: SimpleNamespace, colour_model: Path, finished_run: Callable[..., Path], tmp_path: Path
) -> None:
    run = finished_run(tmp_path / "colours-1")
    running = launch(
        models=[f"mine={colour_model}", str(run)],
        THIRTYTWO_SERVE_MAX_FILES="2",
        THIRTYTWO_API_KEY="sesame",
        HTTP_PROXY="",
    )
    with httpx.Client(base_url=running.url, headers={"Authorization": "Bearer sesame"}) as client:
        assert [model["name"] for model in client.get("/models").json()] == ["mine", "colours-1"]
        answer = client.post("/predict?model=colours-1&top=1", files={"f": ("a.png", make.image("blue"))})
        assert answer.json()[0]["top"] == "blue"
        assert client.post("/predict", files=make.parts(*[("a.png", make.image())] * 3)).status_code == 413
    assert "mine, colours-1" in running.log
    assert running.stop() == 0
    assert running.process.stderr.read() == "", "nothing is logged by default"


@pytest.mark.slow
def test_ctrl_c_and_the_access_log(colour_model: Path) -> None:
    command = [sys.executable, "-m", "thirtytwo", "serve", "--port", "0", "--model", str(colour_model), "--access-log"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    log = ""
    while (found := re.search(r"(http://[\d.:]+\d)", log)) is None:
        log += process.stderr.readline()
    httpx.get(f"{found[1]}/health/live")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert '"GET /health/live HTTP/1.1" 200' in out


@dataclass(eq=False)
class Client(threading.Thread):
    """Sends image after image over one connection until the service closes it."""

    url: str
    data: bytes
    answers: list[Any] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    closed: bool = False

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    def run(self) -> None:
        transport = httpx.HTTPTransport(retries=0)
        with httpx.Client(base_url=self.url, transport=transport, timeout=30) as client:
            while not self.closed:
                try:
                    answer = client.post("/predict", files=[("f", ("a.png", self.data))] * 2)
                except httpx.ConnectError:
                    return  # the service no longer listens: the request was not accepted
                except httpx.HTTPError as error:
                    self.lost.append(repr(error))
                    return
                self.answers.append((answer.status_code, answer.json()))
                self.closed = answer.headers.get("connection") == "close"


@pytest.mark.long
@pytest.mark.parametrize("moment", [0.0, 0.02])
def test_sigterm_under_load_loses_no_accepted_request(launch: Launch, make: SimpleNamespace, moment: float) -> None:
    running = launch("--max-batch", "4")
    clients = [Client(running.url, make.image("green")) for _ in range(16)]
    for client in clients:
        client.start()
    deadline = time.monotonic() + 30
    while min(len(client.answers) for client in clients) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(moment)
    code = running.stop()
    for client in clients:
        client.join(30)
    assert not [lost for client in clients for lost in client.lost]
    assert all(client.closed for client in clients), "the last response closes the connection"
    for client in clients:
        for status, entries in client.answers:
            assert status == 200
            assert [entry["top"] for entry in entries] == ["green", "green"]
    assert code == 0


@pytest.mark.slow
def test_partly_sent_request_is_finished_during_shutdown(launch: Launch, make: SimpleNamespace) -> None:
    running = launch()
    body = (
        b'--x\r\nContent-Disposition: form-data; name="f"; filename="a.png"\r\n\r\n'
        + make.image("blue")
        + b"\r\n--x--\r\n"
    )
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    with (
        httpx.Client(base_url=running.url) as client,
        socket.create_connection(("127.0.0.1", running.port), timeout=20) as connection,
    ):
        assert client.get("/health/ready").json() == {"status": "ready"}
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body[:50])
        time.sleep(0.3)
        running.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 20
        while (problem := client.get("/health/ready")).is_success and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (problem.status_code, problem.json()["type"]) == (503, "/docs#not-ready")
        assert problem.headers["connection"] == "close"
        time.sleep(1.2)
        assert running.process.poll() is None, "it waits for accepted requests"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", running.port), timeout=5)
        connection.sendall(body[50:])
        received = b""
        while piece := connection.recv(65536):
            received += piece
    assert received.startswith(b"HTTP/1.1 200 ")
    assert json.loads(received.partition(b"\r\n\r\n")[2])[0]["top"] == "blue"
    assert running.process.wait(20) == 0


@pytest.mark.slow
def test_disconnected_clients_are_not_bugs(launch: Launch) -> None:
    running = launch()
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    for body in (b"", b"--x\r\nContent-Disposition: form-data", b"{"):
        with socket.create_connection(("127.0.0.1", running.port), timeout=20) as connection:
            connection.sendall(head + b"Content-Length: 1000\r\n\r\n" + body)
    assert 'status="500"' not in httpx.get(f"{running.url}/metrics").text
    assert running.stop() == 0
    assert running.process.stderr.read() == ""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc/self/status")
@pytest.mark.long
def test_memory_does_not_grow_with_requests(launch: Launch, make: SimpleNamespace) -> None:
    running = launch()
    data = make.noise(100, 100)

    def post(count: int) -> None:
        with httpx.Client(base_url=running.url, timeout=30) as client:
            for _ in range(count):
                assert client.post("/predict", files=[("f", ("a.png", data))] * 8).status_code == 200

    post(30)
    before = running.memory_mb()
    post(150)
    assert running.memory_mb() < 1.1 * before, "36 MB were sent in between"
    assert running.stop() == 0


Output = tuple[int, str, str]


def test_a_port_that_is_taken(serve: Callable[..., Output], colour_model: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, err = serve("--model", str(colour_model), "--port", str(port))
    assert code == 2
    assert str(port) in err
    assert "Address already in use" in err
    assert "--port" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "environment", "values"),
    [
        (["--model", "gone/model.onnx"], {}, ["gone/model.onnx"]),
        (["--model", "MODEL", "--model", "MODEL"], {}, ["--model", "MODEL"]),
        (["--model", "MODEL", "--host", "256.0.0.1"], {}, ["'256.0.0.1'", "--host"]),
        (["--model", "MODEL", "--port", "70000"], {}, ["--port", "65535"]),
        (["--model", "MODEL"], {"THIRTYTWO_SERVE_MAX_BATCH": "none"}, ["THIRTYTWO_SERVE_MAX_BATCH"]),
        (["--model", "MODEL"], {"THIRTYTWO_API_KEY": " "}, ["THIRTYTWO_API_KEY"]),
    ],
)
def test_invalid_settings_are_one_line(
    serve: Callable[..., Output],
    colour_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    environment: dict[str, str],
    values: list[str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    code, out, err = serve(*(argument.replace("MODEL", str(colour_model)) for argument in arguments))
    assert (code, out) == (2, "")
    assert all(value.replace("MODEL", str(colour_model)) in err for value in values)
    assert err.count("\n") == 1


def scale_weights(model: Path, target: Path, factor: float) -> Path:
    """A copy of the model whose weights are multiplied."""
    loaded = onnx.load(model)
    (weights,) = (tensor for tensor in loaded.graph.initializer if tensor.name == "weights")
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * np.float32(factor), "weights"))
    onnx.save(loaded, target)
    return target


def test_a_model_that_cannot_predict_is_one_line(
    serve: Callable[..., Output], colour_model: Path, tmp_path: Path
) -> None:
    broken = scale_weights(colour_model, tmp_path / "broken.onnx", np.inf)
    code, out, err = serve("--model", str(broken), "--port", "0")
    assert (code, out) == (2, "")
    assert str(broken) in err
    assert err.count("\n") == 1


@pytest.mark.slow
def test_a_model_that_cannot_predict_some_images(
    launch: Launch, make: SimpleNamespace, colour_model: Path, tmp_path: Path
) -> None:
    broken = scale_weights(colour_model, tmp_path / "broken.onnx", 3e38)
    running = launch(models=[str(broken)])
    answer = httpx.post(f"{running.url}/predict", files=make.parts(("a.png", make.image())))
    assert (answer.status_code, answer.json()["type"]) == (500, "/docs#broken-model")
    assert str(tmp_path) not in answer.text, "clients do not need to know paths"
    assert running.stop() == 0
    (line,) = running.process.stderr.read().splitlines()
    assert str(broken) in line


@pytest.mark.parametrize("module", ["fastapi", "uvicorn", "python_multipart", "prometheus_client", "pydantic_settings"])
def test_without_the_extra(serve: Callable[..., Output], monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    code, _, err = serve()
    assert code == 2
    assert 'pip install "thirtytwo[serve]"' in err


IMPORTS = """
import json, sys
import thirtytwo.serve.server
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""


@pytest.mark.slow
def test_imports_no_torch_and_no_other_extra() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True)
    assert not set(json.loads(done.stdout)) & {
        *("torch", "torchvision", "lightning", "timm", "sklearn", "scipy", "pandas", "pyarrow", "matplotlib", "onnx")
    }
