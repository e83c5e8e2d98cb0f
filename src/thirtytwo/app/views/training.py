"""The parts of the page Train about a training: its progress, and what to do when it has ended."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import streamlit as st

from thirtytwo.app.components import show_error, show_verdict
from thirtytwo.app.curves import curves
from thirtytwo.app.folder_field import short_name
from thirtytwo.app.jobs import Job, JobStore, State, problem_of
from thirtytwo.app.library import Entry, add_model, entries, select_model, selected_model
from thirtytwo.app.navigation import open_page
from thirtytwo.app.opened_runs import open_run
from thirtytwo.app.problems import explained, in_app, is_for_app, plain
from thirtytwo.app.training_progress import progress_of
from thirtytwo.errors import ThirtytwoError
from thirtytwo.fewshot import assess, suggest_next_steps
from thirtytwo.inference.library import model_name
from thirtytwo.rundir import RunDir
from thirtytwo.text import as_markdown, as_printable, counted, interval, percent

REFRESH_SECONDS = 2.0
_KILL_AFTER = 15.0
"""Seconds after which a training that was asked to stop can be ended at once."""
_LINES = 40
_RECIPE = re.compile(r"recipe \S+, seed \d")
"""What begins the line of the log before the first epoch; before it are notes on the data."""
_CHOICE = re.compile(r"[^:()]+: .+ \(.+\)$")
"""A line of the log on a setting that was chosen automatically, which only experts need."""
_FEW = 100
"""Number of test images below which the page says that they are few."""
_REPORT_HEIGHT = 800
_KILLED = (
    "The process ended without a message: it was killed, memory ran out, or the computer was switched off. "
    "The last completed epoch is saved."
)


def is_active(state: State) -> bool:
    """Whether a training in this state has a process."""
    return state in ("running", "stopping")


def show_running(store: JobStore, job: Job) -> None:
    """Show the progress of a training that runs, and a button to stop it; drawn anew every few seconds."""

    @st.fragment(run_every=REFRESH_SECONDS)
    def progress() -> None:
        try:
            current = store.read(job.identity)
            state = store.state(current)
        except ThirtytwoError:  # forgotten in another tab
            st.rerun()
        if not is_active(state):
            st.rerun()
        _show_progress(current)
        _show_status(store, current)
        _show_stop(store, current, state)
        show_error_of_start()
        show_log(store, current)

    st.header(as_markdown(f"Training on {name_of(job)}"), anchor=False)
    st.caption(
        "It goes on when you close this page or stop the app, and this page shows it again when you come back. "
        "One training runs at a time."
    )
    progress()


def show_outcome(store: JobStore, job: Job, state: State) -> None:
    """Show how a training ended, and what can be done next."""
    name = as_markdown(name_of(job))
    with st.container(border=True, key="outcome"):
        if state == "done":
            st.success(f"Training on {name} is done.", icon=":material/check:")
            try:
                _show_result(job)
            except ThirtytwoError as error:  # a file of the run is damaged
                show_error(error)
        elif state == "stopped":
            saved = "The last completed epoch is saved." if _has_checkpoint(job) else "No epoch was completed."
            st.info(f"Training on {name} was stopped. {saved}", icon=":material/pause:")
        else:
            problem = in_app(problem_of(store.log_lines(job))) if state == "failed" else _KILLED
            st.error(as_markdown(f"Training on {name_of(job)} failed. {problem}"), icon=":material/error:")
        _show_curves(job)
        with st.container(horizontal=True, key="outcome-buttons"):
            if state != "done":
                label = "Resume" if job.can_resume else "Start again"
                st.button(
                    label,
                    type="primary",
                    key="train-resume",
                    icon=":material/play_arrow:",
                    on_click=guarded(store.resume),
                    args=(job.identity,),
                )
            st.button("Close", key="train-forget", on_click=guarded(store.forget), args=(job.identity,))
        show_error_of_start()
        show_log(store, job, expanded=state in ("failed", "killed"))
        st.caption(as_markdown(f"Run directory: {job.run}"))


def name_of(job: Job) -> str:
    """The data of a training as a short name."""
    return short_name(job.data)


_PROBLEM = "problem of starting a training"


def guarded(work: Callable[..., object]) -> Callable[..., None]:
    """A callback whose error is shown where `show_error_of_start` is."""

    def callback(*args: Any, **kwargs: Any) -> None:
        try:
            work(*args, **kwargs)
        except ThirtytwoError as error:
            st.session_state[_PROBLEM] = explained(error)

    return callback


def show_error_of_start() -> None:
    """Show why training was not started, once."""
    if text := st.session_state.pop(_PROBLEM, ""):
        st.error(as_markdown(text), icon=":material/error:")


def show_log(store: JobStore, job: Job, *, expanded: bool = False) -> None:
    """Show the last lines that a training wrote."""
    lines = [line for line in (plain(one, added=False) for one in store.log_lines(job)) if is_for_app(line)][-_LINES:]
    if lines:
        with st.expander("Last lines of the log", expanded=expanded):
            st.code("\n".join(map(as_printable, lines)), language=None, wrap_lines=True)


def _show_progress(job: Job) -> None:
    run = job.run_dir
    if not job.can_resume:
        st.progress(0.0, "Loading the data …")
        return
    try:
        recipe, history = run.read_recipe(), run.read_history()
    except ThirtytwoError:  # being written
        return
    ended = run.history.stat().st_mtime if history else job.started
    found = progress_of(history, recipe, time.time() - max(ended, job.started))
    st.progress(found.share, as_markdown(found.text))
    st.caption(as_markdown(f"Recipe {recipe.name}"))
    _show_curves(job)


def _show_curves(job: Job) -> None:
    """Show accuracy and loss over the epochs so far."""
    try:
        drawn = curves(job.run_dir.read_history())
    except ThirtytwoError:  # being written
        return
    if drawn:
        st.html(drawn)


def _show_status(store: JobStore, job: Job) -> None:
    if status := _status(store.log_lines(job, _LINES), job):
        st.caption(as_markdown(status))


def _status(lines: Sequence[str], job: Job) -> str:
    """What a training does now: the last line of its log that is for everyone, or that an epoch is running."""
    for line in reversed(lines):
        if _RECIPE.match(line):
            if job.can_resume:
                return "The next epoch is running." if job.run_dir.history.is_file() else "The first epoch is running."
        elif is_for_app(line) and not _CHOICE.match(line):
            return line
    return ""


def _show_stop(store: JobStore, job: Job, state: State) -> None:
    if state == "running":
        st.button("Stop", key="train-stop", icon=":material/stop:", on_click=guarded(store.stop), args=(job.identity,))
        return
    st.info("Stopping: the last completed epoch is kept …", icon=":material/hourglass_top:")
    if time.time() - job.stop_asked > _KILL_AFTER:
        end = {"at_once": True}
        st.button("Stop at once", key="train-kill", on_click=guarded(store.stop), args=(job.identity,), kwargs=end)


def _has_checkpoint(job: Job) -> bool:
    return any(job.run_dir.checkpoints.glob("last.ckpt"))


def _show_result(job: Job) -> None:
    """Show the accuracy of a finished training, its report, and buttons to use its model."""
    run = job.run_dir
    metrics = run.read_json(run.metrics)
    accuracy = metrics["accuracy"]
    st.metric(
        f"Accuracy on {metrics['n']:,} test images",
        percent(accuracy["value"]),
        f"95\u00a0% interval {interval(accuracy['ci95'], digits=1)}",
        delta_color="off",
        delta_arrow="off",
    )
    _show_verdict(metrics)
    _show_next_steps(run)
    with st.container(horizontal=True, key="result-buttons"):
        if st.button("Use this model", type="primary", key="train-use", icon=":material/image_search:"):
            select_model(entry_of(job))
            open_page("Classify")
        if st.button("Explore its answers", key="train-explore", icon=":material/grid_view:"):
            open_run(run.path)
            open_page("Explore")
        st.download_button(
            "Report (HTML)",
            run.report.read_bytes,
            f"{run.path.name}-report.html",
            "text/html",
            key="train-report",
            on_click="ignore",
            icon=":material/download:",
        )
    found = entries()
    if found and selected_model(found).path.resolve() == run.onnx.resolve():
        st.caption("This model is in use on the other pages.")
    if st.toggle("Show the report here", key="train-show-report"):
        st.iframe(run.report, height=_REPORT_HEIGHT, alt="Report of the training")


def _show_verdict(metrics: Mapping[str, Any]) -> None:
    """Show in words how much better than guessing the model is, and whether there are too few images to know."""
    show_verdict(assess(metrics["accuracy"], [int(one["support"]) for one in metrics["per_class"]]))
    if metrics["n"] < _FEW:
        st.caption(
            f"{counted(metrics['n'], 'test image')} are few: on other images, the share of right answers may lie "
            "anywhere in the interval. More test images narrow it."
        )


def _show_next_steps(run: RunDir) -> None:
    """Show what would improve the model most, by its predictions on the test images."""
    predictions = run.read_predictions("test")
    sizes = np.bincount(predictions.truth, minlength=len(predictions.classes)).tolist()
    counts = {name: size for name, size in zip(predictions.classes, sizes, strict=True) if size}
    steps = suggest_next_steps(counts, predictions) if len(counts) == len(sizes) else []
    lines = "\n".join(f"{number}. {as_markdown(step.sentence)}" for number, step in enumerate(steps, start=1))
    if lines:
        with st.container(border=True, key="result-steps"):
            st.markdown(f"**To improve it**, by the answers for the test images\n\n{lines}")


def entry_of(job: Job) -> Entry:
    """The model of a finished training; added to this session where it is not listed, as below another directory."""
    path = job.run_dir.onnx
    found = next((one for one in entries() if one.path.resolve() == path.resolve()), None)
    return found or add_model(model_name(path), path, f"run {path.parent}")
