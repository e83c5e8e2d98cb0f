"""Every code block of README and docs is run, except commands that `NOT_RUN` lists with a reason; all are checked.

Commands are checked against the command line and the Makefile, other blocks against the recipe schema or their syntax.

The blocks of a page are run from top to bottom in one folder. Whatever they presuppose is made there when a command
first names it: `my-images`, `photo.jpg`, a finished run. Pages that are quick to run, and the quick blocks of the
others, are run with runs that were never trained; the test of a whole page trains. The text that users read is run with
these changes:

- training takes one epoch on the CPU, and reads at most 100 images of CIFAR, which is noise in CIFAR's layout, with an
  imbalance of 10 instead of 100, at which classes would have no image left;
- out-of-distribution detection is measured on 100 images of each default set;
- `tune` has two trials, each `serve` and `app` a free port. They are ended once they respond.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image

from thirtytwo.cli.main import app, run_command
from thirtytwo.config.recipe import Recipe
from thirtytwo.config.resolve import read_recipe
from thirtytwo.config.settings import parse_settings
from thirtytwo.registry import Registry

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ARCHIVES = ROOT / "tests" / "data" / "sources" / "test_cifar_archive.py"
BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        lines = self.code.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("language")) + 1
        yield Block(page, line, found["language"], found["code"])


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def parses(arguments: list[str]) -> None:
    """The command line accepts these arguments; nothing is run."""
    command = typer.main.get_command(app)
    leaves = [command]
    for leaf in leaves:
        below = getattr(leaf, "commands", {})
        leaves.extend(below.values())
        leaf.callback = None
        if not below:  # some take their callback with their options, once they are used
            leaf.invoke = lambda context: None
    command.main(arguments, prog_name="thirtytwo", standalone_mode=False)


def make_knows(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), target


def can_be_installed(what: str) -> None:
    found = re.fullmatch(r"(?:thirtytwo|\.)(?:\[(?P<extras>[\w,]+)\])?", what)
    assert found is not None, what
    assert set((found["extras"] or "train").split(",")) <= set(PROJECT["optional-dependencies"]), what


def is_read_somewhere(variable: str) -> None:
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    assert any(variable in source for source in sources), f"nothing reads {variable}"


def check_command(words: list[str], page: str = "") -> None:
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        is_read_somewhere(words.pop(0).partition("=")[0])
    match words:
        case ["thirtytwo", *arguments]:
            parses(arguments)
        case ["make", *targets]:
            for target in targets:
                make_knows(target)
        case ["pip", "install", what]:
            can_be_installed(what)
        case ["curl", *_] | ["docker", "run", *_] | ["ray", "start" | "stop" | "status", *_]:
            pass
        case ["docker", "build", *_, "."]:
            assert (ROOT / "Dockerfile").is_file()
        case ["docker", "compose", "-f", file, "up", *_] | ["kubectl", "apply", "-f", file]:
            assert (ROOT / file).is_file(), file  # tests/test_deploy.py checks what it holds
        case ["kubectl", "create", "secret", *_] | ["ray", "start" | "stop" | "get-auth-token", *_]:
            pass
        case ["python", script, *_]:
            assert (ROOT / script).is_file(), script
        case ["source", ".venv/bin/activate"]:
            pass
        case ["npm" | "tar" | "mkdir" | "cp", *_] if page == "browser.md":
            pass  # run by tests/inference/test_browser.py
        case _:
            pytest.fail(f"test_docs.py has no check for this command: {shlex.join(words)}")


@pytest.mark.parametrize(
    "line",
    [
        "thirtytwo train",
        "thirtytwo train cifar10 --bogus 1",
        "thirtytwo fly",
        "make coffee",
        "pip install thirtytwo[fly]",
        "python gone.py",
        "THIRTYTWO_FLY=1 thirtytwo demo",
        "rm -r runs",
    ],
)
def test_invalid_commands_fail(line: str) -> None:
    with pytest.raises((AssertionError, typer.TyperException, pytest.fail.Exception)):
        check_command(shlex.split(line))


def check_recipe(code: str) -> None:
    needed = {"name": "own", "model": {"name": "fastnet"}}
    parse_settings(Recipe, {**needed, **tomllib.loads(code)}, "recipe")


CHECKS: dict[str, Callable[[Block], Any]] = {
    "bash": lambda block: [check_command(words, block.page.name) for words in block.commands],
    "python": lambda block: compile(block.code, str(block), "exec"),
    "json": lambda block: json.loads(block.code),
    "html": lambda block: None,
    "nginx": lambda block: None,
    "dockerfile": lambda block: None,
    "javascript": lambda block: None,
    "toml": lambda block: check_recipe(block.code),
    "text": lambda block: None,
}


@pytest.mark.long
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_block_is_valid(block: Block) -> None:
    assert block.language in CHECKS, f"{block}: name the language of this block"
    CHECKS[block.language](block)


NOT_RUN = {
    "make ": "installs packages, or runs all tests",
    "pip install ": "installs packages; which extras there are is checked",
    "source ": "the tests run in an environment already",
    "docker |kubectl ": "needs Docker or Kubernetes; tests/test_deploy.py checks the files",
    "ray ": "starts processes on ports of this machine that others may use, and writes a token into the home folder",
    ".*(HEAD:6379|s3://)": "needs other machines; tests/scale runs the same on a cluster on this machine",
    ".*hf:owner/name": "needs the hub; tests/inference runs the same with a server in its place",
    ".*--pretrained (timm|a2_in1k)": "downloads weights",
    ".*my-photos .*architecture=convnext_tiny": "downloads weights",
    ".*my-photos .*architecture=tf_efficientnet_lite2": "needs the extra weights, as tests of photos do",
    ".*benchmarks/weights/": "needs the real data, which the teacher was trained on, and trains for an hour",
    "curl ": "tests/serve/test_examples.py runs it, and the Python and JavaScript of that page",
    "npm |tar |mkdir |cp ": "tests/inference/test_browser.py runs it",
    "python benchmarks/": "measures for many minutes",
}
"""Beginnings of commands, as patterns, that are not run here, and why."""

RUN_ELSEWHERE = {"serve.md"}
"""Pages whose Python is run by other tests: see `curl` above."""

QUICK = {("predict",), ("models",), ("recipes",), ("cache",), ("--help",)} | {
    ("data", verb) for verb in ("show", "doctor", "checks", "export")
}
"""Commands that take about a second or two, unless with an option of `SLOW`."""
SLOW = {"predict": {"--on", "--tta"}, "show": {"--html"}, "doctor": {"--thorough", "--predictions"}}


def is_listed(words: list[str]) -> bool:
    line = " ".join(words)
    return any(re.match(pattern, line) for pattern in NOT_RUN)


def without_variables(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """The variables that a command line sets, and the command."""
    count = next(index for index, word in enumerate(words) if not re.fullmatch(r"[A-Z_0-9]+=.*", word))
    return dict(word.split("=", 1) for word in words[:count]), words[count:]


def runs(block: Block, *, quick: bool) -> bool:
    """Whether a block is run: as a whole page is, or among the quick ones."""
    if block.language == "python":
        return not quick and block.page.name not in RUN_ELSEWHERE
    if block.language != "bash":
        return False
    commands = [words for words in block.commands if not is_listed(words)]
    return bool(commands) and (not quick or all(map(is_quick, commands)))


def is_quick(words: list[str]) -> bool:
    verb = words[1:3] if words[1] == "data" else words[1:2]
    return tuple(verb) in QUICK and not SLOW.get(verb[-1], set()) & set(words)


QUICK_PAGES = [page for page in PAGES if any(runs(block, quick=True) for block in blocks_of(page))]
LONG_PAGES = [
    page for page in PAGES if any(runs(block, quick=False) and not runs(block, quick=True) for block in blocks_of(page))
]


def test_every_command_is_run_or_listed() -> None:
    """So that a new block is run, or gets a reason why it is not."""
    lines = {block: words for block in BLOCKS if block.language == "bash" for words in block.commands}
    for block, words in lines.items():
        _, command = without_variables(words)
        assert command[0] == "thirtytwo" or is_listed(words), f"{block}: run it or list it: {shlex.join(words)}"
    blocks = [block for block in BLOCKS if block.language == "bash"]
    every = [" ".join(words) for block in blocks for words in block.commands]
    assert [pattern for pattern in NOT_RUN if not any(re.match(pattern, line) for line in every)] == []


def write_images(folder: Path, *, seed: int, size: tuple[int, int] = (48, 36), per_class: int = 90) -> None:
    """Noise of three classes, each with a colour of its own.

    By default there are enough images that evaluate --coverage 0.95 has enough held out.
    """
    random = np.random.default_rng(seed)
    width, height = size
    for number, name in enumerate(("cat", "dog", "parrot")):
        (folder / name).mkdir(parents=True)
        for index in range(per_class):
            pixels = random.integers(0, 120, (height, width, 3)) + np.eye(3, dtype=np.int64)[number] * 120
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index}.jpg")


def write_table(file: Path) -> None:
    """A CSV file with both sets of column names on its page."""
    write_images(file.parent / "photos", seed=3)
    lines = ["file,label,split,group,photo,species,patient"]
    for index, path in enumerate(sorted((file.parent / "photos").rglob("*.jpg"))):
        name, label = path.relative_to(file.parent).as_posix(), path.parent.name
        group = f"{label}{index // 2}"
        lines.append(f"{name},{label},{'test' if index % 5 < 2 else 'train'},{group},{name},{label},{group}")
    file.write_text("\n".join(lines), encoding="utf-8")


def write_cifar(form: str, place: Path) -> Path:
    """CIFAR in another form, as the tests of its archives write it; returns the folder."""
    spec = importlib.util.spec_from_file_location("cifar_archive", ARCHIVES)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder: Path = module.write(form, place, per_batch=40)
    module.pack(folder)
    return folder


def write_vit(file: Path) -> None:
    """Random weights for the network of recipe transfer-vit, with timm's names."""
    import timm
    from safetensors.torch import save_file

    file.parent.mkdir()
    net = timm.create_model(read_recipe("transfer-vit").model.options["architecture"], pretrained=False)
    save_file(net.state_dict(), file)


