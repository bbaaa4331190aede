"""Thousands of damaged copies of files, for tests of their readers.

Each example damages `FILES` copies of a good file from one seed, so that thousands are cheap.
"""

import random
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FILES = 20
MANY = 2000
FEW = 100  # of each kind in a fast run
SOME = 500  # where a file takes 30 ms
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, ord("."), ord("R"), ord("c"), ord("'"), ord(","), ord("\n"), ord('"'))

how_many = pytest.mark.parametrize("files", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
how_many_slowly = pytest.mark.parametrize(
    "files",
    [
        FEW,
        pytest.param(SOME, marks=pytest.mark.slow),
        pytest.param(MANY, marks=[pytest.mark.slow, pytest.mark.long]),
    ],
)


def damaged(data: bytes, chance: random.Random) -> bytes:
    """A copy that is truncated, or has bits flipped or bytes changed, inserted, removed or moved."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        if not changed:
            break
        at = chance.randrange(len(changed))
        span = chance.choice((1, 2, 4, 8, 64))
        kind = chance.randrange(7)
        if kind == 0:
            changed[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            changed[at] = chance.choice(INTERESTING)
        elif kind == 2:
            changed[at : at + span] = chance.randbytes(span)
        elif kind == 3:
            del changed[at : at + span]
        elif kind == 4:
            changed[at:at] = chance.randbytes(span)
        elif kind == 5:
            start = chance.randrange(len(changed))
            changed[at : at + span] = changed[start : start + span]
        elif chance.random() < 0.3:
            del changed[at:]
    return bytes(changed)


def run(files: int, example: Callable[[random.Random], None]) -> None:
    """Run an example on the given number of damaged files; hypothesis reports the seed of a failing one."""

    @settings(
        max_examples=files // FILES,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(seed=st.integers(0, 2**32 - 1))
    def examples(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(FILES):
            example(chance)

    examples()
