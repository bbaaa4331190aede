"""Raw clips to features."""

from vadv_dist.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "extract": "extract",
    },
)
