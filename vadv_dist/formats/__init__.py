"""Bounded decoders of files from elsewhere."""

from vadv_dist.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "BoundedParquet": "parquet",
        "JsonError": "json_text",
        "parse_json": "json_text",
        "read_table": "parquet",
    },
)
