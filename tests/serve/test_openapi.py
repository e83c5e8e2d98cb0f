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


def test_page_is_complete_and_has_no_external_resources(client: TestClient) -> None:
    answer = client.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    page = answer.text
    assert not re.search(r"""(src|href|action)=["']?(https?:)?//|@import|url\(""", page)
    assert "{{" not in page
    for kind in KINDS:
        assert f'id="{kind}"' in page
    anchors = set(re.findall(r'href="#([\w-]+)"', page))
    assert anchors
    assert anchors <= set(re.findall(r'id="([\w-]+)"', page))
    assert client.get("/", follow_redirects=False).headers["location"] == "/docs"


@pytest.mark.browser
@pytest.mark.slow
def test_page_in_a_browser(launch: Callable[..., Any], make: Any, chromium: str, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    (tmp_path / "blue.png").write_bytes(make.image("blue", (60, 60)))
    running = launch(THIRTYTWO_API_KEY="sesame")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 800})
        requested, errors = [], []
        page.on("request", lambda request: requested.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{running.url}/docs")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.fill("#key", "sesame")
        page.locator("#key").dispatch_event("change")
        page.wait_for_selector("#model option:has-text('(default)')", state="attached")
        page.set_input_files("input[type=file]", tmp_path / "blue.png")
        page.check("#heatmap")
        page.click("button")
        page.wait_for_selector("#overlays img")
        assert '"top": "blue"' in page.inner_text("#response")
        browser.close()
    assert not errors
    assert all(url.startswith((running.url, "data:")) for url in requested)


@pytest.fixture(scope="module")
def api(launch: Callable[..., Any]) -> Any:
    return schemathesis.openapi.from_url(f"{launch().url}/openapi.json")


# The document allows a file of any bytes; the service rejects those that are not images.
POSITIVE = (GenerationMode.POSITIVE, [positive_data_acceptance])
NEGATIVE = (GenerationMode.NEGATIVE, [])


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
