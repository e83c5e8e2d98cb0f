"""Pages of a long list, with the same pager above and below them."""

from __future__ import annotations

import streamlit as st


class Pager:
    """The pages of a list. Its pager is shown where there are several pages.

    Args:
        count: number of items.
        size: number of items on a page.
        key: identifies the list; another key starts at the first page.
    """

    def __init__(self, count: int, size: int, key: str) -> None:
        self._pages, self._size, self._key = -(-count // size), size, key

    def show(self) -> slice:
        """Show the pager above the page; returns the items of the page."""
        if self._pages < 2:
            return slice(0, self._size)
        first = (self._draw(self._key, self._below) - 1) * self._size
        return slice(first, first + self._size)

    def show_again(self) -> None:
        """Show the pager below the page."""
        if self._pages > 1:
            self._draw(self._below, self._key)

    @property
    def _below(self) -> str:
        return f"{self._key}-below"

    def _draw(self, key: str, other: str) -> int:
        def follow() -> None:
            st.session_state[other] = st.session_state[key]

        return int(st.pagination(self._pages, key=key, on_change=follow))
