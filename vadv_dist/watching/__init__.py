"""Monitor a run: progress on a terminal, Prometheus metrics, experiment trackers."""

from vadv_dist.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "state_of": "watch",
    },
)
