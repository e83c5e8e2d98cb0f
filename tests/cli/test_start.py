"""The entry point: the model that it opens ahead, and the end of the process."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import thirtytwo.inference.session as session_module
from thirtytwo.cli.start import Plain, open_model_ahead, read_plainly
from thirtytwo.inference.library import bundled_models


@pytest.mark.parametrize(
    ("words", "opened"),
    [
        (["--model", "cifar10-tiny"], "cifar10-tiny"),
        (["--model=cifar10-tiny", "--top", "3"], "cifar10-tiny"),
        (["--top", "3"], "imagenet"),
        (["--model", "no-such-model"], None),
        (["--model", "hf:someone/model"], None),
        (["--on", "ray"], None),
        (["--help"], None),
        (["."], None),
        ([".", "--model", "cifar10-tiny"], None),
        (["photos/*.jpg"], None),
        (["@photos.txt"], None),
        (["-"], None),
        ([f"{number}.jpg" for number in range(62)], "imagenet"),
        ([f"{number}.jpg" for number in range(63)], None),
    ],
)
def test_the_command_line_opens_the_model_that_it_names(words: list[str], opened: str | None) -> None:
    session_module._ahead.clear()
    open_model_ahead(["predict", "photo.jpg", *words])
    assert [path for path, _ in session_module._ahead] == [bundled_models()[name] for name in (opened,) if name]


def test_the_command_line_opens_the_model_of_a_run_directory(colour_model: Path) -> None:
    session_module._ahead.clear()
    open_model_ahead(["predict", "photo.jpg", "--model", str(colour_model.parent)])
    assert [path for path, _ in session_module._ahead] == [colour_model]


@pytest.mark.parametrize(
    ("words", "plain"),
    [
        (["a.jpg"], Plain(["a.jpg"], None, 5)),
        (["a.jpg", "--top", "3", "b c.jpg", "--model", "cifar10"], Plain(["a.jpg", "b c.jpg"], "cifar10", 3)),
        (["--model", "--top", "a.jpg"], None),
        (["a.jpg", "--model"], None),
        (["a.jpg", "--model", "x", "--model", "y"], None),
        (["a.jpg", "--model=x"], None),
        (["a.jpg", "--top", "0"], None),
        (["a.jpg", "--top", "1e3"], None),
        (["a.jpg", "--top", "9" * 5000], None),
        (["a.jpg", "--top", "٣"], None),
        (["a.jpg", ""], None),
        (["~/a.jpg"], None),
        (["a.jpg", "--model", "~/m.onnx"], None),
        (["-"], None),
        (["--", "a.jpg"], None),
        (["a.jpg", "-h"], None),
        (["a.jpg", "--format", "csv"], None),
        (["--model", "x"], None),
        ([], None),
    ],
)
def test_only_usual_command_lines_are_read_without_typer(words: list[str], plain: Plain | None) -> None:
    assert read_plainly(["predict", *words]) == plain


RUN = """
import atexit, sys, threading, time
atexit.register(print, "at exit")
class Kept:
    def __del__(self):
        print("freed")
kept = [Kept()]
kept.append(kept)
{more}
from thirtytwo.cli.start import run
run()
"""


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)).save(path)
    return path


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["{}", "--model", "cifar10-tiny"], 0),
        (["{}", "{}", "--model", "cifar10-tiny", "--top", "1"], 0),
        (["{}"], 0),
        (["{}", "no-such-file.jpg", "--model", "cifar10-tiny"], 2),
        (["{}", "--model", "no-such-model"], 2),
    ],
)
def test_a_command_line_has_the_same_result_with_and_without_typer(words: list[str], code: int, photo: Path) -> None:
    given = ["predict", *(word.format(photo) for word in words)]
    said = "atexit.register(lambda: print('typer' in sys.modules))"
    done = run(*given, more=said)
    assert done.returncode == code, done.stderr
    typed = run(*given, more=f"{said}\nimport thirtytwo.cli.start as start; start.read_plainly = lambda given: None")
    assert (typed.returncode, typed.stderr) == (done.returncode, done.stderr)
    assert ("True" in typed.stdout, "True" in done.stdout) == (True, code != 0)
    assert typed.stdout.replace("True", "False") == done.stdout.replace("True", "False")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_line_without_typer_is_interrupted(number: signal.Signals, photo: Path) -> None:
    more = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    more += "import thirtytwo.cli.predict as module\n"
    more += f"module.show_table = lambda *given: signal.raise_signal({int(number)})"
    done = run("predict", str(photo), "--model", "cifar10-tiny", more=more)
    assert (done.returncode, done.stderr) == (130, "Interrupted.\n")


def test_a_closed_pipe_is_no_error_without_typer(photo: Path) -> None:
    command = [sys.executable, "-c", RUN.format(more=""), "predict", *[str(photo)] * 5, "--model", "cifar10-tiny"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=120)
    assert err == b""


FOREIGN_THREAD = """
import _thread
_thread.start_new_thread(lambda: (threading.current_thread(), time.sleep(60)), ())
while threading.active_count() < 2:
    time.sleep(0.01)
