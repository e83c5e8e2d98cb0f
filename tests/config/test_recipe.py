from __future__ import annotations

import copy
import shlex
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thirtytwo.config.optimization import ScheduleSettings
from thirtytwo.config.recipe import Recipe, When
from thirtytwo.config.resolve import (
    flatten,
    format_override,
    parse_overrides,
    read_recipe,
    read_recipe_values,
    recipe_names,
    resolve_recipe,
    with_overrides,
)
from thirtytwo.errors import RecipeError, UnknownNameError

BASE: dict[str, Any] = {"name": "own", "model": {"name": "net"}}


def resolve(overrides: dict[str, Any], values: dict[str, Any] = BASE, classes: int = 10, rows: int = 100) -> Recipe:
    return resolve_recipe(values, overrides, classes=classes, rows=rows)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"schedule.epoch": 1}, ["'schedule.epoch'", "'epochs'"]),
        ({"Schedule.epochs": 1}, ["'Schedule'", "'schedule'"]),
        ({"schedule.zzz": 1}, ["'schedule.zzz'", "accumulate, batch_size, drop, epochs, "]),
        ({"schedule.resolution": [{"size": 16, "unti": 1}]}, ["'schedule.resolution.0.unti'", "'until'"]),
        ({"schedule.epochs": 0}, ["'schedule.epochs'", "1", "found 0"]),
        ({"schedule.epochs": True}, ["'schedule.epochs'", "whole number", "found True"]),
        ({"schedule.epochs": "8"}, ["'schedule.epochs'", "whole number", "found '8'"]),
        ({"schedule.epochs": 1.5}, ["'schedule.epochs'", "whole number", "found 1.5"]),
        ({"optimizer.lr": float("nan")}, ["'optimizer.lr'", "finite number", "found nan"]),
        ({"data.resize": "zoom"}, ["'data.resize'", "'crop', 'pad' or 'squash'", "found 'zoom'"]),
        ({"data.image_size": "big"}, ["'data.image_size'", "whole number or 'auto'", "found 'big'"]),
        ({"data.image_size": 1}, ["'data.image_size'", "8 or 'auto'", "found 1"]),
        ({"train.threads": 0}, ["'train.threads'", "1 or 'auto'", "found 0"]),
        ({"schedule": 3}, ["'schedule'", "table", "found 3"]),
        ({"schedule.resolution": 3}, ["'schedule.resolution'", "list", "found 3"]),
        ({"model.options": [1]}, ["'model.options'", "table", "found [1]"]),
        (
            {"schedule.resolution": [{"size": 16, "until": 0.5}, {"size": 24, "until": 0.4}]},
            ["'schedule'", "resolution", "'until'"],
        ),
        (
            {
                "schedule.epoch": 1,
                "data.val_fraction": 0.9,
                "augment.flip": "both",
                "schedule.resolution": [{"size": 16}],
            },
            [
                "'schedule.epoch'",
                "'data.val_fraction'",
                "found 0.9",
                "'augment.flip'",
                "found 'both'",
                "'schedule.resolution.0.until'",
            ],
        ),
    ],
)
def test_all_mistakes_are_reported_together(overrides: dict[str, Any], expected: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        resolve(overrides)
    assert caught.value.message.startswith("Recipe: ")
    for part in expected:
        assert part in caught.value.message


def test_missing_keys_are_named() -> None:
    with pytest.raises(RecipeError) as caught:
        resolve({}, values={})
    assert "'name'" in caught.value.message
    assert "'model'" in caught.value.message


@pytest.mark.parametrize(
    ("overrides", "key", "value"),
    [
        ({"data.image_size": 64}, ("data", "image_size"), 64),
        ({"data.image_size": "auto"}, ("data", "image_size"), "auto"),
        ({"optimizer.lr": 1}, ("optimizer", "lr"), 1.0),
        ({"schedule.epochs": np.int64(3)}, ("schedule", "epochs"), 3),
        ({"model.options.widths": [1, 2]}, ("model", "options"), {"widths": [1, 2]}),
        ({"model.options": {"a": (1, 2)}}, ("model", "options"), {"a": [1, 2]}),
    ],
)
def test_overrides_arrive(overrides: dict[str, Any], key: tuple[str, str], value: Any) -> None:
    table, name = key
    assert getattr(getattr(resolve(overrides), table), name) == value


def test_override_below_a_value_is_an_error() -> None:
    with pytest.raises(RecipeError) as caught:
        resolve({"name.first": 1})
    for part in ("'name.first'", "'name'", "'own'"):
        assert part in caught.value.message


def test_overrides_do_not_change_the_original() -> None:
    values: dict[str, Any] = {"schedule": {"epochs": 1}}
    assert with_overrides(values, {"schedule.epochs": 2, "a.b.c": 3}) == {
        "schedule": {"epochs": 2},
        "a": {"b": {"c": 3}},
    }
    assert values == {"schedule": {"epochs": 1}}


def test_flat_values_are_overrides_of_nothing() -> None:
    values: dict[str, Any] = {"schedule": {"epochs": 2, "milestones": [0.5]}, "a": {"b": {"c": 3}}, "name": "x"}
    flat = flatten(values)
    assert flat == {"schedule.epochs": 2, "schedule.milestones": [0.5], "a.b.c": 3, "name": "x"}
    assert with_overrides({}, flat) == values


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("schedule.epochs=4", "schedule.epochs", 4),
        ("optimizer.lr=1e-3", "optimizer.lr", 0.001),
        ("evaluate.tta=false", "evaluate.tta", False),
        ("augment.flip=none", "augment.flip", "none"),
        ('augment.flip="none"', "augment.flip", "none"),
        (" augment.flip = none ", "augment.flip", "none"),
        ("model.options.widths=[8, 16]", "model.options.widths", [8, 16]),
        ("model.name=timm/resnet18.a1_in1k", "model.name", "timm/resnet18.a1_in1k"),
        ("description=a=b", "description", "a=b"),
        ("description=", "description", ""),
    ],
)
def test_set_is_read_as_toml_else_as_text(text: str, key: str, value: Any) -> None:
    assert parse_overrides([text]) == {key: value}


