"""What people add to the app stays: images across pages, projects across reloads, tabs and sessions."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytestmark = [pytest.mark.browser, pytest.mark.long]

Visit = Callable[..., Any]
Shade = Callable[..., list[Path]]
COLOURS = {"sun": (240, 200, 30), "grape": (130, 30, 180)}
COLOUR_MODEL = re.compile(r"^model\d+$")
"""Name of the model file `colour_model`: its folder's."""
EVIL = "**bold** $x^2$ [link](http://127.0.0.1:9/leak) :red[red] <b>b</b>"


def wait_for_script(page: Any) -> None:
    page.wait_for_timeout(300)  # until the server got what was done
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")


def upload(page: Any, files: list[Path] | Path, field: int = 0) -> None:
    wait_for_script(page)
    page.locator("input[type=file]").nth(field).set_input_files(files)


def open_page(page: Any, name: str) -> None:
    wait_for_script(page)
    page.get_by_role("link", name=name, exact=True).click()
    heading = {"Classify": "Classify images", "Compare": "Compare models", "Add classes": "Add classes from"}
    page.wait_for_selector(f"h1:has-text('{heading.get(name, name)}')")
    wait_for_script(page)


def wait_for_images(page: Any, count: int, group: int | None = None) -> None:
    place = "" if group is None else f".st-key-group-{group} "
    page.wait_for_function(
        "([place, count]) => document.querySelectorAll(`${place}.tt-thumbnails li`).length === count",
        arg=[place, count],
    )


def name_class(page: Any, number: int, name: str) -> None:
    wait_for_script(page)  # which shows a field twice while it draws the page
    page.get_by_label(f"Name of class {number}").fill(name)
    page.keyboard.press("Tab")
    wait_for_script(page)


def add_classes(page: Any, shade: Shade, folder: Path, seed: int = 1) -> None:
    """Name two classes and add six images of each."""
    for number, (name, colour) in enumerate(COLOURS.items(), start=1):
        name_class(page, number, name)
        upload(page, shade(folder / name, colour, 6, seed=seed + number), number - 1)
        wait_for_images(page, 6, number)
    wait_for_script(page)


def train(page: Any) -> None:
    wait_for_script(page)
    page.get_by_role("button", name="Train").click()
    page.wait_for_selector("[data-testid=stMetricValue]")
    wait_for_script(page)


def project_of(page: Any) -> str:
    page.wait_for_function("location.search.includes('project=')")
    found = re.search(r"project=([0-9a-f]{16})", page.url)
    assert found
    return found[1]


def values(page: Any) -> list[str]:
    wait_for_script(page)
    return [page.get_by_label(f"Name of class {number}").input_value() for number in (1, 2)]


def test_images_are_kept_across_pages_and_removed_one_by_one(visit: Visit, shade: Shade, tmp_path: Path) -> None:
    files = shade(tmp_path / "a", (240, 10, 10), 4, seed=1)
    page = visit()
    upload(page, files[:3])
    wait_for_images(page, 3)
    open_page(page, "Compare")
    wait_for_images(page, 3)
    open_page(page, "Models")
    open_page(page, "Classify")
    wait_for_images(page, 3)
    upload(page, files[3])
    wait_for_images(page, 4)
    wait_for_script(page)
    page.get_by_role("button", name="Remove 1.png").click()
    wait_for_images(page, 3)
    page.wait_for_selector(".tt-thumbnails img[alt='1.png']", state="detached")
    page.get_by_role("button", name="Undo").click()
    wait_for_images(page, 4)
    wait_for_script(page)
    page.get_by_role("button", name="Remove all images").click()
    page.wait_for_selector("text=4 images were removed")
    page.wait_for_selector(".tt-thumbnails li", state="detached")
    page.get_by_role("button", name="Undo").click()
    wait_for_images(page, 4)


