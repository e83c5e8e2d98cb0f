"""Fixtures for all tests: no network, an empty cache, and real data and a browser only where available."""

from __future__ import annotations

import ctypes
import io
import json
import os
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from PIL import Image

if TYPE_CHECKING:
    import thirtytwo.config.recipe
    import thirtytwo.data.types

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine may take any time for an example.
hypothesis_settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("busy")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def real_data() -> Path | None:
    """The folder that holds CIFAR-10 and CIFAR-100, or None."""
    root = os.environ.get("THIRTYTWO_DATA")
    return Path(root) if root and (Path(root) / "cifar10").is_dir() else None


def browser() -> str | None:
    """The path of a Chromium, or None."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


TRAINED = frozenset(
    {"finished", "four", "made", "members", "overfitted", "runs", "squares_run", "teacher_run", "trained"}
)
"""Fixtures that train a model; tests that use one are slow."""


WEIGHTS = {"long": 20.0, "slow": 2.0}
"""About how long a test takes with such a mark, relative to others."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that train as slow, and arrange the files so that both halves of all tests take about as long.

    pytest-xdist gives each of its workers a half at first.
    """
    for item in items:
        if TRAINED.intersection(getattr(item, "fixturenames", ())) and not item.get_closest_marker("long"):
            item.add_marker(pytest.mark.slow)
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    halves: tuple[list[pytest.Item], list[pytest.Item]] = ([], [])
    taken = [0.0, 0.0]
    for tests in sorted(files.values(), key=_weight, reverse=True):
        half = taken.index(min(taken))
        halves[half].extend(tests)
        taken[half] += _weight(tests)
    items[:] = [*halves[0], *halves[1]]


def _weight(tests: Sequence[pytest.Item]) -> float:
    return sum(
        next((weight for mark, weight in WEIGHTS.items() if test.get_closest_marker(mark)), 0.1) for test in tests
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("realdata") and real_data() is None:
        pytest.skip("needs CIFAR: set THIRTYTWO_DATA to a folder with cifar10/ and cifar100/")
    if item.get_closest_marker("browser") and browser() is None:
        pytest.skip("needs a Chromium on the path")


@pytest.fixture(scope="session", autouse=True)
def _cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # decoding CIFAR once takes long enough
    os.environ["THIRTYTWO_CACHE"] = str(shared / "cache-of-all")
    os.environ["THIRTYTWO_PROJECTS"] = str(tmp_path_factory.mktemp("projects"))
    os.environ["THIRTYTWO_JOBS"] = str(tmp_path_factory.mktemp("jobs"))


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The real data; only for tests marked `realdata`."""
    root = real_data()
    assert root is not None, "mark this test with @pytest.mark.realdata"
    return root


