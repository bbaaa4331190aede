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
        ("splits", [], "splits is a list, expected an object"),
        ("splits.train.shards.0.rows", -1, "rows is -1, expected a non-negative integer"),
        ("splits.train.shards.0.rows", True, "rows is True"),
        ("splits.train.shards.0.bytes", "7", "bytes is '7'"),
        ("splits.train.shards.0.path", "../x", "shard path '../x' is outside the data set"),
        ("splits.train.shards.0.path", "/etc/x", "is outside the data set"),
        ("splits.train.shards.0.path", "a\0b", "is outside the data set"),
        ("splits.train.shards.0.missing", {"face": 0.5}, "missing.face is 0.5"),
        ("features.face.shape", [2, -3], "face.shape is -3"),
        ("features.face.shape", [1 << 20, 1 << 20], "expected positive numbers"),
        ("features.face.dtype", "object", "face.dtype is 'object', expected one of float16"),
        ("label.kind", "rank", "label.kind is 'rank', expected one of regression, class"),
        ("label.low", None, "label.low is None, expected a number"),
        ("label.high", float("nan"), "label.high is nan"),
        ("statistics.train.label_mean", "x", "statistics.train.label_mean is 'x'"),
        ("statistics.train.label_histogram.counts", [1], "13 edges for 1 counts"),
        ("truth", {"best_mae": {"text": {"mae": "x"}}}, "truth.best_mae.text.mae is 'x'"),
        ("truth", {"best_a2_has0": {"text": None}}, "truth.best_a2_has0.text is None"),
        ("provenance", 3, "provenance is 3, expected an object"),
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
