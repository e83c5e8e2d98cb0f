"""Sentences and tables about what benchmarks measured, from `benchmarks/results/`."""

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BUNDLED = ROOT / "src" / "thirtytwo" / "predict" / "bundled"
ALIKE = 0.02


def bundled() -> str:
    """The models that come along, as their cards have them."""
    lines = [
        "| model | test accuracy, one view | expected calibration error | size | recipe | report |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for path in sorted(BUNDLED.glob("*.md"), key=lambda path: path.stem):
        text = path.read_text(encoding="utf-8")
        figures = dict(re.findall(r"name: (.+)\n      value: ([\d.]+)", text))
        accuracy, error = (float(figures[name]) for name in ("Accuracy, one view", "Expected calibration error"))
        recipes = re.findall(r"^thirtytwo train .*--recipe (\S+)", text, re.MULTILINE)
        assert recipes, path
        recipe = ", ".join(f"`{name}`" for name in dict.fromkeys(recipes))
        if len(recipes) > 1:
            recipe += f" ({len(recipes)} trainings)"
        size = path.with_suffix(".onnx").stat().st_size / 1e6
        card = f"[`{path.stem}`](src/thirtytwo/inference/bundled/{path.name})"
        report = f"[page](docs/reports/{path.stem}.html)"
        lines.append(f"| {card} | **{accuracy:.2%}** | {error:.2%} | {size:.1f} MB | {recipe} | {report} |")
    return "\n".join(lines) + "\n"


def transfer_gains() -> str:
    """Accuracy from another data set's weights and from scratch, with few pictures."""
    result = _read(RESULTS / "transfer.json")
    hardware = result["hardware"]
    lines = [
        "| data | trained on | epochs | weights of | pretrained | from scratch | gained |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for case in result["cases"]:
        if "points_gained" in case:
            first = case["pretrained"]["runs"][0]
            started, scratch = _spread(case["pretrained"]), _spread(case["scratch"])
            epochs = f"{first['epochs']}" + ("" if case["epochs"] else ", the recipe's")
            cells = [case["data"], f"{first['trained_on']:,} pictures", epochs, case["source"], started, scratch]
            lines.append(f"| {' | '.join(cells)} | {case['points_gained']:+.1f} points |")
    text = f"""
Recipe `{result["recipe"]}` with the same settings for both; mean, range and number of seeds of the accuracy on all test
pictures, one view; {hardware["cores"]} cores of {hardware["cpu"]}, {result["date"]}."""
    return "\n".join([*lines, text]) + "\n"


def _spread(runs: dict[str, Any]) -> str:
    """Mean, range and number of runs; of a single run its 95 % interval."""
    if runs["n"] == 1:
        low, high = runs["runs"][0]["ci95"]
        return f"{runs['mean']:.1%} [{low:.1%}, {high:.1%}], n = 1"
    return f"{runs['mean']:.1%} ({runs['min']:.1%} to {runs['max']:.1%}), n = {runs['n']}"


def accuracies() -> str:
    """What the recipes reached on CIFAR."""
    results = {path.stem: _read(path) for path in sorted(RESULTS.glob("accuracy-*.json"))}
    lines = [
        "| data | recipe | test accuracy | with test-time augmentation | minutes | seeds | hardware, precision, date |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(_accuracy_row(name, result) for name, result in results.items()),
    ]
    runs = [run for result in results.values() for run in result["runs"]]
    held, trained, scored = (_same(runs, key) for key in ("held_out", "trained_on", "n_test"))
    memory = max(run["peak_memory_mb"] for run in runs) / 1000
    text = f"""
In brackets: 95 % interval for one run, deviation for several. Trained on {trained} pictures with {held} held out
for every choice, scored once on {scored}; minutes are everything from start to report. Most memory held:
{memory:.1f} GB."""
    return "\n".join([*lines, text]) + "\n"


def speeds() -> str:
    """Training step and prediction."""
    step, predict = _read(RESULTS / "train_step.json"), _read(RESULTS / "predict.json")
    rates, photo = predict["median_images_per_second"], predict["one_jpeg"]["1600x1200"]
    return f"""\
- A training step, augmentation and all, against plain PyTorch loops: {_times(step["ratio"]["plain"])} with the same
  optimiser, precision and layout, {_times(step["ratio"]["plain_sgd"])} with SGD instead, and
  {_times(step["ratio"]["defaults"])} with SGD and PyTorch's defaults ({_where(step)}).
- `thirtytwo predict` classifies {rates["thirtytwo"]:,.0f} PNG files a second from a folder of
  {predict["pictures"]:,}: {predict["ratio"]:.0%} of what ONNX Runtime alone reaches on ready arrays
  ({_where(predict)}).
- One JPEG of 1600×1200 pixels takes {photo["median_seconds"]:.2f} s from pressing return to the answer, start of
  Python included, and {photo["peak_mb"]:.0f} MB of memory.
"""


def installs() -> str:
    """What an installation without PyTorch takes, and how soon it answers."""
    result = _read(RESULTS / "install.json")
    commands = {"alone": "pip install .", "with_app_and_serve": 'pip install ".[app,serve]"'}
    purposes = {"alone": "predicting", "with_app_and_serve": "the app and the service as well"}
    lines = ["| for | from a clone | downloads | on disk |", "| --- | --- | --- | --- |"]
    for name, found in result["installations"].items():
        sizes = [f"{found[key]:.0f} MB" for key in ("downloaded_mb", "on_disk_mb")]
        lines.append(f"| {purposes[name]} | `{commands[name]}` | {' | '.join(sizes)} |")
    seconds = {name: f"{found['median']:.2f} s" for name, found in result["answers"].items()}
    text = f"""
No PyTorch in either. From starting the command, Python's own start included: `thirtytwo predict photo.jpg` answers
after {seconds["predict_cifar100"]}, `thirtytwo serve` its first request after {seconds["serve"]}, `thirtytwo app` after
{seconds["app"]} ({result["picture"]}, Linux, {_where(result)})."""
    return "\n".join([*lines, text]) + "\n"


def service() -> str:
    """The service under load."""
    result = _read(RESULTS / "serve.json")
    through, load, memory = result["throughput"], result["load"], result["memory"]
    rates, ratios, late = through["median_images_per_second"], through["ratio"], load["milliseconds"]
    clients, (some, many) = through["clients"], memory["requests"]
    return f"""\
- Small PNG files: {rates["32_pictures_a_request"]:,.0f} pictures a second with 32 in a request and
  {clients["32_pictures_a_request"]} clients, {rates["one_picture_a_request"]:,.0f} with one in each and
  {clients["one_picture_a_request"]} clients:
  {ratios["32_pictures_a_request"]:.0%} and {ratios["one_picture_a_request"]:.0%} of what ONNX Runtime alone
  reaches on ready arrays ({rates["onnxruntime"]:,.0f}), with the clients on the same cores.
- {load["clients"]} clients that ask without pause for {load["seconds"]:.0f} s, one picture a request:
  {load["requests"]:,} requests, {load["errors"]} errors, {load["lost"]} lost, {load["wrong_answers"]} wrong; half are
  answered within
  {late["p50"]:.0f} ms, 99 % within {late["p99"]:.0f} ms.
- Memory after {many:,} requests against {some:,}: {memory["resident_mb"][1]:.0f} and {memory["resident_mb"][0]:.0f} MB.

Model: {result["model"]["architecture"]} for CIFAR-10; {_place(result)}.
"""


def app_figures() -> str:
    """How soon the app opens and what it holds."""
    result = _read(RESULTS / "app.json")
    return f"""\
From starting the command to a page that takes pictures: {result["median_page_ready"]:.1f} s. Memory: at most
{result["memory_mb_after_use"]} MB with every page opened and {result["pictures"]} pictures classified with heat
({_where(result)}).
"""


def augmentation_costs() -> str:
    """Pictures a second of each augmentation, and what it adds to a training step of ResNet-18."""
    result = _read(RESULTS / "augment.json")
    rates, ratios = result["pictures_per_second"], result["step_ratio"]
    lines = ["| augmentation | pictures a second | a training step of ResNet-18 takes |", "| --- | --- | --- |"]
    lines += [f"| {kind} | {rate:,.0f} | {ratios[kind]:.2f} times as long |" for kind, rate in rates.items()]
    text = f"""
Batches of {result["batch_size"]} pictures of 32×32 pixels, medians of {result["repeats"]} batches and
{result["n"]} steps; the first row is what making a batch takes without any ({_where(result)})."""
    return "\n".join([*lines, text]) + "\n"


def explanations() -> str:
    """Agreement of the maps in model files with Grad-CAM, and what each method's maps are worth."""
    found = _read(RESULTS / "explain.json")
    hardware = found["hardware"]
    lines = [
        "| data | map | deletion | insertion | random | better by (95 %) | ranks as Grad-CAM | same maximum |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for run in found["runs"]:
        for name, score in run["scores"].items():
            alike = run["agreement_with_gradcam"].get(name)
            low, high = score["ci95"]
            cells = [
                run["data"],
                "a blob in the middle" if name == "middle" else f"`{name}`",
                *(f"{score[key]:.3f}" for key in ("deletion", "insertion", "random")),
                f"**{score['better_by']:+.3f}** ({low:+.3f} to {high:+.3f})",
                *([f"{alike['median_rank_correlation']:.2f}", f"{alike['same_maximum']:.0%}"] if alike else ["", ""]),
            ]
            lines.append("| " + " | ".join(cells) + " |")
    recipe, sides = {run["recipe"] for run in found["runs"]}, {run["places_a_side"] for run in found["runs"]}
    looked = ", ".join(f"{run['n']:,} of {run['data']}" for run in found["runs"])
    places = " or ".join(f"{side}×{side}" for side in sorted(sides))
    text = f"""
Test pictures drawn by seed {found["seed"]} ({looked}), models of the recipe `{", ".join(sorted(recipe))}`,
most probable class. Mean areas; median rank correlation with Grad-CAM over places ({places}, as many as Grad-CAM has),
and how often both have the same hottest place. {hardware["cores"]} cores of {hardware["cpu"]}, {found["date"][:10]}."""
    return "\n".join([*lines, text]) + "\n"


def remedies() -> str:
    """What class weights, a balanced sampler and the focal loss do for rare classes."""
    result = _read(RESULTS / "imbalance.json")
    lines = ["| remedy | macro-F1 | accuracy | recall of the rarest three classes |", "| --- | --- | --- | --- |"]
    for name, remedy in result["remedies"].items():
        told = [f"{remedy['mean'][key]:.1%}" for key in ("accuracy", "recall_of_rarest_3")]
        values = [run["macro_f1"] for run in remedy["runs"]]
        spread = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
        lines.append(f"| {name} | {remedy['mean']['macro_f1']:.3f}{spread} | {told[0]} | {told[1]} |")
    side = result["network"]["data.image_size"]
    text = f"""
`{result["data"]}`: {result["trained_on"]:,} training pictures, {result["n_test"]:,} balanced test pictures; a small
network on {side}×{side} pixels, {result["epochs"]} epochs; means and ranges of {result["n"]} seeds (one core of
{result["hardware"]["cpu"]}, {result["date"]})."""
    return "\n".join([*lines, text]) + "\n"


def _accuracy_row(name: str, result: dict[str, Any]) -> str:
    _, data, rest = name.split("-", 2)
    recipe = rest.rpartition("-")[0]
    run, summary = result["runs"][0], result["summary"]
    spread = "–".join(f"{bound:.2%}" for bound in run["accuracy"]["ci95"])
    if result["n"] > 1:
        spread = f"± {summary['accuracy']['std']:.2%}"
    hardware = run["hardware"]
    place = hardware["gpu"] or f"{hardware['cores']} cores of {hardware['cpu']}"
    precision = next(choice["value"] for choice in run["choices"] if choice["what"] == "precision")
    cells = [
        data,
        f"`{recipe}`",
        f"**{summary['accuracy']['mean']:.2%}** ({spread})",
        f"{summary['accuracy_tta']['mean']:.2%}",
        f"{summary['minutes_wall']:.0f}" if summary["minutes_wall"] else f"{summary['minutes_train']:.0f} of training",
        ", ".join(str(one["seed"]) for one in result["runs"]),
        f"{place}, {precision}, {run['date']}",
    ]
    return "| " + " | ".join(cells) + " |"


def _read(path: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


def _same(runs: list[dict[str, Any]], key: str) -> str:
    return " or ".join(f"{value:,}" for value in sorted({run[key] for run in runs}))


def _times(ratio: float) -> str:
    """How much less or more time, from the other side's time over ours."""
    if abs(ratio - 1) < ALIKE:
        return f"as much time (within {ALIKE:.0%})"
    return f"{1 - 1 / ratio:.0%} less time" if ratio >= 1 else f"{1 / ratio - 1:.0%} more time"


def _where(result: dict[str, Any]) -> str:
    return f"median of {result['n']}, {_place(result)}"


def _place(result: dict[str, Any]) -> str:
    hardware = result["hardware"]
    return f"{hardware['cores']} cores of {hardware['cpu']}, {result['date'][:10]}"
