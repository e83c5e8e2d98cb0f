"""The script that Streamlit runs for every visit and press: the pages, and what is told when something is wrong."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path

import streamlit as st

from thirtytwo.app.components import mistake
from thirtytwo.app.views import classify, compare, explore, fewshot, models
from thirtytwo.errors import ThirtytwoError

STYLE, ICON = (Path(__file__).with_name(name) for name in ("page.css", "icon.png"))


def main() -> None:
    """Show the page that is asked for."""
    st.set_page_config(page_title="thirtytwo", page_icon=str(ICON), layout="centered")
    pages = [
        st.Page(
            told(classify.show), title="Classify", icon=":material/image_search:", url_path="classify", default=True
        ),
        st.Page(told(compare.show), title="Compare", icon=":material/balance:", url_path="compare"),
        st.Page(told(explore.show), title="Explore", icon=":material/grid_view:", url_path="explore"),
        st.Page(told(models.show), title="Models", icon=":material/deployed_code:", url_path="models"),
        st.Page(told(fewshot.show), title="Teach", icon=":material/school:", url_path="teach"),
    ]
    page = st.navigation(pages, position="top")
    st.html(STYLE)
    page.run()


def told(show: Callable[[], None]) -> Callable[[], None]:
    """A page on which the user's mistakes are told instead of shown as bugs."""

    @wraps(show)
    def shown() -> None:
        try:
            show()
        except ThirtytwoError as error:
            mistake(error)

    return shown


main()
