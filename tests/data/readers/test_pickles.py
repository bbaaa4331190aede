"""The restricted pickle reader, compared with Python's on harmless files, and on malicious ones."""

import collections
import os
import pickle
import resource
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_files import as_numpy_1, mmsa_content
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from vadv_dist.data.readers.pickles import read_pickle
from vadv_dist.errors import UserError

PROTOCOLS = (2, 3, 4, 5)
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
NUMBERS = st.one_of(st.none(), st.booleans(), st.integers(-(2**100), 2**100), st.floats(allow_nan=False), TEXT)
ARRAYS = arrays_of.arrays(
    st.sampled_from([np.dtype(d) for d in ("f2", "<f4", ">f8", "i1", "<i8", "u2", "?", "U3", "S4")]),
    arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
VALUES = st.recursive(
    NUMBERS | ARRAYS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(TEXT, inner, max_size=4),
        st.tuples(inner, inner),
        st.sets(TEXT, max_size=3),
    ),
    max_leaves=8,
)


def read(data: bytes) -> Any:
    return read_pickle(memoryview(data), "x.pkl")


def assert_same(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, np.ndarray) and theirs.dtype.kind != "O":
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key in theirs:
            assert_same(ours[key], theirs[key])
    elif isinstance(theirs, list | tuple | np.ndarray):
        assert type(ours) is type(theirs)
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    elif isinstance(theirs, np.generic):
        assert ours == theirs.item()
    elif isinstance(theirs, bytes | bytearray):
        assert bytes(ours) == theirs
    else:
        assert type(ours) is type(theirs)
        assert ours == theirs


