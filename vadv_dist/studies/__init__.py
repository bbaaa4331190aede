"""Studies: variants of a run, each trained with several seeds and compared on the same clips."""

from vadv_dist.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "plan_study": "plan",
        "run_study": "study",
    },
)
