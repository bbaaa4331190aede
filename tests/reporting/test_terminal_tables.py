import io
import math

import pytest
from rich.console import Console
from run_lines import TASK

from vadv_dist.evaluation.label_scale import LabelScale
from vadv_dist.reporting.terminal import metrics_table, notes
from vadv_dist.runs.records import Evaluation
from vadv_dist.tasks.retrieval import describe as retrieval
from vadv_dist.tasks.sentiment import describe

METRICS = {"mae": 0.655, "corr": -0.771, "a7": 0.421, "a2_has0": 1.0, "a2_non0": 0.8, "f1_has0": 0.8, "f1_non0": 0.8}


def scored(student: dict, labels: LabelScale | None = None, **fields) -> Evaluation:
    plain = {"absent": {}, "remarks": [], "texts_cut": {}, "data": [], "sources": {}, "dropped": 0, **fields}
    return Evaluation(
        run="run", split="test", rows=3, task=TASK, labels=labels or LabelScale(), metrics={"student": student}, **plain
    )


def rendered(table, width=80):
    file = io.StringIO()
    Console(file=file, width=width).print(table)
    return file.getvalue()


def test_metrics_are_in_fixed_order_and_units():
    text = rendered(
        metrics_table({"student": METRICS, "video": METRICS | {"corr": math.nan, "a7": None}}, TASK, "Test")
    )
    heads = [line.split() for line in text.splitlines()[1:3]]
    assert heads == [["A2", "A2", "F1", "F1"], ["MAE", "Corr", "A7", "has0", "non0", "has0", "non0"]]
    student = next(line for line in text.splitlines() if line.startswith("Student"))
    assert student.split()[1:] == ["0.655", "-0.771", "42.1%", "100.0%", "80.0%", "80.0%", "80.0%"]
    video = next(line for line in text.splitlines() if line.startswith("Video logit"))
    assert video.split()[2:5] == ["0.655", "-", "-"]


def test_tables_fit_80_columns_uncut_and_without_colour_codes():
    text = rendered(metrics_table({"a-long-name-of-a-run-that-someone-chose": METRICS}, TASK, "Test split"))
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    # Nothing was cut: rich marks a cut with an ellipsis.
    assert "…" not in text


def test_cells_are_ascii_for_logs_and_old_terminals():
    table = metrics_table({"student": METRICS | {"mae": 0.7, "corr": None}}, TASK, "Test")
    written = io.BytesIO()
    log = io.TextIOWrapper(written, encoding="ascii")
    Console(file=log, width=80).print(table)
    log.flush()
    lines = [line.replace("|", " ").split() for line in written.getvalue().decode("ascii").splitlines()]
    assert ["Student", "0.700", "-", "42.1%", "100.0%", "80.0%", "80.0%", "80.0%"] in lines


def test_columns_depend_on_the_label_range():
    stars = LabelScale(1.0, 5.0, 3.0)
    scores = stars.score([1.0, 2.0, 4.0], [1.0, 4.0, 5.0])
    text = rendered(metrics_table({"student": scores}, describe(stars), "Test"))
    heads = [line.split() for line in text.splitlines()[1:3]]
    assert heads == [["A2", "A2", "F1", "F1"], ["MAE", "Corr", "has", "3", "non", "3", "has", "3", "non", "3"]]
    text = rendered(
        notes(scored(scores, labels=stars, absent=stars.absent([1.0, 4.0]), remarks=["The student is a constant."]))
    )
    assert text.splitlines() == [
        "No A7: defined for labels in [-3, 3], these are in [1, 5].",
        "No A5, A3: defined for labels in [-1, 1], these are in [1, 5].",
        "The student is a constant.",
    ]


def test_an_output_with_fewer_clips_shows_their_number():
    rows = {"student": METRICS | {"clips": 30}, "video": METRICS | {"clips": 12}}
    text = rendered(metrics_table(rows, TASK, "Test"))
    assert "Student, 30 clips" in text
    assert "Video logit, 12 clips" in text
    assert "clips" not in rendered(metrics_table({"student": METRICS | {"clips": 30}}, TASK, "Test"))


@pytest.mark.parametrize("teacher", [True, False])
def test_metrics_of_retrieval_are_rows_without_dashes(teacher):
    task = retrieval(video=teacher, prompt=teacher)
    metrics = {"student": {m.key: 0.5 for m in task.metrics}}
    if teacher:
        metrics |= {name: {"accuracy": 0.93} for name in ("video", "prompt")}
    text = rendered(metrics_table(metrics, task, "demo-retrieval, test split, 800 clips"))
    assert max(map(len, text.splitlines())) <= 80
    assert text.isascii() or "─" in text
    assert "demo-retrieval, test split, 800 clips" in text
    rows = [line.split() for line in text.splitlines()[3:]]
    assert rows[1] == ["mAP", "a-to-v", "0.500"]
    assert rows[-1] == ["Accuracy", "50.0%", *(["93.0%"] * 2 if teacher else [])]
    assert all(cell != "-" for row in rows for cell in row)
