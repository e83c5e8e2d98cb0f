"""The app in a browser."""

from __future__ import annotations

import base64
import contextlib
import csv
import io
import json
import socket
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from thirtytwo.cli.main import run_command
from thirtytwo.data.fixes import read_fix_plan
from thirtytwo.inference.classifier import Classifier
from thirtytwo.text import interval, percent

pytestmark = pytest.mark.browser

Visit = Callable[..., Any]
PASTE = """async (data) => {
  const bytes = Uint8Array.from(atob(data), (char) => char.charCodeAt(0));
  const held = new DataTransfer();
  held.items.add(new File([bytes], "image.png", { type: "image/png" }));
  document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: held, bubbles: true, cancelable: true }));
}"""


@pytest.fixture
def files(tmp_path: Path, paint: Callable[..., bytes]) -> list[Path]:
    """Images in several formats; the grey one belongs to no class."""
    kinds = {"red.png": "PNG", "green.jpg": "JPEG", "blue.webp": "WEBP", "grey.bmp": "BMP", "blue.tif": "TIFF"}
    made = []
    for name, kind in kinds.items():
        made.append(tmp_path / name)
        made[-1].write_bytes(paint(name.partition(".")[0], kind=kind))
    return made


def upload(page: Any, files: list[Path] | Path, field: int = 0) -> None:
    page.locator("input[type=file]").nth(field).set_input_files(files)


def wait_for_script(page: Any) -> None:
    """Wait until Streamlit's script has run, so that nothing is drawn anew under the focus."""
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")


def toggle(page: Any, label: str) -> None:
    """Click the toggle with this label."""
    page.locator("label", has_text=label).first.click()


def download(page: Any, label: str) -> bytes:
    """Content of the file behind a download button, whose address is a new one each time that the script runs."""
    wait_for_script(page)
    with page.expect_download() as waiting:
        page.get_by_role("button", name=label, exact=True).click()
    return Path(waiting.value.path()).read_bytes()


def test_one_image_with_classes_and_heatmap(visit: Visit, files: list[Path]) -> None:
    page = visit()
    upload(page, files[0])
    page.wait_for_selector(".tt-card")
    assert page.inner_text(".tt-top") == "red"
    assert page.locator(".tt-bars b").all_inner_texts() == ["red", "green", "blue"]
    assert page.locator(".tt-bars em").first.inner_text() == ">\u00a099.9\u00a0%"
    assert page.get_attribute(".tt-input img", "alt") == "Model input of red.png"
    assert page.evaluate("document.querySelector('.tt-input img').naturalWidth") == 8
    plain = page.get_attribute(".tt-card img", "src")
    toggle(page, "Show heatmap")
    page.wait_for_selector("img[alt^='red.png with heatmap: red, ']")
    assert page.get_attribute(".tt-card img", "src") != plain


