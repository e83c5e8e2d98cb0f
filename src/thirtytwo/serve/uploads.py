"""Parse the files of a request's body as it arrives; data over a limit is never kept in memory."""

from __future__ import annotations

import asyncio
import binascii
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from fastapi import Request
from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from thirtytwo.errors import ImageError
from thirtytwo.images.decode import load_image, load_small
from thirtytwo.images.header import read_header
from thirtytwo.images.open import MAX_PIXELS_VARIABLE
from thirtytwo.images.render import LEAST
from thirtytwo.inference.classifier import UnreadableImage
from thirtytwo.inference.model_file import ModelInfo
from thirtytwo.serve.limits import DecodingMemory, Reservation
from thirtytwo.serve.schemas import PredictBody, PredictParameters, Problem
from thirtytwo.serve.settings import MB, ServeSettings
from thirtytwo.text import listing, plain_reason

MULTIPART, JSON, BINARY = "multipart/form-data", "application/json", "application/octet-stream"
PARAMETERS = frozenset(PredictParameters.model_fields)
"""Parameters of the address. They cannot be form fields: images that these follow are already decoded."""

_PART_OVERHEAD = 8192  # maximum bytes of headers and boundary per part
_MAX_COMMAS = 1000  # per file in a JSON body; base64 has none, and many small values need much memory
_MAX_NAME = 255  # characters of a file name that are kept
_MAX_FIELDS = 16  # form fields that are not files
_DATA_URI = re.compile(rb"\s*data:[^,]*,", re.IGNORECASE)
_BASE64_URI = re.compile(rb"\s*data:[^,]*;\s*base64\s*,", re.IGNORECASE)
_SPACES = b" \t\r\n"
_MOST_PADDING = 2  # characters `=` at the end of base64
_PIECE = 2**18  # characters of base64 that are decoded at a time, which takes milliseconds


@dataclass(frozen=True, slots=True)
class Upload:
    """One file of a request: the client's name for it, and its bytes."""

    name: str
    data: bytes


async def read_uploads(request: Request, settings: ServeSettings, reservation: Reservation) -> AsyncIterator[Upload]:
    """Yield the files of a request, each as soon as it is complete.

    `reservation` counts all bytes in memory, including copies; the caller releases those of an upload.

    Raises:
        Problem: the content type is not supported, or the body is malformed or exceeds a limit.
    """
    content_type, options = parse_options_header(request.headers.get("content-type"))
    if content_type == MULTIPART.encode():
        limit = settings.max_files * (settings.max_file_bytes + _PART_OVERHEAD)
        _check_content_length(request, limit)
        parts = _MultipartFiles(options.get(b"boundary", b""), settings, reservation)
        async for chunk in request.stream():
            for upload in parts.feed(chunk):
                yield upload
        parts.close()
    elif content_type == JSON.encode():
        for upload in await _read_json(request, settings, reservation):
            yield upload
    elif _is_image_type(content_type):
        yield await _read_raw(request, settings, reservation)
    else:
        found = content_type.decode("latin-1") or "none"
        hint = " With curl --data-binary, add: -H 'Content-Type: image/jpeg'." if found == _CURL_DEFAULT else ""
        expected = f"Expected {MULTIPART}, {JSON} or the type of an image; found {found}."
        raise Problem("unsupported-type", expected + hint)


_CURL_DEFAULT = "application/x-www-form-urlencoded"
_EXAMPLE_BODY = '{"files": [{"file": "photo.jpg", "data": "<its content in base64>"}]}'


def _is_image_type(content_type: bytes) -> bool:
    """Whether data of this media type is one image; its format is recognized by its content."""
    return content_type.lower().startswith(b"image/") or content_type.lower() == BINARY.encode()


