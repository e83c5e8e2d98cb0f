"""Pages from the templates of this package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thirtytwo.errors import require
from thirtytwo.text import capitalized, counted, percent, readable


def render_template(name: str, context: Mapping[str, Any]) -> str:
    """Render a template to HTML; every text of `context` is escaped, and a missing one is an error."""
    jinja2 = require("jinja2", "train")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("thirtytwo", "report/templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, capitalized=capitalized, counted=counted, readable=readable)
    return str(environment.get_template(name).render(context))