@settings(deadline=None, max_examples=150, database=None)
@given(value=VALUES, protocol=st.sampled_from(PROTOCOLS), numpy_1=st.booleans())
def test_containers_and_arrays_read_as_python_reads_them(value: Any, protocol: int, numpy_1: bool) -> None:
    if protocol == 2 and "set()" in repr(type(value)):
        return
    data = pickle.dumps(value, protocol)
    if b"builtins\nset\n" in data or b"__builtin__\nset\n" in data:
        with pytest.raises(UserError, match=r"builtin.*set"):  # protocols below 4 call the class
            read(data)
        return
    assert_same(read(as_numpy_1(data) if numpy_1 else data), value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "value",
    [
        np.float32(1.5),
        np.int64(-3),
        np.str_("word"),
        np.array(["a", "bc"], object),
        np.array([np.ones((2, 3)), np.zeros((4, 3))], object),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1),
        np.arange(10)[::2],
        b"bytes",
        b"",
        mmsa_content(),
        [[1.5] * 3] * 2,
    ],
    ids=lambda value: type(value).__name__,
)
def test_feature_files_read_the_same_in_every_protocol(value: Any, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    assert_same(read(data), value)
    assert_same(read(as_numpy_1(data)), pickle.loads(as_numpy_1(data)))


def test_arrays_are_views_of_the_file() -> None:
    data = pickle.dumps({"x": np.arange(1000.0)}, 4)
    array = read(data)["x"]
    start = np.frombuffer(data, np.uint8).__array_interface__["data"][0]
    assert start <= array.__array_interface__["data"][0] < start + len(data)


def test_a_pickle_of_python_2_reads() -> None:
    def array(content: bytes) -> bytes:
        return (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR(K\x01K\x02\x85"
            b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U"
            + bytes([len(content)])
            + content
            + b"tb"
        )

    data = b"\x80\x02}U\x01x" + array(np.array([1.5, -2], "<f4").tobytes()) + b"s."
    np.testing.assert_array_equal(read(data)["x"], pickle.loads(data, encoding="latin1")["x"])


class Harm:
    """Runs a command if Python unpickles it."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("place", ["top", "value", "object array"])
def test_a_command_is_refused_by_name_and_not_executed(tmp_path: Path, protocol: int, place: str) -> None:
    harm = Harm(f"touch {tmp_path}/done")
    array = np.array([None], object)
    array[0] = harm
    value = {"top": harm, "value": {"train": [1, harm]}, "object array": array}[place]
    with pytest.raises(UserError, match=r"asks for posix\.system, which is not an array.*Nothing in it was executed"):
        read(pickle.dumps(value, protocol))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\x80\x02cbuiltins\neval\n(X\x03\x00\x00\x001+1tR.", "builtins.eval"),
        (b"\x80\x02(S'x'\nios\nsystem\n.", "0x53"),
        (b"\x80\x02(ios\nsystem\n.", "os.system"),
        (b"\x80\x02(cos\nsystem\no.", "os.system"),
        (b"\x80\x02cos\nsystem\n)\x81.", "os.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "os.system"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0bcore.system\x93.", "numpy.core.system"),
        (b"\x80\x02cnumpy\nload\n.", "numpy.load"),
        (b"\x80\x02cnumpy.core.multiarray\nfromfile\n.", "numpy.core.multiarray.fromfile"),
        (b"\x80\x02cx\n\x1b[31m\n.", r"x.\x1b[31m"),
        (pickle.dumps(collections.OrderedDict(a=1)), "collections.OrderedDict"),
        (b"\x80\x02P1\n.", "0x50"),
        (b"\x80\x02K\x01Q.", "0x51"),
        (b"\x80\x02\x82\x01.", "0x82"),
        (b"\x80\x05\x97.", "0x97"),
    ],
)
def test_other_names_and_instructions_are_refused(data: bytes, name: str) -> None:
    with pytest.raises(UserError) as caught:
        read(data)
    assert name in str(caught.value)


def bombs() -> dict[str, bytes]:
    """Small files that need much memory or time."""
    long = struct.pack("<Q", 1 << 40)
    shape = b"J\xff\xff\xff\x7f"
    dtype = b"cnumpy\ndtype\nX\x02\x00\x00\x00f4\x89\x88\x87R"
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    wide = dtype.replace(b"\x02\x00\x00\x00f4", b"\x0a\x00\x00\x00U999999999")
    text = b"X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20)
    encode = b"c_codecs\nencode\nq\x01" + text + b"X\x06\x00\x00\x00latin1\x86q\x02"
    return {
        "bytes": b"\x80\x04\x8e" + long,
        "text": b"\x80\x04\x8d" + long,
        "bytearray": b"\x80\x05\x96" + long,
        "frame": b"\x80\x04\x95" + long + b"N.",
        "long": b"\x80\x02\x8b\xff\xff\xff\x7f",
        "memo": b"\x80\x02Nr\xff\xff\xff\xffh\x00.",
        "shape": b"\x80\x03" + empty + b"(K\x01" + shape * 2 + b"\x86" + dtype + b"\x89C\x00tb.",
        "empty shape": b"\x80\x03" + empty + b"(K\x01" + shape + b"K\x00\x86" + dtype + b"\x89C\x00tb.",
        "wide": b"\x80\x03" + empty + b"(K\x01K\x01\x85" + wide + b"\x89C\x00tb.",
        "no size": b"\x80\x03"
        + empty
        + b"(K\x01K\x02\x85"
        + wide.replace(b"U999999999", b"U000000000")
        + b"\x89C\x00tb.",
        "encode": b"\x80\x02" + encode + b"(" + b"h\x01h\x02R" * 20_000 + b"l.",
        "sets": b"\x80\x04(" + b"\x8f" * 3_000_000 + b"t.",
        "keys": b"\x80\x04}("
        + b"".join(b"\x8a\x0a" + (k * (2**61 - 1)).to_bytes(10, "little") + b"N" for k in range(50_000))
        + b"u.",
        "nested key": b"\x80\x02})" + b"2\x86" * 60 + b"Ns.",
    }


@pytest.mark.parametrize("name", sorted(bombs()))
def test_a_small_file_cannot_use_much_memory_or_time(name: str) -> None:
    started, peak = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError):
        read(bombs()[name])
    assert time.process_time() - started < 20  # 2 s on a quiet machine
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 700 << 10  # KiB


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not a pickle"),
        (b"hello", "is not a pickle"),
        (pickle.dumps([1], 0), "is not a pickle"),
        (b"\x80\x06N.", "protocol 6"),
        (b"\x80\x02", "truncated"),
        (pickle.dumps({"a": np.ones(5)}, 4)[:-20], "truncated or damaged"),
        (b"\x80\x02.", "a value is missing"),
        (b"\x80\x02h\x05.", "used before it is defined"),
        (b"\x80\x02}NNs.", "key of type NoneType"),
        (b"\x80\x02X\x01\x00\x00\x00\xff.", "not UTF-8"),
        (pickle.dumps(np.zeros(2, [("a", "f4")]), 4), "type 'V4'"),
        (pickle.dumps(np.array(["2020"], "M8[D]"), 4), "type 'M8'"),
    ],
)
def test_damaged_pickles_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(data)


def test_deep_nesting_is_harmless() -> None:
    depth = 200_000
    assert isinstance(read(b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."), list)