MAKE: dict[str, Callable[[Path], object]] = {
    "my-images": lambda path: write_images(path, seed=0),
    "more-images": lambda path: write_images(path, seed=1),
    "photo.jpg": lambda path: Image.new("RGB", (48, 36), (200, 90, 40)).save(path),
    "my-photos": lambda path: write_images(path, seed=2, size=(128, 96), per_class=30),
    "labels.csv": write_table,
    "my-parquet": lambda path: run_command(["data", "export", "my-images", "--format", "parquet", "--out", str(path)]),
    "cifar-10-batches-bin": lambda path: write_cifar("binary 10", path.parent),
    "cifar-100-python.tar.gz": lambda path: write_cifar("python 100", path.parent),
    "weights/vit.safetensors": write_vit,
    "my-recipe.toml": lambda path: path.write_text('name = "own"\n[model]\nname = "fastnet"\n', encoding="utf-8"),
    "data": lambda path: path.symlink_to(os.environ["THIRTYTWO_DATA"]),
}
"""What makes each file and folder that pages presuppose."""

WRITTEN = {"--run", "--out", "--html", "--sheet", "--fix-plan"}
"""Options whose values a command writes."""

DATA_OF_RUNS = {
    "cifar10": "cifar10",
    "changed": "cifar10",
    "teacher": "cifar10",
    "cifar100": "cifar100",
    "first": "digits",
}
"""What runs of these names were trained on; others on the data that the command names, else on `my-images`."""

