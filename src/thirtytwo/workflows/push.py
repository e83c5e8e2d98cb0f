"""Upload a run to the Hugging Face hub: model card, model file, weights, recipe, metrics and report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thirtytwo.arguments import check_text
from thirtytwo.errors import OfflineError, OutputError, RunError, require
from thirtytwo.evaluation.ood import requested_data
from thirtytwo.inference.hub import repository_name
from thirtytwo.io import json_text
from thirtytwo.process import hub_connection_errors, hub_is_reachable, quiet_loggers
from thirtytwo.report.card import card
from thirtytwo.report.page import render
from thirtytwo.report.run_record import for_others, read_run_record, without_files, without_folder
from thirtytwo.rundir import RunDir
from thirtytwo.text import first_line

NO_TOKEN = "No access token for the hub was found."


@dataclass(frozen=True)
class Pushed:
    """What was uploaded, or would be: the repository, its address, and the size of each file in bytes by name."""

    repository: str
    url: str
    files: dict[str, int]
    dry_run: bool


def push(run: Path | str, repository: str, *, public: bool = False, dry_run: bool = False) -> Pushed:
    """Upload a finished run to the Hugging Face hub, as one commit.

    Uploaded are the model card, `model.onnx`, the weights, the recipe, the metrics and the report without images. The
    data, lists of its files and predictions stay here. `load("hf:owner/name")` opens the model.

    Args:
        run: the run directory.
        repository: `owner/name` on the hub; created if it does not exist.
        public: whether a new repository is public. An existing one stays as it is.
        dry_run: only list the files; needs no token and no network.

    Raises:
        ArgumentError: `run` is no path, or `repository` no text.
        RunError: there is no run, or it is not finished.
        UnknownNameError: `repository` is not `owner/name`.
        OfflineError: the hub cannot be reached.
        OutputError: there is no access token, the hub refuses the upload, or the connection is lost.
    """
    check_text("repository", repository)
    name = repository_name(repository)
    directory = RunDir.open(run)
    if not directory.is_finished():
        raise RunError(f"{directory.path} is not finished, so it cannot be uploaded.", directory.resume_hint())
    hub: Any = require("huggingface_hub", "hub")
    content = _content(directory)
    sizes = {key: value.stat().st_size if isinstance(value, Path) else len(value) for key, value in content.items()}
    url = f"https://huggingface.co/{name}"
    if not dry_run:
        url = _upload(hub, name, content, public)
    return Pushed(name, url, sizes, dry_run)


def _content(run: RunDir) -> dict[str, Path | bytes]:
    """The files of the repository by name: paths, or the content of those written for it."""
    record = without_files(for_others(read_run_record(run)))
    page = render(record, None, passed_on=True)
    return {
        run.card.name: card(record).encode("utf-8", "backslashreplace"),
        run.onnx.name: run.onnx,
        run.weights.name: run.weights,
        run.recipe.name: record.recipe_text.encode("utf-8", "backslashreplace"),
        run.metrics.name: _metrics(run),
        run.report.name: page.encode("utf-8", "backslashreplace"),
    }


def _metrics(run: RunDir) -> bytes:
    """The metrics, which name other data that unknown images were taken from without its folder."""
    metrics = run.read_json(run.metrics)
    for row in (metrics.get("unknown") or {}).get("against") or ():
        if spec := requested_data(row):
            row["source"] = row["source"].replace(spec, without_folder(spec), 1)
    return json_text(metrics).encode("utf-8", "backslashreplace")


def _upload(hub: Any, name: str, content: dict[str, Path | bytes], public: bool) -> str:
    """Upload as one commit; returns the address of the repository."""
    if hub.get_token() is None:
        raise OutputError(NO_TOKEN, "Create one at https://huggingface.co/settings/tokens, then run: hf auth login")
    if not hub_is_reachable():
        raise OfflineError("The hub cannot be reached.", "Connect to the network, or list the files with --dry-run.")
    errors: Any = require("huggingface_hub.errors", "hub")
    operations = [hub.CommitOperationAdd(key, value) for key, value in content.items()]
    interface = hub.HfApi()
    try:
        with quiet_loggers("huggingface_hub"):
            made = interface.create_repo(name, private=not public, exist_ok=True)
            interface.create_commit(name, operations, commit_message="Upload a model of thirtytwo")
    except (errors.HfHubHTTPError, ValueError) as error:
        raise OutputError(
            f"The hub refused the upload to {name}: {first_line(error)}.",
            "Check that your token may write to this repository.",
        ) from error
    except hub_connection_errors(RuntimeError) as error:  # hf_xet, which uploads large files, raises the latter
        raise OutputError(
            f"The upload to {name} was not completed: {first_line(error)}.",
            "Check the connection to the network, then run the command again.",
        ) from error
    return str(made)
