"""The model behind LitServe: python lit.py PORT."""

from __future__ import annotations

import sys
from typing import Any

import litserve
import numpy as np
from model import BATCH, BATCH_SECONDS, WORKERS, Model


class Classifier(litserve.LitAPI):
    """Classifies uploaded images; requests that arrive together are one batch."""

    def setup(self, device: str) -> None:
        self.model = Model()

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # LitServe reads its annotations
        return self.model.decode(request["files"].file)

    def batch(self, inputs: list[Any]) -> Any:
        return np.stack(inputs)

    def predict(self, x: Any) -> Any:
        return self.model.predict(x)

    def unbatch(self, output: Any) -> Any:
        return output

    def encode_response(self, output):  # type: ignore[no-untyped-def]
        return output


if __name__ == "__main__":
    api = Classifier(max_batch_size=BATCH, batch_timeout=BATCH_SECONDS)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=WORKERS)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False)
