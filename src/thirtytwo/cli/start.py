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
from itertools import pairwise
from pathlib import Path

from thirtytwo.errors import ThirtytwoError

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


def _end_process() -> None:
    """End a successful process without freeing its memory piece by piece, which takes a quarter of a short command.

    Functions registered with `atexit` run. Not with other threads, whose end Python waits for, or with PyTorch, whose
    libraries release devices at the end.
    """
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(_THREAD_SECONDS)
    if threading.active_count() > 1 or "torch" in sys.modules:
        return
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # reported as without this function
        return
    os._exit(0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # it would search all installed packages for them
    given = sys.argv[1:] if arguments is None else arguments
    if list(given[:1]) == ["predict"]:
        open_model_ahead(given)
    from thirtytwo.cli.main import main  # with Typer; imported while the model is opened

    main(given)


def open_model_ahead(given: Sequence[str]) -> None:
    """Start to open the model of a command line of `predict`: it takes about as long as importing what parses the line.

    Not if there may be many images, for which the model is opened with a share of the threads for each of several
    batches. Anything wrong with the model is reported where it is used.
    """
    if any(word in ("-h", "--help") or word.partition("=")[0] == "--on" for word in given):
        return
    from thirtytwo.inference.hub import PREFIX
    from thirtytwo.inference.library import default_model, find_model
    from thirtytwo.inference.session import MANY, open_ahead

    named = [value for option, value in pairwise(given) if option == "--model"]
    named += [word.removeprefix("--model=") for word in given if word.startswith("--model=")]
    if len(named) > 1 or any(name.startswith(PREFIX) for name in named):
        return
    with suppress(ThirtytwoError, OSError, ValueError):
        if len(given) > MANY or any(_names_several(word) for word in given if word not in named):
            return
        open_ahead(find_model(named[0]) if named else default_model())


def _names_several(word: str) -> bool:
    """Whether an argument may be a folder, a glob or a list of images."""
    from thirtytwo.images.lists import LIST_MARK
    from thirtytwo.io import is_directory

    return word == "-" or word.startswith(LIST_MARK) or glob.has_magic(word) or is_directory(Path(word))
