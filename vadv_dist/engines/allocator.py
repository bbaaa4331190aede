"""Memory of a CPU training step, kept by the process between steps.

Every step allocates activations and gradients of the same sizes. glibc gives each large block back to the kernel when
it is freed, and the kernel clears every page of it again in the next step: a quarter of the step of a large model.
"""

import ctypes
import sys

# Parameters of mallopt(3), from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_NEVER = -1

# What a process needs in its environment besides, if it trains in a thread of its own, as Ray Train's workers do: glibc
# gives such a thread small heaps, and these back to the kernel whatever it was told.
THREAD_ENVIRONMENT = {"MALLOC_ARENA_MAX": "1"}


def keep_freed_memory() -> bool:
    """Have glibc keep freed blocks for the next step; the peak of the process stays as it is.

    Returns:
        whether that was done: there is nothing to do where the C library is another one.
    """
    return _set(_M_MMAP_MAX, 0) and _set(_M_TRIM_THRESHOLD, _NEVER)


def use_one_heap() -> bool:
    """Do what `THREAD_ENVIRONMENT` does, for threads that this process starts from now on.

    Returns:
        whether that was done.
    """
    return _set(_M_ARENA_MAX, 1)


def _set(parameter: int, value: int) -> bool:
    """Set a parameter of glibc's malloc, if the C library is glibc."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(parameter, value))
