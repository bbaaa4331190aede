"""Read a pickle of arrays and plain containers without running anything that it asks for.

A pickle is a program for a small stack machine. This machine knows only the instructions of protocols 2 to 5 that build
numbers, strings and containers. The names by which numpy's arrays are pickled are symbols here, never looked up and
never called: what they stand for is done below, with checked sizes. Any other name ends the reading.

Arrays are views of the file's own bytes (mapped, not read), and everything else that a file can make is bounded by the
file's size, so a small file cannot ask for much memory.
"""

import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vadv_dist.data.schema import Array
from vadv_dist.errors import UserError

PROTOCOLS = range(2, 6)
_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
# What each allowed name stands for; `bytes` and `encode` are how protocol 2 writes bytes.
_KNOWN = {
    **{(module, "_reconstruct"): "reconstruct" for module in _MULTIARRAY},
    **{(module, "scalar"): "scalar" for module in _MULTIARRAY},
    **{(module, "_frombuffer"): "frombuffer" for module in _NUMERIC},
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",
    ("builtins", "bytes"): "bytes",
    ("__builtin__", "bytes"): "bytes",
}
_DTYPE = re.compile(r"[biufSUO][0-9]{1,9}")
_MAX_NAME = 256
_MAX_INTEGER_BYTES = 16
# What a file may make in memory, beside views of itself: so many bytes for each of its own (a reference of eight bytes
# takes two in the file), and room for the strings and containers of a small one.
_GROWTH = 8
_SLACK = 256 << 20
# About what Python takes for one.
_OBJECT_BYTES = {"memo": 100, "text": 60, "bytes": 184, "list": 64, "dict": 64, "set": 216, "tuple": 56, "view": 250}


class _RefusedError(Exception):
    """Why a pickle is not read."""


@dataclass(frozen=True)
class _Symbol:
    """One of the allowed names."""

    meaning: str


@dataclass
class _DType:
    """A dtype that is being described."""

    code: str
    order: str = "="

    def build(self) -> "np.dtype[Any]":
        """The dtype.

        Raises:
            _RefusedError: there is no such type, or its elements have no size.
        """
        try:
            dtype = np.dtype("O") if self.code[0] == "O" else np.dtype(self.order + self.code)
        except (TypeError, ValueError):
            raise _RefusedError(f"there is no array type {self.code!r}") from None
        if dtype.itemsize == 0:
            raise _RefusedError(f"an array of type {self.code!r} has elements without a size")
        return dtype


@dataclass
class _Shell:
    """An array that is made, but not yet filled; and the memo's entries that must show it when it is."""

    keys: list[int] = field(default_factory=list)


def read_pickle(data: memoryview, where: str) -> Any:
    """Read a pickle that holds arrays, numbers, strings and containers of them, and nothing else.

    Args:
        data: the file's bytes; arrays are views of them.
        where: the file, for messages.

    Returns:
        dictionaries, lists, tuples, sets, str, int, float, bool, None, numpy arrays; bytes are memoryviews.

    Raises:
        UserError: not a pickle of protocol 2 to 5, damaged, or it asks for any class or function but numpy's arrays.
    """
    try:
        return _Machine(data).run()
    except _RefusedError as error:
        raise UserError(
            f"{where} {error}. Nothing in it was run. Give a pickle (protocol {PROTOCOLS[0]} to {PROTOCOLS[-1]}) of "
            "numpy arrays, numbers, strings, lists and dictionaries, as MMSA publishes them."
        ) from None


