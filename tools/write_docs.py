"""Regenerate the generated parts of README and docs/: `make docs`. A test fails if they are not current.

A generated part is between `<!-- generated: NAME -->` and `<!-- end -->`. The pages in docs/checks/, the diagram of the
architecture and the navigation of the checks in mkdocs.yml are generated as a whole.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import architecture
import check_pages
import classic_table
import colab
import data_tables
import evaluation_tables
import guide_tables
import measured_accuracies
import photograph_tables
import scale_tables
import speed_tables
from result_tables import (
    accuracies,
    app_figures,
    augmentation_costs,
    bundled,
    explanations,
    installs,
    photograph_explanations,
    processes,
    remedies,
    service,
    speeds,
    transfer_gains,
    with_photographs,
)

from thirtytwo.config.recipe import Recipe
from thirtytwo.config.resolve import read_recipe, recipe_names
from thirtytwo.text import capitalized, percent

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
OPENAPI = ROOT / "docs" / "openapi.json"
SITE = ROOT / "mkdocs.yml"
NAVIGATION = re.compile(r"(      - Checks:\n          - checks\.md\n).*?(?=^  - )", re.DOTALL | re.MULTILINE)
PART = re.compile(r"(<!-- generated: (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def recipe_keys() -> str:
    """One table of keys for each TOML table of a recipe."""
    schema = Recipe.model_json_schema()
    pages = ["### Top-level keys\n\n" + _keys(schema, schema)]
    pages += _tables(schema, schema)
    return "\n\n".join(pages) + "\n"


def _tables(schema: dict[str, Any], parent: dict[str, Any], prefix: str = "") -> list[str]:
    """The nested tables, each followed by those inside it."""
    pages = []
    for key, field in parent["properties"].items():
        if "$ref" in field:
            table = _resolve(schema, field)
            pages.append(f"### `[{prefix}{key}]`\n\n{_line(table['description'])}\n\n" + _keys(schema, table))
            pages += _tables(schema, table, f"{prefix}{key}.")
    return pages


def network_options() -> str:
    """The options of FastNet in `model.options`."""
    from thirtytwo.models.fastnet import FastNetSettings

    schema = FastNetSettings.model_json_schema()
    groups = "Each of `groups` is a table:\n\n" + _keys(schema, schema["$defs"]["GroupSettings"])
    return f"### `[model.options]` of `fastnet`\n\n{_keys(schema, schema)}\n\n{groups}\n"


def published_options() -> str:
    """The options of the other networks."""
    from thirtytwo.models.published import DenseNetSettings, PreResNetSettings, ResNetSettings, WideResNetSettings
    from thirtytwo.models.textbook import TextbookSettings
    from thirtytwo.models.timm import HeadSettings, TimmSettings

    kinds = {
        "`timm`": TimmSettings,
        "`textbook`": TextbookSettings,
        "`resnet18`, `resnet34` and `resnet50`": ResNetSettings,
        "`preresnet18`": PreResNetSettings,
        "`wideresnet`": WideResNetSettings,
        "`vgg16`": HeadSettings,
        "`densenet`": DenseNetSettings,
    }
    schemas = {names: kind.model_json_schema() for names, kind in kinds.items()}
    return "\n\n".join(f"### {names}\n\n{_keys(schema, schema)}" for names, schema in schemas.items()) + "\n"


def networks() -> str:
    """The table of networks with their cost at 32 pixels."""
    table = json.loads((ROOT / "src" / "thirtytwo" / "models" / "networks.json").read_text(encoding="utf-8"))
    lines = ["| network | options | parameters | FLOPs at 32×32 |", "| --- | --- | --- | --- |"]
    for row in table["networks"]:
        options = ", ".join(f"`{key} = {_toml(value)}`" for key, value in row["options"].items())
        cost = f"{row['parameters'] / 1e6:.2f} M | {row['flops']['32'] / 1e9:.2f} G"
        lines.append(f"| `{row['name']}` | {options} | {cost} |")
    note = f"For {table['classes']} classes; a multiply-add counts as two operations."
    return "\n".join(lines) + f"\n\n{note}\n"


def stems() -> str:
    """How each family of timm is adapted to small images."""
    from thirtytwo.models.small_stems import SMALL_STEMS

    rows = [f"| `{family}` | {stem.does} | {stem.because} |" for family, stem in SMALL_STEMS.items()]
    return "\n".join(["| family | change | reason |", "| --- | --- | --- |", *rows]) + "\n"


def recipes() -> str:
    """The bundled recipes."""
    rows = [f"| `{name}` | {read_recipe(name).description} |" for name in recipe_names()]
    return "\n".join(["| recipe | description |", "| --- | --- |", *rows]) + "\n"


def changes_of_fast() -> str:
    """The conditional settings of recipe `fast`."""
    lines = ["| condition | changes |", "| --- | --- |"]
    for row in read_recipe("fast").when:
        bounds = [f"`{name}` {value:,}" for name, value in row if name != "set" and value is not None]
        changes = ", ".join(f"`{key}` {_toml(value)}" for key, value in row.set.items())
        lines.append(f"| {', '.join(bounds)} | {changes} |")
    return "\n".join(lines) + "\n"


def problems() -> str:
    """The errors of the service."""
    from thirtytwo.serve.schemas import problems_table

    return problems_table()


def serve_settings() -> str:
    """The flags of `thirtytwo serve`."""
    import typer

    from thirtytwo.cli.main import app

    serve = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    lines = ["| flag | environment | default | meaning |", "| --- | --- | --- | --- |"]
    for option in serve.get_params(typer.Context(serve)):
        if option.name == "help":
            continue
        shown = option.show_default if isinstance(option.show_default, str) else option.default
        default = "off" if shown is False else f"{shown:g}" if isinstance(shown, int | float) else shown
        variable = f"`{option.envvar}`" if option.envvar else ""
        lines.append(f"| `{option.opts[0]}` | {variable} | {default} | {_line(option.help)} |")
    return "\n".join(lines) + "\n"


def weights() -> str:
    """ImageNet weights that need no model hub."""
    from thirtytwo.models.packaged import WEIGHTS, WeightPackage

    lines = [
        "| architecture | package | installed by | license | ImageNet top-1, as its authors state |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in WEIGHTS:
        row = WEIGHTS.get(name)
        if isinstance(row, WeightPackage) and row.extra and row.top1:
            cells = [f"`{name}`", f"`{row.package}`", f"the extra `{row.extra}`", row.license, percent(row.top1, 1)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def augmentations() -> str:
    """The policies for `augment.policy`."""
    from thirtytwo.augment import AUGMENTATIONS

    found = {name: AUGMENTATIONS.get(name) for name in AUGMENTATIONS}
    ours = {name: one for name, one in found.items() if one.__module__.startswith("thirtytwo.")}
    rows = [f"| `{name}` | {(one.__doc__ or '').splitlines()[0]} |" for name, one in ours.items()]
    return "\n".join(["| policy | description |", "| --- | --- |", *rows]) + "\n"


def checks() -> str:
    """Every check of `data doctor`, with why it matters and what to do."""
    lines = ["| code | severity | problem |", "| --- | --- | --- |"]
    ours = check_pages.ours()
    for check in ours:
        severity = check.severity + (", with `--thorough`" if check.costly else "")
        lines.append(f"| [{check.code}](#{check.code.lower()}) | {severity} | {check.title} |")
    for check in ours:
        text = f"**{capitalized(check.title)}.** {check.why} {check.fix}".rstrip()
        lines += ["", f"## {check.code}", "", f"{text} [More](checks/{check.code}.md)"]
    return "\n".join(lines) + "\n"


PARTS: dict[str, Callable[[], str]] = {
    **colab.PARTS,
    "accuracies": accuracies,
    "api": guide_tables.api,
    "api-extensions": guide_tables.api_extensions,
    "app": app_figures,
    "augmentation-costs": augmentation_costs,
    "augmentations": augmentations,
    "bundled": bundled,
    "changes-of-fast": changes_of_fast,
    "checks": checks,
    "commands": guide_tables.commands,
    "classic": classic_table.classic,
    "classic-costs": classic_table.classic_costs,
    "explanations": explanations,
    "explanations-photographs": photograph_explanations,
    "confidence": evaluation_tables.confidence,
    "installs": installs,
    "interval-table": guide_tables.interval_table,
    "serve-compare": speed_tables.serve_compare,
    "service": service,
    "speeds": speeds,
    "transfer": transfer_gains,
    "network-options": network_options,
    "networks": networks,
    "published-options": published_options,
    "costs-import": speed_tables.costs_import,
    "costs-predict": speed_tables.costs_predict,
    "predict-folder": speed_tables.predict_folder,
    "predict-one": speed_tables.predict_one,
    "costs-serve": speed_tables.costs_serve,
    "costs-train": speed_tables.costs_train,
    "data-commands": data_tables.data_commands,
    "photo-settings": photograph_tables.photo_settings,
    "photographs": photograph_tables.photographs,
    "few-shot": photograph_tables.few_shot,
    "problems": problems,
    "recipe-guide": guide_tables.recipe_guide,
    "recipe-keys": recipe_keys,
    "processes": processes,
    "record-steps": speed_tables.record_steps,
    "record-trainings": speed_tables.record_trainings,
    "record-turns": speed_tables.record_turns,
    "gpu-trainings": speed_tables.gpu_trainings,
    "gpu-steps": speed_tables.gpu_steps,
    "remedies": remedies,
    "recipes": recipes,
    "scale-assumptions": scale_tables.scale_assumptions,
    "scale-checks": scale_tables.scale_checks,
    "scale-images": scale_tables.scale_images,
    "scale-service": scale_tables.scale_service,
    "scale-stages": scale_tables.scale_stages,
    "serve-settings": serve_settings,
    "service-on-ray": scale_tables.service_on_ray,
    "stems": stems,
    "ood": evaluation_tables.ood,
    "tta": evaluation_tables.tta,
    "weights": weights,
}


def current(text: str) -> str:
    """The page with current generated parts."""
    return PART.sub(lambda part: part[1] + "\n" + PARTS[part["name"]]() + "\n" + part[3], text)


def _keys(schema: dict[str, Any], table: dict[str, Any]) -> str:
    lines = ["| key | values | default | description |", "| --- | --- | --- | --- |"]
    for name, value in table["properties"].items():
        if "$ref" not in value:
            meaning = _line(value.get("description", ""))
            lines.append(f"| `{name}` | {_values(schema, value)} | {_default(table, name, value)} | {meaning} |")
    return "\n".join(lines)


def _resolve(schema: dict[str, Any], field: dict[str, Any]) -> dict[str, Any]:
    table: dict[str, Any] = schema["$defs"][field["$ref"].rsplit("/", 1)[-1]]
    return table


def _line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _default(table: dict[str, Any], name: str, value: dict[str, Any]) -> str:
    if name in table.get("required", []):
        return "(required)"
    default = value.get("default")
    return "none" if default in (None, [], {}) else f"`{_toml(default)}`"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items() if inner is not None) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


NAMES = {
    "integer": "integer",
    "number": "number",
    "boolean": "`true`, `false`",
    "string": "text",
    "object": "table",
}
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def _values(schema: dict[str, Any], value: dict[str, Any]) -> str:
    if "anyOf" in value:
        return ", ".join(_values(schema, option) for option in value["anyOf"] if option != {"type": "null"})
    if "const" in value or "enum" in value:
        return ", ".join(f'`"{option}"`' for option in value.get("enum", [value.get("const")]))
    if "$ref" in value:
        return "tables of " + ", ".join(f"`{name}`" for name in _resolve(schema, value)["properties"])
    if value["type"] == "array":
        return f"list of {_values(schema, value['items'])}"
    limits = [f"{sign} {value[bound]:g}" for bound, sign in BOUNDS.items() if bound in value]
    return " ".join([NAMES[value["type"]], ", ".join(limits)]).strip()


def main() -> None:
    if measured_accuracies.write():
        print(f"written: {measured_accuracies.FILE.relative_to(ROOT)}")
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        if current(text) != text:
            path.write_text(current(text), encoding="utf-8")
            print(f"written: {path.relative_to(ROOT)}")
    for card in cards():
        text = card.read_text(encoding="utf-8")
        card.write_text(with_photographs(text, card.stem), encoding="utf-8")
    OPENAPI.write_text(openapi_document(), encoding="utf-8")
    for path in check_pages.write():
        print(f"written: {path.relative_to(ROOT)}")
    architecture.OUT.write_text(architecture.draw(), encoding="utf-8")
    SITE.write_text(with_navigation(SITE.read_text(encoding="utf-8")), encoding="utf-8")


def with_navigation(text: str) -> str:
    """The configuration of the site with all pages of checks in its navigation."""
    pages = "\n".join(check_pages.navigation()) + "\n"
    return NAVIGATION.sub(lambda found: found[1] + pages, text)


def cards() -> list[Path]:
    """The cards of the bundled models."""
    return sorted((ROOT / "src" / "thirtytwo" / "inference" / "bundled").glob("*.md"))


def openapi_document() -> str:
    """The document that `thirtytwo serve` returns at /openapi.json."""
    from thirtytwo.serve.api import create_app, openapi
    from thirtytwo.serve.service import Service
    from thirtytwo.serve.settings import ServeSettings

    return json.dumps(openapi(create_app(Service({}, ServeSettings()))), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main()
