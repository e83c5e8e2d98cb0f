from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from thirtytwo.cli.main import run_command
from thirtytwo.inference.classifier import BATCH_PIXELS, Classifier, load
from thirtytwo.inference.library import BUNDLED, bundled_models
from thirtytwo.machine import cpu_count

Start = Callable[..., TestClient]


def as_json_body(*files: tuple[str, bytes]) -> dict[str, Any]:
    return {"files": [{"file": name, "data": base64.b64encode(data).decode()} for name, data in files]}


@pytest.fixture
def files(make: SimpleNamespace) -> list[tuple[str, bytes]]:
    bad = make.image("red")[:40]
    return [("a.png", make.image("red")), ("bad.png", bad), ("b.jpg", make.image("blue", (30, 40), "JPEG"))]


@pytest.mark.parametrize("how", ["multipart", "json"])
def test_responses_equal_the_command_line(
    client: TestClient,
    make: SimpleNamespace,
    files: list[tuple[str, bytes]],
    how: str,
    colour_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, data in files:
        Path(name).write_bytes(data)
    names = [name for name, _ in files]
    run_command(["predict", *names, "--model", str(colour_model), "--format", "json", "--top", "2"])
    expected = json.loads(capsys.readouterr().out)
    sent = {"files": make.parts(*files)} if how == "multipart" else {"json": as_json_body(*files)}
    answer = client.post("/predict?top=2", **sent)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == expected
    assert [list(entry) for entry in answer.json()] == [list(entry) for entry in expected], "keys in the same order"
    assert [entry.get("top") for entry in expected] == ["red", None, "blue"]


@pytest.mark.parametrize("field", ["files", "file", "anything[]"])
@pytest.mark.parametrize("count", [1, 2, 16, 17, 33, 64])
def test_many_files_keep_their_order(client: TestClient, make: SimpleNamespace, field: str, count: int) -> None:
    colours = ["red", "green", "blue"]
    sent = [(field, (f"{number}.png", make.image(colours[number % 3]))) for number in range(count)]
    found = client.post("/predict?top=1", files=sent).json()
    assert [(entry["file"], entry["top"]) for entry in found] == [
        (f"{number}.png", colours[number % 3]) for number in range(count)
    ]


def test_the_last_files_do_not_wait_for_the_first(
    start_plain: Start, make: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are decoded in groups; here the first group is ready only after the last has started."""
    client = start_plain(threads=2)
    decoder = client.service.decoder  # type: ignore[attr-defined]
    decode, last = decoder.decode, asyncio.Event()

    async def in_turn(uploads: Any, info: Any, view: bool) -> Any:
        if len(uploads) < 3:
            last.set()
        await asyncio.wait_for(last.wait(), 5)
        return await decode(uploads, info, view)

    monkeypatch.setattr(decoder, "decode", in_turn)
    colours = [("red", "green", "blue")[number % 3] for number in range(18)]
    files = [(f"{number}.png", make.image(colour)) for number, colour in enumerate(colours)]
    response = client.post("/predict", files=make.parts(*files))
    assert response.status_code == 200
    assert [entry["top"] for entry in response.json()] == colours


@pytest.mark.long
@pytest.mark.parametrize("heatmap", ["", "&heatmap=true"], ids=["labels", "heatmaps"])
def test_large_inputs_form_small_batches(
    heatmap: str, start_plain: Start, make: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = start_plain({"imagenet": BUNDLED / "imagenet.onnx"}, max_wait_ms=200)
    classifier = client.service.models["imagenet"].classifier  # type: ignore[attr-defined]
    sizes: list[int] = []
    original = Classifier.run

    def counted(self: Classifier, pixels: Any, *outputs: Any) -> Any:
        sizes.append(len(pixels))
        return original(self, pixels, *outputs)

    monkeypatch.setattr(Classifier, "run", counted)
    files = [(f"{number}.png", make.noise(40 + 9 * number, 60)) for number in range(11)]
    answer = client.post(f"/predict?top=3{heatmap}", files=make.parts(*files))
    assert answer.status_code == 200
    assert classifier.largest_batch == BATCH_PIXELS // 288**2 == 4
    assert max(sizes) == (2 if cpu_count() > 1 else 4), (
        "two batches run at a time, and share the memory of a largest one"
    )
    assert sum(sizes) == len(files) * (2 if heatmap else 1)
    found = answer.json()
    assert [entry["file"] for entry in found] == [name for name, _ in files]
    alone = [classifier.predict(data, top=3)[0] for _, data in files]
    assert [entry["predictions"] for entry in found] == [one.as_dict()["predictions"] for one in alone]
    assert len({entry["confidence"] for entry in found}) == len(files), "the images differ"


@pytest.mark.parametrize(("top", "found"), [(None, 3), (1, 1), (2, 2), (1000, 3)])
def test_top(client: TestClient, make: SimpleNamespace, top: int | None, found: int) -> None:
    asked = {} if top is None else {"top": top}
    (entry,) = client.post("/predict", params=asked, files=make.parts(("a.png", make.image()))).json()
    assert [label["class"] for label in entry["predictions"]] == ["red", "green", "blue"][:found]


def test_further_views_as_on_the_command_line(start: Start, make: SimpleNamespace) -> None:
    model = bundled_models()["cifar10-tiny"]
    image = make.noise(64, 48)
    for tta in ("off", "auto", "all"):
        (entry,) = start({"tiny": model}, tta=tta).post("/predict", files=make.parts(("a.png", image))).json()
        alone = load(model).predict(image, tta=tta)[0].as_dict()
        assert entry["confidence"] == pytest.approx(alone["confidence"], abs=1e-5)
    assert alone["confidence"] != pytest.approx(load(model).predict(image)[0].as_dict()["confidence"], abs=1e-3)


@pytest.mark.parametrize("top", ["0", "-1", "1001", "two", "1.5", ""])
def test_wrong_top(client: TestClient, make: SimpleNamespace, top: str) -> None:
    answer = client.post(f"/predict?top={top}", files=make.parts(("a.png", make.image())))
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"][0]["where"] == "top"
    assert repr(top) in answer.json()["detail"]


def test_repeated_parameter(client: TestClient, make: SimpleNamespace) -> None:
    answer = client.post("/predict?top=2&top=3", files=make.parts(("a.png", make.image())))
    assert (answer.status_code, answer.json()["type"]) == (422, "/docs#invalid")
    assert answer.json()["errors"] == [{"where": "top", "error": "Repeated"}]
    assert "more than once" in answer.json()["detail"]


@pytest.mark.parametrize(("name", "meant"), [("tpo", "'top'"), ("models", "'model'"), ("_", "heatmap, model, top")])
def test_unknown_parameter(client: TestClient, make: SimpleNamespace, name: str, meant: str) -> None:
    answer = client.post(f"/predict?{name}=2", files=make.parts(("a.png", make.image())))
    assert (answer.status_code, answer.json()["type"]) == (422, "/docs#invalid")
    assert answer.json()["errors"] == [{"where": name, "error": "Unknown parameter"}]
    assert repr(name) in answer.json()["detail"]
    assert meant in answer.json()["detail"]


def test_grey_is_unknown(client: TestClient, make: SimpleNamespace) -> None:
    (entry,) = client.post("/predict", files=make.parts(("a.png", make.image("grey")))).json()
    assert entry["known"] is False


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("grüße 猫.png", "grüße 猫.png"),
        ("../../etc/passwd", "../../etc/passwd"),
        ("<script>.png", "<script>.png"),
        ("x" * 300 + ".png", "x" * 255),
    ],
)
def test_file_names_come_back(client: TestClient, make: SimpleNamespace, name: str, expected: str) -> None:
    for sent in ({"files": make.parts((name, make.image()))}, {"json": as_json_body((name, make.image()))}):
        answer = client.post("/predict", **sent)
        assert answer.status_code == 200, answer.text
        assert answer.json()[0]["file"] == expected


def test_files_without_a_name_are_numbered(client: TestClient, make: SimpleNamespace) -> None:
    data = base64.b64encode(make.image()).decode()
    found = client.post("/predict", json={"files": [{"data": data}, {"data": data}]}).json()
    assert [entry["file"] for entry in found] == ["image 1", "image 2"]
    nameless = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename=""\r\n\r\n' + make.image() + b"\r\n--x--\r\n"
    )
    found = client.post("/predict", content=nameless, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert [entry["file"] for entry in found.json()] == ["image 1"]


def test_model_by_name(
    start: Start, make: SimpleNamespace, write_model: Callable[..., Path], colour_model: Path, tmp_path: Path
) -> None:
    other = write_model(tmp_path / "other.onnx", classes=("rot", "grün", "blau"))
    client = start({"colours": colour_model, "farben": other})
    sent = make.parts(("a.png", make.image("green")))
    assert client.post("/predict", files=sent).json()[0]["top"] == "green"
    assert client.post("/predict?model=colours", files=sent).json()[0]["top"] == "green"
    assert client.post("/predict?model=farben", files=sent).json()[0]["top"] == "grün"
    problem = client.post("/predict?model=farbe", files=sent)
    assert problem.status_code == 404
    assert "'farbe'" in problem.json()["detail"]
    assert "'farben'" in problem.json()["detail"]


def test_models_are_listed(start: Start, write_model: Callable[..., Path], colour_model: Path, tmp_path: Path) -> None:
    bare = write_model(tmp_path / "bare.onnx", accuracy=None)
    first, second = start({"colours": colour_model, "bare": bare}).get("/models").json()
    assert first == {
        "name": "colours",
        "default": True,
        "dataset": "colours",
        "architecture": "colours",
        "accuracy": 0.9,
        "classes": ["red", "green", "blue"],
        "input_size": 8,
        "resize": "crop",
        "heatmaps": True,
        "version": "0.1.0",
    }
    assert (second["name"], second["default"], second["accuracy"]) == ("bare", False, None)


def test_heatmaps(client: TestClient, make: SimpleNamespace) -> None:
    sent = make.parts(("a.png", make.image("red", (300, 200))), ("b.png", make.image("blue")))
    plain = client.post("/predict", files=sent).json()
    drawn = client.post("/predict?heatmap=1", files=sent).json()
    assert [{key: value for key, value in entry.items() if key != "heatmap"} for entry in drawn] == plain
    for entry in drawn:
        values = entry["heatmap"]["values"]
        assert (len(values), len(values[0])) == (8, 8)
        assert max(map(max, values)) == 1
        assert min(map(min, values)) >= 0
        overlay = Image.open(io.BytesIO(base64.b64decode(entry["heatmap"]["overlay"])))
        assert overlay.format == "PNG"
        assert overlay.width == overlay.height >= 256


def test_heatmaps_explain_the_answer_of_one_view(start: Start, make: SimpleNamespace) -> None:
    tiny = {"tiny": bundled_models()["cifar10-tiny"]}
    sent = make.parts(("a.png", make.noise(64, 48)))
    single, several = (start(tiny, tta=tta) for tta in ("off", "all"))
    (expected,) = single.post("/predict", files=sent).json()
    (drawn,) = several.post("/predict?heatmap=1", files=sent).json()
    (averaged,) = several.post("/predict", files=sent).json()
    assert drawn["confidence"] == pytest.approx(expected["confidence"], abs=1e-5)
    assert averaged["confidence"] != pytest.approx(expected["confidence"], abs=1e-3)


def test_heatmaps_of_a_model_without(start: Start, make: SimpleNamespace, colour_model: Path, tmp_path: Path) -> None:
    import onnx

    changed = onnx.load(colour_model)
    del changed.graph.output[3]
    onnx.save(changed, tmp_path / "flat.onnx")
    client = start({"flat": tmp_path / "flat.onnx"})
    assert client.get("/models").json()[0]["heatmaps"] is False
    sent = make.parts(("a.png", make.image()))
    assert client.post("/predict", files=sent).status_code == 200
    problem = client.post("/predict?heatmap=1", files=sent)
    assert problem.status_code == 422
    assert problem.json()["type"] == "/docs#no-heatmaps"


def test_nothing_readable(client: TestClient) -> None:
    sent = [("files", ("empty.png", b"")), ("files", ("text.jpg", b"no image here, only words"))]
    problem = client.post("/predict", files=sent)
    assert problem.status_code == 422
    document = problem.json()
    assert document["type"] == "/docs#unreadable"
    assert [entry["file"] for entry in document["errors"]] == ["empty.png", "text.jpg"]
    assert "empty.png" in document["detail"]
    assert "text.jpg" in document["errors"][1]["error"]


MULTIPART = {"Content-Type": "multipart/form-data; boundary=x"}
JSON = {"Content-Type": "application/json"}
PART = b'--x\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n'


@pytest.mark.parametrize(
    ("body", "headers", "status", "kind"),
    [
        (b"", {}, 415, "unsupported-type"),
        (b"x", {"Content-Type": "text/plain"}, 415, "unsupported-type"),
        (b"x", {"Content-Type": "multipart/form-data"}, 400, "malformed"),
        (b"x", {"Content-Type": f"multipart/form-data; boundary={'x' * 500}"}, 400, "malformed"),
        (b"", MULTIPART, 400, "malformed"),
        (b"no multipart at all", MULTIPART, 400, "malformed"),
        (PART + b"cut off", MULTIPART, 400, "malformed"),
        (PART[:20], MULTIPART, 400, "malformed"),
        (b"--x\r\n" + b"A: b\r\n" * 1000 + b"\r\n\r\n--x--\r\n", MULTIPART, 400, "malformed"),
        (b"--x\r\nA: " + b"b" * 100_000 + b"\r\n\r\n\r\n--x--\r\n", MULTIPART, 400, "malformed"),
        (b"--x--\r\n", MULTIPART, 422, "no-image"),
        (b"", JSON, 400, "malformed"),
        (b"{", JSON, 400, "malformed"),
        (b"\xff\xfe", JSON, 400, "malformed"),
        (b"[" * 100_000, JSON, 400, "malformed"),
        (b'{"files": [{"data": "\\ud800"}]}', JSON, 400, "malformed"),
        (b"null", JSON, 422, "invalid"),
        (b"[]", JSON, 422, "invalid"),
        (b"{}", JSON, 422, "invalid"),
        (b'{"files": []}', JSON, 422, "invalid"),
        (b'{"files": [{}]}', JSON, 422, "invalid"),
        (b'{"files": [{"data": 1}]}', JSON, 422, "invalid"),
        (b'{"files": [{"data": "AAAA", "extra": 1}]}', JSON, 422, "invalid"),
        (b'{"files": [{"data": "not base64!"}]}', JSON, 422, "invalid"),
        (b'{"files": [{"data": "AA"}]}', JSON, 422, "invalid"),
        ('{"files": [{"data": "äAAA"}]}'.encode(), JSON, 422, "invalid"),
        (b'{"files": [{"data": ""}]}', JSON, 422, "unreadable"),
    ],
)
def test_invalid_bodies(client: TestClient, body: bytes, headers: dict[str, str], status: int, kind: str) -> None:
    problem = client.post("/predict", content=body, headers=headers)
    assert (problem.status_code, problem.headers["content-type"]) == (status, "application/problem+json")
    document = problem.json()
    assert document["type"] == f"/docs#{kind}"
    assert document["status"] == status
    assert document["title"]
    assert document["detail"].endswith((".", "!"))


FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        (b'{"image": "AAAA"}', JSON, ["the unknown key 'image'", '{"files": [{"file": "photo.jpg", "data": "']),
        (b'{"images": [], "tops": 1}', JSON, ["the unknown keys 'images', 'tops'"]),
        (b'{"files": [{"data": "AAAA"}], "top": 1}', JSON, ["'top'", "/predict?top="]),
        (b'{"files": [{"data": "AAAA", "model": "x"}]}', JSON, ["'model'", "/predict?model="]),
        (b'{"files": [{"data": "AAAA", "extra": 1}]}', JSON, ["the unknown key 'files.0.extra'"]),
        (b"{}", JSON, ["invalid at files: Field required", '{"files": [{"file": "photo.jpg", "data": "']),
        (b"null", JSON, ["invalid at its top level"]),
        (b"\xff\xd8", FORM, ["-H 'Content-Type: image/jpeg'"]),
    ],
)
def test_invalid_bodies_say_what_to_send(
    client: TestClient, body: bytes, headers: dict[str, str], expected: list[str]
) -> None:
    detail = client.post("/predict", content=body, headers=headers).json()["detail"]
    assert all(text in detail for text in expected), detail


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/predict", 405), ("POST", "/models", 405), ("GET", "/nothing", 404), ("FOO", "/predict", 405)],
)
def test_other_paths_and_methods(client: TestClient, method: str, path: str, status: int) -> None:
    problem = client.request(method, path)
    assert (problem.status_code, problem.headers["content-type"]) == (status, "application/problem+json")
    assert problem.json()["status"] == status
    assert path in problem.json()["detail"]


def test_a_bug_is_a_problem_without_inner_details(
    start_plain: Start, make: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = start_plain(root_path="/images")
    served = client.service.models["colours"]  # type: ignore[attr-defined]
    monkeypatch.setattr(served.classifier, "classify", lambda pixels, top: 1 / 0)
    problem = client.post("/predict", files=make.parts(("a.png", make.image())))
    assert problem.status_code == 500
    assert problem.headers["content-type"] == "application/problem+json"
    assert problem.json()["type"] == "/images/docs#bug"
    assert "division" not in problem.text
    counted = 'thirtytwo_requests_total{method="POST",path="/predict",status="500"} 1.0'
    assert counted in client.get("/metrics").text
    monkeypatch.undo()
    assert client.post("/predict", files=make.parts(("a.png", make.image()))).status_code == 200, (
        "the service keeps running"
    )


def test_a_bug_in_any_other_route_is_the_same_problem(start_plain: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    client = start_plain(root_path="/images")

    async def list_models() -> list[Any]:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(client.service, "list_models", list_models)  # type: ignore[attr-defined]
    problem = client.get("/models")
    assert (problem.status_code, problem.headers["content-type"]) == (500, "application/problem+json")
    assert problem.json()["type"] == "/images/docs#bug"
    assert "division" not in problem.text
    assert 'thirtytwo_requests_total{method="GET",path="/models",status="500"} 1.0' in client.get("/metrics").text


def test_no_cross_origin_access(client: TestClient, make: SimpleNamespace) -> None:
    sent = make.parts(("a.png", make.image()))
    answer = client.post("/predict", files=sent, headers={"Origin": "https://elsewhere.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    preflight = client.options(
        "/predict", headers={"Origin": "https://e.example", "Access-Control-Request-Method": "POST"}
    )
    assert preflight.status_code == 405