def test_images_that_are_being_read_when_another_page_is_opened_are_not_lost(
    visit: Visit, shade: Shade, tmp_path: Path
) -> None:
    files = []
    for number in range(40):
        image = Image.effect_noise((900, 600 + number), 90).convert("RGB")
        files.append(tmp_path / f"{number}.png")
        image.save(files[-1], compress_level=1)
    page = visit()
    upload(page, files)
    page.wait_for_selector("text=/Read [1-3]?[0-9] of 40 images/")
    page.get_by_role("link", name="Models", exact=True).click()
    page.wait_for_selector("h1:has-text('Models')")
    wait_for_script(page)
    open_page(page, "Classify")
    page.wait_for_selector("text=40 images classified")
    wait_for_script(page)

    page = visit("teach")
    upload(page, files[:36], 0)
    page.wait_for_selector("text=/Read [1-3]?[0-9] of 36 images/")
    page.get_by_role("link", name="Help", exact=True).click()
    page.wait_for_selector("h1:has-text('Help')")
    wait_for_script(page)
    open_page(page, "Add classes")
    page.wait_for_selector(".st-key-group-1 p:has-text('36 images')")


def test_images_survive_reloading_and_stay_apart_in_each_page(visit: Visit, shade: Shade, tmp_path: Path) -> None:
    page, files = visit(), shade(tmp_path / "a", (240, 10, 10), 3, seed=1)
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    upload(page, files[:2])
    wait_for_images(page, 2)
    page.wait_for_selector("text=2 images, deleted an hour after you close this page")
    wait_for_script(page)
    page.locator("h1").click()  # browsers ask only after the user did something on the page
    page.reload()
    wait_for_images(page, 2)
    page.wait_for_selector(".tt-card >> nth=1")
    assert asked == [], "there is nothing to lose"
    open_page(page, "Compare")
    page.reload()
    wait_for_images(page, 2)
    other = visit(page.url.partition("127.0.0.1")[2].partition("/")[2])  # as when a tab is duplicated
    wait_for_images(other, 2)
    upload(other, files[2])
    wait_for_images(other, 3)
    wait_for_script(page)
    page.get_by_role("button", name="Remove 0.png").click()
    wait_for_images(page, 1)
    wait_for_script(page)
    for one, count in ((page, 1), (other, 3)):
        one.reload()
        wait_for_images(one, count)
    wait_for_script(page)
    page.get_by_role("button", name="Remove all images").click()
    page.wait_for_function("!location.search.includes('images=')")
    page.reload()
    page.wait_for_selector("h1")
    wait_for_script(page)
    page.wait_for_selector(".tt-thumbnails li", state="detached")


def test_a_project_survives_other_pages_reloading_and_a_new_tab(visit: Visit, shade: Shade, tmp_path: Path) -> None:
    page = visit("teach")
    add_classes(page, shade, tmp_path, seed=10)
    open_page(page, "Models")
    open_page(page, "Add classes")
    wait_for_images(page, 6, 1)
    upload(page, shade(tmp_path / "more", COLOURS["sun"], 1, seed=20), 0)
    wait_for_images(page, 7, 1)
    identity = project_of(page)
    page.reload()
    wait_for_images(page, 7, 1)
    wait_for_images(page, 6, 2)
    assert values(page) == ["sun", "grape"]
    train(page)
    assert "13 photos" in page.inner_text("[data-testid=stMetric]")
    page.reload()
    page.wait_for_selector("[data-testid=stMetricValue]")
    assert "13 photos" in page.inner_text("[data-testid=stMetric]")

    tab = visit("teach")
    wait_for_script(tab)
    assert values(tab) == ["", ""]
    if not tab.locator(f".st-key-project-open-{identity} button").is_visible():
        tab.get_by_text("Open another project").click()
    tab.locator(f".st-key-project-open-{identity} button").click()
    wait_for_images(tab, 7, 1)
    assert values(tab) == ["sun", "grape"]
    tab.wait_for_selector("[data-testid=stMetricValue]")
    open_page(tab, "Models")
    tab.wait_for_selector("h3:has-text('sun or grape')")
    tab.wait_for_selector("text=Estimated accuracy: ")


