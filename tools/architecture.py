"""Draw the diagram of the architecture: docs/images/architecture.svg.

    python tools/architecture.py

Plain SVG without scripts and fonts, on a page of its own color, so that it is legible in light and dark themes.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from thirtytwo.text import as_html

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs" / "images" / "architecture.svg"
WIDTH, HEIGHT = 960, 470
LINE = 17


@dataclass(frozen=True)
class Box:
    """A part: its corner and size in pixels, its name, and lines below it; `style` is `torch`, `file` or empty."""

    x: int
    y: int
    width: int
    height: int
    name: str
    lines: tuple[str, ...] = ()
    style: str = ""

    def svg(self) -> str:
        """The box with its texts, centered."""
        middle, top = self.x + self.width / 2, self.y + self.height / 2 - LINE * len(self.lines) / 2
        texts = [f'<text class="name" x="{middle}" y="{top + 5:.0f}">{as_html(self.name)}</text>']
        texts += [
            f'<text x="{middle}" y="{top + 5 + LINE * number:.0f}">{as_html(line)}</text>'
            for number, line in enumerate(self.lines, 1)
        ]
        shape = (
            f'<rect class="{self.style or "plain"}" x="{self.x}" y="{self.y}" width="{self.width}" '
            f'height="{self.height}" rx="{4 if self.style == "file" else 10}"/>'
        )
        return shape + "".join(texts)


BOXES = (
    Box(20, 60, 150, 110, "sources", ("folder · CSV", "parquet · hub", "CIFAR · digits")),
    Box(210, 60, 150, 110, "data", ("uint8 (N, H, W, 3)", "labels, hashes", "train · val · test")),
    Box(400, 60, 130, 110, "augment", ("whole batches", "on the device"), "torch"),
    Box(570, 60, 130, 110, "models", ("networks", "weights"), "torch"),
    Box(740, 60, 200, 110, "training", ("Lightning loop", "checkpoints, resume"), "torch"),
    Box(210, 220, 150, 80, "doctor", ("checks the data",)),
    Box(400, 220, 300, 80, "evaluation · explain · report", ("metrics with intervals, paired tests",)),
    Box(740, 220, 200, 80, "run directory", ("recipe, split, weights,", "predictions, metrics"), "file"),
    Box(740, 350, 200, 80, "model.onnx", ("pixels → probabilities,", "class names inside"), "file"),
    Box(480, 350, 220, 80, "inference", ("ONNX Runtime",)),
    Box(20, 350, 420, 80, "predict · teach · app · serve · browser", ("never import PyTorch",)),
)
ARROWS = (
    (170, 115, 210, 115),
    (360, 115, 400, 115),
    (530, 115, 570, 115),
    (700, 115, 740, 115),
    (840, 170, 840, 220),
    (840, 300, 840, 350),
    (740, 260, 700, 260),
    (740, 390, 700, 390),
    (480, 390, 440, 390),
    (285, 170, 285, 220),
)
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #37474f; text-anchor: middle }
.name { font-weight: 700; font-size: 15px; fill: #004d40 }
.head { text-anchor: start; fill: #607d8b }
rect { stroke: #00796b; stroke-width: 1.5; fill: #e0f2f1 }
rect.torch { fill: #fff3e0; stroke: #e65100 }
rect.file { fill: #fffde7; stroke: #827717; stroke-dasharray: 5 3 }
path { stroke: #546e7a; stroke-width: 2; fill: none; marker-end: url(#tip) }
.page { fill: #fff; stroke: none }
"""


def draw() -> str:
    """The diagram as SVG."""
    arrows = "".join(f'<path d="M{x} {y}L{right} {down}"/>' for x, y, right, down in ARROWS)
    key = "".join(
        f'<rect class="{style}" x="{x}" y="20" width="18" height="14" rx="3"/>'
        f'<text class="head" x="{x + 26}" y="32">{text}</text>'
        for x, style, text in (
            (20, "plain", "needs no PyTorch"),
            (190, "torch", "needs PyTorch"),
            (330, "file", "written to disk; everything after it reads only this"),
        )
    )
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"
aria-labelledby="title"><title id="title">The parts of thirtytwo and how data flows between them</title>
<style>{STYLE}</style>
<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path
style="stroke:none;fill:#546e7a;marker-end:none" d="M0 0L8 4L0 8z"/></marker></defs>
<rect class="page" width="{WIDTH}" height="{HEIGHT}" rx="8"/>
{key}
{arrows}
{"".join(box.svg() for box in BOXES)}
</svg>
"""


def main() -> int:
    OUT.write_text(draw(), encoding="utf-8")
    print(f"written: {OUT.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
