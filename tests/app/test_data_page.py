"""The page Data without a browser: from a folder with problems to a plan of accepted fixes."""

from __future__ import annotations

import hashlib
import html
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("streamlit")

import streamlit
from streamlit.testing.v1 import AppTest

from thirtytwo.app import library
from thirtytwo.app.decisions import Decisions, identity_of
from thirtytwo.app.originals import _OPENABLE
from thirtytwo.app.problems import is_for_app
from thirtytwo.app.settings import AppSettings
from thirtytwo.app.views import data, reviews, train
from thirtytwo.app.views.fix_plan import commands, copy_folder
from thirtytwo.app.views.fix_review import compared_images
from thirtytwo.app.views.train import DATA
from thirtytwo.data.fixes import encode_fix_plan, read_fix_plan
from thirtytwo.data.load import load_dataset
from thirtytwo.data.repair import write_fixed
from thirtytwo.doctor import CHECKS, Diagnosis, Place, Subject
from thirtytwo.doctor.review import Review

EVIL = "![x](y) :red[a] $b$ <b>c"
"""A class name that is Markdown."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shade: Callable[..., list[Path]]) -> Path:
    """`pets`, with two copies of an image in a class, and one image in both classes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THIRTYTWO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "settings", AppSettings())
    for seed, part in enumerate(("train", "test")):
        shade(tmp_path / "pets" / part / "cat", (240, 200, 30), 6, seed=seed)
        shade(tmp_path / "pets" / part / EVIL, (130, 30, 180), 6, seed=seed + 2)
    train = tmp_path / "pets" / "train"
    other = train / EVIL
    for source, target in (("1", train / "cat" / "a.png"), ("1", train / "cat" / "b.png"), ("2", other / "c.png")):
        target.write_bytes((train / "cat" / f"{source}.png").read_bytes())
    return tmp_path / "pets"


def page(address: dict[str, str] | None = None) -> AppTest:
    """The page in a new session, run once; with a switch to another page and back."""

    def script() -> None:
        import streamlit as st

        from thirtytwo.app.components import show_error
        from thirtytwo.app.views import data
        from thirtytwo.errors import ThirtytwoError

        if st.toggle("elsewhere", key="elsewhere"):
            return
        try:
            data.show()
        except ThirtytwoError as error:
            show_error(error)

    found = AppTest.from_function(script, default_timeout=60)
    for name, value in (address or {}).items():
        found.query_params[name] = value
    found.run()
    assert not found.exception
    return found


def checked(spec: str) -> AppTest:
    found = page()
    found.text_input(key="doctor-spec").set_value(spec)
    found.button(key="doctor-check").click().run()
    assert not found.exception
    return found


def click(found: AppTest, *keys: str) -> None:
    for key in keys:
        found.button(key=key).click().run()
        assert not found.exception


def texts(found: AppTest) -> str:
    kinds = ("markdown", "info", "error", "caption", "code")
    return "\n".join(one.value for kind in kinds for one in getattr(found, kind))


def counter(found: AppTest) -> str:
    return str(found.get("progress")[0].proto.text)


def content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def accepted(found: AppTest) -> list[str]:
    """Files of the accepted fixes."""
    return [fix.image for fix in found.session_state[data._CHECKED].review.plan.fixes]


