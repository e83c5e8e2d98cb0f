"""The page /docs: the OpenAPI document as HTML without external resources."""

from __future__ import annotations

import json
from html import escape
from importlib.resources import files
from typing import Any

from thirtytwo.serve.schemas import KINDS


def docs_page(document: dict[str, Any]) -> str:
    """Render every operation with its parameters, bodies and responses, and a form to classify images, as HTML."""
    template = (files("thirtytwo.serve") / "page.html").read_text(encoding="utf-8")
    operations = [
        _operation(method, path, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    ]
    parts = {
        "title": escape(document["info"]["title"]),
        "version": escape(document["info"]["version"]),
        "description": _text(document["info"]["description"]),
        "operations": "".join(operations),
        "schemas": "".join(_schema(name, schema) for name, schema in document["components"]["schemas"].items()),
        "problems": "".join(_problem(kind) for kind in KINDS),
    }
    for name, value in parts.items():
        template = template.replace("{{ " + name + " }}", value)
    return template


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parameters = [
        (entry["name"], _type(entry["schema"]), entry.get("description", ""))
        for entry in operation.get("parameters", [])
    ]
    bodies = [(kind, _type(content["schema"]), "") for kind, content in _contents(operation.get("requestBody", {}))]
    responses = [
        (status, ", ".join(_type(content["schema"]) for _, content in _contents(response)), response["description"])
        for status, response in sorted(operation["responses"].items())
    ]
    return (
        f'<section class="operation"><h3><code>{method.upper()} {escape(path)}</code></h3>'
        f"<p><strong>{escape(operation['summary'])}.</strong> {_text(operation.get('description', ''))}</p>"
        + _table("Parameters", ("name", "type", ""), parameters)
        + _table("Body", ("content type", "schema", ""), bodies)
        + _table("Responses", ("status", "schema", ""), responses)
        + "</section>"
    )


def _contents(holder: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return list(holder.get("content", {}).items())


def _schema(name: str, schema: dict[str, Any]) -> str:
    required = set(schema.get("required", []))
    rows = [
        (f"{field}{'' if field in required else ' (optional)'}", _type(value), value.get("description", ""))
        for field, value in schema.get("properties", {}).items()
    ]
    return (
        f'<section class="schema" id="{escape(name)}"><h3><code>{escape(name)}</code></h3>'
        f"<p>{_text(schema.get('description', ''))}</p>" + _table("", ("name", "type", ""), rows) + "</section>"
    )


def _problem(kind: str) -> str:
    status, title, help = KINDS[kind]
    return f'<tr id="{kind}"><td><code>{kind}</code></td><td>{status}</td><td>{escape(title)}. {escape(help)}</td></tr>'


def _type(schema: dict[str, Any]) -> str:
    """A schema's type with its bounds and default, as HTML."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return f'<a href="#{escape(name)}">{escape(name)}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(option) for option in schema["anyOf"])
    if schema.get("type") == "array":
        text = f"list of {_type(schema['items'])}"
    elif schema.get("type") == "object" and "properties" in schema:
        text = ", ".join(f"<code>{escape(name)}</code>: {_type(value)}" for name, value in schema["properties"].items())
    else:
        text = escape(" ".join(filter(None, (schema.get("type", "anything"), schema.get("format")))))
    bounds = [f"{sign} {schema[key]}" for key, sign in (("minimum", "≥"), ("maximum", "≤")) if key in schema]
    default = [] if schema.get("default") is None else [f"default {escape(json.dumps(schema['default']))}"]
    extra = ", ".join([*bounds, *default])
    return f"{text}, {extra}" if extra else text


def _table(title: str, head: tuple[str, ...], rows: list[tuple[str, str, str]]) -> str:
    if not rows:
        return ""
    cells = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{kind}</td><td>{_text(text)}</td></tr>"
        for name, kind, text in rows
    )
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    heading = f"<h4>{escape(title)}</h4>" if title else ""
    return f"{heading}<table><thead><tr>{top}</tr></thead><tbody>{cells}</tbody></table>"


def _text(text: str) -> str:
    """Render text with `code` in backticks as HTML."""
    pieces = escape(" ".join(text.split())).split("`")
    return "".join(f"<code>{piece}</code>" if index % 2 else piece for index, piece in enumerate(pieces))
