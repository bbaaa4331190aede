"""How many trainings a search has, and what it says about the time left."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from run_lines import run_result

from vadv_dist.cli import main
from vadv_dist.config import Config, load_config
from vadv_dist.config.search import SearchConfig
from vadv_dist.config.weighting_sections import FamoWeightingConfig
from vadv_dist.runs.trained_on import TrainedOn
from vadv_dist.storage import read_json
from vadv_dist.tuning.events import Ended, Stopped
from vadv_dist.tuning.jobs import RunJob
from vadv_dist.tuning.objectives import BY_KEY
from vadv_dist.tuning.progress import Plan, Progress, lines_of, state_of
from vadv_dist.tuning.space_file import load_space
from vadv_dist.tuning.study_folder import StudyFolder


def test_forty_trials_are_about_67_trainings() -> None:
    space, _ = load_space(Path("tune_spaces/loss_weights.yaml"), Config())
    assert Plan.of(Config(), space, SearchConfig(num_trials=40)).total == 3 + 40 + 3 * 3 + 5 * 3
    assert Plan.of(Config(), space, SearchConfig(num_trials=40, leave_one_out=False, top=1)).total == 3 + 40 + 3
    # The only trial is the default, which is not repeated.
    assert Plan.of(Config(), space, SearchConfig(num_trials=1)).repeats == 0


def test_search_says_how_long_one_training_takes_and_what_is_left(write_config: Any, tmp_path: Path) -> None:
    now, said = [1000.0], []
    plan = Plan(3, 0, 7, 0, 0).to_json()
    progress = Progress(tmp_path, plan, said.append, score=BY_KEY["mae"], clock=lambda: now[0])
    config = load_config(write_config())
    jobs = {f"trial {n}": RunJob(f"trial {n}", [(0, config)], lambda key, event: None) for n in range(3)}

    def run(*numbers: int) -> None:
        progress.changed({f"trial {n}": jobs[f"trial {n}"] for n in numbers})

    run(0, 1)
    now[0] += 60
    progress.ended("trial 0", Ended(run_result({"mae": 1.5}, steps=3, best_epoch=0)))
    run(1, 2)
    # 9 trainings of 60 s, two at a time.
    assert len(said) == 1
    assert said[0].endswith("; 1 of about 10 trainings done, about 0:04:30 left")
    now[0] += 660
    progress.ended("trial 1", Stopped())
    run(2)
    assert said[1:] == ["2 of about 10 trainings done, about 0:26:00 left"]  # 8 of (60 + 720) / 2 s
    state = state_of(tmp_path)
    assert (state["state"], state["ended"], state["plan"]["total"]) == ("running", 2, 10)
    assert [(training["name"], training["epochs"]) for training in state["running"]] == [("trial 2", 0)]
    assert lines_of(state, now[0])[1:] == [
        "2 of about 10 trainings done, about 0:26:00 left",
        "best so far: trial 0, MAE 1.500",
        "  trial 2: first epoch, running for 0:11:00",
    ]
    # Its process may have been killed, which nobody could record.
    assert lines_of(state, now[0] + 720)[2].startswith("no line for 0:12:00: its trainings are waiting, or")
    progress.close(complete=False)
    assert read_json(tmp_path / "progress.json")["state"] == "stopped"


def test_search_that_has_not_started_a_trial_has_neither_state_nor_report(
    write_config: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_config(write_config())
    space, _ = load_space(Path("tune_spaces/loss_weights.yaml"), config)
    search = SearchConfig(objectives=["mae"], rivals=[FamoWeightingConfig()])
    folder = StudyFolder(tmp_path / "hunt")
    name = folder.claim(config, space, search, TrainedOn((), None))
    assert folder.read() == (name, config, dataclasses.replace(space, first=()), search)
    for command, said in (("watch", "no training has started yet"), ("report", "has not started a trial yet")):
        assert main([command, str(folder.root)]) == 2
        assert said in capsys.readouterr().err


def test_dry_run_prints_the_plan_and_writes_nothing(
    write_config: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["tune", "--config", str(write_config()), "--space", "loss_weights", "--num-trials", "40", "--dry-run"]
    assert main(command) == 0
    assert capsys.readouterr().out.startswith("about 67 trainings: 3 for the noise between seeds, 40 trials, up to 9")
    assert main([*command, "--json"]) == 0
    assert '"total": 67' in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()
