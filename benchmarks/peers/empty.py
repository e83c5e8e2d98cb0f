"""HTTP alone: reads an upload without parsing it, and answers as a service does, without decoding or classifying.

Run as `uvicorn empty:app --workers 2`.
"""

from __future__ import annotations

import json
from typing import Any

CLASSES = ("airplane", "automobile", "bird", "cat", "deer")
PREDICTIONS = [{"class": name, "confidence": 0.2} for name in CLASSES]
ENTRY = {"file": "000.png", "width": 32, "height": 32, "top": CLASSES[0], "confidence": 0.2, "known": True}
ANSWER = json.dumps([ENTRY | {"predictions": PREDICTIONS}]).encode()
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """An ASGI application without a framework."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    more = True
    while more:
        more = (await receive()).get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})
