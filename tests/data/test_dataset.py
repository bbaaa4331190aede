"""An edited `dataset.json` is refused with the invalid field."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vadv_dist.data.dataset import Dataset
from vadv_dist.data.schema import Clip, FeatureSpec, LabelSpec
from vadv_dist.data.shards import DatasetWriter
from vadv_dist.errors import UserError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with DatasetWriter(
        tmp_path / "d", features={"face": FeatureSpec((2, 3))}, label=LabelSpec(), provenance={}
    ) as writer:
        writer.write("train", Clip("a", "v", "words", 1.0, "s", {"face": np.zeros((2, 3))}))
    return tmp_path / "d" / "dataset.json"


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("splits", [], "splits is []: Input should be a valid dictionary"),
        ("splits.train", [], "splits.train: expected an object"),
        ("splits", {"\ud800": {"shards": []}}, "surrogates not allowed"),
        ("splits.train.shards.0.rows", -1, "splits.train.0.rows is -1: Input should be greater than or equal to 0"),
        ("splits.train.shards.0.rows", True, "rows is True"),
        ("splits.train.shards.0.rows", 1 << 40, "1,099,511,627,776 rows in"),
        ("splits.train.shards.0.bytes", "7", "bytes is '7'"),
        ("splits.train.shards.0.path", "../x", "path: '../x' is outside the data set"),
        ("splits.train.shards.0.path", "/etc/x", "is outside the data set"),
        ("splits.train.shards.0.path", "a\0b", "is outside the data set"),
        ("splits.train.shards.0.path", "a\ud800", "surrogates not allowed"),
        ("splits.train.shards.0.missing", {"face": 0.5}, "missing.face is 0.5"),
        ("features.face.shape", [2, -3], "features.face.shape.1 is -3"),
        ("features.face.shape", [], "expected positive numbers"),
        ("features.face.shape", [1 << 20, 1 << 20], "expected positive numbers"),
        ("features.face.dtype", "object", "features.face.dtype is 'object'"),
        ("features.face", {"shape": [2, 3]}, "features.face.dtype is None"),
        ("label.kind", "rank", "label.kind is 'rank': Input should be 'regression' or 'class'"),
        ("label.low", None, "label.low is None: Input should be a valid number"),
        ("label.high", float("nan"), "label.high is nan"),
        ("label.high", 10**400, "label.high is 1000"),
        ("label.threshold", 3.0, "label: the threshold 3 is not between -3 and 3"),
        ("label", {"kind": "regression", "high": 3.0}, "label.low is None"),
        ("statistics.train.label_mean", "x", "statistics.train.label_mean is 'x'"),
        ("statistics.train.label_histogram.counts", [1], "13 edges for 1 counts"),
        ("truth", {"best_mae": {"text": {"mae": "x"}}}, "best_mae.text is 'x', expected a number"),
        ("truth", {"best_a2_has0": {"text": None}}, "best_a2_has0.text is None"),
        ("provenance", 3, "provenance is 3: Input should be a valid dictionary"),
        ("schema_version", "x" * 1000, "has schema_version 'xxxx"),
    ],
)
def test_an_invalid_field_is_refused(path: Path, place: str, value: Any, message: str) -> None:
    raw = json.loads(path.read_text())
    holder: Any = raw
    *steps, last = place.split(".")
    for step in steps:
        holder = holder[int(step) if isinstance(holder, list) else step]
    holder[last] = copy.deepcopy(value)
    path.write_text(json.dumps(raw))
    with pytest.raises(UserError) as caught:
        Dataset.open(path.parent)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("value", ["[" * 100_000, "1" * 5000])
def test_values_that_are_not_json_are_refused(path: Path, value: str) -> None:
    path.write_text('{"schema_version": ' + value + "}")
    with pytest.raises(UserError, match=r"dataset.json cannot be read as JSON"):
        Dataset.open(path.parent)
