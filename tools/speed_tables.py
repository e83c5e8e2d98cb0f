"""Tables of where the time goes, and of training beside the published network, from `benchmarks/results/`."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from result_tables import RESULTS, read_results

from thirtytwo.text import counted, percent

PORT = "airbench94"
NOTHING = "Not measured yet.\n"
SHOWN = 5
"""Number of costs in a row of a table."""
LEAST = 0.005
"""Smallest share of a cost that is shown: 1 %, rounded."""


def costs_import() -> str:
    """The packages that take longest to import."""
    return _costs("import", "imported")


def costs_predict() -> str:
    """The largest costs of predicting."""
    return _costs("predict", "`thirtytwo predict` for")


def predict_folder() -> str:
    """Photographs a second of `predict` and of a plain script."""
    result = read_results("photo_speed")
    models = {name: found for name, found in result.get("models", {}).items() if "draft" in found["images_per_second"]}
    if not models:
        return NOTHING
    lines = [
        "| model | plain script | plain script with `draft` | `thirtytwo predict` | ratio to the script with `draft` |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, found in models.items():
        rates = (f"{found['median_images_per_second'][side]:,.0f}" for side in ("plain", "draft", "predict"))
        cells = [f"`{name}`, {found['input_size']} pixels", *rates, f"**{found['ratio']['predict']:.2f}**"]
        lines.append(f"| {' | '.join(cells)} |")
    places = ", ".join(sorted({f"{_cores(found)} of {found['hardware']['cpu']}" for found in models.values()}))
    date = max(found["date"] for found in models.values())[:10]
    pixels = " × ".join(map(str, result["pixels"]))
    text = f"{result['images']:,} JPEGs of {pixels} pixels, medians of {result['n']} rounds; {places}, {date}."
    return "\n".join([*lines, "", text]) + "\n"


def predict_one() -> str:
    """Seconds of `predict` and of a plain script for one photograph."""
    result = read_results("one_image")
    if not result.get("models"):
        return NOTHING
    lines = [
        "| model | JPEG | plain script | `thirtytwo predict` | difference | peak memory |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for name, sizes in result["models"].items():
        for size, cost in sizes.items():
            seconds = (
                f"{cost['median_seconds'][side]:.2f} s ({min(values):.2f} to {max(values):.2f})"
                for side, values in cost["seconds"].items()
            )
            cells = [f"`{name}`", size.replace("x", "×"), *seconds, f"{cost['more_seconds']:+.2f} s"]
            lines.append(f"| {' | '.join(cells)} | {cost['peak_mb']:.0f} MB |")
    text = (
        f"Medians and ranges of {result['n']} processes each, in turn; {_cores(result)} of {result['hardware']['cpu']}"
    )
    aim = f"The aim, a difference of at most {result['targets']['more_seconds']:g} s, is"
    missed = [
        f"`{name}` ({size.replace('x', '×')})"
        for name, sizes in result["models"].items()
        for size, cost in sizes.items()
        if cost["more_seconds"] > result["targets"]["more_seconds"]
    ]
    reached = f"missed by {', '.join(missed)}" if missed else "reached in each row"
    lines += ["", f"{text}, Python {result['python']}, {result['date'][:10]}. {aim} {reached}."]
    return "\n".join(lines) + "\n"


def costs_serve() -> str:
    """The largest costs of the service under load."""
    return _costs("serve", "requests with")


def costs_train() -> str:
    """The largest costs of training."""
    return _costs("train", "what")


def _costs(part: str, heading: str) -> str:
    """A row for each measured case: its seconds, and the largest costs with their shares of them."""
    found = read_results("costs").get(part)
    if found is None:
        return NOTHING
    lines = [f"| {heading} | seconds | largest costs |", "| --- | ---: | --- |"]
    for name, case in found["costs"].items():
        total = case["total"]
        largest = [(cost, value / total) for cost, value in list(case["seconds"].items())[:SHOWN] if total]
        shares = ", ".join(f"{cost} {percent(share, 0)}" for cost, share in largest if share >= LEAST)
        rate = f", at {case['requests_per_second']:,.0f} a second" if "requests_per_second" in case else ""
        digits = 2 if total < 10 else 0
        lines.append(f"| {name}{rate} | {total:,.{digits}f} | {shares} |")
    return "\n".join([*lines, "", f"{_place(found)}."]) + "\n"


def record_steps() -> str:
    """Time of a whole training, from its steps, beside airbench94."""
    measured = [read_results(path.stem) for path in sorted(RESULTS.glob("record-steps-*.json"))]
    if not measured:
        return NOTHING
    lines = [
        "| data | training | steps | seconds of a step | all steps | of airbench94's time | with memory kept | PFLOP |",
        "| --- | --- | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for result in measured:
        for name, side in result["sides"].items():
            steps = ", ".join(f"{stage}: {value:.2f}" for stage, value in side["seconds_per_step"].items())
            cells = [
                f"{result['data']}, {side['precision']}",
                _name(name),
                f"{sum(side['steps'].values())} of {side['batch_size']:,} images",
                steps,
            ]
            cells += [f"{side['seconds'] / 60:.1f} min", _ratio(side, "ratio"), _ratio(side, "ratio_keeping")]
            cells += [f"{side['pflop']:.3f}"]
            lines.append(f"| {' | '.join(cells)} |")
    places = " ".join(f"{result['data']}: {_rounds(result)}." for result in measured)
    return "\n".join([*lines, "", places]) + "\n"


SERVERS = {"thirtytwo": "`thirtytwo serve`", "litserve": "LitServe", "bentoml": "BentoML"}
WORKLOADS = {"png": "PNG files of 32 pixels", "photographs": "JPEGs of 1024×768"}


def serve_compare() -> str:
    """The service beside other servers with the same model."""
    result = read_results("serve_compare")
    if not result:
        return NOTHING
    lines = [
        "| images | server | requests a second | processor time of one | 99th percentile | peak memory |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for workload, found in result["workloads"].items():
        for server, median in found["median"].items():
            rate, memory = f"{median['requests_per_second']:,.0f}", f"{median['peak_mb']:,.0f} MB"
            cells = [f"{WORKLOADS[workload]}, `{found['model']}`", SERVERS[server], rate]
            cells += [f"{median['cpu_ms']:.1f} ms", f"{median['p99_ms'] / 1000:.2f} s", memory]
            lines.append(f"| {' | '.join(cells)} |")
        alone = found["onnxruntime_alone"]
        cells = [f"{WORKLOADS[workload]}, `{found['model']}`", "ONNX Runtime alone, decoded arrays"]
        cells += [f"{alone['median']:,.0f}", f"{alone['cpu_ms']:.1f} ms", "", ""]
        lines.append(f"| {' | '.join(cells)} |")
        if http := found.get("http_alone"):
            cells = [f"{WORKLOADS[workload]}, `{found['model']}`", "Uvicorn alone, uploads neither parsed nor decoded"]
            cells += [f"{http['requests_per_second']:,.0f}", f"{http['cpu_ms']:.1f} ms", "", ""]
            lines.append(f"| {' | '.join(cells)} |")
    versions, load = result["versions"], result["load"]
    text = f"""
