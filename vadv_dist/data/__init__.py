"""Data sets: their schema, reading, checks, and the order in which clips are trained on."""

from vadv_dist.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "Batch": "schema",
        "Clip": "schema",
        "Dataset": "dataset",
        "DatasetWriter": "shards",
        "FeatureSpec": "schema",
        "LabelSpec": "schema",
        "Sources": "sources",
    },
)
