"""Read the pickles of CIFAR's Python version without executing them.

A pickle is a program that can call any function. This reader knows the few instructions that those files consist of,
builds dictionaries, lists, texts, integers and arrays of bytes itself, imports nothing, and refuses everything else.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from thirtytwo.errors import DataError

MAX_BYTES = 2**28
"""Largest file that is read; CIFAR-100's training images take 155 MB."""


@dataclass(frozen=True)
class _Name:
    """A function or class that the pickle names; it is only compared, never looked up."""

    name: str


@dataclass
class _Array:
    """An array that the pickle creates; `BUILD` fills in its values."""

    values: npt.NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class _Bytes:
    """The type `uint8` of an array."""


class _Mark:
    """The mark below the elements of a tuple, list or dictionary."""


class _RefusedError(Exception):
    """The pickle is not of CIFAR's kind."""


_RECONSTRUCT = (_Name("numpy.core.multiarray _reconstruct"), _Name("numpy._core.multiarray _reconstruct"))
_NDARRAY, _DTYPE, _ENCODE = _Name("numpy ndarray"), _Name("numpy dtype"), _Name("_codecs encode")
_KNOWN = (*_RECONSTRUCT, _NDARRAY, _DTYPE, _ENCODE)
_MARK = _Mark()
_MOST = 2**22
"""Largest number of objects at a time."""

Stack: TypeAlias = list[Any]


