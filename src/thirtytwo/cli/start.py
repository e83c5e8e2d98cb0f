"""The entry point of the command `thirtytwo`, which keeps short commands short.

What takes longest to start begins before the command line is parsed, and a command that is done ends at once.
"""

from __future__ import annotations

import atexit
import glob
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

INTERRUPTED = 130
"""Exit code after Ctrl-C."""
_MOST_DIGITS = 6
"""Digits of a number of classes up to which it is read without Typer."""
_NO_CACHES = "glibc.malloc.tcache_count=0"
"""A setting of glibc, in the variable GLIBC_TUNABLES."""
_THREAD_SECONDS = 0.05
"""How long the end waits for a thread: those that decoded images may not have ended yet."""


def run() -> None:
    """Run the command line of this process and end the process with its code."""
    try:
        main()
    except SystemExit as exit:
        if exit.code == 0:
            _end_process()
        raise
    except KeyboardInterrupt:  # before the command line handles it itself
        print("Interrupted.", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _end_process() -> None:
    """End a successful process without freeing its memory piece by piece, which takes a quarter of a short command.

    Functions registered with `atexit` run. Not with other threads, whose end Python waits for, with PyTorch, whose
    libraries release devices at the end, or under a profiler or debugger, which has something to do at the end too.
    """
    if "torch" in sys.modules or _is_observed():
        return
    for thread in threading.enumerate():
        with suppress(RuntimeError, AssertionError):  # this thread, and those that Python did not start
            thread.join(_THREAD_SECONDS)
    if threading.active_count() > 1:
        return
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):  # reported as without this function
        return
    os._exit(0)


def _is_observed() -> bool:
    """Whether a profiler, a debugger or `python -i` runs the command."""
    monitoring = getattr(sys, "monitoring", None)  # of Python 3.12
    tools = [] if monitoring is None else [tool for tool in range(6) if monitoring.get_tool(tool) is not None]
    return bool(sys.gettrace() or sys.getprofile() or sys.flags.inspect or tools)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # it would search all installed packages for them
    given = sys.argv[1:] if arguments is None else arguments
    if arguments is None and given[:1] in (["train"], ["tune"]):
        restart_without_small_caches()
    if list(given[:1]) == ["predict"]:
        open_model_ahead(given)
        plain = read_plainly(given)
        if plain is not None:
            sys.exit(_predict(plain, given))
    from thirtytwo.cli.main import main  # with Typer; imported while the model is opened

    main(given)


@dataclass(frozen=True)
class Plain:
    """A command line of `predict` that names images and at most the model and the number of classes."""

    images: list[str]
    model: str | None
    top: int


def read_plainly(given: Sequence[str]) -> Plain | None:
    """Read the usual command lines of `predict`, for which Typer would take longer than classifying an image.

    None for all others, also wrong ones, which Typer reads and explains.
    """
    from thirtytwo.cli.formats import DEFAULT_TOP

    words, images = list(given[1:]), []
    values = {"--model": None, "--top": str(DEFAULT_TOP)}
    used = set()
    while words:
        word = words.pop(0)
        if word in values and word not in used and words:
            used.add(word)
            values[word] = word = words.pop(0)
        else:
            images.append(word)
        if not word or word.startswith(("-", "~")):
            return None
    top = values["--top"] or ""
    if not images or not (top.isascii() and top.isdigit() and len(top) <= _MOST_DIGITS and int(top)):
        return None
    return Plain(images, values["--model"], int(top))


def _predict(plain: Plain, given: Sequence[str]) -> int:
    from thirtytwo.cli.console import brief_warnings
    from thirtytwo.cli.predict import predict
    from thirtytwo.process import interrupted_by_sigterm, own_process, quiet_loggers

    prepare_streams()
    try:
        with own_process(), interrupted_by_sigterm(), brief_warnings(), quiet_loggers("matplotlib"):
            predict(plain.images, plain.model, plain.top)
        sys.stdout.flush()
    except BaseException as error:
        from thirtytwo.cli.main import report_error

        return report_error(error, given)
    return 0


def prepare_streams() -> None:
    """Replace standard streams that the caller closed, and let names that cannot be encoded not end the command."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115, PTH123 (until the end)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def restart_without_small_caches() -> None:
    """Replace this process by itself without glibc's caches of small pieces of memory, for a training on Linux.

    PyTorch asks for aligned memory, for which glibc takes a larger piece and cuts off its ends. In these caches, the
    ends stay apart from the piece once that is freed, so it is too small for the next request of the same size, and
    each step of a training leaves large holes. The caches can be turned off only when a process starts.
    """
    chosen = os.environ.get("GLIBC_TUNABLES", "")
    if not sys.platform.startswith("linux") or _NO_CACHES.partition("=")[0] in chosen or _is_observed():
        return
    try:
        library = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (OSError, ValueError):  # another C library
        return
    words = sys.orig_argv[1:]
    if sys.argv[0] in ("", "-"):  # of a script that Python reads from its input, which can be read once
        return
    if library.startswith("glibc") and sys.executable and words[-len(sys.argv[1:]) :] == sys.argv[1:]:
        environment = {**os.environ, "GLIBC_TUNABLES": f"{chosen}:{_NO_CACHES}".lstrip(":")}
        with suppress(OSError):  # where it may not be started, the training needs more memory
            os.execve(sys.executable, [sys.executable, *words], environment)


def open_model_ahead(given: Sequence[str]) -> None:
    """Start to open the model of a command line of `predict`: it takes about as long as importing what parses the line.

    Not if there may be many images, for which the model is opened with a share of the threads for each of several
    batches. Anything wrong with the model is reported where it is used.
    """
    if any(word in ("-h", "--help") or word.partition("=")[0] == "--on" for word in given):
        return
    named = [value for option, value in pairwise(given) if option == "--model"]
    named += [word.removeprefix("--model=") for word in given if word.startswith("--model=")]
    with suppress(Exception):
        from thirtytwo.inference.hub import PREFIX
        from thirtytwo.inference.library import default_model, find_model
        from thirtytwo.inference.session import MANY, open_ahead

        if len(named) > 1 or any(name.startswith(PREFIX) for name in named):
            return
        if len(given) > MANY or any(_names_several(word) for word in given if word not in named):
            return
        open_ahead(find_model(named[0]) if named else default_model())


def _names_several(word: str) -> bool:
    """Whether an argument may be a folder, a glob or a list of images."""
    from thirtytwo.images.lists import LIST_MARK
    from thirtytwo.io import is_directory

    return word == "-" or word.startswith(LIST_MARK) or glob.has_magic(word) or is_directory(Path(word))
