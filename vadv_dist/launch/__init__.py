"""Start a run in this process or as Ray Train workers."""

from vadv_dist.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "train": "driver",
    },
)
