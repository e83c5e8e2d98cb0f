from __future__ import annotations

import asyncio
import base64
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from fastapi.testclient import TestClient
from pydantic import ValidationError

from thirtytwo.images.decode import load_image
from thirtytwo.inference.classifier import UnreadableImage
from thirtytwo.inference.model_file import read_info
from thirtytwo.machine import listen
from thirtytwo.serve.limits import DecodingMemory, RequestLimits
from thirtytwo.serve.schemas import Problem
from thirtytwo.serve.settings import ServeSettings
from thirtytwo.serve.uploads import DecodedUpload, Decoder, Upload

Start = Callable[..., TestClient]


def kind(answer: Any) -> str:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return str(answer.json()["type"].removeprefix("/docs#"))


def encoded(*files: bytes) -> dict[str, Any]:
    return {
        "files": [
            {"file": f"{number}.png", "data": base64.b64encode(file).decode()} for number, file in enumerate(files)
        ]
    }


@pytest.mark.parametrize("how", ["multipart", "json"])
def test_file_over_the_size_limit_is_named(start: Start, make: SimpleNamespace, how: str) -> None:
    client = start(max_file_mb=0.01)
    small, large = make.noise(20, 20), make.noise(200, 200)
    files = [("0.png", small), ("1.png", large)]
    sent = {"files": make.parts(*files)} if how == "multipart" else {"json": encoded(small, large)}
    problem = client.post("/predict", **sent)
    assert (problem.status_code, kind(problem)) == (413, "too-large")
    assert problem.json()["file"] == "1.png"
    assert "0.01 MB" in problem.json()["detail"]
    assert client.post("/predict", files=make.parts(files[0])).status_code == 200


@pytest.mark.parametrize("how", ["multipart", "json"])
def test_too_many_files(start: Start, make: SimpleNamespace, how: str) -> None:
    client = start(max_files=3)

    def post(count: int) -> Any:
        files = [(f"{number}.png", make.image()) for number in range(count)]
        if how == "json":
            return client.post("/predict", json=encoded(*(data for _, data in files)))
        return client.post("/predict", files=make.parts(*files))

    assert post(3).status_code == 200
    assert (post(4).status_code, kind(post(4))) == (413, "too-large")
    assert "3 files" in post(4).json()["detail"]


def test_too_many_pixels(start: Start, make: SimpleNamespace) -> None:
    client = start(max_megapixels=0.01)
    problem = client.post("/predict", files=make.parts(("large.png", make.image("red", (101, 100)))))
    assert (problem.status_code, kind(problem)) == (422, "unreadable")
    assert all(value in problem.json()["detail"] for value in ("large.png", "101×100", "10,000"))
    assert client.post("/predict", files=make.parts(("a.png", make.image("red", (100, 100))))).status_code == 200


def test_json_body_has_a_separate_limit(start: Start, make: SimpleNamespace) -> None:
    client = start(max_json_mb=0.01)
    body = json.dumps(encoded(make.noise(100, 100))).encode()
    headers = {"Content-Type": "application/json"}
    announced = client.post("/predict", content=body, headers=headers)
    streamed = client.post("/predict", content=iter([body]), headers=headers)
    for problem in (announced, streamed):
        assert (problem.status_code, kind(problem)) == (413, "too-large")


@pytest.mark.parametrize("item", [b"{},", b"1,", b"[],"])
def test_json_body_with_many_values_is_not_parsed(start: Start, item: bytes) -> None:
    """Parsed values, and their errors, need many times the memory of their text."""
    body = b'{"files": [' + item * 100_000 + b"1]}"
    problem = start().post("/predict", content=body, headers={"Content-Type": "application/json"})
    assert (problem.status_code, kind(problem)) == (413, "too-large")


def test_json_counts_with_all_its_copies(start: Start, make: SimpleNamespace) -> None:
    client = start(max_held_mb=2)
    small, large = encoded(make.noise(400, 400)), encoded(make.noise(500, 500))  # 0.6 and 1 MB in base64
    assert client.post("/predict", json=small).status_code == 200
    problem = client.post("/predict", json=large)
    assert (problem.status_code, kind(problem)) == (503, "busy"), (
        "the body, its parsed text and the bytes are in memory together"
    )
    assert client.service.limits.held == 0  # type: ignore[attr-defined]
    assert client.post("/predict", files=make.parts(("a.png", make.noise(500, 500)))).status_code == 200


