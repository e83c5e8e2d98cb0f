"""Tables of docs/scale.md, from `benchmarks/results/scale_model.json`; and of the service on Ray."""

from typing import Any

from result_tables import read_results

from thirtytwo.text import listing, percent

MISSING = "Not measured yet on this version.\n"
SIDES = ("simulated", "measured")
CHECKED = ("load", "requests per second, simulated", "measured", "median latency, simulated", "measured")
CHECKED += ("99th percentile, simulated", "measured")
"""Columns of the table of simulated and measured loads."""
KINDS = {"small": "32×32 PNG files", "photographs": "1024×768 JPEG photographs"}
STATIONS = {
    "lock": "Python, which runs one thread at a time: reading requests, decoding, writing responses",
    "model": "the model",
    "cores": "the two cores together",
}
"""What limits a process of the service."""

NEARLY_IDLE = 0.05
"""Cores that other programs use, such as the system's own, on a machine that does nothing else."""


def scale_stages() -> str:
    """Seconds of each stage for an image."""
    result = read_results("scale_model")
    if not result:
        return MISSING
    rates = result["plan"]["images_per_second_per_core"]
    lines = [
        "| images | file | decoding | decoding a GB | model, in a batch | `predict`, images per second a core |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for kind, title in KINDS.items():
        stage = result["stages"][kind]
        cells = [title, f"{stage['file_bytes'] / 1000:,.1f} kB", _ms(stage["decode_seconds"])]
        cells += [f"{stage['decode_seconds_per_gb']:,.0f} s", _ms(_model_seconds(stage)), f"{rates[kind]:,.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    models = " and ".join(f"`{name}`" for name in result["models"].values())
    return "\n".join(lines) + (
        f"\n\nThe bundled models {models}, processor time with one thread; {_place(result)}; "
        "`benchmarks/scale_model.py`. The last column, from which the next table is computed, is of "
        f"`benchmarks/predict.py` ({_place(read_results('predict'))}) and of "
        f"`benchmarks/photo_speed.py` ({_place(read_results('photo_speed')['models']['cifar10'])}).\n"
    )


def scale_images() -> str:
    """Machines, hours and cost of classifying many images."""
    result = read_results("scale_model")
    if not result:
        return MISSING
    lines = [
        "| images | data | core hours | machines × hours | cost | reads of single files | network used | bottleneck |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["plan"]["images"]:
        cells = [f"{row['images']:,} {KINDS[row['kind']]}", f"{row['gigabytes']:,.0f} GB", _hours(row["core_hours"])]
        cells += [
            f"{row['machines']:,} × {_hours(row['hours'])} h",
            f"${row['cost']:,.2f}",
            f"${row['cost_of_reads']:,.2f}",
        ]
        cells += [percent(row["network_share"], 1), f"{row['bottleneck']} ({_share(row)})"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _hours(value: float) -> str:
    """Hours with as many digits as small values need."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def scale_service() -> str:
    """What 10,000 requests a second need."""
    result = read_results("scale_model")
    if not result:
        return MISSING
    plan, assumed = result["plan"]["service"], result["assumptions"]
    slowest = max(row["measured"]["p99"] / row["simulated"]["p99"] for row in result["checks"])
    return f"""\
With the bundled model `{result["models"]["small"]}`, one process on two cores takes up to
{plan["highest_rate_per_process"]:,.0f} requests a second at random times with a
99th percentile below {assumed["latency_ms"]} ms. With {percent(assumed["reserve"], 0)} in reserve,
{plan["requests_per_second"]:,} requests a second need {plan["processes"]} processes: {plan["cores"]} cores for about
${plan["cost_per_hour"]:,.2f} an hour, on {plan["machines"]} machines of {assumed["cores_per_machine"]}.
The median latency is then {plan["p50_ms"]:.0f} ms, the 99th percentile {plan["p99_ms"]:.0f} ms, without the network's
own; where it was [checked](#how-the-simulation-is-checked), the measured 99th percentile was up to {slowest:.1f} times
the simulated one. The requests are {plan["megabit_per_second"]:,} Mbit/s over all machines, so that the network is
not the limit.
Within a process it is {STATIONS[plan["bottleneck"]]}.
"""


def scale_assumptions() -> str:
    """The assumptions, by name."""
    result = read_results("scale_model")
    if not result:
        return MISSING
    found = result["assumptions"]
    rows = {
        "a core for an hour, with its memory, on demand": f"${found['core_hour']:.2f}",
        "a million reads from an object store": f"${found['get_per_million']:.2f}",
        "cores of a machine": str(found["cores_per_machine"]),
        "network of a machine": f"{found['gigabit_per_second']} Gbit/s",
        "share of the workers' summed throughput that a cluster reaches": percent(found["efficiency"], 0),
        "capacity of a service in reserve": percent(found["reserve"], 0),
        "99th percentile of latency to keep": f"{found['latency_ms']} ms",
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join([f"| assumption ({found['date']}) | value |", "| --- | --- |", *lines]) + "\n"


def scale_checks() -> str:
    """The simulation beside the loads that were run."""
    result = read_results("scale_model")
    if not result:
        return MISSING
    lines = [
        f"| {' | '.join(CHECKED)} |",
        f"|{' --- |' * len(CHECKED)}",
    ]
    for row in result["checks"]:
        clients = f"{row.get('clients')} client{'' if row.get('clients') == 1 else 's'} without pause"
        cells = [clients if "clients" in row else f"{row['rate']:,.0f} requests a second"]
        cells += [f"{row[side]['rate']:,.0f}" for side in SIDES]
        cells += [f"{row[side][name]:.1f} ms" for name in ("p50", "p99") for side in SIDES]
        lines.append(f"| {' | '.join(cells)} |")
    others = [row["others"] for row in result["checks"]]
    end = "waited for these" if result["machine"]["runs_first"] else "are simulated too"
    note = f"Other programs, which used {min(others):.1f} to {max(others):.1f} cores meanwhile, {end}."
    if max(others) < NEARLY_IDLE:
        note = f"Other programs used less than {NEARLY_IDLE} cores meanwhile."
    return "\n".join(lines) + f"\n\n{_errors(result['checks'])} {note}\n{_place(result)}.\n"


def _errors(checks: list[dict[str, Any]]) -> str:
    """How far the simulation is from the loads, as sentences."""
    rates = [row["rate_error"] for row in checks if "clients" in row]
    parts = [f"the throughput of clients without pause {_span(rates)}"]
    for name, title in (("p50_error", "the median latency"), ("p99_error", "the 99th percentile")):
        parts.append(f"{title} {_span([row[name] for row in checks])}")
    return f"Simulated compared with measured: {listing(parts, quoted=False)}."


def _span(errors: list[float]) -> str:
    """The range of relative errors: `−5 % to +12 %`."""
    low, high = (f"{100 * value:+.0f}\N{NO-BREAK SPACE}%".replace("-", "−") for value in (min(errors), max(errors)))
    return f"{low} to {high}"


def service_on_ray() -> str:
    """The service with replicas on Ray under load."""
    result = read_results("serve_ray")
    if not result:
        return MISSING
    rates, kill, switched = result["median_requests_per_second"], result["replica_killed"], result["model_switched"]
    return f"""\
- {result["replicas"]} replicas: {rates["ray"]:,.0f} requests per second with one image each, from
  {kill["clients"]} clients; the plain service in the same run: {rates["single_process"]:,.0f}.
- One of the replicas killed under load: {kill["requests"]:,} requests, {kill["errors"]} errors,
  {kill["lost"]} lost, {kill["wrong_answers"]} wrong; the slowest took {kill["milliseconds"]["max"] / 1000:.1f} s.
- The model replaced under load: {switched["requests"]:,} requests, {switched["errors"]} errors,
  {switched["lost"]} lost; {switched["old"]:,} responses of the old model, {switched["new"]:,} of the new one,
  {switched["wrong_answers"]} of neither.

Model: {result["model"]["architecture"]}, {_megabytes("serve_ray")}. {_place(result)}, shared by clients and replicas;
`benchmarks/serve_ray.py`.
"""


def _model_seconds(stage: dict[str, Any]) -> float:
    size = max(stage["batch_seconds"], key=int)
    return float(stage["batch_seconds"][size] + stage["python_seconds"][size]) / int(size)


def _megabytes(name: str) -> str:
    return f"{read_results(name)['model']['bytes'] / 1e6:.0f} MB"


def _share(row: dict[str, Any]) -> str:
    decoding = row["decoding_share"]
    shown = {"network": row["network_share"], "decoding": decoding, "model": 1 - decoding}[row["bottleneck"]]
    return percent(shown, 0)


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.2f} ms"


def _place(result: dict[str, Any]) -> str:
    hardware = result["hardware"]
    return f"{hardware['cores']} cores of {hardware['cpu']}, {result['date'][:10]}"
