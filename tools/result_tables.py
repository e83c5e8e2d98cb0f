"""Sentences and tables of benchmark results, from `benchmarks/results/`."""

import json
import re
import statistics
from pathlib import Path
from typing import Any

from thirtytwo.config.resolve import read_recipe_values, resolve_recipe
from thirtytwo.inference.library import DEFAULT_BUNDLED
from thirtytwo.text import interval, percent

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BUNDLED = ROOT / "src" / "thirtytwo" / "inference" / "bundled"
REPORTS = ROOT / "docs" / "reports"
CARDS = "src/thirtytwo/inference/bundled"
RECOGNIZES = {
    "cifar10": "CIFAR-10's 10 classes",
    "cifar10-tiny": "the same, for web pages",
    "cifar100": "CIFAR-100's 100 classes",
    "cifar100-tiny": "the same, for web pages",
    "imagenet": "ImageNet's 1,000 classes",
}
"""What the bundled models recognize."""
PHOTOGRAPHS = re.compile(r"\n## Photographs\n.*?(?=\n## This file\n)", re.DOTALL)
THRESHOLDS = (
    " The OOD score is relative to a threshold for blurred images, as small ones are when enlarged, and one for sharp "
    "images, interpolated between. Each is set for false alarms of 5 %: the first on validation images, the second on "
    "Tux Paint's cut-out photographs of the classes, about 50."
)
"""How the thresholds for unknown images were set in models that know photographs."""
CLASSES = {"cifar10": 10, "cifar100": 100}
OF_ROWS = """\
A row names other epochs than the recipe's, a teacher, and the run that a training started from. In float32: on a
processor without bfloat16 instructions."""
ALIKE = 0.02
COLORS = {"colour": "color"}
"""Displayed names of augmentations in older results."""