def test_removing_images_and_classes_of_a_project_is_undone(visit: Visit, shade: Shade, tmp_path: Path) -> None:
    page = visit("teach")
    add_classes(page, shade, tmp_path, seed=30)
    page.get_by_role("button", name="Remove 2.png").first.click()
    wait_for_images(page, 5, 1)
    page.get_by_role("button", name="Undo").click()
    wait_for_images(page, 6, 1)
    wait_for_script(page)
    page.locator(".st-key-clear-2 button").click()
    wait_for_images(page, 0, 2)
    page.get_by_role("button", name="Undo").click()
    wait_for_images(page, 6, 2)
    wait_for_script(page)
    page.get_by_role("button", name="Add a class").click()
    page.wait_for_selector(".st-key-group-3")
    wait_for_script(page)
    page.locator(".st-key-remove-2 button").click()
    page.wait_for_selector("text=grape was removed")
    page.get_by_role("button", name="Undo").click()
    wait_for_images(page, 6, 2)
    assert values(page) == ["sun", "grape"]


def test_two_sessions_do_not_destroy_each_others_changes(visit: Visit, shade: Shade, tmp_path: Path) -> None:
    first = visit("teach")
    name_class(first, 1, "sun")
    address = f"teach?project={project_of(first)}"
    second = visit(address)
    second.wait_for_function("document.querySelector('[aria-label=\"Name of class 1\"]')?.value === 'sun'")
    some, others = (
        shade(tmp_path / "a", COLOURS["sun"], 5, seed=41),
        shade(tmp_path / "b", COLOURS["grape"], 4, seed=42),
    )
    wait_for_script(second)
    upload(first, some, 0)
    upload(second, others, 1)
    wait_for_images(second, 4, 2)
    wait_for_images(first, 5, 1)
    name_class(second, 2, "grape")
    name_class(first, 1, "sunflower")
    for page in (first, second):
        page.goto(f"{page.url.partition('/teach')[0]}/{address}")
        wait_for_images(page, 5, 1)
        wait_for_images(page, 4, 2)
        assert values(page) == ["sunflower", "grape"]


def test_only_the_user_changes_the_model_in_use(visit: Visit, shade: Shade, tmp_path: Path) -> None:
    def chosen(label: str) -> str:
        return str(page.get_by_label(label, exact=False).first.input_value())

    page = visit()
    wait_for_script(page)
    before = chosen("Model in use")
    open_page(page, "Add classes")
    page.get_by_role("combobox", name="Start from").click()
    page.get_by_role("option", name=COLOUR_MODEL).click()
    wait_for_script(page)
    add_classes(page, shade, tmp_path, seed=50)
    train(page)
    assert COLOUR_MODEL.match(chosen("Start from"))
    open_page(page, "Classify")
    assert chosen("Model in use") == before
    open_page(page, "Add classes")
    assert COLOUR_MODEL.match(chosen("Start from"))
    page.get_by_role("button", name="Use on all pages").click()
    page.wait_for_selector("text=in use")
    assert COLOUR_MODEL.match(chosen("Start from"))
    open_page(page, "Classify")
    assert chosen("Model in use").startswith("sun or grape")
    page.reload()
    page.get_by_label("Model in use").wait_for()
    wait_for_script(page)
    assert chosen("Model in use").startswith("sun or grape")
    page = visit()  # a new tab
    page.get_by_label("Model in use").wait_for()
    wait_for_script(page)
    assert chosen("Model in use").startswith("sun or grape")


def test_results_of_earlier_names_and_images_are_marked_out_of_date(visit: Visit, shade: Shade, tmp_path: Path) -> None:
    page = visit("teach")
    add_classes(page, shade, tmp_path, seed=60)
    train(page)
    assert "Out of date" not in page.inner_text("body")
    name_class(page, 1, "moon")
    page.wait_for_selector("text=Out of date: 'sun' is now named 'moon' since this model was trained.")
    assert "sun" in page.inner_text(".tt-matrix")
    page.get_by_role("button", name="Remove 0.png").last.click()
    page.wait_for_selector("text=1 image of 'grape' was removed")
    train(page)
    page.wait_for_function("!document.body.innerText.includes('Out of date')")
    assert "moon" in page.inner_text(".tt-matrix")


