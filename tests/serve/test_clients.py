"""What real clients send: HEAD requests, data URIs, raw image bodies, form fields, and proxies with a path prefix."""

from __future__ import annotations

import asyncio
import base64
import binascii
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import example, given
from hypothesis import strategies as st

from thirtytwo.errors import ServiceError
from thirtytwo.serve import uploads
from thirtytwo.serve.schemas import Problem
from thirtytwo.serve.service import choose_models
from thirtytwo.serve.settings import ServeSettings

Start = Callable[..., TestClient]
FORM = "multipart/form-data; boundary=x"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 307),
        ("/docs", 200),
        ("/docs/start.js", 200),
        ("/openapi.json", 200),
        ("/health/live", 200),
        ("/health/ready", 200),
        ("/models", 200),
        ("/metrics", 200),
        ("/predict", 405),
        ("/nothing", 404),
    ],
)
def test_head(client: TestClient, path: str, status: int) -> None:
    head = client.head(path, follow_redirects=False)
    get = client.get(path, follow_redirects=False)
    assert (head.status_code, head.content) == (status, b"")
    assert head.headers["content-type"] == get.headers["content-type"] if status != 307 else True
    assert head.headers.get("location") == get.headers.get("location")


def wrapped(text: str) -> str:
    return "\r\n".join(text[at : at + 76] for at in range(0, len(text), 76))


@pytest.mark.parametrize(
    "form",
    [
        "{}",
        "data:image/png;base64,{}",
        "DATA:image/svg+xml;charset=utf-8;BASE64,{}",
        "data:;base64,{}",
        "\n{}\n",
        "data:image/png;base64, {}",
    ],
)
@pytest.mark.parametrize("lines", [str, wrapped], ids=["one line", "lines"])
def test_forms_of_base64(client: TestClient, make: SimpleNamespace, form: str, lines: Callable[[str], str]) -> None:
    text = form.format(lines(base64.b64encode(make.noise(12, 12)).decode()))
    answer = client.post("/predict", json={"files": [{"data": text}]})
    assert answer.status_code == 200, answer.text
    assert (answer.json()[0]["width"], answer.json()[0]["file"]) == (12, "image 1")
    limits = client.service.limits  # type: ignore[attr-defined]
    assert (limits.held, limits.images) == (0, 0)


@pytest.mark.parametrize("text", ["data:image/png,AAAA", "data:image/png;base64", "data:image/png;base64,A", "A A"])
def test_wrong_base64(client: TestClient, text: str) -> None:
    answer = client.post("/predict", json={"files": [{"data": text}]})
    assert (answer.status_code, answer.json()["type"]) == (422, "/docs#invalid")


@given(st.text("QUJ=\n ", max_size=40) | st.binary(max_size=40).map(lambda data: base64.encodebytes(data).decode()))
@example("JJJJ=")
@example("JJJJ====")
def test_pieces_of_base64_are_decoded_as_the_whole(text: str) -> None:
    async def decoded() -> bytes | None:
        try:
            return await uploads._decode_base64(text.encode(), "a", ServeSettings())
        except Problem:
            return None

    try:
        expected = binascii.a2b_base64("".join(text.split()), strict_mode=True)
        if text.count("=") > 2 or len("".join(text.split())) % 4:  # Python accepts JJJJ= and JJJJ====
            expected = None
    except binascii.Error:
        expected = None
    with pytest.MonkeyPatch.context() as patch:
        for piece in (1, 3, 4, 8):
            patch.setattr(uploads, "_PIECE", piece)
            assert asyncio.run(decoded()) == expected


def test_others_have_their_turn_while_base64_is_decoded() -> None:
    async def both() -> int:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        waiting = asyncio.create_task(other())
        data = await uploads._decode_base64(base64.b64encode(bytes(3_000_000)), "a", ServeSettings())
        waiting.cancel()
        assert data == bytes(3_000_000)
        return turns

    assert asyncio.run(both()) >= 10


@pytest.mark.parametrize("kind", ["image/png", "image/jpeg", "IMAGE/PNG; charset=binary", "application/octet-stream"])
@pytest.mark.parametrize(
    ("headers", "name"),
    [({}, "image 1"), ({"Content-Disposition": 'attachment; filename="a.png"'}, "a.png")],
)
def test_raw_image(client: TestClient, make: SimpleNamespace, kind: str, headers: dict[str, str], name: str) -> None:
    answer = client.post("/predict?top=1", content=make.image("blue"), headers={"Content-Type": kind, **headers})
    assert answer.status_code == 200, answer.text
    assert [(entry["file"], entry["top"]) for entry in answer.json()] == [(name, "blue")]
    assert client.service.limits.held == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("declared", [True, False], ids=["Content-Length", "chunked"])
def test_raw_image_over_the_limit(start: Start, declared: bool) -> None:
    body = bytes(3 << 20)
    sent: Any = body if declared else (body[at : at + 65536] for at in range(0, len(body), 65536))
    client = start(max_file_mb=1)
    answer = client.post("/predict", content=sent, headers={"Content-Type": "image/png"})
    assert (answer.status_code, answer.json()["type"]) == (413, "/docs#too-large")
    assert client.service.limits.held == 0  # type: ignore[attr-defined]


