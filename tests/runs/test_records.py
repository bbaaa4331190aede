"""A record reads back as it was written, and one that is damaged is refused by its field."""

import json
import math
import pickle
from pathlib import Path

import pytest
from run_lines import TASK, line, run_result, whole

from vadv_dist.evaluation.label_scale import LabelScale
from vadv_dist.runs.records import (
    Collapse,
    Evaluation,
    RecordError,
    RunResult,
    SourceScores,
    StepLine,
    epoch_costs,
    finite,
    parse_line,
)

LINES = [
    {"kind": "start", "absent": {"a7": "no such range"}},
    {"kind": "step", "step": 3, "total": 2.5, "video_to_text": None, "weights": {"video_to_text": 0.5}, "mfu": 0.25},
    {"kind": "epoch", "validation": {"student": {"mae": 0.5, "corr": None, "clips": 7}}, "sources": {"a": {}}},
    {"kind": "epoch", "train": {"total": 1.0}, "collapse": {"term": "video_to_text", "ratio": None}, "best": True},
    {"kind": "checkpoint", "step": 4, "seconds": 0.5},
    {"kind": "fault", "what": "the loss is not finite"},
]


@pytest.mark.parametrize("raw", LINES)
def test_line_round_trips(raw: dict) -> None:
    first = line(raw)
    written = json.loads(json.dumps(first.to_json(), allow_nan=False))
    assert written == whole(raw)
    assert parse_line(written) == first


def test_terms_are_top_level_fields_and_read_separately() -> None:
    step = line({"kind": "step", "total": 2.5, "some_new_term": 1.0, "lr": 0.5})
    assert isinstance(step, StepLine)
    assert step.terms == {"total": 2.5, "some_new_term": 1.0}
    assert step.rates["lr"] == 0.5


def test_unknown_kinds_and_fields_are_ignored() -> None:
    assert parse_line({"kind": "weather", "step": 1}) is None
    assert line({"kind": "checkpoint", "colour": "red"}) == line({"kind": "checkpoint"})


def test_missing_or_wrongly_typed_field_is_named() -> None:
    raw = whole({"kind": "epoch"})
    with pytest.raises(
        RecordError, match=r"epoch\) is damaged, or was written by another version of vadv: best: "
    ) as caught:
        parse_line({**raw, "best": "who knows"})
    assert (caught.value.field, caught.value.what) == ("best", "A line of metrics.jsonl (epoch)")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.field) == (str(caught.value), "best")


def test_epoch_costs_are_scores_to_minimise() -> None:
    lines = [line({"kind": "start"})]
    lines += [
        line({"kind": "epoch", "epoch": e, "validation": {"student": {"mae": m}}}) for e, m in ((0, 2.0), (1, None))
    ]
    assert [(found.epoch, cost) for found, cost in epoch_costs(lines)] == [(0, 2.0)]
    metric = TASK.metric("corr")
    assert metric.cost(0.25) == -0.25
    assert metric.cost(metric.cost(0.25)) == 0.25


def test_result_round_trips(tmp_path: Path) -> None:
    result = run_result({"mae": 0.5, "corr": None}, weights_collapsed=Collapse("video_to_text", 120.0))
    (tmp_path / "result.json").write_text(json.dumps(result.to_json(), allow_nan=False))
    assert RunResult.read(tmp_path / "result.json") == result
    assert (result.score, result.cost) == (0.5, 0.5)
    assert math.isnan(run_result({"mae": None}).score)
    raw = result.to_json()
    del raw["steps"]
    (tmp_path / "result.json").write_text(json.dumps(raw))
    with pytest.raises(RecordError, match=r"result\.json is damaged, .* steps: field required"):
        RunResult.read(tmp_path / "result.json")


def test_evaluation_has_metrics_under_the_names_of_its_outputs() -> None:
    evaluation = Evaluation(
        run="r",
        split="test",
        rows=3,
        dropped=0,
        task=TASK,
        labels=LabelScale(),
        absent={},
        metrics=finite({"student": {"mae": 0.5}, "video": {"mae": float("nan")}}),
        remarks=[],
        texts_cut={},
        data=[],
        sources={"a": SourceScores(rows=2, metrics={"student": {"mae": 0.25}})},
    )
    raw = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
    assert raw["student"] == {"mae": 0.5}
    assert raw["video"] == {"mae": None}
    assert raw["sources"] == {"a": {"rows": 2, "student": {"mae": 0.25}}}
    assert Evaluation.from_json(raw) == evaluation
