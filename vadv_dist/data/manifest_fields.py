"""Validate the fields of `dataset.json`, which may have been edited."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vadv_dist.data.schema import LABEL_KINDS, FeatureSpec, LabelSpec

FEATURE_TYPES = ("float16", "float32", "float64")
# Arrow uses 32-bit indices for the values of one tensor, and 64-bit ones for rows.
MAX_VALUES = (1 << 31) - 1
_MAX_COUNT = 1 << 50  # a petabyte; sums over all shards that a file can list fit into 64 bits


def text(value: object, name: str) -> str:
    """Return a string that can be encoded as UTF-8.

    Raises:
        ValueError: it is something else; so do all functions here.
    """
    if not isinstance(value, str):
        raise ValueError(f"{name} is a {type(value).__name__}, expected a string")
    value.encode()
    return value


def count(value: object, name: str) -> int:
    """Return a non-negative integer."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_COUNT:
        raise ValueError(f"{name} is {brief(value)}, expected a non-negative integer")
    return value


def number(value: object, name: str) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e300:
        raise ValueError(f"{name} is {brief(value)}, expected a number")
    return float(value)


def mapping(value: object, name: str) -> dict[str, Any]:
    """A JSON object."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} is {brief(value)}, expected an object")
    return dict(value)


def items(value: object, name: str) -> list[Any]:
    """A JSON array."""
    if not isinstance(value, list):
        raise ValueError(f"{name} is {brief(value)}, expected a list")
    return value


def counts(value: object, name: str) -> dict[str, int]:
    """Return an object of non-negative integers."""
    return {key: count(item, f"{name}.{key}") for key, item in mapping(value, name).items()}


def feature(value: object, name: str) -> FeatureSpec:
    """Shape and type of a feature."""
    raw = mapping(value, name)
    shape = tuple(count(size, f"{name}.shape") for size in items(raw["shape"], f"{name}.shape"))
    if not shape or not 0 < math.prod(shape) <= MAX_VALUES:
        raise ValueError(f"{name}.shape is {list(shape)}, expected positive numbers")
    if raw["dtype"] not in FEATURE_TYPES:
        raise ValueError(f"{name}.dtype is {brief(raw['dtype'])}, expected one of {', '.join(FEATURE_TYPES)}")
    return FeatureSpec(shape, raw["dtype"])


def label(value: object) -> LabelSpec:
    """Range, kind and threshold of the labels."""
    raw = mapping(value, "label")
    if raw["kind"] not in LABEL_KINDS:
        raise ValueError(f"label.kind is {brief(raw['kind'])}, expected one of {', '.join(LABEL_KINDS)}")
    names = tuple(text(name, "label.classes") for name in items(raw.get("classes", []), "label.classes"))
    threshold = None if raw.get("threshold") is None else number(raw["threshold"], "label.threshold")
    low, high = number(raw["low"], "label.low"), number(raw["high"], "label.high")
    if threshold is not None and low < high and not low < threshold < high:
        raise ValueError(f"label.threshold is {threshold:g}, expected a number between {low:g} and {high:g}")
    return LabelSpec(low, high, raw["kind"], names, threshold)


def statistics(value: object) -> dict[str, Any]:
    """Return the label and word statistics of each split that has them."""
    splits = mapping(value, "statistics")
    for split, raw in splits.items():
        name = f"statistics.{split}"
        known = mapping(raw, name)
        _each(known, name, number, ("label_mean", "label_std", "label_min", "label_median", "label_max"))
        if known.get("words") is not None:
            _each(mapping(known["words"], f"{name}.words"), f"{name}.words", number, ("median", "max", "total"))
        if known.get("label_histogram") is not None:
            _histogram(mapping(known["label_histogram"], f"{name}.label_histogram"), f"{name}.label_histogram")
    return splits


def truth(value: object) -> dict[str, Any] | None:
    """Return the truth of synthetic data; None for other data."""
    if value is None:
        return None
    raw = mapping(value, "truth")
    for key, entries in raw.items():
        metric = key.removeprefix("best_")
        for name, entry in mapping(entries, f"truth.{key}").items() if metric != key else ():
            is_described = isinstance(entry, Mapping)
            number(
                entry[metric] if is_described else entry, f"truth.{key}.{name}{f'.{metric}' if is_described else ''}"
            )
    return raw


def brief(value: object) -> str:
    """Format a value briefly for a message; huge numbers and long lists by their type only."""
    if isinstance(value, str):
        return ascii(value[:40])
    if isinstance(value, float | bool) or value is None or (isinstance(value, int) and abs(value) < 1 << 64):
        return str(value)
    return f"a {type(value).__name__}"


def _each(raw: Mapping[str, Any], name: str, check: Callable[[Any, str], object], keys: tuple[str, ...]) -> None:
    for key in keys:
        if raw.get(key) is not None:
            check(raw[key], f"{name}.{key}")


def _histogram(raw: Mapping[str, Any], name: str) -> None:
    edges = [number(edge, f"{name}.edges") for edge in items(raw["edges"], f"{name}.edges")]
    bins = [count(one, f"{name}.counts") for one in items(raw["counts"], f"{name}.counts")]
    if len(edges) != len(bins) + 1 or not bins or not bool((np.diff(edges) > 0).all()):
        raise ValueError(f"{name} has {len(edges)} edges for {len(bins)} counts, expected one more, in rising order")