READ_JSON = """
import asyncio, base64, json, sys
from starlette.requests import Request
from thirtytwo.serve.limits import RequestLimits
from thirtytwo.serve.settings import ServeSettings
from thirtytwo.serve.uploads import DecodedUpload, Decoder, Upload
from thirtytwo.serve.uploads import read_uploads

class Recording(RequestLimits):
    most = 0
    def reserve(self, size):
        super().reserve(size)
        self.most = max(self.most, self.held)

def memory():
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmHWM"))

async def read(count, size, limits):
    # Worst case: with one character beyond the BMP Python stores a text with four bytes per character.
    body = [b'{"files": [', *([b'{"data": "', b"AAAA" * (size // 4), b'"},'] * count)]
    body[-1] = b'"}]}' if sys.argv[1] == "plain" else '\\U0001F600"}]}'.encode()
    pieces = iter(body)
    async def receive():
        piece = next(pieces, None)
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}
    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", b"application/json")]}
    with limits.reservation() as reservation:
        try:
            uploads = read_uploads(Request(scope, receive), ServeSettings(), reservation)
            return sum([len(one.data) async for one in uploads])
        except Exception as error:
            return type(error).__name__

asyncio.run(read(1, 4, Recording(9, 512)))
before, limits = memory(), Recording(9, 512)
found = asyncio.run(read(4, 7_000_000, limits))
print(json.dumps([found, limits.most, memory() - before]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc/self/status")
@pytest.mark.parametrize("case", ["plain", "wide"])
def test_memory_of_a_json_body_is_accounted(case: str) -> None:
    done = subprocess.run([sys.executable, "-c", READ_JSON, case], capture_output=True, text=True, check=True)
    found, accounted, held = json.loads(done.stdout)
    assert found == (4 * 5_250_000 if case == "plain" else "Problem")
    assert held < accounted + (12 << 20), f"{held:,} held, {accounted:,} accounted"
    assert accounted < 3.5 * 28_000_000


def test_uploads_of_all_requests_share_their_memory() -> None:
    limits = RequestLimits(queue=10, held_mb=1)
    with limits.reservation() as one, limits.reservation() as other:
        one.reserve(700_000)
        with pytest.raises(Problem, match="1 MB"):
            other.reserve(700_000)
        one.release(700_000)
        assert limits.held == 700_000
    assert limits.held == 0


def test_limits_count_waiting_images() -> None:
    limits = RequestLimits(queue=3, held_mb=1, seconds_per_image=lambda: 1.5)
    with limits.reservation() as one:
        one.add_image()
        one.add_image()
        with limits.reservation() as other:
            other.add_image()
            with pytest.raises(Problem) as caught:
                limits.check()
            assert caught.value.status == 503
            assert caught.value.headers == {"Retry-After": "5"}, "three images at 1.5 seconds each"
        limits.check()
    assert limits.images == 0


def test_small_images_find_room_beside_a_large_one() -> None:
    memory = DecodingMemory(largest=100, small=20)
    with memory.small(70) as alone, memory.large(50):
        assert alone
        with memory.small(21) as other:
            assert not other, "it waits for its turn in the thread for large images"
    with memory.large(100), memory.small(20) as tiny:
        assert tiny
    with memory.small(120) as whole:
        assert whole


def test_a_large_image_waits_for_small_ones() -> None:
    memory, started = DecodingMemory(largest=100, small=20), threading.Event()

    def decode_large() -> None:
        with memory.large(100):
            started.set()

    with memory.small(60):
        thread = threading.Thread(target=decode_large)
        thread.start()
        assert not started.wait(0.05)
    assert started.wait(5)
    thread.join()


@pytest.fixture
def held(start_plain: Start, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A service whose model waits for the event `go` once a batch has `started`; `start` takes its settings."""
    go, started = threading.Event(), threading.Event()

    def begin(**settings: Any) -> TestClient:
        client = start_plain(**settings)
        classifier = client.service.models["colours"].classifier  # type: ignore[attr-defined]
        classify = classifier.classify

        def slowly(pixels: Any, top: int, **options: Any) -> Any:
            started.set()
            assert go.wait(60)
            return classify(pixels, top, **options)

        monkeypatch.setattr(classifier, "classify", slowly)
        return client

    yield SimpleNamespace(start=begin, go=go, started=started)
    go.set()


def test_full_queue_sets_retry_after(held: SimpleNamespace, make: SimpleNamespace) -> None:
    client = held.start(queue=4)
    sent = make.parts(("a.png", make.image()), ("b.png", make.image()))
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(client.post("/predict", files=sent))) for _ in range(2)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while client.service.limits.images < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    refused = client.post("/predict", files=sent)
    assert (refused.status_code, kind(refused)) == (503, "busy")
    assert int(refused.headers["retry-after"]) >= 1
    assert "thirtytwo_waiting 4.0" in client.get("/metrics").text
    assert client.get("/health/live").status_code == client.get("/health/ready").status_code == 200
    held.go.set()
    for thread in threads:
        thread.join(20)
    assert [answer.status_code for answer in answers] == [200, 200], "accepted requests are answered"
    assert client.service.limits.images == client.service.limits.held == 0
    assert client.post("/predict", files=sent).status_code == 200


