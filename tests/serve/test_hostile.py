"""Malicious and unusual files: a prediction or an error that names the file, never a bug, never much memory."""

from __future__ import annotations

import io
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from thirtytwo.images.formats import heif_is_readable

MAX_MB = 500
"""Peak memory of the service while it receives all of these files."""


def saved(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG with any header and any chunks."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def zeros(count: int) -> bytes:
    """`count` zero bytes, compressed."""
    packer = zlib.compressobj(9)
    block = bytes(1 << 20)
    packed = b"".join(packer.compress(block) for _ in range(count >> 20))
    return packed + packer.compress(bytes(count & ((1 << 20) - 1))) + packer.flush()


RED = Image.new("RGB", (40, 30), (250, 5, 5))
BLUE = Image.new("RGB", (40, 30), (5, 5, 250))


def animated() -> bytes:
    return saved(RED, "GIF", save_all=True, append_images=[BLUE] * 50)


def sideways() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(RED, "JPEG", exif=exif.tobytes())


def bomb_in_text() -> bytes:
    return png(8, 8, chunk(b"zTXt", b"Comment\0\0" + zeros(50 << 20)), chunk(b"IDAT", zeros(8 * 25)))


def bomb_in_profile() -> bytes:
    return png(8, 8, chunk(b"iCCP", b"p\0\0" + zeros(50 << 20)), chunk(b"IDAT", zeros(8 * 25)))


def bomb_in_pixels() -> bytes:
    """2.7 GB when decompressed, of which the first rows are present."""
    return png(30_000, 30_000, chunk(b"IDAT", zeros(30_000 * 3 * 500)))


def image_and_zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("payload.js", "alert(1)")
    return saved(RED) + stream.getvalue()


def script_and_gif() -> bytes:
    return b"GIF89a/*" + b"\0" * 20 + b"*/=1;alert(1)"


def sixteen_bit() -> bytes:
    return saved(Image.fromarray(np.full((30, 40), 40_000, dtype=np.uint16)))


SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'

ACCEPTED: dict[str, tuple[str, Callable[[], bytes], dict[str, Any]]] = {
    "animated": ("a.gif", animated, {"top": "red"}),
    "CMYK": ("a.jpg", lambda: saved(RED.convert("CMYK"), "JPEG"), {"top": "red"}),
    "16 bits": ("a.png", sixteen_bit, {"known": False}),
    "turned by EXIF": ("a.jpg", sideways, {"top": "red", "width": 30, "height": 40}),
    "wrong suffix": ("a.jpg", lambda: saved(RED), {"top": "red"}),
    "no suffix": ("image", lambda: saved(RED, "WEBP", lossless=True), {"top": "red"}),
    "also a ZIP file": ("a.png", image_and_zip, {"top": "red"}),
    "palette with transparency": ("a.png", lambda: saved(RED.convert("P"), transparency=0), {"width": 40}),
    "all there but many": ("a.png", lambda: saved(Image.new("1", (3000, 2000))), {"width": 3000}),
    "data after the pixels": ("a.png", lambda: png(8, 8, chunk(b"IDAT", zeros(20 << 20))), {"width": 8}),
    "bomb in its text": ("a.png", bomb_in_text, {"width": 8, "height": 8}),
    "bomb in its colour profile": ("a.png", bomb_in_profile, {"width": 8, "height": 8}),
}
REJECTED: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "empty": ("a.png", lambda: b"", "a.png"),
    "truncated PNG": ("a.png", lambda: saved(RED)[:-30], "a.png"),
    "truncated JPEG": ("a.jpg", lambda: saved(RED, "JPEG")[:300], "a.jpg"),
    "only a signature": ("a.png", lambda: b"\x89PNG\r\n\x1a\n", "a.png"),
    "script disguised as a GIF": ("a.gif", script_and_gif, "a.gif"),
    "PDF with an image in it": ("a.jpg", lambda: b"%PDF-1.7\n" + saved(RED, "JPEG"), "a.jpg"),
    "50,000×50,000 by its header": ("a.png", lambda: png(50_000, 50_000), "50000×50000"),
    "30,000×30,000 and packed": ("a.png", bomb_in_pixels, "30000×30000"),
    "one pixel": ("a.png", lambda: saved(Image.new("RGB", (1, 1))), "1×1"),
    "no pixel": ("a.png", lambda: png(0, 0), "a.png"),
    "SVG": ("a.svg", lambda: SVG, "a.svg"),
    "SVG named PNG": ("a.png", lambda: SVG, "a.png"),
    "TIFF with a reference to itself": ("a.tif", lambda: b"II*\0\x08\0\0\0\0\0\x08\0\0\0", "a.tif"),
    "HEIC": ("a.heic", lambda: b"\0\0\0\x18ftypheic\0\0\0\0", "damaged" if heif_is_readable() else "HEIC"),
    "zeros": ("a.png", lambda: bytes(5000), "a.png"),
    "PostScript": ("a.eps", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n", "a.eps"),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_unusual_images_are_classified(client: httpx.Client, case: str) -> None:
    name, make, expected = ACCEPTED[case]
    answer = client.post("/predict", files={"files": (name, make())})
    assert answer.status_code == 200, answer.text
    (entry,) = answer.json()
    assert {key: entry[key] for key in expected} == expected


@pytest.mark.parametrize("case", REJECTED)
def test_hostile_files_are_rejected_by_name(client: httpx.Client, case: str, make: SimpleNamespace) -> None:
    name, create, value = REJECTED[case]
    problem = client.post("/predict", files={"files": (name, create())})
    assert (problem.status_code, problem.headers["content-type"]) == (422, "application/problem+json"), problem.text
    document = problem.json()
    assert document["file"] == name
    assert value in document["detail"]
    assert name in document["detail"]
    among = client.post("/predict", files=make.parts(("red.png", make.image()), (name, create())))
    assert among.status_code == 200
    assert among.json()[0]["top"] == "red"
    assert among.json()[1] == {"file": name, "error": document["errors"][0]["error"]}


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc/self/status")
def test_peak_memory_is_bounded(launch: Callable[..., Any]) -> None:
    running = launch("--max-megapixels", "10")
    with httpx.Client(base_url=running.url, timeout=30) as client:
        for name, create, _ in [*ACCEPTED.values(), *REJECTED.values()]:
            sent = [("files", (name, create()))] * 8
            assert client.post("/predict", files=sent).status_code in (200, 422)
        assert client.get("/health/ready").status_code == 200
    assert running.memory_mb("VmHWM") < MAX_MB
    assert running.stop() == 0


HUGE_MB = 240
"""What decoding may add to the memory of the service, which is then below 600 MB with all bundled models."""
HUGE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "baseline": ("RGB", "JPEG", {"subsampling": 0}),
    "progressive": ("RGB", "JPEG", {"progressive": True}),
    "progressive, gray": ("L", "JPEG", {"progressive": True}),
    "CMYK": ("CMYK", "JPEG", {}),
    "PNG": ("RGB", "PNG", {"compress_level": 1}),
    "transparent PNG": ("RGBA", "PNG", {"compress_level": 1}),
    "PNG of 16 bits": ("I;16", "PNG", {"compress_level": 1}),
    "GIF": ("P", "GIF", {}),
    "TIFF": ("RGB", "TIFF", {"compression": "tiff_adobe_deflate"}),
    "CMYK TIFF": ("CMYK", "TIFF", {"compression": "tiff_adobe_deflate"}),
    "TIFF of fractions": ("F", "TIFF", {"compression": "tiff_adobe_deflate"}),
    "BMP": ("1", "BMP", {}),
}
REFUSED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "progressive, full colour": ("RGB", "JPEG", {"progressive": True, "subsampling": 0}),
    "progressive CMYK": ("CMYK", "JPEG", {"progressive": True}),
    "WebP": ("RGB", "WEBP", {"quality": 10, "method": 0}),
    "lossless WebP": ("RGB", "WEBP", {"lossless": True, "quality": 0, "method": 0}),
    "AVIF": ("RGB", "AVIF", {"quality": 10, "speed": 10}),
    "TIFF of one strip": ("RGB", "TIFF", {"compression": "tiff_adobe_deflate", "strip_size": 2**31 - 1}),
}