class _LosesConnections(BaseHTTPRequestHandler):
    """Answers for the address itself and says what `model.onnx` is, but closes every other connection."""

    def do_HEAD(self) -> None:
        if self.path == "/" or self.path.endswith("/model.onnx"):
            self.send_response(200)
            for name, value in (("ETag", '"0"'), ("X-Repo-Commit", "0" * 40), ("Content-Length", "100")):
                self.send_header(name, value)
            self.end_headers()
        else:
            self._lose()

    def _lose(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_POST = _lose

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def losing_hub() -> Iterator[str]:
    """The address of a server in place of the Hugging Face hub that can be reached, and loses every connection."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _LosesConnections) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(5)


@pytest.fixture(scope="session")
def noise_cifar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with noise in the layout of CIFAR-10 and CIFAR-100: 400 training images, 100 test images."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    root = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for name, labels in {"cifar10": {"label": 10}, "cifar100": {"fine_label": 100, "coarse_label": 20}}.items():
        for split, count in (("train", 400), ("test", 100)):
            images = []
            for pixels in random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8):
                buffer = io.BytesIO()
                Image.fromarray(pixels).save(buffer, "PNG")
                images.append({"bytes": buffer.getvalue(), "path": None})
            columns = {key: pa.array(np.arange(count) % classes) for key, classes in labels.items()}
            kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            file = root / name / "data" / f"{split}-00000-of-00001.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table({"img": pa.array(images, kind), **columns}), file)
    return root


@pytest.fixture(scope="session")
def chromium() -> str:
    """A browser's path; only for tests marked `browser`."""
    found = browser()
    assert found is not None, "mark this test with @pytest.mark.browser"
    return found


COLORS_CHANGED = """(dark) => matchMedia("(prefers-color-scheme: dark)").matches === dark &&
  (!document.querySelector("[data-testid=stApp]") || document.documentElement.hasAttribute("data-tt-dark") === dark)"""
"""Whether a page has the colors of a scheme; the script of the app notes those that Streamlit drew."""


@pytest.fixture(scope="session")
def accessibility() -> Callable[[Any], list[str]]:
    """Gives what axe-core finds on a page of a browser, light and dark, that keeps people from using it."""
    from axe_playwright_python.sync_playwright import Axe

    def find(page: Any) -> list[str]:
        problems = []
        page.add_style_tag(content="* { transition: none !important; animation: none !important }")
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.wait_for_function(COLORS_CHANGED, arg=scheme == "dark")
            page.wait_for_timeout(100)  # until they are drawn
            problems += [
                f"{scheme}: {found['id']} ({found['impact']}): {node['target']} {node['failureSummary']}"
                for found in Axe().run(page).response["violations"]
                if found["impact"] in ("serious", "critical")
                for node in found["nodes"]
            ]
        return problems

    return find


def write_colour_model(path: Path, *, classes: Sequence[str] = ("red", "green", "blue"), **changes: object) -> Path:
    """Write a model file that classifies red, green and blue images, and rejects gray ones as unknown.

    `changes` replace entries of its metadata; `metadata=None` leaves the metadata out.
    """
    import onnx
    from onnx import TensorProto, helper

    def floats(name: str, shape: list[int | str]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    centred = np.eye(3, dtype=np.float32) - 1 / 3
    constants = {"axes": np.array([1, 2]), "last": np.array([3]), "weights": centred / 25}
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["features"], keepdims=0),
        helper.make_node("MatMul", ["features", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        helper.make_node("ReduceMax", ["pixels", "last"], ["heatmaps"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 8, 8, 3])],
        [
            floats("probabilities", ["N", 3]),
            floats("logits", ["N", 3]),
            floats("features", ["N", 3]),
            floats("heatmaps", ["N", 8, 8]),
        ],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    info: dict[str, object] = {
        "classes": list(classes),
        "input_size": 8,
        "resize": "crop",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "temperature": 1.0,
        "unknown_threshold": 1.0,
        "architecture": "colours",
        "dataset": "colours",
        "accuracy": 0.9,
        "version": "0.1.0",
    }
    if changes.get("metadata", True) is not None:
        entry = model.metadata_props.add()
        entry.key, entry.value = "thirtytwo", json.dumps(info | changes)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="session")
def write_model() -> Callable[..., Path]:
    """`write_colour_model`, for tests that need one with other metadata."""
    return write_colour_model


@pytest.fixture(scope="session")
def colour_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model file: classes red, green, blue at 8×8; gray is unknown."""
    return write_colour_model(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture
def nothing_bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulates an installation without bundled models."""
    monkeypatch.setattr("thirtytwo.inference.library.BUNDLED", tmp_path / "nothing bundled")


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """A folder with red, green, blue and gray images of several sizes, and files that are not images."""
    folder = tmp_path / "images"
    folder.mkdir()
    colours = {"red": (250, 5, 5), "green": (5, 250, 5), "blue": (5, 5, 250), "grey": (128, 128, 128)}
    for number, (name, colour) in enumerate(colours.items(), start=1):
        Image.new("RGB", (8 * number, 10 * number), colour).save(folder / f"{name}.png")
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (folder / "notes.txt").write_text("not an image")
    return folder


def _ignore_permissions(ignore: bool) -> None:
    """Set whether root may read and write files whatever their permissions (capabilities(7)); for Linux.

    Unlike another user, root without these capabilities can still import modules from its home directory.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable
    both = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    if libc.capget(header, sets) == 0:
        sets[0] = sets[0] | (sets[1] & both) if ignore else sets[0] & ~both
        libc.capset(header, sets)


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder in a process that respects permissions, also where tests run as root."""
    place = Path(tempfile.mkdtemp())
    is_root = sys.platform == "linux" and os.geteuid() == 0
    if is_root:
        _ignore_permissions(False)
    try:
        yield place
    finally:
        if is_root:
            _ignore_permissions(True)
        for path in [place, *place.rglob("*")]:
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)
        shutil.rmtree(place, ignore_errors=True)