START_SECONDS = 300
"""Time for a server to respond, on a busy machine."""


@dataclass
class Runner:
    """Runs blocks in the current folder, and makes what they presuppose."""

    folder: Path
    make_run: Callable[[str, Path], None]
    port: int
    errors: Callable[[], str]
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "__main__"})
    servers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def run(self, block: Block) -> None:
        if block.language == "python":
            exec(compile(block.code, str(block), "exec"), self.names)
            return
        for words in block.commands:
            if not is_listed(words):
                self.run_command(words, f"{block}: {shlex.join(words)}")

    def run_command(self, words: list[str], where: str) -> None:
        variables, (_, *arguments) = without_variables(words)
        self.supply(arguments, variables)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            if arguments[0] in ("app", "serve") and "--update" not in arguments:
                self.serve(arguments, where)
                return
            if arguments[0] == "tune":
                arguments = shortened(arguments)
            if {"--on", "--devices"} & set(arguments):  # other processes, which train as they were asked
                brief = ["--epochs", "1", "--device", "cpu"] if arguments[0] in ("train", "tune") else []
                command = [sys.executable, "-m", "thirtytwo", *arguments, *brief]
                done = subprocess.run(command, capture_output=True, text=True, timeout=2 * START_SECONDS)
                code, errors = done.returncode, done.stderr
            else:
                code, errors = run_command(arguments), self.errors()
        assert code == 0, f"{where}\nended with {code}: {errors}"

    def supply(self, arguments: list[str], variables: dict[str, str]) -> None:
        """Make the files, folders and runs that a command names and does not write."""
        read = [
            word.partition("?")[0].rpartition("=")[2]
            for option, word in itertools.pairwise(arguments)
            if option not in WRITTEN or "--resume" in arguments
        ]
        read += variables.values()
        for word in read:
            for name, make in MAKE.items():
                if (word == name or word.startswith((f"{name}/", f"{name}*"))) and not Path(name).exists():
                    make(self.folder / name)
            run = Path(*Path(word).parts[:2])
            if word.startswith("runs/") and not run.exists():
                data = arguments[1] if arguments[0] == "train" else "my-images"
                self.make_run(DATA_OF_RUNS.get(run.name, data), self.folder / run)
        if "--group-by" in arguments:
            for path in Path("my-images").rglob("?*.jpg"):
                path.rename(path.with_name(f"patient{int(path.stem) // 2}_{path.name}"))

    def serve(self, arguments: list[str], where: str) -> None:
        """Start a server, wait until it responds, and end it; one on Ray is ended by `close`."""
        log = self.folder / "server.log"
        port = str(self.port + len(self.servers))
        command = [sys.executable, "-m", "thirtytwo", *arguments, "--port", port]
        command += ["--no-browser"] if arguments[0] == "app" else []
        with log.open("wb") as stream:
            server = subprocess.Popen(command, stdout=stream, stderr=stream)
        self.servers.append(server)
        health = "_stcore/health" if arguments[0] == "app" else "health/ready"
        ready = False
        deadline = time.monotonic() + START_SECONDS
        while not ready and time.monotonic() < deadline:
            assert server.poll() is None, f"{where}\nended with {server.returncode}: {log.read_text()}"
            time.sleep(0.2)
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/{health}", timeout=5) as answer:
                ready = answer.status == 200
        assert ready, f"{where}\ndid not respond: {log.read_text()}"
        if "--on" not in arguments:
            self.end(server)

    def end(self, server: subprocess.Popen[bytes]) -> None:
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) in (0, -signal.SIGTERM)

    def close(self) -> None:
        for server in self.servers:
            if server.poll() is None:
                server.terminate()
                try:
                    server.wait(60)
                except subprocess.TimeoutExpired:
                    server.kill()
                    server.wait()


