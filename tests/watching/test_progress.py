import io
import json
import os
from pathlib import Path

from rich.console import Console
from run_lines import line, whole

from vadv_dist.runs.metrics_log import MetricsLog
from vadv_dist.tasks.retrieval import describe as retrieval
from vadv_dist.watching.progress import MetricsTail, ProgressView


def write(path: Path, *steps: tuple[int, float]) -> None:
    """Write a metrics.jsonl as a resumed run does: a new file in the old one's place."""
    aside = path.with_name("aside")
    aside.write_text(
        "".join(json.dumps(whole({"kind": "step", "step": step, "time": time})) + "\n" for step, time in steps)
    )
    os.replace(aside, path)


def test_each_line_is_shown_once_if_the_file_was_trimmed_and_grew(
    tmp_path,
) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, (1, 10.0), (2, 11.0), (3, 12.0))
    shown: list[int] = []
    with MetricsTail(path, lambda shown_line: shown.append(shown_line.step), interval_s=30):
        # Killed after step 3 and resumed from step 1: the file is longer than before when it is read again.
        write(path, (1, 10.0), (2, 20.5), (3, 21.0), (4, 22.25), (5, 23.0))
    assert shown == [2, 3, 4, 5]


def test_lines_of_a_clock_that_is_behind_are_shown(tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, (1, 10.0), (2, 3611.0), (3, 3612.0))
    shown: list[int] = []
    with MetricsTail(path, lambda shown_line: shown.append(shown_line.step), interval_s=30):
        # Resumed from step 1 on another machine, whose clock is behind.
        write(path, (1, 10.0), (2, 20.5), (3, 19.75))
    assert shown == [2, 3]
    tail = MetricsTail(path, lambda shown_line: shown.append(shown_line.step))
    tail.poll()
    write(path, (1, 10.0), (2, 20.5), (3, 19.75), (4, 5.0))
    tail.poll()
    assert shown == [2, 3, 1, 2, 3, 4]


def test_incomplete_line_is_read_later(tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, (1, 10.0))
    shown: list[int] = []
    with MetricsTail(path, lambda shown_line: shown.append(shown_line.step), interval_s=30), path.open("a") as file:
        file.write(json.dumps(whole({"kind": "step", "step": 2, "time": 11.0})) + '\n{"step": 3,')
    assert shown == [2]


def test_line_that_is_not_an_object_is_skipped(tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, (1, 10.0))
    shown: list[int] = []
    with MetricsTail(path, lambda shown_line: shown.append(shown_line.step), interval_s=0.01), path.open("a") as file:
        file.write('[1, 2]\n"step"\n7\nnull\n' + json.dumps(whole({"kind": "step", "step": 2, "time": 11.0})) + "\n")
    assert shown == [2]
    assert [line.step for line in MetricsLog(path).lines()] == [1, 2]


def test_loss_terms_are_explained_once_and_the_time_left_is_said() -> None:
    console = Console(record=True, width=100, file=io.StringIO())
    with ProgressView(console, num_steps=40, epochs=2) as view:
        view(line({"kind": "start", "step": 0, "time": 100.0}))
        view(line({"kind": "step", "step": 10, "time": 130.0, "total": 1.5, "text_regression": 0.25}))
        view(line({"kind": "start", "step": 10, "time": 140.0}))
    said = console.export_text()
    assert said.count("t(r) Text logit to label") == 1
    assert "step 10/40  loss 1.500 t(r) 0.250  0 clips/s  90 s left\n" in said


def test_second_start_is_reported_as_a_lost_worker() -> None:
    console = Console(record=True, width=100, file=io.StringIO())
    with ProgressView(console, num_steps=9, epochs=3) as view:
        view(line({"kind": "start", "step": 0}))
        assert "restarted" not in console.export_text()
        view(line({"kind": "start", "step": 6}))
    assert console.export_text() == "a worker was lost; the workers were restarted from step 6\n"


def test_note_is_shown() -> None:
    console = Console(record=True, width=100, file=io.StringIO())
    with ProgressView(console, num_steps=9, epochs=3) as view:
        view(line({"kind": "note", "step": 3, "what": "Memory is full after recording 2 shapes of batches."}))
    assert console.export_text() == "Memory is full after recording 2 shapes of batches.\n"


def test_an_output_without_the_score_is_shown_by_its_own_metric() -> None:
    console = Console(record=True, width=160, file=io.StringIO())
    with ProgressView(console, num_steps=9, epochs=3, description=retrieval(video=True, prompt=True)) as view:
        scores = {"student": {"map": 0.937, "accuracy": 0.8}, "video": {"accuracy": 0.9}, "prompt": {"accuracy": None}}
        view(line({"kind": "epoch", "step": 3, "validation": scores, "train": {"total": 1.5}}))
    text = console.export_text()
    assert "validation mAP: student 0.937; Accuracy: video 90.0%, prompt –" in text