def huge(case: str) -> bytes:
    """49 megapixels in a small file."""
    mode, format, options = (HUGE | REFUSED)[case]
    colours = {"RGB": (250, 5, 5), "RGBA": (250, 5, 5, 250), "CMYK": (0, 250, 250, 5)}
    return saved(Image.new(mode, (7000, 7000), colours.get(mode, 0)), format, **options)


def post_huge(running: Any, case: str, per_request: int, answers: list[Any]) -> list[threading.Thread]:
    """Start three requests with huge images."""
    files = [("f", ("huge", huge(case)))] * per_request

    def post() -> None:
        answers.append(httpx.post(f"{running.url}/predict", files=files, timeout=120))

    threads = [threading.Thread(target=post) for _ in range(3)]
    for thread in threads:
        thread.start()
    return threads


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc/self/status")
@pytest.mark.parametrize("case", HUGE)
def test_small_requests_do_not_wait_for_huge_images(
    launch: Callable[..., Any], make: SimpleNamespace, case: str
) -> None:
    """With one thread for small images, a huge one in it would delay all others."""
    running = launch("--threads", "1")
    small = {"files": {"f": ("small.png", make.image())}}
    httpx.post(f"{running.url}/predict", **small)
    before, answers = running.memory_mb("VmHWM"), []
    threads = post_huge(running, case, 2, answers)
    while "thirtytwo_waiting 6.0" not in httpx.get(f"{running.url}/metrics").text:
        assert len(answers) < 3
    assert httpx.post(f"{running.url}/predict", **small).status_code == 200
    assert len(answers) < 3, "the small one was answered while huge ones were waiting"
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * 3
    assert running.memory_mb("VmHWM") < before + HUGE_MB
    assert running.stop() == 0


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc/self/status")
@pytest.mark.parametrize("case", ["progressive", "PNG", *REFUSED])
def test_concurrent_huge_images_are_decoded_one_at_a_time_or_refused(launch: Callable[..., Any], case: str) -> None:
    running = launch("--threads", "4")
    before, answers = running.memory_mb("VmHWM"), []
    for thread in post_huge(running, case, 1, answers):
        thread.join()
    assert [answer.status_code for answer in answers] == [422 if case in REFUSED else 200] * 3
    if case in REFUSED:
        assert answers[0].json()["file"] == "huge"
        assert "208 MB" in answers[0].json()["detail"]
    assert running.memory_mb("VmHWM") < before + HUGE_MB
    assert running.stop() == 0