def shortened(arguments: list[str]) -> list[str]:
    """A command of `tune` with two trials of one epoch."""
    count = arguments.index("--trials") + 1
    brief = [*arguments[:count], "2", *arguments[count + 1 :]]
    return brief if "--on" in brief else [*brief, "--epochs", "1", "--device", "cpu"]


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forgets what the blocks of a page register, so that it is not there in other tests."""
    register, registered = Registry.register, []

    def note(registry: Registry[Any], name: str) -> Callable[[Any], Any]:
        registered.append((registry, name))
        return register(registry, name)

    monkeypatch.setattr(Registry, "register", note)
    yield
    for registry, name in registered:
        if getattr(registry._entries.get(name), "__module__", None) == "__main__":  # not what was imported meanwhile
            del registry._entries[name]


@pytest.fixture
def make_runner(
    tmp_path: Path,
    noise_cifar: Path,
    registries: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Callable[[Callable[[str, Path], None]], Runner]]:
    """Gives a `Runner` in a folder with `my-images` and `photo.jpg`, which makes runs with the function given."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THIRTYTWO_DATA", str(noise_cifar))
    MAKE["my-images"](tmp_path / "my-images")
    MAKE["photo.jpg"](tmp_path / "photo.jpg")
    made: list[Runner] = []

    def make(make_run: Callable[[str, Path], None]) -> Runner:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        made.append(Runner(tmp_path, make_run, port, lambda: capsys.readouterr().err))
        return made[-1]

    with TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as ray:  # its paths must be short
        monkeypatch.setenv("RAY_TMPDIR", ray)  # no other cluster on this machine is found
        yield make
        for runner in made:
            runner.close()


@pytest.mark.slow
@pytest.mark.parametrize("page", QUICK_PAGES, ids=lambda page: page.stem)
def test_quick_blocks_of_page_run(
    page: Path, make_runner: Callable[..., Runner], finished_run: Callable[..., Path]
) -> None:
    runner = make_runner(lambda data, run: finished_run(run))
    for block in blocks_of(page):
        if runs(block, quick=True):
            runner.run(block)


@pytest.fixture(scope="session")
def trained_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a copy of the first run that was trained on each data set."""
    return tmp_path_factory.mktemp("trained")


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", LONG_PAGES, ids=lambda page: page.stem)
def test_page_runs_top_to_bottom(
    page: Path, make_runner: Callable[..., Runner], trained_runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workflow = pytest.importorskip("thirtytwo.workflows.train")
    train = workflow.train

    def train_briefly(data: str, **settings: Any) -> Any:
        limit = {"limit_train": 100} if data in ("cifar10", "cifar100") else {}
        data = data.replace("imbalance=100", "imbalance=10")
        return train(data, **{**settings, "epochs": 1, "device": "cpu"} | limit)

    monkeypatch.setattr(workflow, "train", train_briefly)
    monkeypatch.setattr("thirtytwo.workflows.series.train", train_briefly)
    monkeypatch.setattr("thirtytwo.evaluation.ood.FULL_SIDE", 1)  # sets of images with a longer side have
    monkeypatch.setattr("thirtytwo.evaluation.ood.FEWEST", 100)  # this number of images

    def make_run(data: str, run: Path) -> None:
        kept = trained_runs / data
        if not kept.exists():
            train_briefly(data, run=kept)
        shutil.copytree(kept, run)

    runner = make_runner(make_run)
    for block in blocks_of(page):
        if runs(block, quick=False):
            runner.run(block)
