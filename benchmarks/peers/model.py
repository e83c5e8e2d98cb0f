"""What the servers of the other frameworks share: the model file in ONNX Runtime, and decoding with Pillow.

They run in an environment of their own, without thirtytwo. `THIRTYTWO_PEER_MODEL` is the path of the model,
`THIRTYTWO_PEER_THREADS` the number of threads of one worker.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image

WORKERS = 2
BATCH = 32
BATCH_SECONDS = 0.005


class Model:
    """A session with its classes; `images` is uint8 `(N, S, S, 3)`."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ["THIRTYTWO_PEER_THREADS"])
        path = os.environ["THIRTYTWO_PEER_MODEL"]
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.info = json.loads(self.session.get_modelmeta().custom_metadata_map["thirtytwo"])

    def decode(self, file: Any) -> npt.NDArray[np.uint8]:
        """The pixels of an encoded image, uint8 `(S, S, 3)`; a JPEG at the smallest scale that suffices."""
        return self.pixels(Image.open(file))

    def pixels(self, opened: Image.Image) -> npt.NDArray[np.uint8]:
        size = self.info["input_size"]
        opened.draft("RGB", (size, size))
        image = opened.convert("RGB")
        if self.info["resize"] == "crop":
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            image = image.crop((left, top, left + side, top + side))
        if image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.BICUBIC)
        return np.asarray(image)

    def predict(self, images: npt.NDArray[np.uint8]) -> list[dict[str, Any]]:
        """The five most probable classes of each image."""
        (probabilities,) = self.session.run(["probabilities"], {"images": images})
        best = np.argsort(-probabilities, axis=1)[:, :5]
        return [
            {"predictions": [{"class": self.info["classes"][at], "confidence": float(row[at])} for at in columns]}
            for row, columns in zip(probabilities, best.tolist(), strict=True)
        ]
