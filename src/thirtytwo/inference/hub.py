"""Models of the Hugging Face hub: names such as `hf:owner/name`, and their download."""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import Any

from thirtytwo.errors import ModelFileError, OfflineError, OutputError, UnknownNameError, require
from thirtytwo.process import hub_connection_errors, hub_is_reachable, quiet_loggers
from thirtytwo.text import first_line, quote

PREFIX = "hf:"
MODEL = "model.onnx"
_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


def repository_name(text: str) -> str:
    """The name `owner/name` of a repository, without `hf:`.

    Raises:
        UnknownNameError: it is not one.
    """
    name = text.removeprefix(PREFIX)
    if not _NAME.fullmatch(name) or "--" in name or ".." in name or len(name) > 96:
        raise UnknownNameError(f"{quote(name)} is not the name of a repository on the hub.", "Expected owner/name.")
    return name


def download_model(text: str) -> Path:
    """The model file of `hf:owner/name` in the hub's cache, downloaded where it is missing or has changed.

    Raises:
        UnknownNameError: there is no such repository, or it is private.
        ModelFileError: it has no `model.onnx`.
        OfflineError: it is not in the cache, and the hub cannot be reached or the connection is lost.
        OutputError: the disk is full.
        MissingExtraError: the library `huggingface_hub` is not installed.
    """
    name = repository_name(text)
    hub: Any = require("huggingface_hub", "hub")
    errors: Any = require("huggingface_hub.errors", "hub")
    offline = not hub_is_reachable()
    try:
        with quiet_loggers("huggingface_hub"):
            return Path(hub.hf_hub_download(name, MODEL, local_files_only=offline))
    except errors.LocalEntryNotFoundError:
        raise OfflineError(
            f"The model {name} is not in the cache of this machine, and the hub cannot be reached.",
            "Connect to the network, or give --model a model.onnx that you copied.",
        ) from None
    except errors.EntryNotFoundError:
        raise ModelFileError(
            f"The repository {name} has no {MODEL}, so it is not a model of thirtytwo.",
            "Choose one that thirtytwo push wrote.",
        ) from None
    except errors.RepositoryNotFoundError:
        raise UnknownNameError(
            f"The hub has no model {name!r}, or it is private.",
            "Check the name (owner/name); for a private or gated model, run: hf auth login",
        ) from None
    except (*hub_connection_errors(), RuntimeError) as error:  # hf_xet, which downloads large files, raises the latter
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise OutputError(
                "The disk is full; the model could not be downloaded.", "Free disk space, then run the command again."
            ) from None
        raise OfflineError(
            f"The model {name} could not be downloaded: {first_line(error)}.", "Try again later."
        ) from None
