"""The page Train: choose data, see its check and the recommended recipe, and train in the background."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import blake2b
from importlib.util import find_spec

import streamlit as st

from thirtytwo.app import library
from thirtytwo.app.advice import title_of
from thirtytwo.app.components import title
from thirtytwo.app.folder_field import data_label, entered, show_chooser, what_to_enter
from thirtytwo.app.jobs import Job, JobStore, jobs_dir
from thirtytwo.app.navigation import open_page
from thirtytwo.app.pager import Pager
from thirtytwo.app.problems import advice_in_app, plain
from thirtytwo.app.views.training import (
    guarded,
    is_active,
    name_of,
    show_error_of_start,
    show_outcome,
    show_running,
)
from thirtytwo.config.recipe import DataSettings, Recipe
from thirtytwo.config.recommend import is_small, recommend_recipe
from thirtytwo.config.resolve import read_recipe_values, recipe_names, resolve_recipe
from thirtytwo.config.settings import Choice
from thirtytwo.data.arrays import release_pages
from thirtytwo.data.fixes import FixPlan, encode_fix_plan
from thirtytwo.data.load import survey
from thirtytwo.data.survey import Survey
from thirtytwo.doctor.diagnose import Diagnosis, diagnose
from thirtytwo.doctor.page import by_check, extent, verdict
from thirtytwo.errors import OutputError
from thirtytwo.fewshot import MOST_CLASSES
from thirtytwo.io import create_directory, write_bytes
from thirtytwo.run_paths import default_path
from thirtytwo.text import as_markdown, as_printable, capitalized, counted

_LIBRARIES = ("torch", "torchvision", "lightning", "timm", "psutil")
"""Modules without which nothing can be trained."""
INSTALL = 'pip install ".[train]"'
WHICH_PAGE = (
    "This page or Add classes? Use this page for many images, hundreds of each class, in a folder on this computer: "
    "it takes minutes to hours, and measures the accuracy on images that it set aside. For up to 200 images of each "
    "class, try Add classes first: it takes seconds."
)
DATA = "train-data"
"""Key of the field for the data."""
_CHECKED = "data to train on"
_PLAN, _PLANS = "fixes to train with", "plans"
_UNREADABLE, _CUT_OFF = "T201", "T414"
"""Codes of checks."""
_EARLIER_PER_PAGE = 10
_FEW = 100
"""Mean number of images of a class up to which the page Add classes is suggested."""
_MAX_CHECKS = 8
_ICONS = {"error": ":material/error:", "warning": ":material/warning:", "note": ":material/info:"}
_WEIGHTS = {
    "As the recipe says": "",
    "All images count equally": "none",
    "Rare classes count more": "balanced",
    "Rare classes count more if they are very rare": "auto",
}
"""Choices of `train.class_weights`."""
_STATES = {"done": "done", "stopped": "stopped", "failed": "failed", "killed": "ended early"}


@dataclass(frozen=True)
class _Checked:
    """Data that was checked: its size, the recommended recipe, and what the check found.

    `findings` are lines of Markdown, `rows` is the number of training images before validation is held out, `problem`
    says why it cannot be trained on.
    """

    spec: str
    survey: Survey
    recommended: Choice
    verdict: str
    findings: tuple[str, ...]
    rows: int
    unreadable: bool
    problem: str = ""


@dataclass(frozen=True)
class _Options:
    """What the user chose; None and empty: as the recipe says."""

    recipe: str | None = None
    epochs: int | None = None
    limit: int | None = None
    seed: int = 0
    weights: str = ""
    skip_unreadable: bool = False
    plan: str = ""

    @property
    def arguments(self) -> list[str]:
        """Options of `thirtytwo train`."""
        found = [] if self.recipe is None else ["--recipe", self.recipe]
        found += [] if self.epochs is None else ["--epochs", str(self.epochs)]
        found += [] if self.limit is None else ["--limit-train", str(self.limit)]
        found += [] if self.seed == 0 else ["--seed", str(self.seed)]
        found += ["--set", f"train.class_weights={self.weights}"] if self.weights else []
        found += ["--skip-unreadable"] if self.skip_unreadable else []
        return found + (["--apply", self.plan] if self.plan else [])


def show() -> None:
    """Show the page."""
    title(
        "Train a model",
        "Train a classifier on a folder of images, with one folder per class, a CSV file or a known data set. It is "
        "evaluated on images that it was not trained on, and nothing leaves this computer.",
    )
    st.caption(WHICH_PAGE)
    if not _can_train():
        return
    store = JobStore(jobs_dir())
    jobs = store.all()
    active = store.active()
    if active is not None:
        show_running(store, active)
        _show_earlier(store, [job for job in jobs if job != active])
        return
    if jobs:
        show_outcome(store, jobs[0], store.state(jobs[0]))
    _show_form()
    show_error_of_start()
    if (checked := st.session_state.get(_CHECKED)) is not None:
        _show_checked(checked)
        if not checked.problem:
            _show_options(store, checked)
    _show_earlier(store, jobs[1:])


def _can_train() -> bool:
    """Whether a training can be started here; shows the reason if not."""
    if not library.settings.is_local:
        st.info(
            "Training reads folders by their path and uses this computer's processor for minutes to hours, so it is "
            "off while other devices can open the app. To train, start the app for this computer alone.",
            icon=":material/lock:",
        )
        return False
    missing = [name for name in _LIBRARIES if find_spec(name) is None]
    if missing:
        st.warning(
            f"Training needs PyTorch and other libraries, which are not installed: {', '.join(missing)} is missing. "
            "Install them in a terminal, in the folder of thirtytwo's repository, then start the app again:",
            icon=":material/download:",
        )
        st.code(INSTALL, language="bash")
        return False
    return True


def _show_form() -> None:
    """Let the user choose the data, and check it on request."""
    with st.form("train-form", border=False):
        spec = st.text_input(
            data_label(), key=DATA, placeholder="my-images", help=what_to_enter(), persist_state="session"
        )
        wanted = st.form_submit_button(
            "Check this data", type="primary", icon=":material/fact_check:", key="train-check"
        )
    show_chooser(DATA)
    if wanted and not spec.strip():
        st.warning(what_to_enter(), icon=":material/folder_open:")
    elif wanted:
        st.session_state.pop(_CHECKED, None)
        with st.spinner("Checking the data …", show_time=True):
            st.session_state[_CHECKED] = _check(entered(spec))


def _check(spec: str) -> _Checked:
    """Survey data, choose the recipe that suits it, and run the quick checks of `data doctor`.

    Raises:
        UnknownNameError, DataError, OfflineError: as `survey`.
    """
    root = library.settings.data_root
    found = survey(spec, data_root=root)
    diagnosis = diagnose(spec, data_root=root)
    recommended = recommend_recipe(found.side, found.images, found.classes)
    rows, problem = 0, ""
    if diagnosis.subject is None or diagnosis.is_blocked:
        worst = diagnosis.blocking[-1]
        problem = f"{plain(worst.what, added=False)} {advice_in_app(worst.fix)}".strip()
    if diagnosis.subject is not None:
        rows = len(diagnosis.subject.data.train)
        for part in diagnosis.subject.splits.values():
            release_pages(part.images)
    unreadable = any(finding.code == _UNREADABLE for finding in diagnosis.findings)
    if not _crops(recommended.value):
        others = tuple(finding for finding in diagnosis.findings if finding.code != _CUT_OFF)
        diagnosis = replace(diagnosis, findings=others)
    return _Checked(spec, found, recommended, verdict(diagnosis), _lines(diagnosis), rows, unreadable, problem)


def _crops(recipe: str) -> bool:
    """Whether a recipe cuts off the ends of images that are not square."""
    rule = read_recipe_values(recipe).get("data", {}).get("resize", DataSettings().resize)
    return bool(rule == "crop")


def _lines(diagnosis: Diagnosis) -> tuple[str, ...]:
    """The findings of each check in a line of Markdown."""
    return tuple(
        f"{_ICONS[findings[0].severity]} {as_markdown(f'{capitalized(title_of(check, findings))}: {extent(findings)}')}"
        for check, findings in by_check(diagnosis.findings).items()
    )


def _show_checked(checked: _Checked) -> None:
    """Show what the check found."""
    st.header("Data", anchor=False)
    found = checked.survey
    st.markdown(as_markdown(f"{checked.spec}: {counted(found.images, 'image')} of {found.classes:,} classes."))
    if checked.problem:
        st.error(as_markdown(checked.problem), icon=":material/error:")
        return
    st.markdown(as_markdown(checked.verdict))
    if checked.findings:
        st.markdown("  \n".join(checked.findings[:_MAX_CHECKS]))
        more = len(checked.findings) - _MAX_CHECKS
        st.caption(f"{f'And {more} more. ' if more > 0 else ''}The page Data shows each of them with images.")


def _show_options(store: JobStore, checked: _Checked) -> None:
    """Let the user choose options, and start training."""
    st.header("Training", anchor=False)
    options = _choose_recipe(checked)
    recipe = _resolved(checked, options)
    _show_recipe(checked, options, recipe)
    with st.expander("Options", key="train-options"):
        options = _choose_options(checked, options, recipe)
    options = replace(options, plan=_choose_plan(checked.spec))
    name = options.recipe or checked.recommended.value

    def start() -> None:
        run = default_path(checked.spec, name, f"seed{options.seed}")
        store.start(checked.spec, options.arguments, run, library.settings.data_root)
        st.session_state.pop(_CHECKED, None)

    st.button(
        "Start training", type="primary", key="train-start", icon=":material/play_arrow:", on_click=guarded(start)
    )
    with st.expander("The same in a terminal"):
        st.caption(as_markdown(f"{checked.recommended.value} is recommended for {checked.recommended.reason}."))
        st.code(as_printable(_command(checked.spec, options)), language="bash", wrap_lines=True)


def _choose_recipe(checked: _Checked) -> _Options:
    recommended = checked.recommended.value
    names = [recommended, *(name for name in recipe_names() if name != recommended and not _needs_run(name))]

    def label(name: str) -> str:
        return f"{name} (recommended)" if name == recommended else name

    chosen = st.selectbox("Recipe", names, format_func=label, key=f"train-recipe-{checked.spec}")
    return _Options(recipe=None if chosen == recommended else chosen)


@cache
def _needs_run(name: str) -> bool:
    """Whether a recipe builds on a finished run, which this page does not ask for."""
    values = read_recipe_values(name)
    return values.get("transfer", {}).get("network") == "run" or "distill" in values.get("train", {})


def _resolved(checked: _Checked, options: _Options) -> Recipe:
    """The recipe as it suits the data; validation images are held out of the training images."""
    values = read_recipe_values(options.recipe or checked.recommended.value)
    share = resolve_recipe(values, {}, classes=checked.survey.classes, rows=checked.rows).data.val_fraction
    return resolve_recipe(values, {}, classes=checked.survey.classes, rows=round(checked.rows * (1 - share)))


def _show_recipe(checked: _Checked, options: _Options, recipe: Recipe) -> None:
    st.markdown(as_markdown(recipe.description))
    name = "" if options.recipe is None else f": {checked.recommended.value}"
    found, size = checked.survey, "small images" if is_small(checked.survey.side) else "photographs"
    st.caption(as_markdown(f"Recommended{name}, because the data has {found.images:,} {size}."))
    if found.classes <= MOST_CLASSES and found.images <= _FEW * found.classes:
        _offer_few_shot(found)


def _offer_few_shot(found: Survey) -> None:
    """Say that a faster way suits as few images, with a link to it."""
    each = round(found.images / found.classes)
    with st.container(border=True, key="train-few"):
        st.markdown(
            f"**With about {counted(each, 'image')} per class, there is a faster way.** The page Add classes makes a "
            "model in seconds, and estimates its accuracy with all of your images instead of a few that are set aside."
        )
        if st.button("Open Add classes", key="train-few-shot", icon=":material/school:"):
            open_page("Add classes")


def _choose_options(checked: _Checked, options: _Options, recipe: Recipe) -> _Options:
    """Show the options that matter, with those of the recipe as default; other data starts with the defaults again."""
    left, right = st.columns(2)
    epochs = left.number_input(
        "Epochs",
        min_value=1,
        max_value=100_000,
        value=None,
        key=f"train-epochs-{checked.spec}",
        placeholder=f"{recipe.schedule.epochs}, as the recipe says",
        help="Passes over the training images. More take longer and are more accurate up to a point.",
    )
    limit = right.number_input(
        "Most training images",
        min_value=1,
        value=None,
        key=f"train-limit-{checked.spec}",
        placeholder="all",
        help="Fewer images make a quick trial. Each class keeps its share.",
    )
    seed = left.number_input(
        "Random start",
        min_value=0,
        value=0,
        key=f"train-seed-{checked.spec}",
        help="Another number gives a slightly different model. Experts call it the seed.",
    )
    weights = right.selectbox("Class weights", list(_WEIGHTS), key=f"train-weights-{checked.spec}")
    skip = st.checkbox(
        "Leave out images that cannot be read",
        value=checked.unreadable,
        key=f"train-skip-{checked.unreadable}-{checked.spec}",
        help="Otherwise training stops at the first one.",
    )
    return _Options(options.recipe, epochs, limit, int(seed), _WEIGHTS[weights], skip)


def train_with(spec: str, plan: FixPlan) -> None:
    """Open the page with data and a plan of fixes, which is kept beside the trainings because these may be resumed.

    Raises:
        OutputError: the plan cannot be written.
    """
    content = encode_fix_plan(plan)
    path = jobs_dir() / _PLANS / f"{blake2b(content, digest_size=8).hexdigest()}.csv"
    create_directory(path.parent, OutputError, "Allow this user to write there, or make room.")
    write_bytes(path, content)
    st.session_state[_PLAN] = (spec, str(path), len(plan.fixes))
    st.session_state[DATA] = spec
    st.session_state[_CHECKED] = _check(spec)
    open_page("Train")


def _choose_plan(spec: str) -> str:
    """Let the user apply the accepted fixes of the page Data, if these are of this data; returns the file, or empty."""
    of, path, count = st.session_state.get(_PLAN, ("", "", 0))
    if of != spec:
        return ""
    wanted = st.checkbox(
        f"Apply what you accepted on the page Data, for {counted(count, 'image')}",
        value=True,
        key=f"train-plan-{path}",
        help="The data itself stays as it is.",
    )
    return path if wanted else ""


def _command(spec: str, options: _Options) -> str:
    root = library.settings.data_root
    more = [] if root is None else ["--data-root", str(root)]
    return shlex.join(["thirtytwo", "train", spec, *options.arguments, *more])


def _show_earlier(store: JobStore, jobs: Sequence[Job]) -> None:
    """Show earlier trainings, a page at a time: how they ended, and buttons to continue or forget them."""
    if not jobs:
        return
    with st.expander(f"Earlier trainings ({len(jobs)})"):
        pager = Pager(len(jobs), _EARLIER_PER_PAGE, f"earlier-page-{len(jobs)}")
        for job in jobs[pager.show()]:
            if is_active(state := store.state(job)):
                continue
            with st.container(horizontal=True, vertical_alignment="center", key=f"earlier-{job.identity}"):
                st.markdown(as_markdown(f"{name_of(job)}: {_STATES[state]} · {job.run}"), width="stretch")
                if state != "done":
                    st.button(
                        "Resume", key=f"resume-{job.identity}", on_click=guarded(store.resume), args=(job.identity,)
                    )
                st.button("Forget", key=f"forget-{job.identity}", on_click=guarded(store.forget), args=(job.identity,))
