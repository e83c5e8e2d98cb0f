"""Settings of the service: the one place of their names, defaults and bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints, ValidationError, ValidationInfo

from thirtytwo.errors import ServiceError
from thirtytwo.images.open import MAX_PIXELS
from thirtytwo.machine import as_prefix
from thirtytwo.text import plain_reason

if TYPE_CHECKING:
    from pydantic_settings import BaseSettings
else:
    try:
        from pydantic_settings import BaseSettings
    except ImportError:  # enough for `thirtytwo serve --help`; running the service requires the extra
        from pydantic import BaseModel as BaseSettings


def _not_below_replicas(value: int | None, info: ValidationInfo) -> int | None:
    replicas = info.data.get("replicas")
    if value is not None and replicas is not None and value < replicas:
        raise ValueError(f"The maximum number of replicas, {value}, is below their number, {replicas}")
    return value


MB = 1024 * 1024
KEY_VARIABLE = "THIRTYTWO_API_KEY"
_MEGAPIXEL = 10**6


class ServeSettings(BaseSettings):
    """Address, batching and limits of the service; MB are 1,048,576 bytes.

    Settings that are not given are read from the environment: `max_batch` from `THIRTYTWO_SERVE_MAX_BATCH` and so on.
    The options of `thirtytwo serve` are built from these fields; the text below a field is the option's help.
    """

    model_config = {
        "env_prefix": "THIRTYTWO_SERVE_",
        "frozen": True,
        "extra": "forbid",
        "allow_inf_nan": False,
        "populate_by_name": True,
        "use_attribute_docstrings": True,
    }

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(8032, ge=0, le=65535)
    """Port to listen on; 0 picks a free one."""
    root_path: Annotated[str, AfterValidator(as_prefix)] = ""
    """Path prefix below which a proxy serves the service, such as /images."""
    max_batch: int = Field(32, ge=1, le=1024)
    """Maximum number of images per batch; fewer where the model's input is large."""
    max_wait_ms: float = Field(2, ge=0, le=1000)
    """Maximum time an image waits for its batch to fill."""
    tta: Literal["off", "auto", "all"] = "off"
    """Images to classify mirrored and shifted as well: off (none), auto (those in doubt) or all."""
    threads: int | None = Field(None, ge=1, le=256)
    """Number of threads for decoding, and for the model."""  # None: one per core
    max_file_mb: float = Field(10, ge=0.001, le=1024)
    """Maximum file size."""
    max_files: int = Field(64, ge=1, le=10_000)
    """Maximum number of files per request."""
    max_megapixels: float = Field(MAX_PIXELS // _MEGAPIXEL, ge=0.001, le=MAX_PIXELS // _MEGAPIXEL)
    """Maximum image size; checked before decoding."""
    max_decode_mb: float = Field(208, ge=1)
    """Maximum memory to decode one image."""  # estimated from its format, mode and size
    max_json_mb: float = Field(32, ge=0.001, le=1024)
    """Maximum size of a JSON body."""  # unlike a multipart body it is kept in memory completely
    max_held_mb: float = Field(512, ge=1)
    """Maximum size of the uploads in memory, over all requests."""
    queue: int = Field(1024, ge=1)
    """Maximum number of waiting images; further requests get status 503."""
    timeout: float = Field(30, ge=0.1, le=3600)
    """Maximum seconds per request, including the upload."""
    access_log: bool = False
    """Log every request on stdout."""
    replicas: int = Field(1, ge=1, le=1000)
    """With --on: number of replicas of the models; with --max-replicas, the minimum."""
    max_replicas: Annotated[int | None, AfterValidator(_not_below_replicas)] = Field(None, ge=1, le=1000)
    """With --on: maximum number of replicas, which then follows the load."""  # None: as `replicas`
    replica_batches: int = Field(2, ge=1, le=64)
    """With --on: number of batches that a replica takes at a time; if more wait, replicas are added."""
    api_key: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)] | None = Field(
        None, validation_alias=KEY_VARIABLE, repr=False
    )
    """Key that clients must send as `Authorization: Bearer KEY`; without one, everyone may use the service."""

    @property
    def most_replicas(self) -> int:
        return self.max_replicas or self.replicas

    @property
    def max_file_bytes(self) -> int:
        return int(self.max_file_mb * MB)

    @property
    def max_decode_bytes(self) -> int:
        return int(self.max_decode_mb * MB)

    @property
    def max_pixels(self) -> int:
        return int(self.max_megapixels * _MEGAPIXEL)


def read_settings(**given: Any) -> ServeSettings:
    """The given settings, completed from the environment.

    Raises:
        ServiceError: a setting is invalid, for example an API key that is set but empty.
    """
    try:
        return ServeSettings(**given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = str(first["loc"][0])
        fix = "Set it to the key that clients must send, or unset it." if name == KEY_VARIABLE else "Correct its value."
        raise ServiceError(f"{name}: {plain_reason(first)}.", fix) from None