@pytest.mark.slow
def test_accepted_fixes_are_trained_with(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THIRTYTWO_JOBS", str(tmp_path / "jobs"))
    before = content(folder)
    found = checked("pets")
    assert "plan-train" not in {one.key for one in found.button}
    click(found, "fix-accept", "plan-train")
    assert found.session_state[DATA] == "pets"
    count = len(accepted(found))
    spec, path, images = found.session_state[train._PLAN]
    assert (spec, images) == ("pets", count)
    assert len(read_fix_plan(Path(path)).fixes) == count

    def script() -> None:
        from thirtytwo.app.views import train

        train.show()

    other = AppTest.from_function(script, default_timeout=60)
    for key in (train._PLAN, train._CHECKED, DATA):
        other.session_state[key] = found.session_state[key]
    other.run()
    assert not other.exception
    assert f"--apply {path}" in texts(other)
    other.checkbox(key=f"train-plan-{path}").set_value(False).run()
    assert "--apply" not in texts(other)
    assert content(folder) == before


@pytest.mark.slow
def test_from_a_folder_to_a_fixed_copy(folder: Path, tmp_path: Path) -> None:
    before = content(folder)
    found = checked("pets")
    headings = [one.label for one in found.expander if ": " in one.label]
    assert any("exact duplicates with different labels" in one for one in headings)
    assert any("exact duplicates within a split" in one for one in headings)
    assert "Technical details: this is the check T102 of the documentation." in texts(found)
    severities = [one.partition(":")[0] for one in headings]
    assert severities == sorted(severities, key=["Error", "Warning", "Note"].index)
    assert "**Why it matters.**" in texts(found)
    assert "**What to do.**" in texts(found)
    assert all(is_for_app(one.value) for kind in ("markdown", "caption", "info") for one in getattr(found, kind))
    assert counter(found).startswith("**1 of 4**: 0 accepted, 0 rejected, 4 not decided")
    assert found.button(key="fix-previous").disabled
    assert "not decided" in texts(found)

    click(found, "fix-accept", "fix-reject")
    assert counter(found).startswith("**3 of 4**: 1 accepted, 1 rejected, 2 not decided")
    click(found, "fix-previous")
    assert ":gray-badge[rejected]" in texts(found)
    click(found, "fix-accept")
    assert len(accepted(found)) == 2
    click(found, "fix-undo", "fix-undo", "fix-undo")
    assert (accepted(found), found.button(key="fix-undo").disabled) == ([], True)

    click(found, "accept-T103", "reject-T102")
    assert counter(found).endswith(": 2 accepted, 2 rejected, 0 not decided")
    found.toggle(key="elsewhere").set_value(True).run()
    assert not found.get("progress")
    found.toggle(key="elsewhere").set_value(False).run()
    assert accepted(found) == ["train/cat/a.png", "train/cat/b.png"]
    assert found.text_input(key="doctor-spec").value == "pets"
    assert "thirtytwo data fix pets --plan plan.csv --out NEW\nthirtytwo train pets --apply plan.csv" in texts(found)
    assert content(folder) == before, "the page changes nothing"

    plan = tmp_path / "plan.csv"
    plan.write_bytes(encode_fix_plan(found.session_state[data._CHECKED].review.plan))
    assert write_fixed(str(folder), read_fix_plan(plan), tmp_path / "new").images == len(before) - 2

    click(found, "copy-write")
    copied = content(tmp_path / "pets-fixed")
    assert copied.keys() == content(tmp_path / "new").keys(), "the same in the app"
    assert f"{len(before) - 2} images are in the fixed copy" in texts(found)
    assert content(folder) == before
    found.text_input(key="copy-folder-pets").set_value(str(tmp_path / "new"))
    click(found, "copy-write")
    assert "exists already" in found.error[0].value, "nothing is overwritten"
    assert content(tmp_path / "pets-fixed") == copied
    click(found, "accept-T102")
    assert "since it was written" in texts(found)
    click(found, "copy-train")
    assert found.session_state[DATA] == str(tmp_path / "pets-fixed")


@pytest.mark.slow
def test_each_file_that_cannot_be_read_has_its_own_advice_below_it(folder: Path) -> None:
    (folder / "train" / "cat" / "notes.jpg").write_text("bread, milk")
    (folder / "train" / "cat" / "cut.png").write_bytes((folder / "train" / "cat" / "1.png").read_bytes()[:60])
    found = checked("pets")
    (section,) = [one for one in found.expander if one.label.startswith("Error: images that cannot be read")]
    said = [one.value for one in section.markdown]
    assert [next(word for word in ("matters", "to do", "notes.jpg", "cut.png") if word in one) for one in said] == [
        "matters",
        "cut.png",
        "to do",
        "notes.jpg",
        "to do",
    ]


@pytest.mark.slow
def test_validation_images_are_called_so(folder: Path) -> None:
    for name in ("cat", EVIL):
        (folder / "val" / name).mkdir(parents=True)
        for number in range(3):
            copy = folder / "val" / name / f"{number}.png"
            copy.write_bytes((folder / "train" / name / f"{number}.png").read_bytes())
    found = checked("pets")
    captions = {one.caption.rpartition(" · ")[2] for one in found.session_state[_OPENABLE].values()}
    assert "validation" in captions
    assert "val" not in captions


def test_an_empty_field_says_what_to_enter(folder: Path) -> None:
    found = page()
    found.session_state[data._CHECKED] = None
    assert "CSV file" in found.info[0].value
    found.button(key="doctor-check").click().run()
    assert "CSV file" in found.warning[0].value


@pytest.mark.slow
def test_data_that_cannot_be_checked_hides_no_earlier_check(folder: Path) -> None:
    found = checked("pets")
    click(found, "accept-T103")
    found.text_input(key="doctor-spec").set_value("petz")
    click(found, "doctor-check")
    assert "'petz'" in found.error[0].value
    assert counter(found).endswith("2 not decided")
    assert "**pets**" in texts(found)


@pytest.mark.slow
def test_decisions_that_another_tab_deleted_are_not_lost_in_silence(folder: Path) -> None:
    found = checked("pets")
    reviews.store().forget(identity_of("pets"))
    click(found, "fix-accept")
    assert "lost when you reload" in found.warning[0].value
    assert "deleted in another tab" in found.warning[0].value


@pytest.mark.parametrize(
    ("spec", "expected"), [("pets", "pets-fixed"), ("pets?x=1", "pets-fixed"), ("digits", "digits-fixed")]
)
def test_a_copy_goes_beside_the_data(folder: Path, spec: str, expected: str) -> None:
    assert copy_folder(spec) == folder.parent / expected
    (folder.parent / expected).mkdir()
    assert copy_folder(spec) == folder.parent / f"{expected}-2"
    assert copy_folder(str(folder / "labels.csv")).parent == folder.parent


@pytest.mark.slow
def test_names_are_text(folder: Path) -> None:
    found = checked("pets")
    click(found, "show-T102")
    assert "![x]" not in texts(found)
    assert ":red[a]" not in texts(found).replace("\\:red\\[a\\]", "")
    assert all("![x]" not in one.label for one in found.expander)


@pytest.mark.slow
def test_decisions_on_data_that_was_checked_before_are_kept(folder: Path) -> None:
    (folder.parent / "empty").mkdir()
    found = checked("pets")
    click(found, "accept-T103")
    for spec in ("empty", "pets"):
        found.text_input(key="doctor-spec").set_value(spec)
        click(found, "doctor-check")
    assert accepted(found) == ["train/cat/a.png", "train/cat/b.png"]


@pytest.mark.slow
def test_decisions_survive_reloading_and_restarting_and_changes_are_named(folder: Path, tmp_path: Path) -> None:
    found = checked("pets")
    click(found, "accept-T103", "fix-reject", "fix-undo", "reject-T102")
    address = dict(found.query_params)
    kept = ["train/cat/a.png", "train/cat/b.png"]

    found = page(address)
    assert (accepted(found), found.button(key="fix-undo").disabled) == (kept, True)
    assert counter(found).endswith(": 2 accepted, 2 rejected, 0 not decided")
    assert found.text_input(key="doctor-spec").value == "pets"
    click(found, "fix-accept")
    streamlit.cache_resource.clear()  # as when the app is started again
    found = page(address)
    assert len(accepted(found)) == 3
    assert "the suggestions are the same as then" in texts(found)

    (folder / "train" / EVIL / "c.png").unlink()
    (folder / "train" / "cat" / "d.png").write_bytes((folder / "train" / "cat" / "3.png").read_bytes())
    click(found, "doctor-check")
    said = " ".join(one.value for one in found.warning)
    assert "The findings have changed since" in said
    assert "1 suggestion is new; 2 earlier suggestions are gone, 2 of them decided" in said
    assert accepted(found) == kept
    assert counter(found).endswith("1 not decided")

    found = page()
    assert not found.get("progress")
    reopen = next(one for one in found.button if one.key.startswith("review-open-"))
    assert "pets  \n:small[3 accepted, 1 rejected" in texts(found)
    reopen.click().run()
    assert accepted(found) == kept
    shutil.rmtree(folder)
    streamlit.cache_resource.clear()
    found = page(address)
    assert [one.value.count("'pets'") for one in found.error] == [1]
    assert not found.get("progress")
    for answer in ("review-delete-no", "review-delete-yes"):
        next(one for one in found.button if one.key.startswith("review-forget-")).click().run()
        assert "decisions? That cannot be undone." in texts(found)
        click(found, answer)
    assert not [one for one in found.button if one.key.startswith("review-")]


@pytest.mark.slow
def test_decisions_of_this_computers_user_are_not_shown_elsewhere(folder: Path) -> None:
    store, spec = reviews.store(), "digits"
    store.put(Decisions(identity=identity_of(spec), spec=spec, place=spec, decided={"0" * 16: True}))
    other = str(folder)
    store.put(Decisions(identity="f" * 16, spec=other, place=other, decided={"0" * 16: True}))
    assert len([one for one in page().button if one.key.startswith("review-open-")]) == 2
    library.settings = AppSettings(host="0.0.0.0")
    for identity in (identity_of(spec), "f" * 16, "../" + "0" * 13, "0" * 16):
        found = page({reviews.QUERY: identity})
        assert not found.get("progress"), identity
        assert not [one for one in found.button if one.key.startswith("review-")]


def test_a_relabeled_image_is_shown_beside_both_classes(folder: Path) -> None:
    subject = Subject(load_dataset("pets"))
    wrong = [(Place("train", 0),), (Place("train", 1),)]
    finding = CHECKS.get("T501").finding("labels", wrong, predicted=[("cat", 0.9), ("cat", 0.55)])
    review = Review(Diagnosis("pets", subject, (finding,), ("T501",)))
    assert [item.fix.action for item in review.items] == ["relabel", "drop"]
    image = review.current
    assert image.place is not None
    shown = compared_images(review, subject, image, image.place)
    assert shown.count("this image") == 1
    assert [shown.count(f"Other images of {name}<") for name in ("cat", html.escape(EVIL))] == [1, 1]
    assert EVIL not in shown
    same = shown.partition("Other images of")[2].partition("Other images of")[0]
    assert "2.png" in same
    assert "/0.png" not in same
    assert "/1.png" not in same, "it is probably wrong, too"


@pytest.mark.slow
def test_images_that_are_too_large_get_advice_for_people_who_use_the_app(
    folder: Path, paint: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THIRTYTWO_MAX_PIXELS", "2_000_000")
    for number in range(2):
        (folder / "train" / "cat" / f"large-{number}.png").write_bytes(paint("blue", (2000, 1001 + number)))
    found = checked("pets")
    assert texts(found).count("Save it smaller, with at most 2 megapixels, and try again") == 1
    assert "THIRTYTWO" not in texts(found)


@pytest.mark.slow
def test_errors_are_sentences(folder: Path) -> None:
    found = checked("petz")
    assert [one.value.count("'petz'") for one in found.error] == [1]
    assert "'pets'" in found.error[0].value.replace("\\", "")
    assert "hf:" not in found.error[0].value, "the app downloads nothing"
    assert not found.get("progress")
    (folder.parent / "empty").mkdir()
    found = checked("empty")
    assert "cannot be used" in texts(found)
    assert [one.proto.expanded for one in found.expander if one.label.startswith("Error: ")] == [True]
    assert "contains no images" in texts(found)
    assert [one.value for one in found.header] == ["Findings"], "no fixes are suggested"


def test_from_another_computer_only_known_data_can_be_checked(folder: Path) -> None:
    library.settings = AppSettings(host="0.0.0.0")
    found = checked("pets")
    assert "`digits`" in found.error[0].value
    assert not found.get("progress")


def test_commands_are_quoted_and_name_the_data_root(folder: Path) -> None:
    library.settings = AppSettings(data_root=Path("my data"))
    assert commands("a b") == (
        "thirtytwo data fix 'a b' --plan plan.csv --out NEW --data-root 'my data'",
        "thirtytwo train 'a b' --apply plan.csv --data-root 'my data'",
    )
