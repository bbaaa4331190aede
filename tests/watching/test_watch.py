import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from run_lines import line, whole

from vadv_dist.cli import main
from vadv_dist.errors import MachineError, UserError
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.history import RunHistory
from vadv_dist.tasks.retrieval import describe as retrieval
from vadv_dist.watching.watch import render, snapshot, state_of, watch

TERMS = {"video_regression": 2.0, "text_regression": 1.5, "prompt_to_video": 0.25, "total": 19.5}
RATES = {
    "lr": 1e-3,
    "grad_norm": 4.0,
    "samples_per_s": 120.5,
    "tokens_per_s": 2400.0,
    "data_wait_s": 0.5,
    "line_s": 5.0,
}


def start(step: int, at: float) -> dict:
    return {"kind": "start", "step": step, "epoch": 0, "steps": 40, "epochs": 2, "workers": 1, "time": at}


def step(number: int, at: float) -> dict:
    return {"kind": "step", "step": number, "epoch": number // 21, **TERMS, **RATES, "time": at}


def epoch(number: int, at: float) -> dict:
    scores = {"student": {"mae": 0.75 - number / 10, "corr": 0.5}, "video": {"mae": 0.5, "corr": None}}
    kind = {"kind": "epoch", "epoch": number, "step": 20 * (number + 1), "validation": scores}
    return {**kind, "train": {**TERMS, "total": 18.25}, "best": True, "seconds": 1.0, "time": at}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run halfway through, whose last line is one second old."""
    folder = tmp_path / "half"
    folder.mkdir()
    (folder / "config.yaml").write_text("run: {name: half}\n")
    now = time.time()
    write(folder, start(0, now - 21), step(10, now - 11), step(20, now - 1), epoch(0, now - 0.9))
    return folder


def write(folder: Path, *lines: dict) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(whole(line)) + "\n" for line in lines)


def console(width: int = 80) -> Console:
    return Console(file=StringIO(), width=width, force_terminal=False)


def said(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_once_prints_terms_rates_validation_and_the_time_left(run: Path) -> None:
    out = console()
    watch(str(run), out, once=True)
    text = said(out)
    assert f"{run}: running" in text.replace("\n", "")
    assert "step 20/40 (50%), epoch 1/2, 20 s so far, 20 s left" in text
    rows = {line.split("  ")[0]: line.split() for line in text.splitlines() if line}
    assert rows["text regression"][2:] == ["beta", "1.500", "1.500"]
    assert rows["total"] == ["total", "19.500", "18.250"]
    assert rows["epoch 1"] == ["epoch", "1", "20", "0.750", "0.500", "0.500", "best"]
    assert "120 clips/s, 2,400 tokens/s" in text
    assert "waiting for data 10.0%" in text
    assert "goodput 45%" in text  # (5 - 0.5) + (5 - 0.5) of 20 s
    assert max(map(len, text.splitlines())) <= 80


def test_learned_weights_are_shown_next_to_their_terms(run: Path) -> None:
    write(run, {**step(21, time.time()), "weights": {"text_regression": 0.25}})
    out = console()
    watch(str(run), out, once=True)
    rows = {line.split("  ")[0]: line.split() for line in said(out).splitlines() if line}
    assert rows["text regression"][2:] == ["0.250", "1.500", "1.500"]
    assert "weights" not in rows


def test_the_slowest_rank_and_what_nodes_have_read_are_shown(run: Path) -> None:
    out = console()
    watch(str(run), out, once=True)
    assert "slowest rank" not in said(out)
    write(run, {**step(21, time.time()), "compute_s": [2.0, 2.0, 3.0], "node_bytes": [5 << 30, 6 << 30]})
    out = console()
    watch(str(run), out, once=True)
    assert "slowest rank 2, 1.50 × the others, read 5 to 6 GiB on each of 2 nodes" in said(out)
    assert max(map(len, said(out).splitlines())) <= 80
    found = state_of(str(run))
    assert found["slowest_rank"] == {"rank": 2, "ratio": 1.5}
    assert found["compute_ratios"] == pytest.approx([0.8, 0.8, 1.5])
    assert found["node_bytes"] == [5 << 30, 6 << 30]


def test_json_has_the_same_values(run: Path, capsys) -> None:
    assert main(["watch", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["state"], found["step"], found["steps"]) == ("running", 20, 40)
    assert found["terms"] == TERMS
    assert found["left_s"] == pytest.approx(20)
    assert found["validation"][0]["models"]["student"]["mae"] == 0.75


def test_of_a_folder_of_runs_the_one_that_wrote_last_is_watched(run: Path, capsys) -> None:
    older = run.parent / "older"
    older.mkdir()
    (older / "config.yaml").write_text("run: {name: older}\n")
    write(older, start(0, time.time() - 500), step(10, time.time() - 400))
    assert main(["watch", str(run.parent), "--once"]) == 0
    assert capsys.readouterr().out.startswith(f"the run that wrote last is {run}\n")
    assert main(["watch", str(run.parent), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"] == "half"
    (run.parent / "empty").mkdir()
    assert main(["watch", str(run.parent / "empty")]) == 2
    assert "contains no runs" in capsys.readouterr().err


def test_a_job_has_output_and_no_state(capsys) -> None:
    assert main(["watch", "vadv-train-1", "--address", "http://127.0.0.1:1", "--json"]) == 2
    assert "--once and --json do not apply" in capsys.readouterr().err
    assert main(["watch", "vadv-train-1", "--address", "http://127.0.0.1:1"]) == 1
    assert "http://127.0.0.1:1" in capsys.readouterr().err


def test_watch_follows_a_run_until_it_is_complete(run: Path) -> None:
    out = console()
    looks = []

    def later(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 1:
            write(run, step(40, time.time()), epoch(1, time.time() + 0.1))
        else:
            (run / "result.json").write_text("{}")

    watch(str(run), out, sleep=later)
    assert len(looks) == 2
    assert "epoch   2/2  step    40  loss 18.250  validation MAE: student 0.650, video 0.500" in said(out)
    assert f"{run}: complete" in said(out).replace("\n", "")


def test_table_is_redrawn_on_a_terminal(run: Path) -> None:
    out = Console(file=StringIO(), width=80, force_terminal=True)

    def later(seconds: float) -> None:
        write(run, step(30, time.time()))
        (run / "result.json").write_text("{}")

    watch(str(run), out, sleep=later)
    assert "step 20/40" in said(out)
    assert "step 30/40" in said(out)


def test_repeated_steps_are_discarded(run: Path) -> None:
    write(run, start(10, time.time()))
    found = state_of(str(run))
    assert (found["step"], found["restarts"]) == (10, 1)
    assert found["validation"] == []


def test_watch_ends_with_an_error_if_the_loss_is_nan(run: Path) -> None:
    fault = {"kind": "fault", "step": 30, "epoch": 1, "what": "the loss is not finite", "time": time.time()}
    write(run, fault)
    assert state_of(str(run))["step"] == 30
    with pytest.raises(MachineError, match="stopped at step 30: the loss is not finite"):
        watch(str(run), console())


def test_silent_runs_and_runs_without_lines_are_reported(run: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "config.yaml").write_text("run: {name: empty}\n")
    assert state_of(str(empty))["state"] == "no line yet"
    (run / "metrics.jsonl").write_text(json.dumps(whole(step(10, time.time() - 3600))) + "\n")
    found = state_of(str(run))
    assert found["state"] == "silent"
    assert found["left_s"] is None
    out = console()
    watch(str(run), out, once=True)
    assert "no line for 1:00:00" in said(out)


def test_watching_something_else_than_a_run_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run"):
        watch(str(tmp_path), console(), once=True)


@pytest.mark.slow
def test_run_in_an_object_store_is_followed_to_its_end(write_config, s3: str) -> None:
    storage = f"{s3}/watched"
    command = [sys.executable, "-m", "vadv_dist.cli"]
    config = str(write_config("far", storage=storage))
    training = subprocess.Popen(
        [*command, "train", "--config", config], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    errors: list[str] = []
    reader = threading.Thread(target=lambda: errors.append(training.communicate()[1]))
    reader.start()
    deadline = time.monotonic() + 600
    while True:
        try:
            state_of(f"{storage}/far")
            break
        except UserError:
            assert time.monotonic() < deadline
            time.sleep(0.3)
    done = subprocess.run(
        [*command, "watch", f"{storage}/far"], capture_output=True, text=True, timeout=900, env={**os.environ}
    )
    reader.join()
    assert training.returncode == 0, errors
    assert done.returncode == 0, done.stderr
    assert f"{storage}/far: complete" in done.stdout
    assert "epoch 2" in done.stdout
    assert state_of(f"{storage}/far")["goodput"] > 0


def test_undefined_metrics_and_constant_outputs_are_reported(tmp_path: Path) -> None:
    history = RunHistory()
    reason = "defined for labels in [-3, 3], these are in [1, 5]"
    history(line({**start(0, 1.0), "absent": {"a7": reason}}))
    history(line({**epoch(0, 2.0), "remarks": ["The student predicts a constant."]}))
    found = snapshot(RunFolder(tmp_path), history)
    assert found["absent"] == {"a7": reason}
    out = StringIO()
    Console(file=out, width=80).print(render(found, history.task))
    assert f"no a7: {reason}" in out.getvalue()
    assert "The student predicts a constant." in out.getvalue()


def test_outputs_of_retrieval_have_columns_of_their_own_metric(tmp_path: Path) -> None:
    task = retrieval(video=True)
    scores = {"student": {"map": 0.25, "map_a2v": 0.2, "map_class": 0.5}, "video": {"accuracy": 0.75}}
    history = RunHistory()
    for raw in (
        {**start(0, 1.0), "task": dataclasses.asdict(task)},
        {**step(10, 2.0), "tokens_per_s": None},
        {**epoch(0, 3.0), "validation": scores},
    ):
        history(line(raw))
    console = Console(width=80, file=StringIO(), record=True)
    console.print(render(snapshot(RunFolder(tmp_path), history), history.task))
    text = console.export_text()
    assert "validation mAP   step   student   video accuracy   map_class" in text
    assert text.splitlines()[-1].split() == ["epoch", "1", "20", "0.250", "75.0%", "0.500", "best"]
    assert "tokens" not in text
