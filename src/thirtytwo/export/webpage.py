"""A model as a web page that runs by itself: in a browser, from a folder or any web server, without a network.

The runtime is ONNX Runtime's build for browsers, which comes with the package. Its files and the model are base64 in
plain scripts, because browsers let a page that was opened from a folder load scripts, but no other files.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import zipfile
from pathlib import Path

from thirtytwo.inference.model_file import ModelInfo, read_info
from thirtytwo.io import write_bytes
from thirtytwo.text import as_html, listing, readable

WEB = Path(__file__).with_name("web")
RUNTIME, SCRIPT = WEB / "ort-wasm-simd-threaded.wasm.gz", WEB / "ort.wasm.bundle.min.mjs"
FOLDER = "web-page"
"""Folder in the archive."""
_TIME = (1980, 1, 1, 0, 0, 0)
"""Time of the files in the archive, so that the same model gives the same archive."""
_NAMED = 4
_LEVEL = 6
"""Compression level of weights, which hardly get smaller with a higher one."""

_README = """Open index.html in a browser: with a double click, or from any web server. Images never leave the device.

In a page of your own, with these files beside it:

{snippet}
Resizing follows thirtytwo, so that results agree with `thirtytwo predict`; photographs can differ slightly, because
browsers decode JPEG files slightly differently. runtime.js is onnxruntime-web 1.30.0 (MIT, see LICENSE-onnxruntime).
"""

SNIPPET = """<script src="classifier.js"></script>
<script src="runtime.js"></script>
<script src="model.js"></script>
<input type="file" accept="image/*">
<output></output>
<script>
  document.querySelector("input").addEventListener("change", async ({ target }) => {
    const answer = document.querySelector("output");
    try {
      const classifier = await thirtytwo.load();
      const { top, confidence, known } = await classifier.classify(target.files[0]);
      const name = known ? top : `unknown, nearest class ${top}`;
      answer.value = `${name}, ${(100 * confidence).toFixed(1)} %`;
    } catch (error) {
      answer.value = error.message;
    }
  });
</script>
"""
"""How to classify an image in a page of one's own beside the files of the archive."""


def write_web_page(source: Path, target: Path) -> None:
    """Write the model file `source` as a ZIP archive with a page that classifies images, atomically.

    Raises:
        ModelFileError: `source` is not a model of thirtytwo.
        OutputError: the archive cannot be written.
    """
    write_bytes(target, web_page(source))


def web_page(source: Path) -> bytes:
    """The archive of `write_web_page`.

    Raises:
        ModelFileError: `source` is not a model of thirtytwo.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in page_files(source).items():
            entry = zipfile.ZipInfo(f"{FOLDER}/{name}", _TIME)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, content)
    return stream.getvalue()


def page_files(source: Path) -> dict[str, bytes]:
    """The files of the page of a model, by name.

    Raises:
        ModelFileError: `source` is not a model of thirtytwo.
    """
    info = read_info(source)
    page = (WEB / "index.html").read_text(encoding="utf-8").replace("TITLE", as_html(_title(info)))
    runtime = {"script": gzip.compress(SCRIPT.read_bytes(), mtime=0), "wasm": RUNTIME.read_bytes()}
    model = {"model": gzip.compress(source.read_bytes(), _LEVEL, mtime=0)}
    about = info.model_dump(mode="json") | {"labels": [readable(name) for name in info.classes]}
    return {
        "index.html": page.encode(),
        "classifier.js": (WEB / "classifier.js").read_bytes(),
        "runtime.js": _as_script(runtime),
        "model.js": _as_script(model, {"info": about}),
        "README.txt": _README.format(snippet=SNIPPET).encode(),
        "LICENSE-onnxruntime": (WEB / "LICENSE").read_bytes(),
    }


def _title(info: ModelInfo) -> str:
    names = [readable(name) for name in info.classes]
    if len(names) <= _NAMED:
        return f"{' or '.join(names)}?"
    return f"{listing(names, _NAMED, quoted=False)}?"


def _as_script(files: dict[str, bytes], values: dict[str, object] | None = None) -> bytes:
    """A script that adds files as base64, and other values, to the object `thirtytwoFiles`."""
    content = {name: base64.b64encode(data).decode("ascii") for name, data in files.items()} | (values or {})
    return f"Object.assign((globalThis.thirtytwoFiles ??= {{}}), {json.dumps(content)});\n".encode()