def test_more_files_than_the_queue_takes(start: Start, make: SimpleNamespace) -> None:
    client = start(queue=2)
    refused = client.post("/predict", files=make.parts(*[("a.png", make.image())] * 3))
    assert (refused.status_code, kind(refused)) == (503, "busy")
    assert client.service.limits.images == client.service.limits.held == 0  # type: ignore[attr-defined]


def test_an_answer_that_takes_too_long(held: SimpleNamespace, make: SimpleNamespace) -> None:
    client = held.start(timeout=0.3)
    problem = client.post("/predict", files=make.parts(("a.png", make.image())))
    assert (problem.status_code, kind(problem)) == (503, "timed-out")
    assert "0.3 s" in problem.json()["detail"]
    assert "retry-after" in problem.headers
    assert client.service.limits.images == 0


def test_images_of_a_client_that_is_gone_are_not_classified(held: SimpleNamespace, make: SimpleNamespace) -> None:
    """One request is with the model, which waits, when the client of another one closes its connection."""
    client = held.start(threads=1)
    limits = client.service.limits
    server = uvicorn.Server(uvicorn.Config(client.app, lifespan="off", log_level="critical"))
    data = make.image()
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(data)}\r\n\r\n"

    def wait_until(holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not holds() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert holds()

    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            wait_until(lambda: server.started)
            with socket.create_connection(listener.getsockname(), timeout=20) as stays:
                stays.sendall(head.encode() + data)
                assert held.started.wait(20)
                with socket.create_connection(listener.getsockname(), timeout=20) as leaves:
                    leaves.sendall(head.encode() + data)
                    wait_until(lambda: limits.images == 2)
                wait_until(lambda: limits.images == 1)
                held.go.set()
                assert stays.recv(65536).startswith(b"HTTP/1.1 200")
        finally:
            held.go.set()
            server.should_exit = True
            thread.join(20)
    assert not thread.is_alive()
    text = client.get("/metrics").text
    assert 'thirtytwo_batch_size_sum{model="colours"} 1.0' in text, "it classified one image"
    assert 'path="/predict",status="499"} 1.0' in text


# Over a socket: bodies that are rejected before or while they are sent


def ask(port: int, head: bytes, body: Iterable[bytes] = ()) -> bytes:
    """The response to a request whose body is sent in pieces until there is a response."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(head)
        connection.settimeout(0.001)
        received = b""
        for piece in body:
            connection.settimeout(20)
            connection.sendall(piece)
            connection.settimeout(0.001)
            try:
                received = connection.recv(65536)
                break
            except TimeoutError:
                continue
        connection.settimeout(20)
        while (found := re.search(rb"content-length: (\d+)\r\n.*?\r\n\r\n", received, re.DOTALL)) is None:
            received += connection.recv(65536)
        while len(received) < found.end() + int(found[1]):
            received += connection.recv(65536)
        return received


@pytest.fixture(scope="module", params=["plain", pytest.param("ray", marks=pytest.mark.long)])
def running(request: pytest.FixtureRequest, launch: Callable[..., Any]) -> Iterator[Any]:
    """The command, as it is and with replicas, which end with it only if it is not killed."""
    on = () if request.param == "plain" else ("--on", request.getfixturevalue("cluster"))
    started = launch("--timeout", "2", *on)
    yield started
    started.stop()


HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"
PART = b'--x\r\nContent-Disposition: form-data; name="f"; filename="big.png"\r\n\r\n'


def test_a_gigabyte_that_is_announced_is_not_read(running: Any) -> None:
    received = ask(running.port, HEAD + b"Content-Length: 1000000000\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 413 ")
    assert b"1,000,000,000" in received


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc/self/status")
def test_an_endless_file_is_refused_while_it_comes(running: Any) -> None:
    before = running.memory_mb("VmRSS")
    sent = 0

    def pieces() -> Iterator[bytes]:
        nonlocal sent
        yield b"%x\r\n%b\r\n" % (len(PART), PART)
        while sent < 1 << 30:
            sent += 1 << 20
            yield b"100000\r\n" + b"a" * (1 << 20) + b"\r\n"

    received = ask(running.port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", pieces())
    assert received.startswith(b"HTTP/1.1 413 ")
    assert b"big.png" in received
    assert b"10 MB" in received
    assert sent < 40 << 20
    assert running.memory_mb("VmHWM") < before + 60


def test_an_upload_that_never_ends(running: Any) -> None:
    started = time.perf_counter()
    received = ask(running.port, HEAD + b"Content-Length: 1000\r\n\r\n" + PART)
    assert received.startswith(b"HTTP/1.1 408 ")
    assert time.perf_counter() - started < 15


# Keys


def test_an_api_key(start: Start, make: SimpleNamespace) -> None:
    client = start(api_key="sésame")
    sent = {"files": make.parts(("a.png", make.image()))}
    good = {"Authorization": "Bearer sésame".encode()}
    for method, path, more in (("POST", "/predict", sent), ("GET", "/models", {}), ("GET", "/metrics", {})):
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Basic sesame"},
            {"Authorization": "x"},
        ):
            problem = client.request(method, path, headers=headers, **more)
            assert (problem.status_code, kind(problem)) == (401, "no-key")
            assert problem.headers["www-authenticate"] == "Bearer"
            sent_one = headers.get("Authorization", "").startswith("Bearer")
            assert ("Authorization: Bearer KEY" in problem.json()["detail"]) == (not sent_one)
        assert client.request(method, path, headers=good, **more).status_code == 200
    for path in ("/health/live", "/health/ready", "/docs", "/openapi.json"):
        assert client.get(path).status_code == 200
    assert "sésame" not in repr(client.service.settings)  # type: ignore[attr-defined]


def test_without_the_key_the_body_is_not_read(start: Start) -> None:
    client = start(api_key="k")
    taken = 0

    def pieces() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield b"a" * 1000

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert client.post("/predict", content=pieces(), headers=headers).status_code == 401


@pytest.mark.parametrize(
    "wrong", [{"port": 70_000}, {"max_batch": 0}, {"max_megapixels": 51}, {"api_key": ""}, {"queue": 0}, {"bogus": 1}]
)
def test_settings_have_bounds(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ServeSettings(**wrong)


def test_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THIRTYTWO_SERVE_QUEUE", "7")
    monkeypatch.setenv("THIRTYTWO_SERVE_PORT", "80")
    monkeypatch.setenv("THIRTYTWO_API_KEY", " sesame ")
    settings = ServeSettings(port=81)
    assert (settings.queue, settings.port, settings.api_key) == (7, 81, "sesame")
    assert "sesame" not in repr(settings)


# Metrics


def test_metrics(start: Start, make: SimpleNamespace) -> None:
    client = start()
    client.post("/predict", files=make.parts(("a.png", make.image()), ("b.png", make.image("grey")), ("c.png", b"")))
    client.post("/predict", files=make.parts(("c.png", b"")))
    client.get("/nothing/here")
    client.request("FOO", "/predict")
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    for line in (
        'thirtytwo_requests_total{method="POST",path="/predict",status="200"} 1.0',
        'thirtytwo_requests_total{method="POST",path="/predict",status="422"} 1.0',
        'thirtytwo_requests_total{method="GET",path="other",status="404"} 1.0',
        'thirtytwo_requests_total{method="other",path="/predict",status="405"} 1.0',
        'thirtytwo_images_total{model="colours",result="known"} 1.0',
        'thirtytwo_images_total{model="colours",result="unknown"} 1.0',
        'thirtytwo_images_total{model="colours",result="unreadable"} 2.0',
        'thirtytwo_batch_size_sum{model="colours"} 2.0',
        'thirtytwo_request_seconds_count{path="/predict"} 3.0',
        "thirtytwo_waiting 0.0",
    ):
        assert line in answer.text, line


def test_clients_are_not_told_to_raise_a_limit_that_the_service_does_not_read(
    start: Start, make: SimpleNamespace
) -> None:
    client = start()
    detail = client.post("/predict", files=make.parts(("large.png", make.image("red", (8000, 8000))))).json()["detail"]
    assert "50,000,000" in detail
    assert "THIRTYTWO_MAX_PIXELS" not in detail


def test_tiny_images_need_no_thread(colour_model: Path, make: SimpleNamespace) -> None:
    info = read_info(colour_model)
    tiny, bare = Upload("tiny.png", make.image("red", (32, 32))), Upload("bad.png", make.image()[:40])
    many_pixels = Upload("many.png", make.image("red", (500, 500)))
    assert len(many_pixels.data) < 4000, "a small file with many pixels"
    decoder = Decoder(threads=1, max_pixels=10**6, max_bytes=10**8)
    assert isinstance(asyncio.run(decoder.decode([many_pixels], info, view=False))[0], DecodedUpload)
    decoder.close()
    (found,) = asyncio.run(decoder.decode([tiny], info, view=False))
    assert isinstance(found, DecodedUpload)
    assert (found.file, found.width, found.height) == ("tiny.png", 32, 32)
    assert (found.pixels == load_image(tiny.data, info.input_size, info.resize).pixels).all()
    assert isinstance(asyncio.run(decoder.decode([bare], info, view=False))[0], UnreadableImage)
    for uploads, view in (([many_pixels], False), ([tiny], True), ([tiny, tiny], False)):
        with pytest.raises(RuntimeError, match="shutdown"):
            asyncio.run(decoder.decode(uploads, info, view=view))
