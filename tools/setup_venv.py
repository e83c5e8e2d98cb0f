"""Create .venv and install thirtytwo into it. Needs only Python and pip.

uv installs the packages, because pip needs many minutes to resolve this many. PyTorch comes from PyTorch's own index if
it can be reached (the CPU build, or the CUDA build for the driver), otherwise from the default package index, whose
Linux build always includes CUDA.

    python3 tools/setup_venv.py [--extras train,app,serve,pdf,scale,track,docs] [--no-dev]
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "thirtytwo-setup"
OLDEST = (3, 11)
EXTRAS = "train,app,serve,pdf,scale,track,docs"
PROBE_SECONDS = 20


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--extras", default=EXTRAS, help="comma-separated; default: %(default)s")
    options.add_argument("--no-dev", action="store_true", help="leave out the development tools")
    chosen = options.parse_args()
    if sys.version_info < OLDEST:
        hand_over()
    python = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not works(python, "-c", ""):
        say("creating .venv with Python {}.{}".format(*sys.version_info[:2]))
        make_venv(python)
    uv = [str(python), "-m", "uv"]
    if not works(*uv, "--version"):
        say("installing uv into .venv")
        install_uv(python)
    install = [*uv, "pip", "install", "--python", str(python), "--constraints", str(ROOT / "constraints.txt")]
    install += ["--compile-bytecode"]  # here, instead of at the first start of each command
    what = ["--editable", f"{ROOT}[{chosen.extras}]"]
    if not chosen.no_dev:
        what += ["--group", f"{ROOT / 'pyproject.toml'}:dev"]
    say(f"installing thirtytwo[{chosen.extras}]")
    if works(python, "-c", "import torch, torchvision"):
        done = run([*install, *what])  # keeps the installed build of PyTorch
    elif pytorch_index_answers(install):
        done = run([*install, "--torch-backend", "auto", *what])
    else:
        say("PyTorch's own index cannot be reached; using the default index (its Linux build includes CUDA)")
        done = run([*install, *what])
    if not done:
        sys.exit("setup: the installation failed; see the lines above.")
    STAMP.touch()


def say(text: str) -> None:
    print(f"setup: {text}", flush=True)


def run(command: "list[str]") -> bool:
    return subprocess.run(command, check=False).returncode == 0


def works(*command: "str | Path") -> bool:
    """Whether `command` runs and succeeds."""
    try:
        return subprocess.run([str(word) for word in command], check=False, capture_output=True).returncode == 0
    except OSError:
        return False


def hand_over() -> None:
    """Continue with a newer Python of this machine."""
    for name in ("python3.13", "python3.12", "python3.11", "python3.14"):
        found = shutil.which(name)
        if found:
            sys.exit(subprocess.run([found, *sys.argv], check=False).returncode)
    sys.exit(
        "setup: thirtytwo needs Python {}.{} or newer, and {} is {}.{}. "
        "Install one, or name it: make setup PYTHON=python3.12".format(*OLDEST, sys.executable, *sys.version_info[:2])
    )


def make_venv(python: Path) -> None:
    if VENV.exists():
        shutil.rmtree(VENV)
    quiet = {"check": False, "capture_output": True, "text": True}
    made = subprocess.run([sys.executable, "-m", "venv", str(VENV)], **quiet)
    if made.returncode != 0:  # Debian without python3-venv lacks only ensurepip
        shutil.rmtree(VENV, ignore_errors=True)
        made = subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(VENV)], **quiet)
    if made.returncode != 0 or not works(python, "-c", ""):
        sys.exit(f"setup: .venv could not be created.\n{made.stdout}{made.stderr}")


def install_uv(python: Path) -> None:
    pin = next(
        (
            line
            for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
            if line.startswith("uv==")
        ),
        "uv",
    )
    install = ["install", "--quiet", "--disable-pip-version-check", pin]
    own, outer = [str(python), "-m", "pip"], [sys.executable, "-m", "pip", "--python", str(python)]
    if works(*own, "--version"):
        done = run([*own, *install])
    elif works(*outer[:3], "--version"):
        done = run([*outer, *install])
    else:
        sys.exit(f"setup: {sys.executable} has no pip. On Debian and Ubuntu: apt install python3-pip python3-venv")
    if not done:
        sys.exit("setup: uv could not be installed; see the lines above.")


def pytorch_index_answers(install: "list[str]") -> bool:
    """Whether PyTorch's own index can be reached, checked in seconds without a large download."""
    probe = [*install, "--dry-run", "--no-deps", "--torch-backend", "auto", "torch"]
    timeouts = {"UV_HTTP_TIMEOUT": "10", "UV_HTTP_CONNECT_TIMEOUT": "5", "UV_HTTP_RETRIES": "0"}
    try:
        done = subprocess.run(
            probe, check=False, capture_output=True, timeout=PROBE_SECONDS, env={**os.environ, **timeouts}
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


if __name__ == "__main__":
    main()
