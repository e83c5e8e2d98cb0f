"""Memory of the service with all bundled models, and latency of small requests, while it decodes huge images.

    python benchmarks/serve_huge.py [--photo FILE] [--kinds NAME,NAME]

FILE (the first of `photos` under THIRTYTWO_DATA by default) is enlarged to 7,000×7,000 pixels and saved in each of
`KINDS`. For each, a new service gets three such images at once while one client sends small ones, one after the other.
A kind that would take more memory than the service allows is refused with status 422, a file above 10 MB with 413. Then
one service gets 32 photographs in one request to each model, twice. Memory is the peak of the service's process.
Written to `benchmarks/results/serve_huge.json`.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image

from thirtytwo.images.discover import find_images
from thirtytwo.inference.library import bundled_models
from thirtytwo.io import write_json

sys.path.insert(0, str(Path(__file__).parent))

from predict import hardware

from serve import body, load, service

RESULTS = Path(__file__).parent / "results" / "serve_huge.json"
SIDE, SMALL, PHOTOGRAPHS = 7000, 32, 32
MOST_MB, MOST_SECONDS = 600, 1.0
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "baseline JPEG": ("RGB", {"format": "JPEG"}),
    "progressive JPEG": ("RGB", {"format": "JPEG", "progressive": True}),
    "progressive JPEG, 4:4:4": ("RGB", {"format": "JPEG", "progressive": True, "subsampling": 0}),
    "CMYK JPEG": ("CMYK", {"format": "JPEG"}),
    "grey PNG": ("L", {"format": "PNG", "compress_level": 1}),
    "GIF": ("P", {"format": "GIF"}),
    "TIFF": ("RGB", {"format": "TIFF", "compression": "jpeg", "quality": 50}),
    "WebP": ("RGB", {"format": "WEBP", "quality": 10, "method": 0}),
    "AVIF": ("RGB", {"format": "AVIF", "quality": 10, "speed": 10}),
}
"""Mode and options of each kind of image; at the default limits a file may have 10 MB."""


def main() -> int:
    root = os.environ.get("THIRTYTWO_DATA")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photo", type=Path)
    parser.add_argument("--kinds", help="separated by semicolons; all by default")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    photographs = find_images([Path(root) / "photos"])[0] if root else []
    photo = options.photo or next(iter(photographs), None)
    if photo is None:
        print("skipped: name a photograph with --photo, or set THIRTYTWO_DATA to a folder with photos")
        return 0
    kinds = options.kinds.split(";") if options.kinds else list(KINDS)
    result: dict[str, Any] = {
        "what": __doc__.splitlines()[0],
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": hardware(),
        "models": sorted(bundled_models()),
        "pixels": SIDE * SIDE,
        "kinds": {},
    }
    for name in kinds:
        result["kinds"][name] = measure(encoded(photo, name), small(photo))
        print(name, result["kinds"][name], flush=True)
        write_json(options.out, result)
    result["photographs"] = measure_photographs(photo)
    peaks = [one["peak_mb"][1] for one in (*result["kinds"].values(), result["photographs"])]
    slowest = max(one["slowest_small_seconds"] for one in result["kinds"].values())
    result |= {"peak_mb": max(peaks), "slowest_small_seconds": slowest}
    result["met"] = {"memory": max(peaks) <= MOST_MB, "latency": slowest <= MOST_SECONDS}
    write_json(options.out, result)
    print({key: result[key] for key in ("photographs", "peak_mb", "slowest_small_seconds", "met")})
    return 0


def encoded(photo: Path, kind: str) -> bytes:
    """The photograph, enlarged, as a file of this kind."""
    mode, options = KINDS[kind]
    stream = io.BytesIO()
    with Image.open(photo) as image:
        large = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    large.convert(mode).save(stream, **options)
    return stream.getvalue()


def small(photo: Path) -> bytes:
    """The photograph at 32 pixels, as PNG."""
    stream = io.BytesIO()
    with Image.open(photo) as image:
        image.convert("RGB").resize((SMALL, SMALL)).save(stream, "PNG")
    return stream.getvalue()


def measure(huge: bytes, tiny: bytes) -> dict[str, Any]:
    """Peak memory while three copies of `huge` are decoded, and seconds of the requests with `tiny` meanwhile."""
    with service(None) as server, ThreadPoolExecutor(1) as pool:
        load(server, [body([tiny])], clients=1)
        before = server.resident_mb("VmHWM")
        outcome = pool.submit(load, server, [body([huge])], clients=3, count=3)
        seconds = []
        while not outcome.done():
            seconds.append(load(server, [body([tiny])], clients=1).answers[0].seconds)
        return {
            "megabytes": round(len(huge) / 1e6, 1),
            "statuses": [answer.status for answer in outcome.result().answers],
            "small_requests": len(seconds),
            "slowest_small_seconds": round(max(seconds, default=0.0), 3),
            "peak_mb": [round(before, 1), round(server.resident_mb("VmHWM"), 1)],
        }


def measure_photographs(photo: Path) -> dict[str, Any]:
    """Peak memory after a request with `PHOTOGRAPHS` photographs to each model, twice."""
    content = photo.read_bytes()
    with service(None) as server:
        load(server, [body([content])], clients=1)
        before, statuses = server.resident_mb("VmHWM"), []
        for name in [*sorted(bundled_models())] * 2:
            request = body([content] * PHOTOGRAPHS, f"top=5&model={name}".encode())
            statuses.append(load(server, [request], clients=1).answers[0].status)
        return {"statuses": statuses, "peak_mb": [round(before, 1), round(server.resident_mb("VmHWM"), 1)]}


if __name__ == "__main__":
    sys.exit(main())
