"""When a process collects garbage: rarely while it starts, and never while torch records operations.

Imports of torch, transformers and DeepSpeed create many objects and no garbage; scanning them repeatedly slows a
command's start, and its end too (`python benchmarks/run.py --only start`).
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_usual: tuple[int, int, int] | None = None  # the initial thresholds of the process


def collect_rarely() -> None:
    """Collect garbage rarely until `collect_as_usual`; call this before heavy imports."""
    global _usual
    if _usual is None:
        _usual = gc.get_threshold()
        gc.set_threshold(50_000, 10, 10)


def collect_as_usual() -> None:
    """Undo `collect_rarely`; without that call, do nothing."""
    global _usual
    if _usual is not None:
        gc.set_threshold(*_usual)
        _usual = None


@contextmanager
def no_collection() -> Iterator[None]:
    """Collect no garbage during the block, in which torch records operations.

    The finalizer of a DeepSpeed engine uses its tensors; it would be recorded as part of the model.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