Medians of {result["n"]} rounds of {load["seconds"]} s, with {load["clients"]} connections of wrk on the same cores.
{_cores(result)} of {result["hardware"]["cpu"]}, {result["date"][:10]}; LitServe {versions["litserve"]},
BentoML {versions["bentoml"]}, ONNX Runtime {versions["onnxruntime"]}."""
    return "\n".join([*lines, text]) + "\n"


def _rounds(result: Mapping[str, Any]) -> str:
    kinds = " and ".join(sorted({side["precision"] for side in result["sides"].values()}))
    return f"medians of {result['n']} rounds in {kinds}, {_place(result)}"


def record_trainings() -> str:
    """Accuracy and time of full trainings."""
    found = [read_results(path.stem) for path in sorted(RESULTS.glob("record-*.json"))]
    rows = [result for result in found if result["kind"] == "training" and result["settings"]["split"] != "val"]
    if not rows:
        return NOTHING
    lines = [
        "| data | training | images | one view | with test-time augmentation | seeds | minutes | PFLOP | hardware |",
        "| --- | --- | ---: | --- | --- | ---: | ---: | ---: | --- |",
    ]
    for result in rows:
        summary, run = result["summary"], result["runs"][0]
        cells = [result["data"], _name(result["name"]), f"{run['trained_on']:,}"]
        cells += [_spread(summary["single"]), _spread(summary["tta"]), str(summary["n"])]
        minutes = _minutes([one["seconds"] for one in result["runs"]])
        cells += [minutes, f"{result['pflop']:.3f}", f"{_place(run, run['threads'])}, {run['precision']}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def record_turns() -> str:
    """Whole trainings beside a whole training of airbench94, in turns on the same core."""
    measured = [read_results(path.stem) for path in sorted(RESULTS.glob("record-turns-*.json"))]
    if not measured:
        return NOTHING
    lines = [
        "| data | training | seed | one view | with test-time augmentation | processor time | of airbench94's time |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for result in measured:
        port = statistics.fmean(run["processor_seconds"] for run in result["runs"][PORT])
        for name, runs in result["runs"].items():
            for run in runs:
                cells = [
                    result["data"],
                    _name(name),
                    str(run["seed"]),
                    percent(run["single"], 2),
                    percent(run["tta"], 2),
                ]
                cells += [f"{run['processor_seconds'] / 60:.1f} min", f"{run['processor_seconds'] / port:.2f}"]
                lines.append(f"| {' | '.join(cells)} |")
    places = " ".join(
        f"{result['data']}: mean **{result['ratio']:.2f}**; turns of {result['turn_seconds']:g} s on "
        f"{_place(result, result['runs'][PORT][0]['threads'])}."
        for result in measured
    )
    return "\n".join([*lines, "", places]) + "\n"


def gpu_trainings() -> str:
    """Accuracy and time of trainings on a GPU."""
    fast, distilled = read_results("gpu/fast"), read_results("gpu/distilled")
    if not fast or not distilled:
        return NOTHING
    lines = [
        "| data | training | images | one view | with test-time augmentation | seeds | seconds | hardware |",
        "| --- | --- | ---: | --- | --- | ---: | ---: | --- |",
    ]
    several = distilled["results"]["runs"]
    rows = [("cifar10", name, runs, fast["machine"]) for name, runs in fast["results"]["runs"].items()]
    rows += [
        ("cifar100", name, runs, distilled["machine"])
        for name, runs in several.items()
        if runs and "test_tta" in runs[0]
    ]
    for data, name, runs, place in rows:
        views = [_spread(_summary([run[f"test_{view}"] for run in runs])) for view in ("single", "tta")]
        # those of `distilled` ran at the same time
        seconds = f"{statistics.fmean(run['seconds'] for run in runs):.2f}" if data == "cifar10" else ""
        images = f"{runs[0]['trained_on']:,}" if "trained_on" in runs[0] else ""
        hardware = f"{place['gpu']}, PyTorch {place['torch'].partition('+')[0]}, {place['date']}"
        lines.append(f"| {' | '.join([data, f'`{name}`', images, *views, str(len(runs)), seconds, hardware])} |")
    return "\n".join(lines) + "\n"


def gpu_steps() -> str:
    """Time of a training step on a GPU, with and without CUDA graphs, and with torch.compile."""
    whole = read_results("gpu/steps")
    if not whole:
        return NOTHING
    found = whole["results"]["fast"]
    names = list(dict.fromkeys(name.partition(", ")[2] for name in found))
    lines = [f"| images | {' | '.join(f'step {name}' for name in names)} | first epoch compiled |"]
    lines.append(f"| --- |{' ---: |' * (len(names) + 1)}")
    for size in dict.fromkeys(name.partition(",")[0] for name in found):
        timed = [found.get(f"{size}, {name}") for name in names]  # the last ones may be missing
        cells = [f"{one['ms_a_step']:.1f} ms" if one else "" for one in timed]
        compiled = found.get(f"{size}, compiled")
        cells.append(f"{compiled['first']:.1f} s" if compiled else "")
        lines.append(f"| {' | '.join([size, *cells])} |")
    side, place = next(iter(found.values())), whole["machine"]
    text = f"""
