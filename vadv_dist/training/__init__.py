"""The training loop, scoring and evaluation."""

from vadv_dist.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "Trainer": "loop",
        "evaluate_run": "evaluate",
    },
)