def test_five_images_table_and_downloads(visit: Visit, files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("not an image")
    page = visit()
    upload(page, [*files, tmp_path / "notes.png"])
    page.wait_for_selector("text=5 images classified; 1 of them may be something the model doesn’t know; 1 could not")
    page.locator(".tt-card").nth(4).wait_for()
    assert page.locator(".tt-card").count() == 5
    assert page.locator(".tt-badge").all_inner_texts() == ["unknown"]
    assert "notes.png" in page.inner_text("[data-testid=stAlertContainer]")
    rows = list(csv.DictReader(io.StringIO(download(page, "CSV (all 6)").decode())))
    assert [row["top"] for row in rows] == ["red", "green", "blue", "red", "blue", ""]
    assert [row["known"] for row in rows][:5] == ["true", "true", "true", "false", "true"]
    entries = json.loads(download(page, "JSON (all 6)"))
    assert entries[0].keys() == {"file", "width", "height", "top", "confidence", "known", "predictions", "certainty"}
    assert "notes.png" in entries[5]["error"]
    with zipfile.ZipFile(io.BytesIO(download(page, "Heatmaps (ZIP)"))) as archive:
        assert archive.namelist() == ["red.png", "green.png", "blue.png", "grey.png", "blue-2.png", "predictions.json"]
        assert Image.open(archive.open("red.png")).size == (440, 330)


def test_pasting_and_samples(visit: Visit, paint: Callable[..., bytes]) -> None:
    page = visit()
    page.wait_for_selector("input[type=file]", state="attached")
    page.wait_for_selector("body[data-tt-paste=ready]", state="attached")
    wait_for_script(page)
    page.evaluate(PASTE, base64.b64encode(paint("green")).decode())
    page.wait_for_selector(".tt-card")
    assert page.inner_text(".tt-top") == "green"
    page.get_by_text("Samples", exact=True).first.click()
    page.get_by_role("button", name="rocket", exact=True).click()
    page.wait_for_selector("figcaption:has-text('rocket.jpg')")
    page.locator(".tt-card").nth(1).wait_for()  # the new image is drawn first, in the place of the pasted one
    assert page.locator(".tt-top").all_inner_texts()[1] == "green", "the pasted image is still there"
    assert page.locator(".tt-card").count() == 2


def test_two_models_side_by_side(visit: Visit, files: list[Path]) -> None:
    page = visit("compare")
    wait_for_script(page)
    page.get_by_role("combobox", name="Models").press("Backspace")  # takes the last one away
    wait_for_script(page)
    page.get_by_role("combobox", name="Models").click()
    page.get_by_role("option", name="other", exact=True).click()
    page.keyboard.press("Escape")
    wait_for_script(page)
    upload(page, files[:3])
    page.wait_for_selector("text=Both agree on 2 of 3 images.")
    page.locator(".tt-beside").nth(2).wait_for()
    assert page.locator(".tt-beside").nth(2).locator(".tt-top").all_inner_texts() == ["blue", "sea"]
    assert page.locator(".tt-beside .tt-badge").all_inner_texts() == ["agree", "agree", "differ"]
    toggle(page, "Only where they differ")
    page.wait_for_function("document.querySelectorAll('.tt-beside').length === 1")


@pytest.mark.slow
def test_add_two_classes_and_use_the_model(
    visit: Visit, shade: Callable[..., list[Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = visit("teach")
    page.wait_for_selector("text=Next: name class 1; name class 2; add images of class 1")
    for number, (name, colour) in enumerate({"sun": (240, 200, 30), "grape": (130, 30, 180)}.items(), start=1):
        page.get_by_label(f"Name of class {number}").fill(name)
        page.keyboard.press("Tab")
        page.wait_for_function("n => !document.body.innerText.includes(`name class ${n}`)", arg=number)
        wait_for_script(page)  # an upload while the page is drawn anew can be lost
        upload(page, shade(tmp_path / name, colour, 6, seed=number), number - 1)
        page.wait_for_function(
            "n => [...document.querySelectorAll('p')].filter((p) => p.innerText === '6 images').length === n",
            arg=number,
        )
    page.get_by_role("button", name="Train").click()
    page.wait_for_selector("[data-testid=stMetricValue]")
    assert page.inner_text("[data-testid=stMetricValue]") == "100.0\u00a0%"
    assert "Accuracy to expect on new photos" in page.inner_text("[data-testid=stMetric]")
    assert page.get_by_text("each of your 12 photos").is_visible()
    model = tmp_path / "model.onnx"
    model.write_bytes(download(page, "Download model.onnx"))
    assert Classifier(model, threads=1).classes == ("sun", "grape")
    new = shade(tmp_path / "new", (130, 30, 180), 1, seed=9)[0]
    assert run_command(["predict", str(new), "--model", str(model), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["top"] == "grape"
    upload(page, new, 2)
    page.wait_for_selector(".tt-card")
    assert page.inner_text(".tt-top") == "grape"
    page.get_by_role("link", name="Models").click()
    page.wait_for_selector("text=sun or grape")


@pytest.mark.slow
def test_a_models_file_is_checked_before_use(visit: Visit, colour_model: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    page = visit("models")
    upload(page, tmp_path / "broken.onnx")
    page.wait_for_selector("[data-testid=stAlertContainer]:has-text('broken.onnx'):has-text('11 bytes')")
    (tmp_path / "mine.onnx").write_bytes(colour_model.read_bytes())
    upload(page, tmp_path / "mine.onnx")
    page.wait_for_selector("[data-testid=stAlertContainer]:has-text('mine was added')")


def test_explore_shows_and_filters_predictions(visit: Visit) -> None:
    page = visit("explore")
    page.wait_for_selector(".tt-tile img")
    tiles = page.locator(".tt-tile").all_inner_texts()
    assert all("predicted as" in text for text in tiles)
    page.get_by_text("Correct", exact=True).first.click()
    page.wait_for_function(
        "![...document.querySelectorAll('.tt-tile')].some((one) => one.innerText.includes('predicted as'))"
    )
    page.get_by_role("tab", name="Confusions").click()
    page.wait_for_selector(".tt-matrix")


@pytest.mark.long
@pytest.mark.parametrize("width", [1280, 390])
def test_a_cross_validation_is_explored(visit: Visit, cross_validated: dict[str, Any], width: int) -> None:
    page = visit("explore", width=width)
    page.get_by_role("combobox", name="Run").click()
    page.get_by_role("option", name="folded, cross-validation").click()
    page.wait_for_selector("[data-testid=stMetric]:has-text('mean accuracy over 3 folds')")
    found = cross_validated["cross_validation"]
    over_folds, over_images = page.locator("[data-testid=stMetric]").all_inner_texts()
    assert percent(found["mean_accuracy"]["value"], 1) in over_folds
    assert interval(found["mean_accuracy"]["ci95"], digits=1) in over_folds
    assert "60 images" in over_images
    assert interval(found["out_of_fold"]["accuracy"]["ci95"], digits=1) in over_images
    page.get_by_text("All", exact=True).first.click()
    page.wait_for_selector("p:has-text('60 images') >> visible=true")
    page.wait_for_function("document.querySelectorAll('.tt-tile img').length === 24")
    assert page.locator(".tt-tile").first.inner_text().split()[0] in ("red", "green", "blue")
    page.get_by_role("tab", name="Classes").click()
    page.locator("[data-testid=stDataFrame] >> visible=true").wait_for()
    page.get_by_role("tab", name="Confusions").click()
    page.wait_for_selector(".tt-matrix >> visible=true")
    page.get_by_role("tab", name="Folds").click()
    page.get_by_text("Each fold is the test of one run").wait_for()
    assert b"3 folds" in download(page, "Report (HTML)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_report_of_a_cross_validation(
    browser: Any,
    explorable: Path,
    cross_validated: dict[str, Any],
    width: int,
    accessibility: Callable[[Any], list[str]],
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="dark")
    page.goto((explorable / "runs" / "folded" / "report.html").as_uri())
    assert page.locator("h1").inner_text() == f"few, {cross_validated['folds']} folds"
    for link in page.locator("nav a").all():
        link.click()
        assert page.locator(link.get_attribute("href")).is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert not accessibility(page)
    page.close()


@pytest.mark.long
def test_models_lists_cross_validations(visit: Visit, cross_validated: dict[str, Any]) -> None:
    page = visit("models")
    page.wait_for_selector("h3:has-text('Cross-validations')")
    mean = cross_validated["cross_validation"]["mean_accuracy"]
    text = " ".join(page.inner_text("body").replace("\u2060", "").split())
    assert f"Accuracy over 3 folds: {percent(mean['value'])}".replace("\u00a0", " ") in text
    page.locator("[data-testid=stFileUploader]").wait_for()  # the page is drawn from top to bottom
    wait_for_script(page)
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Report (HTML)", exact=True).last.click()
    assert waiting.value.suggested_filename == "folded-report.html"


@pytest.mark.long
@pytest.mark.parametrize("width", [1280, 390])
def test_suggested_fixes_are_decided_by_keys(
    visit: Visit, shade: Callable[..., list[Path]], tmp_path: Path, width: int
) -> None:
    first = shade(tmp_path / "pets" / "cat", (240, 200, 30), 8, seed=1)[0]
    shade(tmp_path / "pets" / "dog", (130, 30, 180), 8, seed=2)
    for name in ("cat/a.png", "cat/b.png", "dog/c.png", "dog/d.png"):
        (tmp_path / "pets" / name).write_bytes(first.read_bytes())
    page = visit("data", width=width)
    field = page.get_by_role("textbox", name="Folder, CSV file or known data set")
    field.fill(str(tmp_path / "pets"))
    page.get_by_role("button", name="Check").click()
    page.wait_for_selector("text=1 of 5: 0 accepted")
    wait_for_script(page)
    field.focus()
    page.keyboard.type("ax")
    assert field.input_value().endswith("petsax")
    page.locator("h1").click()
    keys = (
        ("a", "2 of 5: 1"),
        ("z", "1 of 5: 0"),
        ("ArrowRight", "2 of 5: 0"),
        ("ArrowLeft", "1 of 5: 0"),
        ("a", "2 of 5: 1"),
    )
    for key, expected in (*keys, ("x", "3 of 5: 1"), ("ArrowLeft", "2 of 5: 1"), ("a", "3 of 5: 2")):
        page.keyboard.press(key)
        page.wait_for_selector(f"text={expected} accepted")
        wait_for_script(page)
    assert page.locator(".tt-review img").count() == 5
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    plan = tmp_path / "plan.csv"
    plan.write_bytes(download(page, "Download the list of fixes (CSV)"))
    assert len(read_fix_plan(plan).fixes) == 2
    page.reload()
    page.wait_for_selector("text=3 of 5: 2 accepted")
    wait_for_script(page)
    if width > 640:  # on a phone the links to pages are in a menu
        page.get_by_role("link", name="Models").click()
        page.wait_for_selector("h1:has-text('Models')")
        page.get_by_role("link", name="Data", exact=True).click()
        page.wait_for_selector("text=3 of 5: 2 accepted")


@pytest.mark.long
def test_fixes_are_decided_by_buttons(visit: Visit, shade: Callable[..., list[Path]], tmp_path: Path) -> None:
    first = shade(tmp_path / "pets" / "cat", (240, 200, 30), 8, seed=1)[0]
    shade(tmp_path / "pets" / "dog", (130, 30, 180), 8, seed=2)
    for name in ("cat/a.png", "cat/b.png", "dog/c.png", "dog/d.png"):
        (tmp_path / "pets" / name).write_bytes(first.read_bytes())
    page = visit("data")
    page.get_by_role("textbox", name="Folder, CSV file or known data set").fill(str(tmp_path / "pets"))
    page.get_by_role("button", name="Check").click()
    page.wait_for_selector("text=1 of 5: 0 accepted")
    page.locator("summary", has_text="Accept or reject all fixes").click()
    single = (("accept", "2 of 5: 1"), ("undo", "1 of 5: 0"), ("next", "2 of 5: 0"), ("previous", "1 of 5: 0"))
    for key, expected in (*single, ("reject", "2 of 5: 0")):
        wait_for_script(page)
        page.locator(f".st-key-fix-{key} button").click()
        page.wait_for_selector(f"text={expected} accepted")
    for label, expected in (("Accept all", "[1-5]"), ("Reject all", "0")):
        wait_for_script(page)
        page.get_by_role("button", name=label, exact=True).first.click()
        page.wait_for_selector(f"text=/of 5: {expected} accepted/")
    wait_for_script(page)
    page.get_by_role("button", name="Show", exact=True).first.click()
    page.wait_for_selector("text=/1 of 5: 0 accepted/")


@pytest.mark.parametrize("path", ["", "compare", "explore", "data", "models", "teach", "help"])
def test_every_page_fits_a_phone(visit: Visit, path: str) -> None:
    page = visit(path, width=390, color_scheme="dark", is_mobile=True, has_touch=True)
    page.wait_for_function("getComputedStyle(document.querySelector('.stApp')).backgroundColor === 'rgb(21, 24, 27)'")
    page.wait_for_selector("html[data-tt-dark]", state="attached")
    wait_for_script(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_by_keyboard(visit: Visit, files: list[Path]) -> None:
    page = visit()
    upload(page, files[0])
    page.wait_for_selector(".tt-card")
    page.get_by_role("button", name="JSON", exact=True).wait_for()  # the page is drawn from top to bottom
    wait_for_script(page)
    reached: set[str] = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("(document.activeElement.ariaLabel || document.activeElement.innerText || '').trim()")
        )
    for wanted in ("Compare", "Add classes", "Model", "Show heatmap", "CSV"):
        assert wanted in " ".join(reached), (wanted, sorted(reached))


@pytest.mark.long
@pytest.mark.timeout(900)  # it trains, which a busy machine does slowly
def test_the_demo_opens_the_app_on_what_it_trained(demonstrated: Any, browser: Any, tmp_path: Path) -> None:
    images = sorted((tmp_path / "runs" / "demo" / "images").iterdir())
    page = browser.new_page()
    page.set_default_timeout(60_000)
    page.goto(demonstrated.url)
    page.wait_for_selector("h1")
    upload(page, images[3])
    page.wait_for_selector(".tt-card")
    assert page.inner_text(".tt-top") in set("0123456789")
    page.close()


@pytest.fixture
def listener() -> Iterator[tuple[int, list[bytes]]]:
    """A local port, and the first line of every request to it."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        asked.append(connection.recv(200).partition(b"\r")[0])

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1], asked
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.long
def test_text_of_a_model_file_is_not_interpreted(
    browser: Any,
    launch_app: Callable[..., Any],
    listener: tuple[int, list[bytes]],
    write_model: Callable[..., Path],
    finished_run: Callable[..., Path],
    files: list[Path],
    tmp_path: Path,
) -> None:
    port, asked = listener
    leak = f"http://127.0.0.1:{port}/leak"
    dataset = f"![x]({leak}) :red[red] $a^2$ :material/home: :cat: <img src={leak}> -> {leak} `code` **bold**"
    classes = (f"![c]({leak}/c)", f"<img src='{leak}/h'>", f"[c]({leak}/l)")
    architecture = f"*net* ![a]({leak}/a)"
    made = write_model(
        tmp_path / ":red[mine] _m_.onnx", dataset=dataset, classes=classes, architecture=architecture, version="$1$"
    )
    run = finished_run(tmp_path / "runs" / "a *b* :red[c]", classes=classes)
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps(metrics | {"dataset": dataset}))
    (run / "README.md").write_text(f"# Card\n\n![1]({leak}/1 'x(y)') ![2][r] <img src={leak}/3>\n\n[r]: {leak}/2\n")
    write_model(run / "model.onnx", dataset=dataset, classes=classes)
    app = launch_app("--model", str(made), cwd=tmp_path)
    page = browser.new_page()
    page.set_default_timeout(60_000)
    for path in ("", "compare", "explore", "models", "teach"):
        page.goto(f"{app.url}/{path}")
        page.wait_for_selector("h1")
        if path in ("", "compare"):
            upload(page, files[0])
            page.wait_for_selector(".tt-top")
        wait_for_script(page)
        if path == "models":
            page.locator("[data-testid=stFileUploader]").wait_for()  # the page is drawn from top to bottom
            for title in page.locator("summary").all():
                title.click()
            page.get_by_text("Made by: thirtytwo").first.wait_for()
        if path == "teach":
            page.get_by_role("combobox", name="Start from").click()
            page.get_by_role("option", name=":red[mine] _m_", exact=True).click()
        wait_for_script(page)
        if path != "explore":
            page.wait_for_function(
                "(text) => document.body.innerText.replaceAll('\\u2060', '').includes(text)", arg=dataset
            )
        text = page.inner_text("body").replace("\u2060", "")
        if path != "explore":
            assert dataset in text, ascii(text[text.find("classes of") :][:300])
        assert not page.evaluate(f"[...document.querySelectorAll('img')].some((one) => one.src.includes('{port}'))")
        if path == "models":
            assert architecture in text
            assert ":red[mine] _m_" in text
            assert "a *b* :red[c]" in text
            assert all(name in text for name in classes)
            assert "Made by: thirtytwo $1$" in text
            continue  # model cards may have links
        links = page.evaluate("[...document.querySelectorAll('a[href]')].map((one) => one.href)")
        assert not [link for link in links if str(port) in link], links
    page.close()
    assert asked == []