Steps of {side["batch_size"]:,} images, medians of {side["epochs"] - 1} epochs of {side["steps"]} steps, one
measurement each; {place["gpu"]}, PyTorch {place["torch"].partition("+")[0]}, {place["date"]}."""
    return "\n".join([*lines, text]) + "\n"


def _summary(values: Sequence[float]) -> dict[str, Any]:
    return {"mean": statistics.fmean(values), "std": statistics.stdev(values), "range": [min(values), max(values)]}


def _minutes(seconds: Sequence[float]) -> str:
    """Median, and the range where there are several."""
    low, high = (f"{end / 60:.1f}" for end in (min(seconds), max(seconds)))
    return f"{statistics.median(seconds) / 60:.1f}" + (f" ({low} to {high})" if len(seconds) > 1 else "")


def _name(name: str) -> str:
    port, comma, how = name.partition(",")
    return f"airbench94, our port{comma}{how}" if port == PORT else f"`{name}`"


def _ratio(side: Mapping[str, Any], key: str) -> str:
    """A ratio of times with its range over the rounds."""
    low, high = (f"{end:.2f}" for end in side[f"{key}_range"])
    return "1" if side[key] == 1 else f"**{side[key]:.2f}** ({low} to {high})"


def _spread(found: Mapping[str, Any]) -> str:
    """Mean, standard deviation and range."""
    low, high = (percent(end, 2) for end in found["range"])
    deviation = "" if found["std"] is None else f" ± {100 * found['std']:.2f} ({low} to {high})"
    return f"**{percent(found['mean'], 2)}**{deviation}"


def _place(result: Mapping[str, Any], threads: int | None = None) -> str:
    hardware = result["hardware"]
    used = counted(threads, "thread") if threads else _cores(result)
    where = hardware["gpu"] or f"{used} of {hardware['cpu']}"
    return f"{where}, PyTorch {result['versions']['torch']}, {result['date']}"


def _cores(result: Mapping[str, Any]) -> str:
    return counted(result["hardware"]["cores"], "core")
