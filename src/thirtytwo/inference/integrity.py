"""Check that a model file is intact: a checksum in its metadata, and weights that are numbers.

The file is read as protocol buffers (https://protobuf.dev/programming-guides/encoding), without the library `onnx`,
which the plain install lacks.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np

from thirtytwo.errors import ModelFileError
from thirtytwo.io import CHECKSUM_KEY

_METADATA, _GRAPH, _NODE, _INITIALIZER, _ATTRIBUTE, _TENSOR, _SUBGRAPH = 14, 7, 1, 5, 5, 5, 6
"""Field numbers in onnx.proto: of ModelProto, GraphProto, NodeProto and AttributeProto."""
_DATA_TYPE, _FLOAT_DATA, _RAW_DATA, _DOUBLE_DATA = 2, 4, 9, 10
"""Field numbers of TensorProto."""
_FLOAT, _FLOAT16, _DOUBLE, _BFLOAT16 = 1, 10, 11, 16
"""Values of TensorProto.DataType."""
_BYTES = 2
"""Wire type of fields with a length."""

Field = tuple[int, int, int, int]
"""Number of a field, its value where it is an integer, and where its content starts and ends."""


def with_checksum(model: bytes) -> bytes:
    """A serialized ONNX model with the checksum of its content as its last metadata entry."""
    view = memoryview(model)
    kept = b"".join(view[start:end] for start, end in _parts_without_checksum(view))
    key, value = CHECKSUM_KEY.encode(), sha256(kept).hexdigest().encode()
    entry = b"\x0a" + bytes([len(key)]) + key + b"\x12" + bytes([len(value)]) + value
    return kept + bytes([_METADATA << 3 | _BYTES, len(entry)]) + entry


def check_integrity(path: Path) -> None:
    """Check a model file that ONNX Runtime can open.

    Raises:
        ModelFileError: its checksum does not match its content, or a weight is not a number (NaN).
    """
    view = memoryview(path.read_bytes())
    try:
        expected = _stored_checksum(view)
        problem = expected and _checksum_problem(view, expected)
        broken = None if problem else next(_nan_tensors(view), None)
    except (IndexError, ValueError) as error:
        raise ModelFileError(f"{path} is damaged: {error}.", "Copy it again, or export it again.") from None
    if problem:
        raise ModelFileError(
            f"{path} is damaged, or another program has changed it: {problem}.",
            f"Copy it again, or export it again. If you changed it on purpose, delete its metadata {CHECKSUM_KEY!r}.",
        )
    if broken is not None:
        raise ModelFileError(
            f"{path} cannot predict: {broken} weights are not numbers (NaN).",
            "Train again with a lower learning rate, or copy the file again.",
        )


def find_damage(path: Path) -> ModelFileError | None:
    """The error of `check_integrity`; None for a file that cannot be read, which ONNX Runtime cannot open either."""
    try:
        check_integrity(path)
    except ModelFileError as error:
        return error
    except OSError:
        pass
    return None


def _checksum_problem(view: memoryview, expected: str) -> str | None:
    digest = sha256()
    for start, end in _parts_without_checksum(view):
        digest.update(view[start:end])
    found = digest.hexdigest()
    return None if found == expected else f"its checksum is {found[:12]}…, expected {expected[:12]}…"


def _parts_without_checksum(view: memoryview) -> list[tuple[int, int]]:
    """Start and end of the parts of a model before, between and after its checksum entries."""
    parts, at = [], 0
    for number, begin, start, end in _fields(view, 0, len(view)):
        if number == _METADATA and _entry(view, start, end)[0] == CHECKSUM_KEY.encode():
            parts.append((at, begin))
            at = end
    return [*parts, (at, len(view))]


def _stored_checksum(view: memoryview) -> str | None:
    entries = (_entry(view, start, end) for number, _, start, end in _fields(view, 0, len(view)) if number == _METADATA)
    found = [value.decode("ascii", "replace") for key, value in entries if key == CHECKSUM_KEY.encode()]
    return found[-1] if found else None


def _entry(view: memoryview, start: int, end: int) -> tuple[bytes, bytes]:
    """Key and value of a StringStringEntryProto."""
    fields = {number: bytes(view[first:last]) for number, _, first, last in _fields(view, start, end)}
    return fields.get(1, b""), fields.get(2, b"")


def _nan_tensors(view: memoryview) -> Iterator[str]:
    """Number of NaN, as text with the sum of values, of each float tensor of a model that has any."""
    for number, _, start, end in _fields(view, 0, len(view)):
        if number == _GRAPH:
            yield from _nan_in_graph(view, start, end)


def _nan_in_graph(view: memoryview, start: int, end: int) -> Iterator[str]:
    for number, _, first, last in _fields(view, start, end):
        if number == _INITIALIZER:
            yield from _nan_in_tensor(view, first, last)
        elif number == _NODE:
            for kind, _, begin, stop in _fields(view, first, last):
                if kind == _ATTRIBUTE:
                    yield from _nan_in_attribute(view, begin, stop)


def _nan_in_attribute(view: memoryview, start: int, end: int) -> Iterator[str]:
    for number, _, first, last in _fields(view, start, end):
        if number == _TENSOR and last > first:
            yield from _nan_in_tensor(view, first, last)
        elif number == _SUBGRAPH and last > first:
            yield from _nan_in_graph(view, first, last)


def _nan_in_tensor(view: memoryview, start: int, end: int) -> Iterator[str]:
    kind, contents = _FLOAT, []
    for number, value, first, last in _fields(view, start, end):
        if number == _DATA_TYPE:
            kind = value
        elif number in (_FLOAT_DATA, _RAW_DATA, _DOUBLE_DATA):
            contents.append((first, last))
    for first, last in contents:
        count, total = _count_nan(view[first:last], kind)
        if count:
            yield f"{count:,} of {total:,}"


def _count_nan(content: memoryview, kind: int) -> tuple[int, int]:
    """Number of NaN and of all values in the bytes of a tensor."""
    if kind == _BFLOAT16:
        bits = np.frombuffer(content, dtype="<u2")
        return int(np.count_nonzero((bits & 0x7FFF) > 0x7F80)), bits.size
    dtype = {_FLOAT: "<f4", _FLOAT16: "<f2", _DOUBLE: "<f8"}.get(kind)
    if dtype is None:
        return 0, 0
    values = np.frombuffer(content, dtype=dtype)
    return int(np.count_nonzero(np.isnan(values))), values.size


def _fields(view: memoryview, at: int, end: int) -> Iterator[Field]:
    """The fields of a message: number, value (of integers; else the position of the tag), start and end of the content.

    Raises:
        ValueError: the message is not well-formed.
    """
    while at < end:
        begin = at
        tag, at = _varint(view, at)
        number, wire = tag >> 3, tag & 7
        value = begin
        if wire == 0:
            value, stop = _varint(view, at)
        elif wire == _BYTES:
            size, at = _varint(view, at)
            stop = at + size
        elif wire in (1, 5):
            stop = at + (8 if wire == 1 else 4)
        else:
            raise ValueError(f"unknown wire type {wire}")
        if stop > end:
            raise ValueError("a field is longer than its message")
        yield number, value, at, stop
        at = stop


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """An integer of variable length, and the position after it."""
    value = shift = 0
    while True:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("an integer is too long")
