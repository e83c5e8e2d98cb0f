"""The kept decisions of the page Data: which ones its address names, what has changed since, and earlier ones."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from secrets import token_hex

import streamlit as st

from thirtytwo.app import library
from thirtytwo.app.decisions import Changes, Decisions, DecisionStore, identity_of, place_of
from thirtytwo.app.pager import Pager
from thirtytwo.app.problems import explained
from thirtytwo.data.types import DATASETS
from thirtytwo.errors import ThirtytwoError
from thirtytwo.text import as_markdown, counted, shorten

QUERY = "review"
"""Parameter of the page's address that names the decisions, so that reloading goes on with them."""
SPEC, THOROUGH = "doctor-spec", "doctor-thorough"
"""Keys of the fields of the form."""
_FOLDER = "decisions"
_PER_PAGE = 10
_LONGEST = 200
"""Characters of a path from which it is shortened in the middle."""
_OWN, _ANEW, _DELETING = "own decisions", "check anew", "decisions to delete"


def store() -> DecisionStore:
    """The decisions on this computer, beside the projects."""
    return DecisionStore(library.projects().folder / _FOLDER)


def may_check(spec: str) -> bool:
    """Whether the user may check a data set: those of other computers may not read folders of this one."""
    return library.settings.is_local or spec.partition("?")[0] in DATASETS.names()


def named() -> Decisions | None:
    """The decisions that the page's address names; None without any, or where they are not the user's."""
    found = store().read(st.query_params.get(QUERY, ""))
    if found is None or not may_check(found.source):
        return None
    if not library.settings.is_local and found.identity == identity_of(found.spec):
        return None  # those of this computer's user
    return found


def identity_for(spec: str) -> str:
    """The identity of the user's decisions on a data set: on other computers, only an address names it."""
    if library.settings.is_local:
        return identity_of(spec)
    found = named()
    if found is not None and found.place == place_of(spec):
        return found.identity
    own: dict[str, str] = st.session_state.setdefault(_OWN, {})
    return own.setdefault(place_of(spec), token_hex(8))


def name_in_address(identity: str) -> None:
    """Let the page's address name decisions."""
    if st.query_params.get(QUERY) != identity:
        st.query_params[QUERY] = identity


def forget_address() -> None:
    """Let the page's address name no decisions."""
    st.query_params.pop(QUERY, None)


def fill_form(found: Decisions) -> None:
    """Enter the data set of decisions in the form, before that is shown."""
    st.session_state[SPEC], st.session_state[THOROUGH] = found.source, found.thorough


def show_changes(before: Decisions | None, changed: Changes) -> None:
    """Say that decisions of an earlier check go on, and how the suggestions differ from those of that check."""
    if before is None or not before.decided:
        return
    when = datetime.fromtimestamp(before.changed).strftime("%Y-%m-%d %H:%M")
    if not changed:
        st.caption(f"Your decisions of {when} are kept; the suggestions are the same as then.")
        return
    parts = [f"{counted(changed.new, 'suggestion')} {'is' if changed.new == 1 else 'are'} new"] if changed.new else []
    if changed.gone:
        decided = f", {changed.gone_decided:,} of them decided" if changed.gone_decided else ""
        parts.append(
            f"{counted(changed.gone, 'earlier suggestion')} {'is' if changed.gone == 1 else 'are'} gone{decided}"
        )
    st.warning(
        f"The findings have changed since {when}: {'; '.join(parts)}. Your other decisions are kept.",
        icon=":material/history:",
    )


def show_earlier() -> None:
    """Offer to go on with earlier decisions; none to users of other computers."""
    found = [one for one in store().all() if one.decided] if library.settings.is_local else []
    if not found:
        return
    st.subheader("Go on with earlier decisions", anchor=False)
    pager = Pager(len(found), _PER_PAGE, f"reviews-page-{len(found)}")
    for one in found[pager.show()]:
        when = datetime.fromtimestamp(one.changed).strftime("%Y-%m-%d %H:%M")
        accepted = sum(one.decided.values())
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(
                f"{as_markdown(shorten(one.spec, _LONGEST))}  \n:small[{accepted:,} accepted, "
                f"{len(one.decided) - accepted:,} rejected · {when}]",
                width="stretch",
            )
            st.button("Go on", key=f"review-open-{one.identity}", on_click=_open, args=(one,))
            st.button(
                "Delete",
                key=f"review-forget-{one.identity}",
                icon=":material/delete:",
                on_click=_ask_before_deleting,
                args=(one.identity,),
                help="Delete these decisions; the data stays as it is",
            )
        if st.session_state.get(_DELETING) == one.identity:
            with st.container(border=True, horizontal=True, vertical_alignment="center", key="review-deleting"):
                st.markdown(f"Delete {counted(len(one.decided), 'decision')}? That cannot be undone.", width="stretch")
                st.button(
                    "Delete them", key="review-delete-yes", type="primary", on_click=_forget, args=(one.identity,)
                )
                st.button("Keep them", key="review-delete-no", on_click=_ask_before_deleting, args=("",))


def _ask_before_deleting(identity: str) -> None:
    st.session_state[_DELETING] = identity


def _forget(identity: str) -> None:
    _ask_before_deleting("")
    store().forget(identity)


def _open(found: Decisions) -> None:
    fill_form(found)
    name_in_address(found.identity)
    st.session_state[_ANEW] = True


def wanted_anew() -> bool:
    """Whether the user just asked to go on with earlier decisions, so that the data is checked again; once."""
    return bool(st.session_state.pop(_ANEW, False))


def keep(identity: str, names: Sequence[str], kept: dict[str, bool], decisions: Sequence[bool | None]) -> None:
    """Store the decisions that differ from the kept ones, which then are the stored ones.

    Args:
        identity: identity of the decisions.
        names: fingerprint of each suggested fix.
        kept: the decisions as they are stored, by fingerprint.
        decisions: those of the session, in the order of `names`.
    """
    now = dict(zip(names, decisions, strict=True))
    changed = {name: value for name, value in now.items() if kept.get(name) != value}
    if not changed:
        return
    try:
        store().decide(identity, changed)
    except ThirtytwoError as error:
        problem = f"Your decisions are lost when you reload this page. {explained(error)}"
        st.warning(as_markdown(problem), icon=":material/save:")
        return
    for name, value in changed.items():
        if value is None:
            kept.pop(name, None)
        else:
            kept[name] = value
