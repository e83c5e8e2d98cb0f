"""Images out of a request's body, as it arrives: nothing over a limit is ever held in memory."""

from __future__ import annotations

import binascii
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from fastapi import Request
from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from thirtytwo.serve.limits import Ticket
from thirtytwo.serve.problems import Problem
from thirtytwo.serve.schemas import PredictBody
from thirtytwo.serve.settings import MB, Settings

MULTIPART, JSON = "multipart/form-data", "application/json"

_PARTS_OVERHEAD = 8192  # bytes of headers and boundary a part may have
_COMMAS = 1000  # a JSON body may have for each file; base64 has none, and many small values cost much memory
_NAME = 255  # characters of a file name that are kept


@dataclass(frozen=True, slots=True)
class Upload:
    """One file of a request: what the client called it, and its bytes."""

    name: str
    data: bytes


async def read_uploads(request: Request, settings: Settings, ticket: Ticket) -> AsyncIterator[Upload]:
    """The files of a request, each as soon as it has arrived whole.

    `ticket` holds what is in memory at any time, copies included; the caller releases those of an upload.

    Raises:
        Problem: another content type, a malformed body, or one that is over a limit.
    """
    content_type, options = parse_options_header(request.headers.get("content-type"))
    if content_type == MULTIPART.encode():
        most = settings.max_files * (settings.max_file_bytes + _PARTS_OVERHEAD)
        _refuse_announced(request, most)
        parts = _Parts(options.get(b"boundary", b""), settings, ticket)
        async for chunk in request.stream():
            for upload in parts.feed(chunk):
                yield upload
        parts.close()
    elif content_type == JSON.encode():
        for upload in await _read_json(request, settings, ticket):
            yield upload
    else:
        found = content_type.decode("latin-1") or "none"
        raise Problem("unsupported-type", f"Expected {MULTIPART} or {JSON}; found {found}.")


class _Parts:
    """The files of a multipart body (RFC 7578); every part is one, whatever its field is called."""

    def __init__(self, boundary: bytes, settings: Settings, ticket: Ticket) -> None:
        if not boundary:
            raise Problem("malformed", f"The Content-Type {MULTIPART} has no boundary.")
        self._settings, self._ticket = settings, ticket
        self._header = b""
        self._value = b""
        self._count = 0
        self._name = ""
        self._pieces: list[bytes] = []
        self._size = 0
        self._whole: list[Upload] = []
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
        """Files that this chunk completes."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise Problem("malformed", f"The multipart body is malformed: {error}.") from None
        whole, self._whole = self._whole, []
        yield from whole

    def close(self) -> None:
        if not self._ended:
            raise Problem("malformed", "The multipart body ends before its closing boundary.")

    def _begin(self) -> None:
        self._count += 1
        if self._count > self._settings.max_files:
            raise Problem("too-large", f"A request may hold {self._settings.max_files} files; this one holds more.")
        self._name, self._pieces, self._size = f"image {self._count}", [], 0

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            name = parse_options_header(self._value)[1].get(b"filename", b"")
            self._name = name.decode("utf-8", "replace")[:_NAME] or self._name
        self._header = self._value = b""

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        _refuse_large(self._name, self._size, self._settings)
        self._ticket.hold(end - start)
        self._pieces.append(data[start:end])

    def _end(self) -> None:
        self._ticket.hold(self._size)  # the pieces and the whole
        self._whole.append(Upload(self._name, b"".join(self._pieces)))
        self._pieces = []
        self._ticket.release(self._size)

    def _finish(self) -> None:
        self._ended = True


async def _read_json(request: Request, settings: Settings, ticket: Ticket) -> list[Upload]:
    body = await _json_body(request, settings, ticket)
    size = len(body)
    if body.count(b",") > _COMMAS * settings.max_files:
        raise Problem("too-large", f"The body holds more values than those of {settings.max_files} files.")
    ticket.hold(2 * size)  # what the parser makes of it, and the texts it gives
    try:
        files = PredictBody.model_validate_json(body).files
    except ValidationError as error:
        raise _invalid_json(error) from None
    finally:
        del body
    texts = sum(len(entry.data) for entry in files)
    ticket.release(3 * size - texts)
    if len(files) > settings.max_files:
        raise Problem("too-large", f"A request may hold {settings.max_files} files; this one holds {len(files)}.")
    uploads = []
    for number, entry in enumerate(files, start=1):
        name = (entry.file or f"image {number}")[:_NAME]
        text, entry.data = entry.data, b""
        _refuse_large(name, len(text) * 3 // 4 - 2, settings)
        ticket.hold(len(text))
        try:
            data = binascii.a2b_base64(text, strict_mode=True)
        except binascii.Error:
            raise Problem("invalid", f"The data of {name} is not base64 (RFC 4648).", file=name) from None
        ticket.release(2 * len(text) - len(data))
        uploads.append(Upload(name, data))
    return uploads


async def _json_body(request: Request, settings: Settings, ticket: Ticket) -> bytearray:
    most = int(settings.max_json_mb * MB)
    _refuse_announced(request, most)
    body = bytearray()
    async for chunk in request.stream():
        if len(body) + len(chunk) > most:
            raise Problem("too-large", _over_json(settings))
        ticket.hold(len(chunk))
        body += chunk
    return body


def _invalid_json(error: ValidationError) -> Problem:
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    if problems[0]["type"] == "json_invalid":
        return Problem("malformed", f"The body is not JSON: {problems[0]['msg']}.")
    told = [{"where": ".".join(map(str, problem["loc"])), "error": problem["msg"]} for problem in problems[:10]]
    return Problem("invalid", f"The body is not as expected at {told[0]['where'] or 'its top'}.", errors=told)


def _refuse_announced(request: Request, most: int) -> None:
    """Refuse a body by the length it announces, before any of it is read."""
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length) > most:
        raise Problem("too-large", f"The body announces {int(length):,} bytes; at most {most:,} are read.")


def _refuse_large(name: str, size: int, settings: Settings) -> None:
    if size > settings.max_file_bytes:
        raise Problem("too-large", f"{name} is larger than {settings.max_file_mb:g} MB.", file=name)


def _over_json(settings: Settings) -> str:
    return f"A JSON body may hold {settings.max_json_mb:g} MB; send {MULTIPART} for more."
