"""A run on storage: its folder, records, checkpoints and state."""

from vadv_dist.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "Evaluation": "records",
        "RunFolder": "folder",
        "RunResult": "records",
        "TrainedOn": "trained_on",
        "list_checkpoints": "checkpoint",
        "parse_line": "records",
    },
)
