"""Reports, and tables for the terminal."""

from vadv_dist.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "compare_runs": "comparison",
        "write_report": "report",
    },
)