def write_finished_run(
    path: Path,
    *,
    seed: int = 0,
    skill: float = 2.0,
    settings: dict[str, object] | None = None,
    classes: Sequence[str] = ("red", "green", "blue"),
    truth: Sequence[int] | None = None,
    rows: Sequence[int] | None = None,
    data: dict[str, object] | None = None,
    split: str = "test",
    **environment: object,
) -> Path:
    """Write the files of a trained, evaluated and exported run: what comparisons read, and a working model file.

    `skill` decides how often it is right; `settings` are tables of its recipe; `data` what it says of its data.
    """
    from thirtytwo.config.recipe import Recipe
    from thirtytwo.evaluation.metrics import compute_metrics
    from thirtytwo.predictions import Predictions
    from thirtytwo.rundir import RunDir

    random = np.random.default_rng(1000 + seed)
    labels = np.arange(240) % len(classes) if truth is None else np.asarray(truth, dtype=np.int64)
    logits = random.normal(size=(len(labels), len(classes)))
    logits[np.arange(len(labels)), labels] += skill
    shares = np.exp(logits)
    probabilities = (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)
    positions = np.arange(len(labels)) if rows is None else np.asarray(rows, dtype=np.int64)
    given = Predictions(tuple(classes), labels, probabilities, positions)
    facts = {"spec": "colours", "name": "colours", "fingerprint": "abc", "classes": list(classes), "superclasses": None}

    run = RunDir.create(path)
    run.write_recipe(
        Recipe.model_validate({"name": "fast", "seed": seed, "model": {"name": "fastnet"}} | (settings or {}))
    )
    run.write_predictions(split, given)
    scores = compute_metrics(given, dataset="colours", split=split, resamples=20, test_evaluations=1)
    run.write_json(run.metrics, scores)
    held_out = {"seed": 0, "val_fraction": 0.1, "train_on": "train", "n_train": 900, "n_val": 100, "val_rows": []}
    run.write_json(run.split, held_out | {"test_evaluations": 1})
    run.write_json(
        run.environment,
        {
            "seconds": {"train": 100.0 + seed, "total": 120.0},
            "hardware": {"cpu": "Some CPU", "cores": 2, "memory_gb": 8.0, "gpu": None},
            "device": "cpu",
            "parameters": 1_970_000,
            "flops": 81_000_000,
            "data": facts | {"train": 900, "val": 100, "test": len(labels)} | (data or {}),
            "interrupted": False,
        }
        | environment,
    )
    write_colour_model(run.onnx)
    run.report.write_text("<!DOCTYPE html>")
    return path


@pytest.fixture(scope="session")
def finished_run() -> Callable[..., Path]:
    """`write_finished_run`, for tests that need runs and no training."""
    return write_finished_run


def make_images(count: int, *, size: int = 16, classes: int = 3, seed: int = 0) -> thirtytwo.data.types.ImageSet:
    """Labelled noise images, with a different brightness and color for each class."""
    from thirtytwo.data.types import ImageSet

    random = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % classes
    tones = np.random.default_rng(7).integers(40, 216, (classes, 3))
    images = tones[labels][:, None, None] + random.integers(-40, 40, (count, size, size, 3))
    names = tuple(f"class {index}" for index in range(classes))
    return ImageSet(images.clip(0, 255).astype(np.uint8), labels, names, np.arange(count, dtype=np.int64))


def make_folder(folder: Path, count: int, *, size: int = 16, seed: int = 0) -> Path:
    """The same images as PNG files, in one folder for each of three classes."""
    made = make_images(count, size=size, seed=seed)
    for number, (pixels, label) in enumerate(zip(made.images, made.labels, strict=True)):
        place = folder / f"class {label}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number}.png")
    return folder


TINY: dict[str, object] = {
    "model.options": {"groups": [{"width": 8}, {"width": 16}]},
    "train.precision": "float32",
    "train.threads": 1,
    "schedule.batch_size": 16,
    "schedule.epochs": 3,
}
"""Overrides that make training fast and identical on every machine."""


def make_recipe(**changes: object) -> thirtytwo.config.recipe.Recipe:
    """A tiny recipe; `changes` are its keys with `__` for the dot."""
    from thirtytwo.config.resolve import resolve_recipe

    overrides = TINY | {key.replace("__", "."): value for key, value in changes.items()}
    return resolve_recipe({"name": "tiny", "model": {"name": "fastnet"}}, overrides, classes=3, rows=48)


@pytest.fixture(scope="session")
def tiny() -> SimpleNamespace:
    """`images`, a `folder` of them, `recipe` and `overrides` for fast training."""
    return SimpleNamespace(images=make_images, folder=make_folder, recipe=make_recipe, overrides=TINY)


@pytest.fixture
def pretrain(tmp_path: Path) -> Callable[..., tuple[Path, Any]]:
    """`pretrain(model, classes)`: a run directory with random weights, and its network.

    Its images had 16 pixels, the mean (0.4, 0.5, 0.6) and the deviation (0.2, 0.25, 0.3).
    """
    import torch
    from safetensors.torch import save_file

    from thirtytwo.config.recipe import ModelSettings, Recipe
    from thirtytwo.models import MODELS
    from thirtytwo.rundir import RunDir

    def make(model: ModelSettings, classes: Sequence[str], name: str = "pretrained") -> tuple[Path, Any]:
        torch.manual_seed(5)
        net = MODELS.get(model.name)(len(classes), model.options)
        for module in net.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.8, 1.2)
        if hasattr(net, "stem") and isinstance(net.stem, torch.nn.Conv2d):
            net.prepare(torch.randn((64, 3, 16, 16)))
        facts = {"classes": list(classes), "input_size": 16, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}
        run = RunDir.create(tmp_path / name)
        run.write_recipe(Recipe(name="pretrained", model=model))
        save_file(net.state_dict(), run.weights, metadata={"thirtytwo": json.dumps(facts)})
        return run.path, net.eval()

    return make