class _Machine:
    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.position = 0
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.allowance = _GROWTH * len(data) + _SLACK

    def run(self) -> Any:
        if len(self.data) < 2 or self.data[0] != 0x80:
            raise _RefusedError("is not a pickle of a protocol that is read here")
        while True:
            code = self.take(1)[0]
            if code == ord("."):
                return self.pop()
            step = _STEPS.get(code)
            if step is None:
                raise _RefusedError(
                    f"has the instruction {code:#04x} at byte {self.position - 1:,}, which arrays and plain containers "
                    "do not need"
                )
            step(self)

    def take(self, size: int) -> memoryview:
        end = self.position + size
        if end > len(self.data):
            raise _RefusedError(
                f"is cut off or damaged: {size:,} bytes are wanted at byte {self.position:,} of {len(self.data):,}"
            )
        part = self.data[self.position : end]
        self.position = end
        return part

    def unsigned(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def line(self) -> str:
        start = self.position
        part = bytes(self.data[start : start + _MAX_NAME])
        end = part.find(b"\n")
        if end < 0:
            raise _RefusedError(f"is damaged: a name at byte {start:,} does not end")
        self.position += end + 1
        return part[:end].decode("latin1")

    def text(self, size: int) -> str:
        self.spend(_OBJECT_BYTES["text"])
        start = self.position
        try:
            return str(self.take(size), "utf-8", "surrogatepass")  # as Python writes them; rows are checked later
        except UnicodeDecodeError:
            raise _RefusedError(f"is damaged: the text at byte {start:,} is not UTF-8") from None

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack:
            raise self.damaged("a value is missing")
        return self.stack.pop()

    def top(self, kind: type) -> Any:
        if not self.stack or type(self.stack[-1]) is not kind:
            raise self.damaged(f"a {kind.__name__} is missing")
        return self.stack[-1]

    def mark(self) -> None:
        self.spend(_OBJECT_BYTES["list"])
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        if not self.below:
            raise self.damaged("the start of a list is missing")
        items, self.stack = self.stack, self.below.pop()
        return items

    def damaged(self, what: str) -> _RefusedError:
        return _RefusedError(f"is damaged: {what} at byte {self.position:,}")

    def spend(self, size: int) -> None:
        """Count bytes that are made rather than viewed."""
        self.allowance -= size
        if self.allowance < 0:
            raise _RefusedError(f"asks for more memory than a file of {len(self.data):,} bytes may")

    # Containers and the memo

    def put(self, key: int) -> None:
        if not self.stack:
            raise self.damaged("a value is missing")
        value = self.stack[-1]
        if key not in self.memo:
            self.spend(_OBJECT_BYTES["memo"])
        self.memo[key] = value
        if isinstance(value, _Shell):
            value.keys.append(key)

    def get(self, key: int) -> None:
        if key not in self.memo:
            raise self.damaged(f"value {key} is referred to before it is made")
        value = self.memo[key]
        self.push(value)

    def append(self, items: list[Any]) -> None:
        self.top(list).extend(items)

    def add(self, items: list[Any]) -> None:
        self.top(set).update(map(self.hashable, items))

    def set_items(self, items: list[Any]) -> None:
        if len(items) % 2:
            raise self.damaged("a dictionary's value is missing")
        target = self.top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[self.hashable(key)] = value

    def hashable(self, key: Any) -> str:
        # Strings alone: others can be made to collide, and nested tuples to take forever.
        if isinstance(key, memoryview):
            return str(key, "latin1")
        if not isinstance(key, str):
            raise _RefusedError(f"has a dictionary or set with a key of type {type(key).__name__}, expected strings")
        return key

    def new(self, container: Any) -> None:
        self.spend(_OBJECT_BYTES[type(container).__name__.removeprefix("frozen")])
        self.push(container)

    def tuple_of(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.new(tuple(reversed(items)))

    def integer(self, size: int) -> None:
        if size > _MAX_INTEGER_BYTES:
            raise _RefusedError(
                f"has an integer of {size:,} bytes at byte {self.position:,}, {_MAX_INTEGER_BYTES} at most"
            )
        self.push(int.from_bytes(self.take(size), "little", signed=True))

    def frame(self) -> None:
        size = self.unsigned(8)
        if size > len(self.data) - self.position:
            raise _RefusedError(f"is cut off or damaged: a frame of {size:,} bytes starts at byte {self.position:,}")

    def protocol(self) -> None:
        number = self.take(1)[0]
        if number not in PROTOCOLS:
            raise _RefusedError(f"is a pickle of protocol {number}")

    # Names, and what the allowed ones do

    def name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise self.damaged("a name is missing")
        meaning = _KNOWN.get((module, name))
        if meaning is None:
            asked = ascii(f"{module}.{name}"[:_MAX_NAME])[1:-1]
            raise _RefusedError(f"asks for {asked}, which is not an array or a plain container")
        self.push(_Symbol(meaning))

    def stack_name(self) -> None:
        name = self.pop()
        self.name(self.pop(), name)

    def instance(self) -> None:
        self.name(self.line(), self.line())
        raise _RefusedError("makes objects in a way that arrays do not need")

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, _Symbol) or type(arguments) is not tuple:
            raise self.damaged("a call of nothing that can be called")
        make = _CALLS.get(function.meaning)
        if make is None:
            raise self.damaged(f"a call of {function.meaning}")
        self.push(make(self, arguments))

    def build(self) -> None:
        state = self.pop()
        target = self.pop()
        if type(state) is not tuple or not isinstance(target, _DType | _Shell):
            raise self.damaged("a state for nothing that has one")
        if isinstance(target, _DType):
            self.push(self.described(target, state))
            return
        # (version, shape, dtype, whether in Fortran's order, content); the first releases had no version.
        if len(state) not in (4, 5):
            raise self.damaged("an array's state has another length")
        shape, dtype, fortran, content = state[-4:]
        array = self.array(content, dtype, shape, "F" if fortran is True else "C")
        for key in target.keys:
            if self.memo.get(key) is target:
                self.memo[key] = array
        self.push(array)

    def described(self, dtype: _DType, state: tuple[Any, ...]) -> _DType:
        order = _name(state[1]) if len(state) > 4 else None
        if order not in ("<", ">", "|", "="):
            raise self.damaged("an array type's state is not one")
        if any(part is not None for part in state[2:5]):
            raise _RefusedError("has an array of records, expected plain numbers or strings")
        dtype.order = order
        return dtype

    def array(self, content: Any, dtype: Any, shape: Any, order: str) -> Array:
        if not isinstance(dtype, _DType):
            raise self.damaged("an array's type is missing")
        if type(shape) is int:
            shape = (shape,)
        limit = len(self.data)
        if type(shape) is not tuple or len(shape) > 8 or any(type(n) is not int or not 0 <= n <= limit for n in shape):
            raise self.damaged("an array's shape is not one")
        self.spend(_OBJECT_BYTES["view"])
        built = dtype.build()
        size = math.prod(shape)
        if built.kind == "O":
            return self.object_array(content, shape, size, order)
        if isinstance(content, str):  # bytes of Python 2, read as the text that they are not
            content = self.encoded(content)
        if not isinstance(content, memoryview) or len(content) != size * built.itemsize:
            has = f"{len(content):,} bytes" if isinstance(content, memoryview) else f"a {type(content).__name__}"
            raise self.damaged(f"an array of shape {list(shape)} and type {built} has {has}")
        if not size:
            return np.zeros(shape, built)
        return np.frombuffer(content, built).reshape(shape, order="F" if order == "F" else "C")

    def object_array(self, content: Any, shape: tuple[int, ...], size: int, order: str) -> Array:
        if type(content) is not list or len(content) != size:
            raise self.damaged(f"an array of {size:,} objects does not have them")
        self.spend(8 * size)
        values = np.empty(size, object)
        for position, item in enumerate(content):
            values[position] = item
        return values.reshape(shape, order="F" if order == "F" else "C")

    def encoded(self, text: str) -> memoryview:
        self.spend(len(text))
        try:
            return memoryview(text.encode("latin1"))
        except UnicodeEncodeError:
            raise self.damaged("bytes are written as a text that is none") from None

    def call_reconstruct(self, arguments: tuple[Any, ...]) -> _Shell:
        if not arguments or not isinstance(arguments[0], _Symbol) or arguments[0].meaning != "ndarray":
            raise self.damaged("an array of another class")
        return _Shell()

    def call_dtype(self, arguments: tuple[Any, ...]) -> _DType:
        code = _name(arguments[0]) if arguments else None
        if code is None or not _DTYPE.fullmatch(code):
            raise _RefusedError(f"has an array of type {code!a}, expected numbers, strings or objects")
        return _DType(code)

    def call_scalar(self, arguments: tuple[Any, ...]) -> Any:
        if len(arguments) != 2:
            raise self.damaged("a number is not one")
        dtype, content = arguments
        if isinstance(dtype, _DType) and dtype.code[0] == "O":
            raise _RefusedError("has a single object where a number belongs")
        return _scalar(self.array(content, dtype, (1,), "C"))

    def call_frombuffer(self, arguments: tuple[Any, ...]) -> Array:
        order = _name(arguments[3]) if len(arguments) in (4, 5) else None
        if order not in ("C", "F", "K"):
            raise self.damaged("an array is not one")
        content, dtype, shape = arguments[:3]
        array = self.array(content, dtype, shape, order)
        axes = arguments[4] if len(arguments) == 5 else None
        if order != "K" or axes is None:
            return array
        if type(axes) is not tuple or not all(type(n) is int for n in axes) or sorted(axes) != list(range(array.ndim)):
            raise self.damaged("an array's order of axes is not one")
        return array.transpose(axes)

    def call_encode(self, arguments: tuple[Any, ...]) -> memoryview:
        how = _name(arguments[1]) if len(arguments) == 2 else None
        if how not in ("latin1", "latin-1") or not isinstance(arguments[0], str):
            raise self.damaged("bytes are written in an unknown way")
        return self.encoded(arguments[0])

    def call_bytes(self, arguments: tuple[Any, ...]) -> memoryview:
        if arguments:
            raise self.damaged("bytes are written in an unknown way")
        return memoryview(b"")


def _name(value: Any) -> str | None:
    """A short string, which Python 2 wrote as bytes; None where it is something else."""
    if isinstance(value, memoryview) and len(value) < _MAX_NAME:
        value = str(value, "latin1")
    return value if type(value) is str and len(value) < _MAX_NAME else None


def _scalar(array: Array) -> Any:
    try:
        value = array[0].item()
    except (ValueError, UnicodeError):
        raise _RefusedError("is damaged: a string holds what is no character") from None
    return memoryview(value) if isinstance(value, bytes) else value


def _string(machine: _Machine, size: int) -> None:
    machine.spend(_OBJECT_BYTES["bytes"])
    machine.push(machine.take(size))


_CALLS: dict[str, Callable[[_Machine, tuple[Any, ...]], Any]] = {
    "reconstruct": _Machine.call_reconstruct,
    "dtype": _Machine.call_dtype,
    "scalar": _Machine.call_scalar,
    "frombuffer": _Machine.call_frombuffer,
    "encode": _Machine.call_encode,
    "bytes": _Machine.call_bytes,
}

# Instructions by their code, with the names that Python's pickletools gives them.
_STEPS: dict[int, Callable[[_Machine], object]] = {
    0x80: _Machine.protocol,  # PROTO
    0x95: _Machine.frame,  # FRAME
    ord("N"): lambda m: m.push(None),  # NONE
    0x88: lambda m: m.push(True),  # NEWTRUE
    0x89: lambda m: m.push(False),  # NEWFALSE
    ord("J"): lambda m: m.integer(4),  # BININT
    ord("K"): lambda m: m.push(m.unsigned(1)),  # BININT1
    ord("M"): lambda m: m.push(m.unsigned(2)),  # BININT2
    0x8A: lambda m: m.integer(m.unsigned(1)),  # LONG1
    0x8B: lambda m: m.integer(m.unsigned(4)),  # LONG4
    ord("G"): lambda m: m.push(struct.unpack(">d", m.take(8))[0]),  # BINFLOAT
    ord("X"): lambda m: m.push(m.text(m.unsigned(4))),  # BINUNICODE
    0x8C: lambda m: m.push(m.text(m.unsigned(1))),  # SHORT_BINUNICODE
    0x8D: lambda m: m.push(m.text(m.unsigned(8))),  # BINUNICODE8
    ord("T"): lambda m: _string(m, m.unsigned(4)),  # BINSTRING
    ord("U"): lambda m: _string(m, m.unsigned(1)),  # SHORT_BINSTRING
    ord("B"): lambda m: _string(m, m.unsigned(4)),  # BINBYTES
    ord("C"): lambda m: _string(m, m.unsigned(1)),  # SHORT_BINBYTES
    0x8E: lambda m: _string(m, m.unsigned(8)),  # BINBYTES8
    0x96: lambda m: _string(m, m.unsigned(8)),  # BYTEARRAY8
    ord("]"): lambda m: m.new([]),  # EMPTY_LIST
    ord("}"): lambda m: m.new({}),  # EMPTY_DICT
    ord(")"): lambda m: m.new(()),  # EMPTY_TUPLE
    0x8F: lambda m: m.new(set()),  # EMPTY_SET
    ord("("): _Machine.mark,  # MARK
    ord("t"): lambda m: m.new(tuple(m.since_mark())),  # TUPLE
    0x85: lambda m: m.tuple_of(1),  # TUPLE1
    0x86: lambda m: m.tuple_of(2),  # TUPLE2
    0x87: lambda m: m.tuple_of(3),  # TUPLE3
    ord("a"): lambda m: m.append([m.pop()]),  # APPEND
    ord("e"): lambda m: m.append(m.since_mark()),  # APPENDS
    0x90: lambda m: m.add(m.since_mark()),  # ADDITEMS
    ord("s"): lambda m: m.set_items([m.pop(), m.pop()][::-1]),  # SETITEM
    ord("u"): lambda m: m.set_items(m.since_mark()),  # SETITEMS
    0x91: lambda m: m.new(frozenset(map(m.hashable, m.since_mark()))),  # FROZENSET
    ord("0"): lambda m: m.pop(),  # POP
    ord("1"): lambda m: m.since_mark(),  # POP_MARK
    ord("2"): lambda m: m.push(m.stack[-1]) if m.stack else m.pop(),  # DUP
    ord("q"): lambda m: m.put(m.unsigned(1)),  # BINPUT
    ord("r"): lambda m: m.put(m.unsigned(4)),  # LONG_BINPUT
    0x94: lambda m: m.put(len(m.memo)),  # MEMOIZE
    ord("h"): lambda m: m.get(m.unsigned(1)),  # BINGET
    ord("j"): lambda m: m.get(m.unsigned(4)),  # LONG_BINGET
    ord("c"): lambda m: m.name(m.line(), m.line()),  # GLOBAL
    0x93: _Machine.stack_name,  # STACK_GLOBAL
    ord("i"): _Machine.instance,  # INST
    ord("R"): _Machine.call,  # REDUCE
    ord("b"): _Machine.build,  # BUILD
}
