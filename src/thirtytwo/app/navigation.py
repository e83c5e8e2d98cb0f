"""Links between the pages of the app."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st
from streamlit.navigation.page import Page

_PAGES = "pages by title"


def remember_pages(pages: Sequence[Page]) -> None:
    """Keep the pages of this run of the script, so that others can lead to them."""
    st.session_state[_PAGES] = {page.title: page for page in pages}


def open_page(title: str) -> None:
    """Show another page; without effect where there is only one, as in tests of a page alone."""
    page = st.session_state.get(_PAGES, {}).get(title)
    if page is not None:
        st.switch_page(page)