"""


def run(*arguments: str, more: str = "") -> subprocess.CompletedProcess[str]:
    """Run `thirtytwo` in a process that says what it does at its end."""
    command = [sys.executable, "-c", RUN.format(more=more), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_a_command_that_is_done_ends_without_freeing_its_memory(photo: Path) -> None:
    patient = "import thirtytwo.cli.start as start; start._THREAD_SECONDS = 30"
    done = run("predict", str(photo), "--format", "csv", "--model", "cifar10-tiny", more=patient)
    assert (done.returncode, done.stderr) == (0, "")
    *_, result, last = done.stdout.splitlines()
    assert result.startswith(str(photo))
    assert last == "at exit"


def test_whole_output_arrives_where_it_is_collected(photo: Path) -> None:
    for number in range(999):
        (photo.parent / f"{number}.png").write_bytes(photo.read_bytes())
    done = run("predict", str(photo.parent), "--format", "json", "--top", "10", "--model", "cifar10-tiny")
    assert len(json.loads(done.stdout.partition("at exit")[0])) == 1_000


@pytest.mark.parametrize(
    ("arguments", "more", "code"),
    [
        (["predict", "no-such-file.jpg"], "", 2),
        (["recipes"], "sys.modules['torch'] = None", 0),
        (["recipes"], "threading.Thread(target=lambda: (time.sleep(2), print('thread ends'))).start()", 0),
        (["recipes"], "sys.setprofile(lambda *_: None); atexit.register(sys.setprofile, None)", 0),
        (["recipes"], "sys.settrace(lambda *_: None); atexit.register(sys.settrace, None)", 0),
    ],
    ids=["an error", "with PyTorch", "with a thread", "with a profiler", "with a debugger"],
)
def test_other_processes_end_as_usual(arguments: list[str], more: str, code: int) -> None:
    done = run(*arguments, more=more)
    assert done.returncode == code
    assert done.stdout.endswith("at exit\nfreed\n")
    assert ("thread ends" in done.stdout) == ("Thread" in more)


def test_a_thread_that_python_did_not_start_does_not_matter() -> None:
    done = run("recipes", more=FOREIGN_THREAD)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_output_at_the_end_is_no_error() -> None:
    done = run("recipes", more="atexit.register(sys.stdout.close)")
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif("glibc" not in platform.libc_ver(), reason="glibc's allocator")
@pytest.mark.parametrize(
    ("words", "before", "after"),
    [
        (["train", "nope"], None, "glibc.malloc.tcache_count=0"),
        (["tune", "nope"], "glibc.malloc.check=0", "glibc.malloc.check=0:glibc.malloc.tcache_count=0"),
        (["train", "nope"], "glibc.malloc.tcache_count=7", "glibc.malloc.tcache_count=7"),
        (["data", "show", "nope"], None, None),
    ],
)
def test_a_training_starts_without_caches_of_small_memory(
    words: list[str], before: str | None, after: str | None
) -> None:
    script = "import atexit, os, sys; from thirtytwo.cli.start import run\n"
    script += "atexit.register(lambda: print(os.getpid(), os.environ.get('GLIBC_TUNABLES')))\nrun()"
    environment = {key: value for key, value in os.environ.items() if key != "GLIBC_TUNABLES"}
    environment |= {} if before is None else {"GLIBC_TUNABLES": before}
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script, *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "'nope'" in err
    assert out.split() == [str(process.pid), str(after)], "the same process, once"


def test_an_interruption_before_the_command_line_is_read() -> None:
    """While Python imports, a signal can arrive anywhere."""
    more = "import builtins, signal; real = builtins.__import__\n"
    more += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in the background of some shells
    more += (
        "def stopped(name, *rest):\n    if name == 'thirtytwo.cli.main':\n        signal.raise_signal(signal.SIGINT)\n"
    )
    done = run("recipes", more=f"{more}    return real(name, *rest)\nbuiltins.__import__ = stopped")
    assert (done.returncode, done.stderr) == (130, "Interrupted.\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which is on Linux")
def test_output_that_cannot_be_written_is_an_error() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "thirtytwo", "recipes"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert "Cannot write the output: No space left on device" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "no-such-data"], "Unknown data set 'no-such-data'"),
        (["train", "./no-such-data"], "There is no folder './no-such-data'"),
        (["train", "digits", "--recipe", "no-such-recipe"], "Unknown recipe 'no-such-recipe'"),
        (["train", "digits", "--run", "."], ". exists and is not empty."),
        (["train", "digits", "--resume", "--run", "no-such-run"], "There is no run directory 'no-such-run'"),
        (["tune", "no-such-data"], "Unknown data set 'no-such-data'"),
        (["ensemble", "no-such-run", "other"], "There is no run directory 'no-such-run'"),
        (["export", "cifar10-tiny", "--format", "no-such-format"], "Unknown"),
        (["export", "no-such-model", "--format", "onnx-int8"], "Unknown model 'no-such-model'"),
    ],
)
def test_names_are_checked_before_pytorch_is_imported(arguments: list[str], said: str, photo: Path) -> None:
    more = "import importlib.machinery as m; find = m.PathFinder.find_spec\n"
    more += "m.PathFinder.find_spec = lambda n, *a: find(n, *a) if n != 'torch' else print('imports torch')"
    program = RUN.format(more=more)
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=photo.parent)
    assert done.returncode == 2
    assert done.stderr.startswith(f"thirtytwo: {said}")
    assert "imports torch" not in done.stdout