def test_empty_raw_image(client: TestClient) -> None:
    answer = client.post("/predict", content=b"", headers={"Content-Type": "image/png"})
    assert (answer.status_code, answer.json()["type"]) == (422, "/docs#no-image")


def field(name: str, value: bytes, *, kind: str = "") -> bytes:
    more = f"Content-Type: {kind}\r\n" if kind else ""
    return f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n{more}\r\n'.encode() + value + b"\r\n"


def form_file(data: bytes, name: str = "a.png") -> bytes:
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    return head.encode() + data + b"\r\n"


@pytest.mark.parametrize("known", ["top", "model", "heatmap"])
@pytest.mark.parametrize("first", [True, False])
def test_form_fields_that_belong_in_the_address_are_refused(
    client: TestClient, make: SimpleNamespace, known: str, first: bool
) -> None:
    two = [field(known, b"3"), form_file(make.image())]
    body = b"".join(two if first else reversed(two)) + b"--x--\r\n"
    answer = client.post("/predict", content=body, headers={"Content-Type": FORM})
    assert (answer.status_code, answer.json()["type"]) == (422, "/docs#invalid")
    assert f"/predict?{known}=" in answer.json()["detail"]


def test_empty_form_fields_do_not_count_as_files(start: Start, make: SimpleNamespace) -> None:
    client = start(max_files=1)
    body = field("top", b"") + field("model", b"") + form_file(make.image()) + b"--x--\r\n"
    assert client.post("/predict", content=body, headers={"Content-Type": FORM}).status_code == 200
    many = field("top", b"") * 100 + form_file(make.image()) + b"--x--\r\n"
    assert client.post("/predict", content=many, headers={"Content-Type": FORM}).status_code == 413


@pytest.mark.parametrize("name", ["files", "image_url", "token", ""])
def test_other_form_fields_are_refused_by_name(client: TestClient, make: SimpleNamespace, name: str) -> None:
    body = form_file(make.image()) + field(name, b"https://example.com/a.png") + b"--x--\r\n"
    answer = client.post("/predict", content=body, headers={"Content-Type": FORM})
    assert (answer.status_code, answer.json()["type"]) == (422, "/docs#invalid")
    assert repr(name) in answer.json()["detail"]


def test_empty_form_fields_are_ignored(client: TestClient, make: SimpleNamespace) -> None:
    body = field("files", b"") + form_file(make.image()) + b"--x--\r\n"
    answer = client.post("/predict", content=body, headers={"Content-Type": FORM})
    assert [entry["file"] for entry in answer.json()] == ["a.png"]


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream"])
def test_parts_with_an_image_type_need_no_file_name(client: TestClient, make: SimpleNamespace, kind: str) -> None:
    body = field("files", make.image(), kind=kind) + b"--x--\r\n"
    answer = client.post("/predict", content=body, headers={"Content-Type": FORM})
    assert [entry["file"] for entry in answer.json()] == ["image 1"]


@pytest.mark.parametrize("prefix", ["/ai", "/ai/", "ai", "/team/ai"])
@pytest.mark.parametrize("strips", [True, False], ids=["proxy strips the prefix", "proxy keeps it"])
def test_path_prefix(start: Start, make: SimpleNamespace, prefix: str, strips: bool) -> None:
    client, root = start(root_path=prefix), f"/{prefix.strip('/')}"
    at = "" if strips else root
    assert client.get(f"{at}/", follow_redirects=False).headers["location"] == f"{root}/docs"
    for path in ("/docs", "/docs/start.js", "/docs/swagger-ui.css", "/health/live", "/models", "/metrics"):
        assert client.get(f"{at}{path}").status_code == 200, path
        assert client.head(f"{at}{path}").status_code == 200, path
    assert client.post(f"{at}/predict", files=make.parts(("a.png", make.image()))).status_code == 200
    assert client.get(f"{at}/openapi.json").json()["servers"] == [{"url": root}]
    problem = client.get(f"{at}/nothing")
    assert problem.headers["content-type"] == "application/problem+json"
    for path in ("/predict/", "/models/"):
        assert client.post(f"{at}{path}", follow_redirects=False).status_code == 404, "an address of the client's Host"
    assert client.post(f"{at}/predict?top=0").json()["type"] == f"{root}/docs#invalid"
    assert 'path="/docs"' in client.get(f"{at}/metrics").text, "metrics do not depend on the prefix"


def test_no_prefix(client: TestClient) -> None:
    assert "servers" not in client.get("/openapi.json").json()


@pytest.mark.parametrize("texts", [["base={}", "base={}"], ["{}", "{}"]])
def test_advice_for_equal_names_works(texts: list[str], colour_model: Path, tmp_path: Path) -> None:
    first = Path(shutil.copy(colour_model, tmp_path / "the model.onnx"))
    (tmp_path / "2").mkdir()
    second = Path(shutil.copy(colour_model, tmp_path / "2" / "the model.onnx"))
    given = [text.format(path) for text, path in zip(texts, (first, second), strict=True)]
    with pytest.raises(ServiceError) as caught:
        choose_models(given)
    assert caught.value.fix
    option, advised = shlex.split(caught.value.fix.partition("example: ")[2])
    assert option == "--model"
    assert list(choose_models([given[0], advised]).values()) == [first, second]
