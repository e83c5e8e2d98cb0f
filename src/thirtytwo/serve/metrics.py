"""Metrics of the service for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Metrics of one service, in a separate registry.

    Args:
        waiting: returns the number of images that wait for their prediction.
        largest_batch: number of images in a full batch.
    """

    def __init__(self, waiting: Callable[[], float], largest_batch: int) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.requests = Counter(
            "thirtytwo_requests", "Number of requests.", ["method", "path", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "thirtytwo_request_seconds",
            "Seconds from the request's headers to the response.",
            ["path"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.images = Counter(
            "thirtytwo_images",
            "Number of images by result: known, unknown or unreadable.",
            ["model", "result"],
            registry=self._registry,
        )
        sizes = [float(size) for size in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512) if size < largest_batch]
        self.batch_size = Histogram(
            "thirtytwo_batch_size",
            "Images per batch.",
            ["model"],
            buckets=[*sizes, float(largest_batch)],
            registry=self._registry,
        )
        self.batch_seconds = Histogram(
            "thirtytwo_batch_seconds",
            "Seconds the model needs for a batch.",
            ["model"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        Gauge("thirtytwo_waiting", "Images that wait for their prediction.", registry=self._registry).set_function(
            waiting
        )
        # prometheus_client's lookup of labels takes as long as counting
        self._images: Callable[..., Counter] = cache(self.images.labels)
        self._requests: Callable[..., Counter] = cache(self.requests.labels)
        self._seconds: Callable[..., Histogram] = cache(self.seconds.labels)

    def count_images(self, model: str, entries: Sequence[Mapping[str, Any]]) -> None:
        """Count the entries of a response by result; a readable image is known or unknown."""
        unreadable = sum("error" in entry for entry in entries)
        known = sum(bool(entry.get("known")) for entry in entries)
        self._images(model, "unreadable").inc(unreadable)
        if unreadable < len(entries):
            self._images(model, "known").inc(known)
            self._images(model, "unknown").inc(len(entries) - unreadable - known)

    def count_request(self, method: str, path: str, status: int, seconds: float) -> None:
        """Count a response, `seconds` after the headers of its request."""
        self._requests(method, path, str(status)).inc()
        self._seconds(path).observe(seconds)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)