def bundled() -> str:
    """The bundled models, with the numbers of their cards."""
    photos = read_results("bundled")["models"]
    lines = [
        "| model | recognizes | test accuracy | on photographs | size | report |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for path in sorted(BUNDLED.glob("*.md"), key=lambda path: path.stem):
        name, text = path.stem, path.read_text(encoding="utf-8")
        metrics = dict(re.findall(r"name: (.+)\n      value: ([\d.]+)", text))
        stated = re.search(r"state ([\d.]+\s%) top-1", text)
        accuracy = (
            f"**{percent(float(metrics['Accuracy']), 2)}**"
            if metrics
            else f"{stated[1]} (stated by the authors of its weights)"
            if stated
            else ""
        )
        photo = (
            f"{percent(photos[name]['accuracy']['value'], 1)} ({photos[name]['n']} images)" if name in photos else ""
        )
        report = f"[page](docs/reports/{name}.html)" if (REPORTS / f"{name}.html").is_file() else ""
        size = path.with_suffix(".onnx").stat().st_size / 1e6
        cells = [f"[`{name}`]({CARDS}/{path.name})", RECOGNIZES[name], accuracy, photo, f"{size:.1f} MB", report]
        lines.append(f"| {' | '.join(cells)} |".replace("|  |", "| |"))
    return "\n".join(lines) + "\n"


def with_photographs(card: str, name: str) -> str:
    """The card of a bundled model with a current section of its metrics on photographs, if they were measured."""
    card = PHOTOGRAPHS.sub("", card)
    found = read_results("bundled")["models"].get(name)
    if found is None:
        return card
    return card.replace("\n## This file\n", f"\n{_photographs(found, name)}\n## This file\n")


def _photographs(found: dict[str, Any], name: str) -> str:
    unknown = found["unknown"]
    proportions = {
        f"Accuracy on {found['n']} photographs of {found['classes']} of the classes": found["accuracy"],
        "Of these, marked unknown (false alarm rate)": unknown["known_called_unknown"],
        f"Of {unknown['n']} photographs of none of the classes, marked unknown": unknown["called_unknown"],
    }
    rows = [
        f"| {what} | {percent(one['value'], 1)} | {interval(one['ci95'], digits=1)} |"
        for what, one in proportions.items()
    ]
    chosen = "" if name.endswith("-tiny") else THRESHOLDS
    return f"""\
## Photographs

Measured on photographs of about 300×200 pixels (Caltech-101); no threshold was set by them.{chosen}

| metric | value | 95% interval |
| --- | ---: | ---: |
{chr(10).join(rows)}
| AUROC of known against unknown photographs | {unknown["auroc"]:.3f} | |
| False positives at 95 % | {percent(unknown["fpr95"], 1)} | |
"""


def transfer_gains() -> str:
    """Accuracy with another data set's weights and from scratch, on few images."""
    result = read_results("transfer")
    hardware = result["hardware"]
    lines = [
        "| data | trained on | epochs | weights from | pretrained | from scratch | difference |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for case in result["cases"]:
        if "points_gained" in case:
            first = case["pretrained"]["runs"][0]
            started, scratch = _spread(case["pretrained"]), _spread(case["scratch"])
            epochs = f"{first['epochs']}" + ("" if case["epochs"] else ", the recipe's")
            cells = [case["data"], f"{first['trained_on']:,} images", epochs, case["source"], started, scratch]
            lines.append(f"| {' | '.join(cells)} | {case['points_gained']:+.1f} points |")
    text = f"""
Recipe `{result["recipe"]}` with the same settings for both; mean, range and number of seeds of the accuracy on all test
images; {hardware["cores"]} cores of {hardware["cpu"]}, {result["date"]}."""
    return "\n".join([*lines, text]) + "\n"


def _spread(runs: dict[str, Any]) -> str:
    """Mean, range and number of runs; of a single run its 95 % interval."""
    if runs["n"] == 1:
        low, high = runs["runs"][0]["ci95"]
        return f"{percent(runs['mean'], 1)} [{percent(low, 1)}, {percent(high, 1)}], n = 1"
    return f"{percent(runs['mean'], 1)} ({percent(runs['min'], 1)} to {percent(runs['max'], 1)}), n = {runs['n']}"


def accuracies() -> str:
    """Accuracy of the recipes on CIFAR."""
    results = {path.stem: read_results(path.stem) for path in sorted(RESULTS.glob("accuracy-*.json"))}
    lines = [
        "| data | recipe | test accuracy | with test-time augmentation | minutes | seed | hardware, precision, date |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(_accuracy_row(name, result) for name, result in results.items()),
    ]
    runs = [run for result in results.values() for run in result["runs"]]
    held = [run["held_out"] for run in runs]
    memory = max(run["peak_memory_mb"] for run in runs) / 1000
    text = f"""
In brackets: 95 % interval for one run, standard deviation for several. Each run was evaluated once on the
{_same(runs, "n_test")} test images; {min(held):,} to {max(held):,} of the 50,000 training images were held out for
validation. {OF_ROWS}
Minutes are from start to report, except where only training was timed; they leave out the training of a teacher or of
an earlier run. Each row was measured with the version of its date; later ones are faster and take less memory. The
highest peak memory of these runs was {memory:.1f} GB."""
    return "\n".join([*lines, text]) + "\n"


def speeds() -> str:
    """Speed of a training step and of prediction."""
    step, predict = read_results("train_step"), read_results("predict")
    rates, one = predict["median_images_per_second"], read_results("one_image")
    photo = one["models"][DEFAULT_BUNDLED]["1600x1200"]
    return f"""\
- A training step with augmentation, compared with that of plain PyTorch loops without augmentation:
  {_times(step["ratio"]["plain"])} beside a loop with the same optimizer, precision and layout,
  {_times(step["ratio"]["plain_sgd"])} beside one with SGD instead of Muon, and {_times(step["ratio"]["defaults"])}
  beside one with SGD and PyTorch's defaults ({_where(step)}).
- `thirtytwo predict --model {predict["model"]["name"]}` classifies {rates["thirtytwo"]:,.0f} PNG files per second
  from a folder of {predict["images"]:,}: {percent(predict["ratio"], 0)} of the throughput of ONNX Runtime alone on
  decoded arrays ({_where(predict)}).
- Classifying one JPEG of 1600×1200 pixels with `{DEFAULT_BUNDLED}`, the default model, takes
  {photo["median_seconds"]["predict"]:.2f} s from the start of the command to its end and {photo["peak_mb"]:.0f} MB of
  memory; the shortest script with ONNX Runtime and Pillow takes {photo["median_seconds"]["plain"]:.2f} s
  ({_where(one)}).
"""


def installs() -> str:
    """Size of an installation without PyTorch, and its time to the first result."""
    result = read_results("install")
    commands = {"alone": "pip install .", "with_app_and_serve": 'pip install ".[app,serve]"'}
    purposes = {"alone": "predicting", "with_app_and_serve": "predicting, the app and the service"}
    lines = ["| for | from a clone | download | on disk |", "| --- | --- | --- | --- |"]
    for name, found in result["installations"].items():
        sizes = [f"{found[key]:.0f} MB" for key in ("downloaded_mb", "on_disk_mb")]
        lines.append(f"| {purposes[name]} | `{commands[name]}` | {' | '.join(sizes)} |")
    seconds = {name: f"{found['median']:.2f} s" for name, found in result["answers"].items()}
    text = f"""
Neither includes PyTorch. Time from the start of the command, including Python's, to the first result:
{seconds["predict_cifar100"]} for `thirtytwo predict photo.jpg --model cifar100`,
{seconds["serve"]} for the first request of `thirtytwo serve`,
{seconds["app"]} until the server of `thirtytwo app` accepts connections
({result["image"]}, Linux, {_where(result)})."""
    return "\n".join([*lines, text]) + "\n"


def service() -> str:
    """Throughput and latency of the service."""
    result = read_results("serve")
    through, load, memory = result["throughput"], result["load"], result["memory"]
    rates, ratios, late = through["median_images_per_second"], through["ratio"], load["milliseconds"]
    clients, (some, many) = through["clients"], memory["requests"]
    return f"""\
- Small PNG files: {rates["32_images_per_request"]:,.0f} images per second with 32 images per request and
  {clients["32_images_per_request"]} clients, {rates["one_image_per_request"]:,.0f} with one image per request and
  {clients["one_image_per_request"]} clients. These are
  {percent(ratios["32_images_per_request"], 0)} and {percent(ratios["one_image_per_request"], 0)} of the throughput
  of ONNX Runtime alone on decoded arrays ({rates["onnxruntime"]:,.0f}), with the clients on the same cores.
- {load["clients"]} clients that send requests without pause for {load["seconds"]:.0f} s, one image per request:
  {load["requests"]:,} requests, {load["errors"]} errors, {load["lost"]} lost, {load["wrong_answers"]} wrong. The
  median latency is {late["p50"]:.0f} ms, the 99th percentile {late["p99"]:.0f} ms.
- Memory: {memory["resident_mb"][0]:.0f} MB after {some:,} requests, {memory["resident_mb"][1]:.0f} MB after {many:,}.

Model: {result["model"]["architecture"]} for CIFAR-10; {_place(result)}.
"""


def app_figures() -> str:
    """Start time and memory of the app."""
    result = read_results("app")
    server = read_results("install")["answers"]["app"]["median"]
    return f"""\
The server accepts connections {server:.2f} s after the start of the command, and the page is ready after
{result["median_page_ready"]:.1f} s. Peak memory is
{result["memory_mb_after_use"]} MB, with every page opened and {result["images"]} images classified with heatmaps
({_where(result)}).
"""


def augmentation_costs() -> str:
    """Images per second of each augmentation, and its cost in a training step of ResNet-18."""
    result = read_results("augment")
    rates, ratios = result["pictures_per_second"], result["step_ratio"]
    lines = ["| augmentation | images per second | time of a ResNet-18 training step |", "| --- | --- | --- |"]
    lines += [f"| {COLORS.get(kind, kind)} | {rate:,.0f} | × {ratios[kind]:.2f} |" for kind, rate in rates.items()]
    text = f"""
Batches of {result["batch_size"]} images of 32×32 pixels, medians of {result["repeats"]} batches and
{result["n"]} steps. The first row is the cost of building a batch without augmentation ({_where(result)})."""
    return "\n".join([*lines, text]) + "\n"


def photograph_explanations() -> str:
    """Agreement of the bundled models' heatmaps with Grad-CAM on photographs."""
    models = read_results("explain_photos")["models"]
    rows = [
        f"| `{name}` | {found['n']} | {found['cells_a_side']}×{found['cells_a_side']} | "
        f"{found['median_rank_correlation']:.2f} | {percent(found['same_maximum'], 0)} | "
        f"{percent(found['mean_overlap_of_hottest'], 0)} |"
        for name, found in models.items()
    ]
    chance = percent(next(iter(models.values()))["overlap_by_chance"], 0)
    return f"""\
| bundled model | photographs | cells | rank correlation | same maximum | overlap of the hottest quarter |
| --- | --- | --- | --- | --- | --- |
{chr(10).join(rows)}

Heatmaps in the file compared with Grad-CAM, for the most probable class; overlap is intersection over union, {chance}
by chance. `cifar10` and `cifar100` mix the maps of two networks by their shares in the probability.
"""


def explanations() -> str:
    """Agreement of each heatmap method with Grad-CAM, and its faithfulness."""
    found = read_results("explain")
    hardware = found["hardware"]
    lines = [
        (
            "| data | heatmap | deletion | insertion | random | insertion − deletion (95 %) | rank correlation | "
            "same maximum |"
        ),
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for run in found["runs"]:
        for name, score in run["scores"].items():
            alike = run["agreement_with_gradcam"].get(name)
            low, high = score["ci95"]
            cells = [
                run["data"],
                "centered blob" if name == "middle" else f"`{name}`",
                *(f"{score[key]:.3f}" for key in ("deletion", "insertion", "random")),
                f"**{score['better_by']:+.3f}** ({low:+.3f} to {high:+.3f})",
                *(
                    [f"{alike['median_rank_correlation']:.2f}", percent(alike["same_maximum"], 0)]
                    if alike
                    else ["", ""]
                ),
            ]
            lines.append("| " + " | ".join(cells) + " |")
    recipe, sides = {run["recipe"] for run in found["runs"]}, {run["places_a_side"] for run in found["runs"]}
    counts = ", ".join(f"{run['n']:,} of {run['data']}" for run in found["runs"])
    places = " or ".join(f"{side}×{side}" for side in sorted(sides))
    text = f"""
Test images sampled with seed {found["seed"]} ({counts}), models of recipe `{", ".join(sorted(recipe))}`,
most probable class. Mean areas; median rank correlation with Grad-CAM at its resolution ({places}), and how often both
have the maximum at the same position. {hardware["cores"]} cores of {hardware["cpu"]}, {found["date"][:10]}."""
    return "\n".join([*lines, text]) + "\n"


def remedies() -> str:
    """Effect of class weights, a balanced sampler and the focal loss on rare classes."""
    result = read_results("imbalance")
    lines = ["| option | macro-F1 | accuracy | recall of the rarest three classes |", "| --- | --- | --- | --- |"]
    for name, remedy in result["remedies"].items():
        shares = [percent(remedy["mean"][key], 1) for key in ("accuracy", "recall_of_rarest_3")]
        values = [run["macro_f1"] for run in remedy["runs"]]
        spread = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
        lines.append(f"| {name} | {remedy['mean']['macro_f1']:.3f}{spread} | {shares[0]} | {shares[1]} |")
    side = result["network"]["data.image_size"]
    text = f"""
`{result["data"]}`: {result["trained_on"]:,} training images, {result["n_test"]:,} balanced test images; a small
network on {side}×{side} pixels, {result["epochs"]} epochs; means and ranges of {result["n"]} seeds (one core of
{result["hardware"]["cpu"]}, {result["date"]})."""
    return "\n".join([*lines, text]) + "\n"


def processes() -> str:
    """Accuracy after training with two processes and with one."""
    result = read_results("ddp")
    lines = ["| training | mean accuracy | standard deviation | each seed |", "| --- | --- | --- | --- |"]
    for name, measured in result["accuracy"].items():
        runs = ", ".join(percent(value, 2) for value in measured["runs"])
        lines.append(f"| {name} | {percent(measured['mean'], 2)} | {100 * measured['std']:.2f} points | {runs} |")
    side, batch = result["settings"]["data.image_size"], result["batch_size"]
    apart = f"{abs(result['difference_points']):.2f} points"
    largest = result["largest_difference_of_logits"]
    same = f"changes no logit by more than {largest:.0e}" if largest else "gives the same logits"
    text = f"""
`{result["data"]}`: {result["trained_on"]:,} training images, {result["n_test"]:,} test images; a small network with
BatchNorm on {side}×{side} pixels, {result["epochs"]} epochs, batches of {batch}, of which each of two processes takes
{batch // 2}; the same {len(result["seeds"])} seeds. The means differ by {apart}. Evaluating the
weights of two processes in one again {same} ({result["hardware"]["cpu"]}, {result["date"]})."""
    return "\n".join([*lines, text]) + "\n"


def _accuracy_row(name: str, result: dict[str, Any]) -> str:
    _, data, rest = name.split("-", 2)
    recipe = rest.rpartition("-")[0]
    run, summary = result["runs"][0], result["summary"]
    spread = interval(run["accuracy"]["ci95"], digits=2)
    if result["n"] > 1:
        spread = f"± {percent(summary['accuracy']['std'], 2)}"
    seconds = seconds_by_machine(result["runs"])
    minutes = (
        f"{summary['minutes_wall']:.0f}"
        if summary["minutes_wall"]
        else f"{summary['minutes_train']:.0f} (training only)"
    )
    if len(seconds) > 1:
        minutes = " and ".join(f"{took / 60:.0f}" for took in seconds.values()) + " (training only)"
    cells = [
        data,
        f"`{recipe}`{conditions(run, recipe, data)}",
        f"**{percent(summary['accuracy']['mean'], 2)}** ({spread})",
        percent(summary["accuracy_tta"]["mean"], 2),
        minutes,
        ", ".join(str(one["seed"]) for one in result["runs"]),
        f"{' and '.join(seconds)}, {precision_of(run)}, {run['date']}",
    ]
    return "| " + " | ".join(cells) + " |"


def precision_of(run: dict[str, Any]) -> str:
    """The precision that a run of `benchmarks/accuracy.py` was trained in."""
    return str(next(choice["value"] for choice in run["choices"] if choice["what"] == "precision"))


def conditions(run: dict[str, Any], recipe: str, data: str) -> str:
    """What differs from the bundled recipe in a run of `benchmarks/accuracy.py`, and what the run was made with."""
    usual = resolve_recipe(read_recipe_values(recipe), {}, classes=CLASSES[data], rows=run["trained_on"])
    epochs = f", {run['epochs']} epochs" if run["epochs"] != usual.schedule.epochs else ""
    teacher = ", with a teacher" if run["recipe"]["train"].get("distill", {}).get("run") else ""
    start = run.get("start_accuracy")
    # the other rows of a CPU are in bfloat16
    precision = ", in float32" if run["device"] == "cpu" and precision_of(run) == "float32" else ""
    return precision + epochs + teacher + (f", from a run with {percent(start, 1)}" if start is not None else "")


def seconds_by_machine(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Median seconds of training on each machine."""
    found: dict[str, list[float]] = {}
    for run in runs:
        found.setdefault(_machine(run["hardware"]), []).append(run["seconds_train"])
    return {machine: statistics.median(seconds) for machine, seconds in found.items()}


def _machine(hardware: dict[str, Any]) -> str:
    return str(hardware["gpu"] or f"{hardware['cores']} cores of {hardware['cpu']}")


def read_results(name: str) -> dict[str, Any]:
    """A file of results; empty where nothing was measured yet."""
    path = RESULTS / f"{name}.json"
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return result


def measured_on(result: dict[str, Any]) -> str:
    """The machine and the date of a result that has its `hardware`."""
    return f"{_machine(result['hardware'])}, {result['date']}"


def _same(runs: list[dict[str, Any]], key: str) -> str:
    return " or ".join(f"{value:,}" for value in sorted({run[key] for run in runs}))


def _times(ratio: float) -> str:
    """The difference in time, from the ratio of the other loop's time to ours."""
    if abs(ratio - 1) < ALIKE:
        return f"the same time (within {percent(ALIKE, 0)})"
    return f"{percent(1 - 1 / ratio, 0)} less time" if ratio >= 1 else f"{percent(1 / ratio - 1, 0)} more time"


def _where(result: dict[str, Any]) -> str:
    return f"median of {result['n']}, {_place(result)}"


def _place(result: dict[str, Any]) -> str:
    hardware = result["hardware"]
    return f"{hardware['cores']} cores of {hardware['cpu']}, {result['date'][:10]}"