def read_pickle(stream: IO[bytes], where: str) -> dict[str, Any]:
    """Read a dictionary of texts, integers, lists of these, and arrays, uint8.

    Args:
        stream: the file.
        where: what messages call it.

    Raises:
        DataError: it is damaged, or contains anything else, of which nothing was executed.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            machine.run(opcode.name, argument)
        return _plain(machine.result)
    except _RefusedError as error:
        raise DataError(
            f"{where} contains {error}, which CIFAR's files do not; it was not executed.",
            "Download the archive again from the CIFAR page, or use its binary version.",
        ) from None
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, MemoryError, UnicodeError):
        raise DataError(
            f"{where} is damaged, or its end is missing.", "Unpack or download the archive again."
        ) from None


def _plain(found: object) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise _RefusedError(f"a {type(found).__name__} instead of a dictionary")
    return {as_text(key): value.values if isinstance(value, _Array) else value for key, value in found.items()}


def as_text(value: object) -> str:
    """A text of Python 2 or 3 in a pickle."""
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


class _Machine:
    """The stack and the memo of a pickle."""

    def __init__(self) -> None:
        self.stack: Stack = []
        self.memo: dict[int, Any] = {}
        self.result: object = None

    def run(self, opcode: str, argument: Any) -> None:
        """Execute one instruction."""
        if len(self.stack) + len(self.memo) > _MOST:
            raise _RefusedError(f"more than {_MOST:,} objects")
        if opcode in _PUSHES:
            self.stack.append(argument)
        elif opcode in _ACTIONS:
            _ACTIONS[opcode](self, argument)
        else:
            raise _RefusedError(f"the instruction {opcode}")

    def elements(self) -> Stack:
        """Pop what is above the topmost mark, and the mark."""
        place = len(self.stack) - 1
        while self.stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise ValueError("no mark")
        found = self.stack[place + 1 :]
        del self.stack[place:]
        return found

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("a mark instead of a value")
        return value


def _protocol(machine: _Machine, argument: Any) -> None:
    if argument > 2:
        raise _RefusedError(f"protocol {argument}")


def _put(machine: _Machine, argument: Any) -> None:
    machine.memo[int(argument)] = machine.stack[-1]


def _get(machine: _Machine, argument: Any) -> None:
    machine.stack.append(machine.memo[int(argument)])


def _global(machine: _Machine, argument: Any) -> None:
    name = _Name(str(argument))
    if name not in _KNOWN:
        raise _RefusedError(f"the name {str(argument)[:100]!r}")
    machine.stack.append(name)


def _tuple(count: int) -> Callable[[_Machine, Any], None]:
    def act(machine: _Machine, argument: Any) -> None:
        machine.stack.append(tuple(reversed([machine.pop() for _ in range(count)])))

    return act


def _tuple_from_mark(machine: _Machine, argument: Any) -> None:
    machine.stack.append(tuple(machine.elements()))


def _append(machine: _Machine, argument: Any) -> None:
    _extend(machine, [machine.pop()])


def _appends(machine: _Machine, argument: Any) -> None:
    _extend(machine, machine.elements())


def _extend(machine: _Machine, values: Stack) -> None:
    target = machine.stack[-1]
    if not isinstance(target, list) or any(isinstance(value, list | dict | tuple) for value in values):
        raise _RefusedError("nested lists")
    target.extend(values)


def _set_item(machine: _Machine, argument: Any) -> None:
    value, key = machine.pop(), machine.pop()
    _update(machine, [key, value])


def _set_items(machine: _Machine, argument: Any) -> None:
    _update(machine, machine.elements())


def _update(machine: _Machine, values: Stack) -> None:
    target = machine.stack[-1]
    if not isinstance(target, dict) or not all(isinstance(key, str | bytes) for key in values[::2]):
        raise _RefusedError("a dictionary with keys that are not texts")
    if any(isinstance(value, dict | tuple) for value in values[1::2]):
        raise _RefusedError("nested dictionaries")
    target.update(zip(values[::2], values[1::2], strict=True))


def _reduce(machine: _Machine, argument: Any) -> None:
    """Calls: only the three that create an array, its type, and the bytes of Python 3."""
    arguments, function = machine.pop(), machine.pop()
    if function in _RECONSTRUCT and arguments in ((_NDARRAY, (0,), "b"), (_NDARRAY, (0,), b"b")):
        machine.stack.append(_Array())
    elif function == _DTYPE and isinstance(arguments, tuple) and arguments[:1] == ("u1",):
        machine.stack.append(_Bytes())
    elif function == _ENCODE and len(arguments) == 2 and arguments[1] in ("latin1", "latin-1"):
        machine.stack.append(_encoded(arguments[0]))
    else:
        name = function.name if isinstance(function, _Name) else type(function).__name__
        raise _RefusedError(f"a call of {name!r} with other arguments")


def _build(machine: _Machine, argument: Any) -> None:
    """States: of an array its version, shape, type, order and data; of a type what is the same for all bytes."""
    state, target = machine.pop(), machine.stack[-1]
    if isinstance(target, _Bytes):
        return
    if not isinstance(target, _Array) or not isinstance(state, tuple) or len(state) != 5:
        raise _RefusedError(f"a state of a {type(target).__name__}")
    _, shape, kind, fortran, data = state
    if not isinstance(kind, _Bytes) or fortran or len(shape) != 2:
        raise _RefusedError("an array that is not of bytes in two dimensions")
    values = np.frombuffer(_encoded(data), dtype=np.uint8)
    rows, columns = (int(side) for side in shape)
    if rows < 0 or columns < 0 or rows * columns != len(values):
        raise ValueError(f"an array of {shape} has {len(values)} bytes")
    target.values = values.reshape(rows, columns)


def _encoded(value: object) -> bytes:
    if isinstance(value, str):
        return value.encode("latin-1")
    if isinstance(value, bytes):
        return value
    raise _RefusedError(f"a {type(value).__name__} instead of bytes")


def _stop(machine: _Machine, argument: Any) -> None:
    machine.result = machine.pop()


_PUSHES = frozenset({"BININT", "BININT1", "BININT2", "BINSTRING", "SHORT_BINSTRING", "BINUNICODE"})
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _protocol,
    "STOP": _stop,
    "MARK": lambda machine, argument: machine.stack.append(_MARK),
    "EMPTY_DICT": lambda machine, argument: machine.stack.append({}),
    "EMPTY_LIST": lambda machine, argument: machine.stack.append([]),
    "EMPTY_TUPLE": lambda machine, argument: machine.stack.append(()),
    "NONE": lambda machine, argument: machine.stack.append(None),
    "NEWFALSE": lambda machine, argument: machine.stack.append(False),
    "NEWTRUE": lambda machine, argument: machine.stack.append(True),
    "BINPUT": _put,
    "LONG_BINPUT": _put,
    "BINGET": _get,
    "LONG_BINGET": _get,
    "GLOBAL": _global,
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "TUPLE": _tuple_from_mark,
    "APPEND": _append,
    "APPENDS": _appends,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "REDUCE": _reduce,
    "BUILD": _build,
}
