"""Regenerate src/thirtytwo/models/networks.json: parameters and FLOPs of the networks that `thirtytwo models` lists.

    python tools/write_networks.py

Takes about a minute. A test compares a part of the file with the networks.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from thirtytwo.io import write_json
from thirtytwo.models import MODELS, Network

TABLE = Path(__file__).resolve().parent.parent / "src" / "thirtytwo" / "models" / "networks.json"
CLASSES = 10
SIZES = (32, 64, 96, 128, 224)
LISTED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("textbook", {}),
    ("fastnet", {}),
    ("fastnet-s", {}),
    ("fastnet-m", {}),
    ("fastnet-l", {}),
    ("resnet18", {}),
    ("resnet34", {}),
    ("resnet50", {}),
    ("preresnet18", {}),
    ("wideresnet", {"depth": 16, "width": 8}),
    ("wideresnet", {}),
    ("densenet", {}),
    ("vgg16", {}),
    ("timm", {"architecture": "resnet50"}),
    ("timm", {"architecture": "efficientnet_b0"}),
    ("timm", {"architecture": "efficientnetv2_s"}),
    ("timm", {"architecture": "convnext_atto"}),
    ("timm", {"architecture": "convnext_tiny"}),
    ("timm", {"architecture": "vit_tiny_patch16_224"}),
    ("timm", {"architecture": "deit_small_patch16_224"}),
    ("timm", {"architecture": "swin_tiny_patch4_window7_224"}),
    ("timm", {"architecture": "densenet121"}),
)


def main() -> None:
    rows = [measure(name, options) for name, options in LISTED]
    write_json(TABLE, {"classes": CLASSES, "sizes": list(SIZES), "networks": rows})
    print(f"written: {TABLE}")


def measure(name: str, options: dict[str, Any], sizes: tuple[int, ...] = SIZES) -> dict[str, Any]:
    """One row: the network from scratch, for images of each size."""
    net = MODELS.get(name)(CLASSES, options)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    return {
        "name": name,
        "options": options,
        "description": description(name, net),
        "parameters": parameters,
        "flops": {str(size): flops(name, options, size) for size in sizes},
    }


def description(name: str, net: Network) -> str:
    """The builder's docstring, or how an architecture of timm is adapted to small images."""
    if not net.choices:
        return (MODELS.get(name).__doc__ or "").partition("\n")[0]
    does = net.choices[0].value.partition(", ")[2]
    return f"{does[:1].upper()}{does[1:]}."


def flops(name: str, options: dict[str, Any], size: int) -> int:
    """Floating-point operations of a forward pass of one image (a multiply-add counts as two)."""
    sized = {"input_size": size} if name == "timm" else {}
    net = MODELS.get(name)(CLASSES, options | sized).eval().to("meta")
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        net(torch.zeros((1, 3, size, size), device="meta"))
    return int(counter.get_total_flops())


if __name__ == "__main__":
    sys.exit(main())