class _MultipartFiles:
    """Files of a multipart body (RFC 7578): parts with a file name or the type of an image, whatever their field name.

    Empty fields are ignored; others are an error, so that no input is lost unnoticed.
    """

    def __init__(self, boundary: bytes, settings: ServeSettings, reservation: Reservation) -> None:
        if not boundary:
            raise Problem("malformed", f"The Content-Type {MULTIPART} has no boundary.")
        self._settings, self._reservation = settings, reservation
        self._header = b""
        self._value = b""
        self._count = self._fields = 0
        self._name = self._field = ""
        self._is_file = False
        self._pieces: list[bytes] = []
        self._size = 0
        self._complete: list[Upload] = []
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._header_field,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_part_data": self._data,
                    "on_part_end": self._end,
                    "on_end": self._finish,
                },
            )
        except FormParserError as error:
            raise Problem("malformed", f"{error}.") from None

    def feed(self, chunk: bytes) -> Iterator[Upload]:
        """Parse a chunk and yield the files it completes."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise Problem("malformed", f"The multipart body is malformed: {error}.") from None
        complete, self._complete = self._complete, []
        yield from complete

    def close(self) -> None:
        if not self._ended:
            raise Problem("malformed", "The multipart body ends before its closing boundary.")

    def _begin(self) -> None:
        self._name, self._field, self._is_file = "", "", False
        self._pieces, self._size = [], 0

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            options = parse_options_header(self._value)[1]
            self._is_file |= b"filename" in options
            self._name = _file_name(options)
            self._field = options.get(b"name", b"").decode("utf-8", "replace")[:_MAX_NAME]
        elif self._header.lower() == b"content-type":
            self._is_file |= _is_image_type(self._value.partition(b";")[0].strip())
        self._header = self._value = b""

    def _headers_finished(self) -> None:
        if not self._is_file:
            self._fields += 1
            if self._fields > _MAX_FIELDS:
                raise Problem("too-large", f"A request may contain at most {_MAX_FIELDS} form fields besides files.")
            return
        self._count += 1
        if self._count > self._settings.max_files:
            raise Problem(
                "too-large", f"A request may contain at most {self._settings.max_files} files; this one contains more."
            )
        self._name = self._name or f"image {self._count}"

    def _check_field(self) -> None:
        """Check a part that is not a file, which has a value."""
        if self._field in PARAMETERS:
            raise Problem("invalid", f"The form field {self._field!r} {_in_address(self._field)}")
        raise Problem(
            "invalid",
            f"The form field {self._field!r} is not a file: it has neither a file name nor the type of an image. "
            "Send images as files, for example with curl -F files=@photo.jpg.",
        )

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if not self._is_file:
            self._check_field()
            return
        _check_file_size(self._name, self._size, self._settings)
        self._reservation.reserve(end - start)
        self._pieces.append(data[start:end])

    def _end(self) -> None:
        if not self._is_file:
            return
        self._reservation.reserve(self._size)  # the pieces and their concatenation
        self._complete.append(Upload(self._name, b"".join(self._pieces)))
        self._pieces = []
        self._reservation.release(self._size)

    def _finish(self) -> None:
        self._ended = True


def _file_name(options: Mapping[bytes, bytes]) -> str:
    """The file name among the parameters of a Content-Disposition header; empty without one."""
    return options.get(b"filename", b"").decode("utf-8", "replace")[:_MAX_NAME]


async def _read_raw(request: Request, settings: ServeSettings, reservation: Reservation) -> Upload:
    """A body that is one image."""
    name = _file_name(parse_options_header(request.headers.get("content-disposition"))[1]) or "image 1"
    _check_content_length(request, settings.max_file_bytes)
    body = bytearray()
    async for chunk in request.stream():
        _check_file_size(name, len(body) + len(chunk), settings)
        reservation.reserve(len(chunk))
        body += chunk
    if not body:
        raise Problem("no-image", "The body is empty.")
    reservation.reserve(len(body))
    data = bytes(body)
    reservation.release(len(body))
    return Upload(name, data)


async def _read_json(request: Request, settings: ServeSettings, reservation: Reservation) -> list[Upload]:
    body = await _json_body(request, settings, reservation)
    size = len(body)
    if body.count(b",") > _MAX_COMMAS * settings.max_files:
        raise Problem("too-large", f"The body contains more values than {settings.max_files} files can have.")
    reservation.reserve(2 * size)  # the parser's copy, and the strings it returns
    try:
        files = PredictBody.model_validate_json(body).files
    except ValidationError as error:
        raise _invalid_json(error) from None
    finally:
        del body
    texts = sum(len(entry.data) for entry in files)
    reservation.release(3 * size - texts)
    if len(files) > settings.max_files:
        raise Problem(
            "too-large", f"A request may contain at most {settings.max_files} files; this one contains {len(files)}."
        )
    uploads = []
    for number, entry in enumerate(files, start=1):
        name = (entry.file or f"image {number}")[:_MAX_NAME]
        text, entry.data = entry.data, b""
        reservation.reserve(2 * len(text))  # the decoded pieces and their concatenation
        data = await _decode_base64(text, name, settings)
        reservation.release(3 * len(text) - len(data))
        uploads.append(Upload(name, data))
    return uploads


async def _decode_base64(text: bytes, name: str, settings: ServeSettings) -> bytes:
    """The bytes of base64, which may have line breaks (RFC 2045) and be a data URI (RFC 2397).

    Decoding keeps Python's lock, so no thread could serve other requests meanwhile; their turn is after each piece.
    """
    start = 0
    if prefix := _BASE64_URI.match(text):
        start = prefix.end()
    elif _DATA_URI.match(text):
        raise Problem("invalid", f"The data URI of {name} is not in base64: expected data:…;base64,….", file=name)
    characters = len(text) - start - sum(text.count(space, start) for space in _SPACES)
    _check_file_size(name, characters * 3 // 4 - 2, settings)
    pieces, rest, ended = [], b"", False
    try:
        if characters % 4 or text.count(b"=", start) > _MOST_PADDING:  # Python accepts JJJJ=
            raise binascii.Error("excess or incomplete padding")
        for at in range(start, len(text), _PIECE):
            rest += text[at : at + _PIECE].translate(None, _SPACES)
            count = len(rest) if at + _PIECE >= len(text) else len(rest) // 4 * 4
            if ended and rest:
                raise binascii.Error("data after the padding")
            pieces.append(binascii.a2b_base64(rest[:count], strict_mode=True))
            ended, rest = ended or rest[:count].endswith(b"="), rest[count:]
            await asyncio.sleep(0)
    except binascii.Error:
        raise Problem("invalid", f"The data of {name} is not valid base64 (RFC 4648).", file=name) from None
    return b"".join(pieces)


async def _json_body(request: Request, settings: ServeSettings, reservation: Reservation) -> bytearray:
    limit = int(settings.max_json_mb * MB)
    _check_content_length(request, limit)
    body = bytearray()
    async for chunk in request.stream():
        if len(body) + len(chunk) > limit:
            raise Problem("too-large", _json_size_error(settings))
        reservation.reserve(len(chunk))
        body += chunk
    return body


def _invalid_json(error: ValidationError) -> Problem:
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    if problems[0]["type"] == "json_invalid":
        return Problem("malformed", f"The body is not JSON: {problems[0]['msg']}.")
    details = [
        {"where": ".".join(map(str, problem["loc"]))[:_MAX_NAME], "error": plain_reason(problem)}
        for problem in problems[:10]
    ]
    unknown = [
        entry["where"]
        for entry, problem in zip(details, problems, strict=False)
        if problem["type"] == "extra_forbidden"
    ]
    if unknown:
        keys = [place.rpartition(".")[2] for place in unknown]  # also in an entry of `files`
        if parameter := next((key for key in keys if key in PARAMETERS), None):
            return Problem("invalid", f"The key {parameter!r} of the body {_in_address(parameter)}", errors=details)
        found = f"The body has the unknown key{'s' * (len(unknown) > 1)} {listing(unknown, 3)}"
    else:
        found = f"The body is invalid at {details[0]['where'] or 'its top level'}: {details[0]['error']}"
    return Problem("invalid", f"{found}. Expected a body such as {_EXAMPLE_BODY}.", errors=details)


def _in_address(parameter: str) -> str:
    """What is wrong with one of `PARAMETERS` in a body, and what to do about it."""
    return f"is a parameter of the address. Leave it out, and send the request to /predict?{parameter}=…"


def _check_content_length(request: Request, limit: int) -> None:
    """Reject a body by its Content-Length, before reading any of it."""
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length) > limit:
        raise Problem("too-large", f"The Content-Length is {int(length):,} bytes; at most {limit:,} are allowed.")


def _check_file_size(name: str, size: int, settings: ServeSettings) -> None:
    if size > settings.max_file_bytes:
        raise Problem("too-large", f"{name} is larger than {settings.max_file_mb:g} MB.", file=name)


def _json_size_error(settings: ServeSettings) -> str:
    return f"A JSON body may have at most {settings.max_json_mb:g} MB; send {MULTIPART} for more."


_TOTAL_MEMORY = 112 * MB
"""Memory for decoding in all threads; an image that needs more than a thread's share gets a separate thread."""
_BESIDE_LARGE = 32 * MB
"""Memory for decoding small images while a large one is decoded."""
_SLOW_PIXELS = 25_000_000
"""Images with more pixels are slow to decode and are also decoded in the separate thread."""
_TINY_BYTES, _TINY_PIXELS = 8192, 128 * 128
"""Images of at most this size take less time to decode than to hand to a thread."""
_TINY_MEMORY = 2 * MB
"""More than the pixels of any of them need to decode."""


