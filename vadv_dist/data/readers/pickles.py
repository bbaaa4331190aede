"""Read a pickle of arrays and plain containers without executing code from it.

A pickle is a program for a small stack machine. This machine implements only the instructions of protocols 2 to 5 that
build numbers, strings and containers. The names that pickled numpy arrays use are symbols here (`pickle_arrays`); any
other name is refused.

`pickle.Unpickler` with a `find_class` that admits only numpy's names is not enough: of 14 crafted files
(tests/data/readers/test_pickles.py, `bombs`), one of 127 bytes did not end within 30 s, one of 0.65 MB took 15 s, and
one of 1.1 MB took more than 5.9 GB.

Arrays are views of the memory-mapped file, and everything else is bounded by the file's size (`pickle_bytes`), so a
small file cannot use much memory.
"""

import struct
from collections.abc import Callable
from typing import Any

from vadv_dist.data.readers.pickle_arrays import DType, Shell, call, described, filled, symbol
from vadv_dist.data.readers.pickle_bytes import OBJECT_BYTES, PickleBytes, RefusedError
from vadv_dist.errors import UserError

PROTOCOLS = range(2, 6)
_MAX_INTEGER_BYTES = 16


def read_pickle(data: memoryview, where: str) -> Any:
    """Read a pickle of arrays, numbers, strings and containers of them, and nothing else.

    Args:
        data: the file's bytes; arrays are views of them.
        where: the file, for messages.

    Returns:
        dictionaries, lists, tuples, sets, str, int, float, bool, None, numpy arrays; bytes are memoryviews.

    Raises:
        UserError: not a pickle of protocol 2 to 5, damaged, or it uses any class or function except numpy's arrays.
    """
    try:
        return _Machine(data).run()
    except RefusedError as error:
        raise UserError(
            f"{where} {error}. Nothing in it was executed. Use a pickle (protocol {PROTOCOLS[0]} to {PROTOCOLS[-1]}) "
            "of numpy arrays, numbers, strings, lists and dictionaries, such as those of MMSA."
        ) from None


class _Machine(PickleBytes):
    def __init__(self, data: memoryview) -> None:
        super().__init__(data)
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        if len(self.data) < 2 or self.data[0] != 0x80:
            raise RefusedError("is not a pickle of a supported protocol")
        while True:
            code = self.unsigned(1)
            if code == ord("."):
                return self.pop()
            step = _STEPS.get(code)
            if step is None:
                raise RefusedError(
                    f"has the instruction {code:#04x} at byte {self.position - 1:,}, which arrays and plain containers "
                    "do not need"
                )
            step(self)

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
        self.spend(OBJECT_BYTES["list"])
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        if not self.below:
            raise self.damaged("the start of a list is missing")
        items, self.stack = self.stack, self.below.pop()
        return items

    def put(self, key: int) -> None:
        if not self.stack:
            raise self.damaged("a value is missing")
        value = self.stack[-1]
        if key not in self.memo:
            self.spend(OBJECT_BYTES["memo"])
        self.memo[key] = value
        if isinstance(value, Shell):
            value.keys.append(key)

    def get(self, key: int) -> None:
        if key not in self.memo:
            raise self.damaged(f"value {key} is used before it is defined")
        self.push(self.memo[key])

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
        # Only strings: other keys can be made to collide, and hashing nested tuples can take forever.
        if isinstance(key, memoryview):
            return str(key, "latin1")
        if not isinstance(key, str):
            raise RefusedError(f"has a dictionary or set with a key of type {type(key).__name__}, expected strings")
        return key

    def new(self, container: Any) -> None:
        self.spend(OBJECT_BYTES[type(container).__name__.removeprefix("frozen")])
        self.push(container)

    def tuple_of(self, count: int) -> None:
        self.new(tuple([self.pop() for _ in range(count)][::-1]))

    def integer(self, size: int) -> None:
        if size > _MAX_INTEGER_BYTES:
            raise RefusedError(
                f"has an integer of {size:,} bytes at byte {self.position:,}, but the limit is {_MAX_INTEGER_BYTES}"
            )
        self.push(int.from_bytes(self.take(size), "little", signed=True))

    def string(self, size: int) -> None:
        self.spend(OBJECT_BYTES["bytes"])
        self.push(self.take(size))

    def frame(self) -> None:
        size = self.unsigned(8)
        if size > len(self.data) - self.position:
            raise RefusedError(f"is truncated or damaged: a frame of {size:,} bytes starts at byte {self.position:,}")

    def protocol(self) -> None:
        number = self.unsigned(1)
        if number not in PROTOCOLS:
            raise RefusedError(f"is a pickle of the unsupported protocol {number}")

    def name(self, module: object, name: object) -> None:
        self.push(symbol(self, module, name))

    def stack_name(self) -> None:
        name = self.pop()
        self.name(self.pop(), name)

    def instance(self) -> None:
        self.name(self.line(), self.line())
        raise RefusedError("creates objects in a way that arrays do not need")

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        self.push(call(self, function, arguments))

    def build(self) -> None:
        state = self.pop()
        target = self.pop()
        if type(state) is not tuple or not isinstance(target, DType | Shell):
            raise self.damaged("a state for an object without one")
        if isinstance(target, DType):
            self.push(described(self, target, state))
            return
        array = filled(self, state)
        for key in target.keys:
            if self.memo.get(key) is target:
                self.memo[key] = array
        self.push(array)


# Instructions by their code, with the names used by Python's pickletools.
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
    ord("T"): lambda m: m.string(m.unsigned(4)),  # BINSTRING
    ord("U"): lambda m: m.string(m.unsigned(1)),  # SHORT_BINSTRING
    ord("B"): lambda m: m.string(m.unsigned(4)),  # BINBYTES
    ord("C"): lambda m: m.string(m.unsigned(1)),  # SHORT_BINBYTES
    0x8E: lambda m: m.string(m.unsigned(8)),  # BINBYTES8
    0x96: lambda m: m.string(m.unsigned(8)),  # BYTEARRAY8
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
