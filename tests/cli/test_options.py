"""Options are built from the fields of settings classes."""

from __future__ import annotations

from typing import Any

import pytest
import typer
from pydantic import BaseModel

from thirtytwo.app.settings import AppSettings
from thirtytwo.cli.main import app, run_command
from thirtytwo.cli.train import BY_DATA
from thirtytwo.serve.settings import ServeSettings

NO_OPTION = {"api_key", "models"}


def options_of(command: str) -> dict[str, Any]:
    """The options of a command by the names of their parameters."""
    found = typer.main.get_command(app).commands[command]  # type: ignore[attr-defined]
    return {option.name: option for option in found.get_params(typer.Context(found))}


@pytest.mark.parametrize(
    ("command", "settings", "own"),
    [("serve", ServeSettings, {"model", "on", "update", "help"}), ("app", AppSettings, {"model", "browser", "help"})],
)
def test_options_are_the_fields(command: str, settings: type[BaseModel], own: set[str]) -> None:
    options = options_of(command)
    assert set(options) == (set(settings.model_fields) - NO_OPTION) | own
    for name in set(options) - own:
        field, option = settings.model_fields[name], options[name]
        assert option.default == field.default
        assert option.help == field.description
        assert option.opts == [f"--{name.replace('_', '-')}"]


def test_bounds_and_variables_of_the_service() -> None:
    options = options_of("serve")
    assert (options["port"].min, options["port"].max) == (0, 65535)
    assert (options["queue"].min, options["queue"].max) == (1, None)
    assert options["max_batch"].envvar == "THIRTYTWO_SERVE_MAX_BATCH"


@pytest.mark.parametrize("command", ["serve", "app"])
def test_value_outside_the_bounds_is_an_error(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([command, "--port", "70000"]) == 2
    assert "65535" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "tune"])
def test_help_names_the_default_recipe(command: str) -> None:
    assert options_of(command)["recipe"].show_default == BY_DATA
