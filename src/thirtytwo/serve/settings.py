"""Settings of the service with their defaults and bounds."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from thirtytwo.images.decode import MAX_PIXELS

MB = 1024 * 1024


class Settings(BaseModel):
    """Address, batching and limits of the service."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(8032, ge=0, le=65535)
    """Port to listen on; 0 picks a free one."""
    max_batch: int = Field(32, ge=1, le=1024)
    """Maximum number of images per batch, over all requests."""
    max_wait_ms: float = Field(2.0, ge=0, le=1000)
    """Maximum milliseconds an image waits for its batch to fill."""
    threads: int | None = Field(None, ge=1, le=256)
    """Number of threads for decoding, and for the model; None: one per core."""
    max_file_mb: float = Field(10, gt=0, le=1024)
    """Maximum file size, in MB of 1,048,576 bytes."""
    max_files: int = Field(64, ge=1, le=10_000)
    """Maximum number of files per request."""
    max_megapixels: float = Field(MAX_PIXELS / 1e6, gt=0, le=MAX_PIXELS / 1e6)
    """Maximum image size in million pixels, checked before decoding."""
    max_decode_mb: float = Field(400, ge=1)
    """Maximum memory to decode an image, in MB, estimated from its format, mode and size."""
    max_json_mb: float = Field(32, gt=0, le=1024)
    """Maximum size of a JSON body in MB; unlike a multipart body it is kept in memory completely."""
    max_held_mb: float = Field(512, gt=0)
    """Maximum size of the uploads in memory, in MB, over all requests."""
    queue: int = Field(1024, ge=1)
    """Maximum number of waiting images; further requests get status 503."""
    timeout: float = Field(30, gt=0, le=3600)
    """Maximum seconds per request, including the upload."""
    access_log: bool = False
    """Whether each request is logged."""
    api_key: str | None = Field(None, min_length=1, repr=False)
    """Key that clients must send as `Authorization: Bearer KEY`; None: no key required."""

    @property
    def max_file_bytes(self) -> int:
        return int(self.max_file_mb * MB)

    @property
    def max_decode_bytes(self) -> int:
        return int(self.max_decode_mb * MB)

    @property
    def max_pixels(self) -> int:
        return int(self.max_megapixels * 1e6)
