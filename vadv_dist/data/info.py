"""Summarise a data set from its manifest."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from vadv_dist.data.dataset import Dataset, DatasetManifest, SplitStatistics
from vadv_dist.data.schema import SPLITS

_MAX_VALUES = 10


def dataset_info(uri: str | Path) -> dict[str, Any]:
    """Summarise a data set without opening its shards.

    Returns:
        `uri`, `schema_version`, `fingerprint`, `rows`, `bytes`, `splits` (rows, shards, bytes, missing features, labels
        and words of each), `features`, `label` (range, threshold, a histogram over all splits, and the labels
        themselves if only a few differ), `prompts`,
        `provenance`, and `truth` (None unless the data are synthetic).

    Raises:
        UserError: there is no data set.
    """
    dataset = Dataset.open(uri)
    manifest = dataset.manifest
    splits = {split: _split_info(manifest, split) for split in SPLITS if manifest.rows(split)}
    return {
        "uri": str(dataset.root),
        "schema_version": manifest.schema_version,
        "fingerprint": manifest.fingerprint,
        "rows": sum(split["rows"] for split in splits.values()),
        "bytes": sum(split["bytes"] for split in splits.values()),
        "splits": splits,
        "features": {
            name: {"shape": list(spec.shape), "dtype": spec.dtype, "bytes_per_clip": spec.bytes_per_row}
            for name, spec in manifest.features.items()
        },
        "label": {
            "kind": manifest.label.kind,
            "low": manifest.label.low,
            "high": manifest.label.high,
            "threshold": None if manifest.label.is_class else manifest.label.positive_from,
            "classes": list(manifest.label.classes),
            "histogram": _joint_histogram(splits),
            "values": _joint_values(splits),
        },
        "prompts": manifest.num_classes_prompts,
        "provenance": manifest.provenance,
        "truth": manifest.truth,
    }


def _joint_values(splits: dict[str, dict[str, Any]]) -> list[float] | None:
    """The different labels of all splits, ascending; None if they are many, or most occur once."""
    of_split = [split["label_values"] for split in splits.values()]
    if not of_split or any(values is None for values in of_split):
        return None
    values = sorted({each["value"] for values in of_split for each in values})
    rows = sum(each["count"] for values in of_split for each in values)
    return values if len(values) <= min(_MAX_VALUES, rows / 2) else None


def _split_info(manifest: DatasetManifest, split: str) -> dict[str, Any]:
    shards = manifest.shards(split)
    return {
        **asdict(manifest.statistics.get(split, SplitStatistics())),
        "rows": manifest.rows(split),
        "shards": len(shards),
        "bytes": int(shards.bytes.sum()),
        "missing": {name: int(shards.lacking([name]).sum()) for name in manifest.features},
    }


def _joint_histogram(splits: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """Counts over all splits; None if their bins differ."""
    histograms = [split["label_histogram"] for split in splits.values()]
    if not histograms or any(h is None or h["edges"] != histograms[0]["edges"] for h in histograms):
        return None
    return {
        "edges": histograms[0]["edges"],
        "counts": [sum(column) for column in zip(*(h["counts"] for h in histograms), strict=True)],
    }
