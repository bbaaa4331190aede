"""Interpret the names in a pickle of arrays: numpy's arrays, dtypes and scalars, and bytes.

The names are symbols that are never looked up or called; their effects are implemented here, with checked sizes. Arrays
are views of the file's bytes.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vadv_dist.data.readers.pickle_bytes import MAX_NAME, OBJECT_BYTES, PickleBytes, RefusedError
from vadv_dist.data.schema import Array

_DTYPE = re.compile(r"[biufSUO][0-9]{1,9}")


@dataclass(frozen=True)
class Symbol:
    """One of the allowed names, and the effect of calling it, if it can be called."""

    call: Callable[[PickleBytes, tuple[Any, ...]], Any] | None = None


@dataclass
class DType:
    """A dtype under construction."""

    code: str
    order: str = "="

    def build(self) -> "np.dtype[Any]":
        """The dtype.

        Raises:
            RefusedError: there is no such type, or its elements have no size.
        """
        try:
            dtype = np.dtype("O") if self.code[0] == "O" else np.dtype(self.order + self.code)
        except (TypeError, ValueError):
            raise RefusedError(f"there is no array type {self.code!r}") from None
        if dtype.itemsize == 0:
            raise RefusedError(f"an array of type {self.code!r} has elements without a size")
        return dtype


@dataclass
class Shell:
    """An array that is created but not yet filled, and the memo entries to update when it is."""

    keys: list[int] = field(default_factory=list)


def symbol(source: PickleBytes, module: object, name: object) -> Symbol:
    """The symbol of a name.

    Raises:
        RefusedError: the name is not needed for arrays.
    """
    if not isinstance(module, str) or not isinstance(name, str):
        raise source.damaged("a name is missing")
    known = _SYMBOLS.get((module, name))
    if known is None:
        asked = ascii(f"{module}.{name}"[:MAX_NAME])[1:-1]
        raise RefusedError(f"asks for {asked}, which is not an array or a plain container")
    return known


def call(source: PickleBytes, function: object, arguments: object) -> Any:
    """The result of calling a symbol.

    Raises:
        RefusedError: it cannot be called, or not with these arguments.
    """
    if not isinstance(function, Symbol) or function.call is None or type(arguments) is not tuple:
        raise source.damaged("the called object is not callable")
    return function.call(source, arguments)


def described(source: PickleBytes, dtype: DType, state: tuple[Any, ...]) -> DType:
    """A dtype with the byte order from its state.

    Raises:
        RefusedError: it is not a plain number or string.
    """
    order = _name(state[1]) if len(state) > 4 else None
    if order not in ("<", ">", "|", "="):
        raise source.damaged("the state of an array type is invalid")
    if any(part is not None for part in state[2:5]):
        raise RefusedError("has an array of records, expected plain numbers or strings")
    dtype.order = order
    return dtype


def filled(source: PickleBytes, state: tuple[Any, ...]) -> Array:
    """The array of a shell's state: (version, shape, dtype, Fortran order, content).

    Raises:
        RefusedError: they are inconsistent.
    """
    if len(state) not in (4, 5):  # the first numpy releases had no version
        raise source.damaged("the state of an array has the wrong length")
    shape, dtype, fortran, content = state[-4:]
    return _array(source, content, dtype, shape, fortran is True)


def _array(source: PickleBytes, content: Any, dtype: Any, shape: Any, in_fortran_order: bool) -> Array:
    if not isinstance(dtype, DType):
        raise source.damaged("the type of an array is missing")
    if type(shape) is int:
        shape = (shape,)
    limit = len(source.data)
    if type(shape) is not tuple or len(shape) > 8 or any(type(n) is not int or not 0 <= n <= limit for n in shape):
        raise source.damaged("the shape of an array is invalid")
    source.spend(OBJECT_BYTES["view"])
    built = dtype.build()
    size = math.prod(shape)
    if built.kind == "O":
        if type(content) is not list or len(content) != size:
            raise source.damaged(f"an array declares {size:,} objects that are not there")
        source.spend(8 * size)
        flat = np.fromiter(content, object, size)
    else:
        if isinstance(content, str):  # bytes of Python 2, decoded as text
            content = _encoded(source, content)
        if not isinstance(content, memoryview) or len(content) != size * built.itemsize:
            has = f"{len(content):,} bytes" if isinstance(content, memoryview) else f"a {type(content).__name__}"
            raise source.damaged(f"an array of shape {list(shape)} and type {built} has {has}")
        flat = np.frombuffer(content, built)
    return flat.reshape(shape, order="F" if in_fortran_order else "C")


def _encoded(source: PickleBytes, text: str) -> memoryview:
    source.spend(len(text))
    try:
        return memoryview(text.encode("latin1"))
    except UnicodeEncodeError:
        raise source.damaged("bytes are written as invalid text") from None


def _call_reconstruct(source: PickleBytes, arguments: tuple[Any, ...]) -> Shell:
    if not arguments or arguments[0] is not _NDARRAY:
        raise source.damaged("an array has an unknown class")
    return Shell()


def _call_dtype(source: PickleBytes, arguments: tuple[Any, ...]) -> DType:
    code = _name(arguments[0]) if arguments else None
    if code is None or not _DTYPE.fullmatch(code):
        raise RefusedError(f"has an array of type {code!a}, expected numbers, strings or objects")
    return DType(code)


def _call_scalar(source: PickleBytes, arguments: tuple[Any, ...]) -> Any:
    if len(arguments) != 2:
        raise source.damaged("a number is invalid")
    dtype, content = arguments
    if isinstance(dtype, DType) and dtype.code[0] == "O":
        raise RefusedError("has a single object instead of a number")
    try:
        value = _array(source, content, dtype, (1,), False)[0].item()
    except (ValueError, UnicodeError):
        raise RefusedError("is damaged: a string has an invalid character") from None
    return memoryview(value) if isinstance(value, bytes) else value


def _call_frombuffer(source: PickleBytes, arguments: tuple[Any, ...]) -> Array:
    order = _name(arguments[3]) if len(arguments) in (4, 5) else None
    if order not in ("C", "F", "K"):
        raise source.damaged("an array is invalid")
    content, dtype, shape = arguments[:3]
    array = _array(source, content, dtype, shape, order == "F")
    axes = arguments[4] if len(arguments) == 5 else None
    if order != "K" or axes is None:
        return array
    if type(axes) is not tuple or not all(type(n) is int for n in axes) or sorted(axes) != list(range(array.ndim)):
        raise source.damaged("the axis order of an array is invalid")
    return array.transpose(axes)


def _call_encode(source: PickleBytes, arguments: tuple[Any, ...]) -> memoryview:
    how = _name(arguments[1]) if len(arguments) == 2 else None
    if how not in ("latin1", "latin-1") or not isinstance(arguments[0], str):
        raise source.damaged("bytes are written in an unknown way")
    return _encoded(source, arguments[0])


def _call_bytes(source: PickleBytes, arguments: tuple[Any, ...]) -> memoryview:
    if arguments:
        raise source.damaged("bytes are written in an unknown way")
    return memoryview(b"")


def _name(value: Any) -> str | None:
    """A short string, which Python 2 wrote as bytes; None for other values."""
    if isinstance(value, memoryview) and len(value) < MAX_NAME:
        value = str(value, "latin1")
    return value if type(value) is str and len(value) < MAX_NAME else None


_NDARRAY = Symbol()
_SYMBOLS = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): Symbol(_call_reconstruct) for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): Symbol(_call_scalar) for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): Symbol(_call_frombuffer) for core in ("core", "_core")},
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): Symbol(_call_dtype),
    # Protocol 2 writes bytes with these.
    ("_codecs", "encode"): Symbol(_call_encode),
    ("builtins", "bytes"): Symbol(_call_bytes),
    ("__builtin__", "bytes"): Symbol(_call_bytes),
}
