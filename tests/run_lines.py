"""Lines of metrics.jsonl for tests without training; omitted fields have default values."""

from typing import Any

from vadv_dist.evaluation.description import TaskDescription
from vadv_dist.evaluation.label_scale import LabelScale
from vadv_dist.objectives.step_distillation import TERMS
from vadv_dist.runs.records import Line, RunResult, StartLine, parse_line
from vadv_dist.tasks.sentiment import describe

TASK: TaskDescription = describe(LabelScale(), TERMS, video=True, prompt=True)
_START = StartLine(step=0, epoch=0, steps=40, epochs=2, workers=1, task=TASK, labels=LabelScale())
_DEFAULTS: dict[str, dict[str, Any]] = {
    "start": _START.to_json(),
    "step": {
        "lr": 1e-3,
        "grad_norm": None,
        "samples_per_s": 0.0,
        "tokens_per_s": 0.0,
        "data_wait_s": 0.0,
        "line_s": 0.0,
    },
    "epoch": {"validation": {}, "train": {}, "best": False, "seconds": 0.0},
    "checkpoint": {"seconds": 0.0},
    "fault": {},
    "note": {},
    "stop": {},
}


def whole(raw: dict[str, Any]) -> dict[str, Any]:
    """A line with every required field, as in the file."""
    return {"step": 0, "epoch": 0, "time": 0.0, **_DEFAULTS[raw["kind"]], **raw}


def line(raw: dict[str, Any]) -> Line:
    """The same, typed."""
    parsed = parse_line(whole(raw))
    assert parsed is not None
    return parsed


def run_result(validation: dict[str, float | None], **fields: Any) -> RunResult:
    """What a run came to, of which only some fields matter."""
    plain: dict[str, Any] = {
        "run": "run",
        "best_step": 1,
        "best_epoch": 0,
        "validation_all": {},
        "remarks": [],
        "task": TASK,
        "labels": LabelScale(),
        "absent": {},
        "steps": 1,
        "epochs": 1,
        "stopped": "epochs",
        "folder": "/",
        "wall_time_s": 1.0,
        "data": [],
        "texts_cut": {},
        "parameters": {"teacher": 0, "student": 1, "trained": 1},
        "engine": "torch",
        "workers": 0,
        "device": "cpu",
        "versions": {},
    }
    return RunResult(**{**plain, "validation": {**validation}, **fields})