@dataclass(frozen=True, slots=True)
class DecodedUpload:
    """A decoded upload: name, upright size, the model's input uint8 `(S, S, 3)`, and a larger view if requested."""

    file: str
    width: int
    height: int
    pixels: npt.NDArray[np.uint8]
    view: npt.NDArray[np.uint8] | None


@dataclass(frozen=True, slots=True)
class _Large:
    """An image that is decoded in the separate thread, and the bytes of memory that it needs."""

    memory: int


@dataclass(frozen=True, slots=True)
class _Accepted:
    """An image that may be decoded, by its header: its number of pixels, and the bytes of memory that it needs."""

    pixels: int
    memory: int


class Decoder:
    """Decodes uploads in a few threads, and images that need much memory one at a time in a separate thread.

    Args:
        threads: number of threads, without the one for large images.
        max_pixels: images with more pixels are rejected.
        max_bytes: images that need more memory to decode are rejected.
    """

    def __init__(self, threads: int, max_pixels: int, max_bytes: int) -> None:
        self._max_pixels, self._max_bytes = max_pixels, max_bytes
        self._accepts_tiny = max_pixels >= _TINY_PIXELS and max_bytes >= _TINY_MEMORY
        self._large_bytes = _TOTAL_MEMORY // threads
        self._memory = DecodingMemory(max_bytes, _BESIDE_LARGE)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="thirtytwo-decode")
        self._large_pool = ThreadPoolExecutor(1, thread_name_prefix="thirtytwo-decode-large")

    async def decode(
        self, uploads: Sequence[Upload], info: ModelInfo, view: bool
    ) -> list[DecodedUpload | UnreadableImage]:
        """Decode uploads, in order; `view` requests the larger view too."""
        if len(uploads) == 1 and not view and (tiny := self._decode_tiny(uploads[0], info)) is not None:
            return [tiny]
        loop = asyncio.get_running_loop()
        first = await loop.run_in_executor(self._pool, self._decode_all, uploads, info, view)
        return [
            await loop.run_in_executor(self._large_pool, self._decode_large, upload, result, info, view)
            if isinstance(result, _Large)
            else result
            for upload, result in zip(uploads, first, strict=True)
        ]

    def close(self) -> None:
        self._pool.shutdown()
        self._large_pool.shutdown()

    def _decode_tiny(self, upload: Upload, info: ModelInfo) -> DecodedUpload | UnreadableImage | None:
        """The result for a tiny image, in this thread; None for others."""
        if len(upload.data) > _TINY_BYTES or info.input_size**2 > _TINY_PIXELS or not self._accepts_tiny:
            return None
        try:
            loaded = load_small(upload.data, info.input_size, info.resize, upload.name, _TINY_PIXELS)
        except ImageError as error:
            return _unreadable(upload, error)
        return None if loaded is None else DecodedUpload(upload.name, loaded.width, loaded.height, loaded.pixels, None)

    def _decode_all(
        self, uploads: Sequence[Upload], info: ModelInfo, view: bool
    ) -> list[DecodedUpload | UnreadableImage | _Large]:
        return [self._decode_unless_large(upload, info, view) for upload in uploads]

    def _decode_large(
        self, upload: Upload, large: _Large, info: ModelInfo, view: bool
    ) -> DecodedUpload | UnreadableImage:
        with self._memory.large(large.memory):
            return _decode(upload, info, view)

    def _decode_unless_large(
        self, upload: Upload, info: ModelInfo, view: bool
    ) -> DecodedUpload | UnreadableImage | _Large:
        """The result, unless the image is slow or needs much memory."""
        checked = self._check(upload, info, view)
        if isinstance(checked, UnreadableImage):
            return checked
        if checked.memory > self._large_bytes or checked.pixels > _SLOW_PIXELS:
            return _Large(checked.memory)
        with self._memory.small(checked.memory) as fits:
            return _decode(upload, info, view) if fits else _Large(checked.memory)

    def _check(self, upload: Upload, info: ModelInfo, view: bool) -> _Accepted | UnreadableImage:
        """What decoding an image takes by its format, mode and size, or why it is not decoded."""
        try:
            header = read_header(upload.data, upload.name)
        except ImageError as error:
            return _unreadable(upload, error)
        width, height = header.width, header.height
        if width * height > self._max_pixels:
            limit = f"the limit of {self._max_pixels:,}"
            return UnreadableImage(upload.name, f"{upload.name} has {width}×{height} pixels, more than {limit}.")
        memory = header.memory(max(info.input_size, LEAST if view else 0))
        if memory > self._max_bytes:
            needed = f"needs about {memory / MB:,.0f} MB of memory to decode"
            limit = f"more than the limit of {self._max_bytes / MB:g} MB"
            found = f"{upload.name}, a {header.format} file of {width}×{height} pixels, {needed}, {limit}."
            return UnreadableImage(upload.name, f"{found} Send a smaller image, or a baseline (not progressive) JPEG.")
        return _Accepted(width * height, memory)


def _unreadable(upload: Upload, error: ImageError) -> UnreadableImage:
    # a client cannot set the variable, and a larger value would not raise the service's own limit
    advice = MAX_PIXELS_VARIABLE not in (error.fix or "")
    return UnreadableImage(upload.name, str(error) if advice else f"{error.message} Downscale the image first.")


def _decode(upload: Upload, info: ModelInfo, view: bool) -> DecodedUpload | UnreadableImage:
    try:
        loaded = load_image(upload.data, info.input_size, info.resize, upload.name)
        side = min(LEAST, max(loaded.width, loaded.height))
        larger = load_image(upload.data, side, info.resize, upload.name).pixels if view else None
    except ImageError as error:
        return _unreadable(upload, error)
    return DecodedUpload(upload.name, loaded.width, loaded.height, loaded.pixels, larger)