def test_names_that_differ_by_case_or_spaces_are_caught_and_markup_is_not_interpreted(
    visit: Visit, shade: Shade, tmp_path: Path
) -> None:
    page = visit("teach")
    add_classes(page, shade, tmp_path, seed=70)
    name_class(page, 2, " SUN ")
    page.wait_for_selector("text=use another name than 'SUN'")
    assert page.get_by_role("button", name="Train").is_disabled()
    name_class(page, 2, EVIL)
    train(page)
    text = page.inner_text("[data-testid=stMain]").replace("\u2060", "")
    assert text.count(EVIL) >= 4, text
    assert page.locator("[data-testid=stMain] .katex").count() == 0
    assert page.locator("[data-testid=stMain] a[href*=leak]").count() == 0


def test_an_unreadable_image_is_marked_and_left_out(visit: Visit, shade: Shade, tmp_path: Path) -> None:
    page = visit("teach")
    add_classes(page, shade, tmp_path, seed=80)
    broken = tmp_path / "holiday.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 not a photograph")
    upload(page, broken, 1)
    page.wait_for_selector("text=Not used in “grape”: holiday.jpg")
    assert "holiday.jpg" in page.inner_text(".tt-unreadable")
    train(page)
    assert page.get_by_text("each of your 12 photos").is_visible()


def test_compare_opens_on_models_with_the_same_classes(visit: Visit) -> None:
    page = visit("compare")
    page.wait_for_selector(".react-aria-ComboBox [data-tag]")
    assert "do not know the same classes" not in page.inner_text("body")
    picked = page.locator(".react-aria-ComboBox [data-tag]").all_inner_texts()
    assert COLOUR_MODEL.match(picked[0])
    assert picked[1:] == ["colours-1"]
    page.get_by_role("combobox", name="Models").click()
    page.get_by_role("option", name="other", exact=True).click()
    page.wait_for_selector("text=These models do not know the same classes")


def test_the_page_says_what_the_model_can_name(visit: Visit) -> None:
    page = visit()
    page.wait_for_selector("text=It can name red, green, blue.")
    wait_for_script(page)
    page.get_by_role("combobox", name="Model in use").click()
    page.get_by_role("option", name="cifar100", exact=True).click()
    page.wait_for_selector("text=It can name 100 things, such as")
    page.get_by_text("All 100 things").click()
    page.wait_for_selector("text=sweet pepper")
    assert "sweet_pepper" not in page.inner_text("body")


def test_back_leads_to_the_page_before_with_one_press(visit: Visit, shade: Shade, tmp_path: Path) -> None:
    page = visit()
    upload(page, shade(tmp_path / "a", (240, 10, 10), 2, seed=1))
    wait_for_images(page, 2)
    page.wait_for_function("location.search.includes('images=')")
    open_page(page, "Help")
    page.wait_for_function("location.search.includes('images=')")
    page.go_back()
    page.wait_for_selector("h1:has-text('Classify images')")
    wait_for_images(page, 2)
    open_page(page, "Add classes")
    name_class(page, 1, "sun")
    project_of(page)
    page.go_back()
    page.wait_for_selector("h1:has-text('Classify images')")
    page.go_forward()
    page.wait_for_selector("h1:has-text('Add classes')")
    open_page(page, "Models")
    page.get_by_role("button", name="Open").first.click()
    page.get_by_role("button", name="All models").wait_for()
    wait_for_script(page)
    page.go_back()  # a model alone is a page of its own
    page.wait_for_selector("h1:has-text('Models')")


def test_removing_thumbnails_by_keyboard_keeps_the_focus_in_the_list(
    visit: Visit, shade: Shade, tmp_path: Path
) -> None:
    page = visit("teach")
    upload(page, shade(tmp_path / "a", COLOURS["sun"], 4, seed=1), 0)
    wait_for_images(page, 4, 1)
    wait_for_script(page)
    focused = "document.activeElement.getAttribute('aria-label')"
    page.get_by_role("button", name="Remove 1.png").focus()
    for left, expected in ((3, "Remove 2.png"), (2, "Remove 3.png"), (1, "Remove 0.png")):
        page.keyboard.press("Enter")
        wait_for_images(page, left, 1)
        wait_for_script(page)
        assert page.evaluate(focused) == expected
    page.keyboard.press("Enter")
    wait_for_images(page, 0, 1)
    wait_for_script(page)
    assert page.evaluate("document.activeElement.innerText").endswith("Undo")
