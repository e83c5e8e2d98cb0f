"""What can be set of the service, with its defaults."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from thirtytwo.images.decode import MAX_PIXELS

MB = 1024 * 1024


class Settings(BaseModel):
    """How the service is bound, how it forms batches, and what it refuses."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(8032, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    max_batch: int = Field(32, ge=1, le=1024)
    """Images the model sees at a time, of however many requests."""
    max_wait_ms: float = Field(2.0, ge=0, le=1000)
    """Milliseconds an image waits for others to share its batch."""
    threads: int | None = Field(None, ge=1, le=256)
    """Threads for decoding, and for the model; None: one a core."""
    max_file_mb: float = Field(10, gt=0, le=1024)
    """Largest file, in MB of 1,048,576 bytes."""
    max_files: int = Field(64, ge=1, le=10_000)
    """Most files in a request."""
    max_megapixels: float = Field(MAX_PIXELS / 1e6, gt=0, le=MAX_PIXELS / 1e6)
    """Largest image, in million pixels, checked before it is decoded."""
    max_decode_mb: float = Field(400, ge=1)
    """Largest memory that decoding an image may take, in MB, estimated from its format, mode and size before."""
    max_json_mb: float = Field(32, gt=0, le=1024)
    """Largest JSON body; unlike multipart it is held in memory whole."""
    max_held_mb: float = Field(512, gt=0)
    """Uploads that are held in memory at a time, of all requests together."""
    queue: int = Field(1024, ge=1)
    """Images that may wait; a request beyond is told to come again."""
    timeout: float = Field(30, gt=0, le=3600)
    """Seconds a request may take, its upload included."""
    access_log: bool = False
    """Whether each request is logged."""
    api_key: str | None = Field(None, min_length=1, repr=False)
    """What clients must show, as `Authorization: Bearer KEY`; None: nothing."""

    @property
    def max_file_bytes(self) -> int:
        return int(self.max_file_mb * MB)

    @property
    def max_decode_bytes(self) -> int:
        return int(self.max_decode_mb * MB)

    @property
    def max_pixels(self) -> int:
        return int(self.max_megapixels * 1e6)
