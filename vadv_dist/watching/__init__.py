"""What a person, Prometheus or an experiment tracker sees of a run."""

from vadv_dist.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "look": "watch",
    },
)
