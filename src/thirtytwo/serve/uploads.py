"""Parse the files of a request's body as it arrives; data over a limit is never kept in memory."""

from __future__ import annotations

import binascii
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from fastapi import Request
from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from thirtytwo.serve.limits import Reservation
from thirtytwo.serve.problems import Problem
from thirtytwo.serve.schemas import PredictBody
from thirtytwo.serve.settings import MB, Settings

MULTIPART, JSON = "multipart/form-data", "application/json"

_PART_OVERHEAD = 8192  # maximum bytes of headers and boundary per part
_MAX_COMMAS = 1000  # per file in a JSON body; base64 has none, and many small values need much memory
_MAX_NAME = 255  # characters of a file name that are kept


@dataclass(frozen=True, slots=True)
class Upload:
    """One file of a request: the client's name for it, and its bytes."""

    name: str
    data: bytes


async def read_uploads(request: Request, settings: Settings, reservation: Reservation) -> AsyncIterator[Upload]:
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
    else:
        found = content_type.decode("latin-1") or "none"
        raise Problem("unsupported-type", f"Expected {MULTIPART} or {JSON}; found {found}.")


class _MultipartFiles:
    """Files of a multipart body (RFC 7578); every part counts as a file, whatever its field name."""

    def __init__(self, boundary: bytes, settings: Settings, reservation: Reservation) -> None:
        if not boundary:
            raise Problem("malformed", f"The Content-Type {MULTIPART} has no boundary.")
        self._settings, self._reservation = settings, reservation
        self._header = b""
        self._value = b""
        self._count = 0
        self._name = ""
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
        self._count += 1
        if self._count > self._settings.max_files:
            raise Problem(
                "too-large", f"A request may contain at most {self._settings.max_files} files; this one contains more."
            )
        self._name, self._pieces, self._size = f"image {self._count}", [], 0

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            name = parse_options_header(self._value)[1].get(b"filename", b"")
            self._name = name.decode("utf-8", "replace")[:_MAX_NAME] or self._name
        self._header = self._value = b""

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        _check_file_size(self._name, self._size, self._settings)
        self._reservation.reserve(end - start)
        self._pieces.append(data[start:end])

    def _end(self) -> None:
        self._reservation.reserve(self._size)  # the pieces and their concatenation
        self._complete.append(Upload(self._name, b"".join(self._pieces)))
        self._pieces = []
        self._reservation.release(self._size)

    def _finish(self) -> None:
        self._ended = True


async def _read_json(request: Request, settings: Settings, reservation: Reservation) -> list[Upload]:
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
        _check_file_size(name, len(text) * 3 // 4 - 2, settings)
        reservation.reserve(len(text))
        try:
            data = binascii.a2b_base64(text, strict_mode=True)
        except binascii.Error:
            raise Problem("invalid", f"The data of {name} is not valid base64 (RFC 4648).", file=name) from None
        reservation.release(2 * len(text) - len(data))
        uploads.append(Upload(name, data))
    return uploads


async def _json_body(request: Request, settings: Settings, reservation: Reservation) -> bytearray:
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
    details = [{"where": ".".join(map(str, problem["loc"])), "error": problem["msg"]} for problem in problems[:10]]
    return Problem("invalid", f"The body is invalid at {details[0]['where'] or 'its top level'}.", errors=details)


def _check_content_length(request: Request, limit: int) -> None:
    """Reject a body by its Content-Length, before reading any of it."""
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length) > limit:
        raise Problem("too-large", f"The Content-Length is {int(length):,} bytes; at most {limit:,} are allowed.")


def _check_file_size(name: str, size: int, settings: Settings) -> None:
    if size > settings.max_file_bytes:
        raise Problem("too-large", f"{name} is larger than {settings.max_file_mb:g} MB.", file=name)


def _json_size_error(settings: Settings) -> str:
    return f"A JSON body may have at most {settings.max_json_mb:g} MB; send {MULTIPART} for more."
