"""The OpenAPI document, and that the service conforms to it for any request."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from thirtytwo.serve.schemas import KINDS

COMMITTED = Path(__file__).parent.parent.parent / "docs" / "openapi.json"
OPERATIONS = [
    (method, path)
    for path, item in json.loads(COMMITTED.read_text(encoding="utf-8"))["paths"].items()
    for method in item
]
EXAMPLES = 50


def test_committed_document_is_current(client: TestClient) -> None:
    assert json.loads(COMMITTED.read_text(encoding="utf-8")) == client.get("/openapi.json").json(), (
        "regenerate it with: make docs"
    )


def test_every_reference_resolves(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    found = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document)))
    assert found == set(document["components"]["schemas"])


def test_document_lists_every_kind_of_problem(client: TestClient) -> None:
    description = client.get("/openapi.json").json()["info"]["description"]
    assert all(f"| `{kind}` |" in description for kind in KINDS)


def test_key_is_optional_in_the_document(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    secured = {path for path, item in document["paths"].items() for one in item.values() if one.get("security")}
    assert secured == {"/predict", "/models", "/metrics"}
    assert document["paths"]["/predict"]["post"]["security"] == [{"key": []}, {}]


def test_page_has_a_policy_and_local_files_only(client: TestClient) -> None:
    answer = client.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
    linked = re.findall(r"""(?:src|href)=["'](?!data:)([^"']+)""", answer.text)
    assert len(linked) == 3
    for path in linked:
        assert client.get(f"/{path}").status_code == 200
    assert client.get("/docs/nothing.js").headers["content-type"] == "application/problem+json"
    assert client.get("/", follow_redirects=False).headers["location"] == "/docs"


@pytest.mark.browser
@pytest.mark.long
def test_page_in_a_browser(launch: Callable[..., Any], make: Any, chromium: str, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    (tmp_path / "blue.png").write_bytes(make.image("blue", (60, 60)))
    running = launch(THIRTYTWO_API_KEY="sesame")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 800})
        requested, errors = [], []
        page.on("request", lambda request: requested.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(f"{running.url}/docs#timed-out")
        page.wait_for_selector(".opblock")
        shown = {
            (block.get_attribute("class").split("opblock-")[-1].split()[0], block.inner_text().split()[1])
            for block in page.query_selector_all(".opblock")
        }
        assert shown == {(method, path) for method, path in OPERATIONS}
        assert page.locator(".info td code", has_text=re.compile("^timed-out$")).is_visible()
        page.wait_for_function("scrollY > 0")
        page.click(".auth-wrapper .authorize")
        page.fill(".auth-container input", "sesame")
        page.click(".auth-btn-wrapper .authorize")
        page.click(".btn-done")
        page.click(".opblock-post .opblock-summary-control")
        page.click(".try-out__btn")
        page.set_input_files("input[type=file]", tmp_path / "blue.png")
        page.click(".execute")
        page.wait_for_selector(".live-responses-table .response")
        assert '"top": "blue"' in page.inner_text(".live-responses-table .response")
        browser.close()
    assert not errors
    assert requested
    assert all(url.startswith((running.url, "data:", "blob:")) for url in requested)


@pytest.fixture(scope="module")
def api(launch: Callable[..., Any]) -> Any:
    return schemathesis.openapi.from_url(f"{launch().url}/openapi.json")


# The document allows a file of any bytes; the service rejects those that are not images.
POSITIVE = (GenerationMode.POSITIVE, [positive_data_acceptance])
NEGATIVE = (GenerationMode.NEGATIVE, [])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "path", "mode", "excluded"),
    [*((*operation, *POSITIVE) for operation in OPERATIONS), ("post", "/predict", *NEGATIVE)],
)
def test_service_conforms_to_its_document(
    api: Any, method: str, path: str, mode: GenerationMode, excluded: list[Any]
) -> None:
    """Only documented statuses, types and bodies, for valid and invalid requests."""

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(case=api[path][method].as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        case.call_and_validate(excluded_checks=excluded)

    check()