@pytest.mark.parametrize(
    "value",
    [
        4,
        2e-06,
        0.5,
        True,
        "runs/my run",
        'a "quoted" \\ name',
        "Ärger 🐱",
        "[1, 2]",
        "",
        [],
        [8, [16]],
        [{"size": 20, "until": 0.15}, {"size": 24, "until": 0.5}],
        {"cat": 2.0, "my dog": {"flip": "none"}},
    ],
)
def test_a_recorded_setting_is_read_as_it_was(value: Any) -> None:
    words = shlex.split(shlex.join(["--set", format_override("a.b", value)]))
    assert "\n" not in words[1]
    assert parse_overrides(words[1:]) == {"a.b": value}


TOML_VALUES = st.recursive(
    st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.long
@given(st.dictionaries(st.text(max_size=5), TOML_VALUES, max_size=4))
def test_any_values_survive_toml(options: dict[str, Any]) -> None:
    recipe = Recipe.model_validate({"name": "own", "model": {"name": "net", "options": options}})
    assert tomllib.loads(recipe.to_toml())["model"]["options"] == options


@given(TOML_VALUES)
def test_any_override_survives_its_text(value: Any) -> None:
    text = format_override("a.b", value)
    assert "\n" not in text
    assert parse_overrides([text]) == {"a.b": value}


@pytest.mark.parametrize("text", ["schedule.epochs", "=4", " =4", ""])
def test_set_without_key_or_value_is_an_error(text: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_overrides([text])
    assert repr(text) in caught.value.message
    assert "key=value" in caught.value.message
    assert "--set schedule.epochs=4" in (caught.value.fix or "")


@pytest.mark.parametrize(
    ("when", "classes", "rows", "holds"),
    [
        ({}, 10, 100, True),
        ({"min_classes": 10, "max_classes": 10, "min_rows": 100, "max_rows": 100}, 10, 100, True),
        ({"min_classes": 11}, 10, 100, False),
        ({"max_classes": 9}, 10, 100, False),
        ({"min_rows": 101}, 10, 100, False),
        ({"max_rows": 99}, 10, 100, False),
        ({"min_classes": 2, "max_rows": 99}, 10, 100, False),
    ],
)
def test_when_holds(when: dict[str, int], classes: int, rows: int, holds: bool) -> None:
    assert When(set={}, **when).holds(classes, rows) is holds


def test_when_rows_apply_in_order_and_overrides_apply_last() -> None:
    values = {
        **BASE,
        "when": [
            {"min_classes": 5, "set": {"schedule.epochs": 2, "schedule.batch_size": 20}},
            {"max_rows": 1000, "set": {"schedule.epochs": 3}},
            {"max_classes": 4, "set": {"schedule.epochs": 4}},
        ],
    }
    assert resolve({}, values).schedule.epochs == 3
    assert resolve({}, values, rows=5000).schedule.epochs == 2
    resolved = resolve({"schedule.epochs": 9}, values)
    assert (resolved.schedule.epochs, resolved.schedule.batch_size, resolved.when) == (9, 20, ())


def test_a_wrong_when_row_is_reported_even_where_its_conditions_are_not_met() -> None:
    values = {**BASE, "when": [{"min_classes": 1000, "set": {"schedule.epoch": 2}}]}
    with pytest.raises(RecipeError) as caught:
        resolve({}, values)
    assert "'when' row 1" in caught.value.message
    assert "'schedule.epoch'" in caught.value.message


@pytest.mark.parametrize("name", recipe_names())
def test_bundled_recipes_resolve_for_any_data_and_round_trip(name: str, tmp_path: Path) -> None:
    values = read_recipe_values(name)
    assert values["name"] == name
    assert values["description"].endswith(".")
    for classes in (2, 10, 100, 1000):
        for rows in (10, 2_000, 50_000, 1_000_000):
            recipe = resolve({}, values, classes=classes, rows=rows)
            path = tmp_path / "recipe.toml"
            path.write_text(recipe.to_toml(), encoding="utf-8")
            assert read_recipe(path) == recipe
            assert resolve({}, read_recipe_values(path), classes=classes, rows=rows) == recipe


@pytest.mark.slow
@given(
    lr=st.floats(1e-9, 1e3),
    epochs=st.integers(1, 10**6),
    text=st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=30),
    options=st.dictionaries(
        st.text("abc_-. ", min_size=1), st.integers(-5, 5) | st.booleans() | st.lists(st.floats(0, 1))
    ),
)
def test_any_recipe_comes_back_from_its_toml(lr: float, epochs: int, text: str, options: dict[str, Any]) -> None:
    values = {
        **BASE,
        "description": text,
        "optimizer": {"lr": lr},
        "schedule": {"epochs": epochs},
        "model": {"name": "net", "options": options},
    }
    recipe = resolve({}, values)
    assert resolve({}, tomllib.loads(recipe.to_toml())) == recipe


def test_a_run_directory_means_its_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text('name = "mine"\n[model]\nname = "net"\n', encoding="utf-8")
    assert read_recipe(tmp_path).name == read_recipe(tmp_path / "recipe.toml").name == "mine"


@pytest.mark.skipif("fast" not in recipe_names(), reason="no recipe `fast` yet")
def test_a_file_does_not_hide_a_bundled_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fast").mkdir()
    (tmp_path / "fast" / "recipe.toml").write_text('name = "stray"\n[model]\nname = "net"\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert read_recipe("fast").name == "fast"
    assert read_recipe("./fast").name == "stray"


@pytest.mark.parametrize("name", ["fsat", "no/such/recipe.toml", "gone.toml"])
def test_unknown_recipes_are_named(name: str) -> None:
    with pytest.raises(UnknownNameError, match=name):
        read_recipe(name)


@pytest.mark.parametrize(("content", "reason"), [(b"name = x\n", "line 1"), (b"\xff\xfe", "can't decode byte 0xff")])
def test_damaged_recipe_files_are_named(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "own.toml"
    path.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        read_recipe(path)
    assert str(path) in caught.value.message
    assert reason in caught.value.message


def test_a_recipe_that_windows_wrote(tmp_path: Path) -> None:
    text = 'name = "mine"\r\n[model]\r\nname = "fastnet"\r\n'
    (tmp_path / "mine.toml").write_bytes(text.encode("utf-8-sig"))
    assert read_recipe(tmp_path / "mine.toml").name == "mine"


def test_overrides_are_left_as_they_are() -> None:
    """A dict of the caller is not changed by a key below it: its next use would be another one."""
    overrides = {"model.options": {"groups": [{"width": 8}]}, "model.options.activation": "relu"}
    kept = copy.deepcopy(overrides)
    resolved = resolve(overrides)
    assert resolved.model.options["activation"] == "relu"
    resolved.model.options["groups"].clear()
    assert overrides == kept


@pytest.mark.parametrize(
    ("stages", "progress", "work"),
    [
        ([], 0.25, 0.25),
        ([(16, 0.5)], 0.5, 0.2),  # a quarter of the pixels for half of the steps, then all: 0.125 of 0.625
        ([(16, 0.5)], 0.75, 0.6),
        ([(16, 0.5)], 1.0, 1.0),
        ([(16, 1.0)], 0.3, 0.3),
        ([(64, 0.5)], 0.3, 0.3),  # images are never enlarged
        ([(8, 0.25), (16, 0.5)], 0.25, 1 / 37),
    ],
)
def test_work_is_counted_in_pixels(stages: list[tuple[int, float]], progress: float, work: float) -> None:
    resolution = [{"size": size, "until": until} for size, until in stages]
    schedule = ScheduleSettings.model_validate({"resolution": resolution})
    assert schedule.work_at(progress, 32) == pytest.approx(work)


@pytest.mark.parametrize(
    ("transfer", "image_size", "work"),
    [
        ({}, 32, [0, 0.2, 0.6, 1]),
        ({}, "auto", [0, 0.5, 0.75, 1]),
        ({"pretrained": "imagenet", "head_until": 0.5}, 32, [0, 0, 0.2, 1]),
        ({"pretrained": "imagenet", "head_until": 1}, 32, [0, 0.5, 0.75, 1]),
        ({"pretrained": "imagenet", "head_until": 0}, 32, [0, 0.2, 0.6, 1]),
    ],
)
def test_work_done_after_epochs(transfer: dict[str, Any], image_size: int | str, work: list[float]) -> None:
    recipe = Recipe.model_validate(
        {
            "name": "one",
            "model": {"name": "fastnet"},
            "data": {"image_size": image_size},
            "schedule": {"epochs": 4, "resolution": [{"size": 16, "until": 0.5}]},
            "transfer": transfer,
        }
    )
    assert [recipe.work_done(epochs) for epochs in (0, 2, 3, 4)] == pytest.approx(work)


def test_a_teacher_takes_as_long_in_steps_on_small_images() -> None:
    recipe = Recipe.model_validate(
        {
            "name": "one",
            "model": {"name": "fastnet"},
            "data": {"image_size": 32},
            "schedule": {"epochs": 4, "resolution": [{"size": 16, "until": 0.5}]},
            "train": {"distill": {"run": "runs/teacher"}},
        }
    )
    small, large = 1 / 4 + 1 / 3, 1 + 1 / 3  # of a step without a teacher, at full size
    assert recipe.work_done(2) == pytest.approx(small / (small + large))
    assert recipe.work_done(4) == pytest.approx(1)
