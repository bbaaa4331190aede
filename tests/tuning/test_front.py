"""Searches for several objectives: the front, checked by hand and by brute force, also after interruptions."""

import dataclasses
import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from run_lines import run_result

from vadv_dist.cli import main
from vadv_dist.config import Config, load_config
from vadv_dist.config.search import SearchConfig
from vadv_dist.data.schema import Clip, LabelSpec
from vadv_dist.data.shards import DatasetWriter
from vadv_dist.data.sources import Sources
from vadv_dist.errors import UserError
from vadv_dist.runs.records import RunResult
from vadv_dist.storage import read_json
from vadv_dist.tasks import Task, build
from vadv_dist.tuning.front import front_table, front_trials
from vadv_dist.tuning.objectives import BY_KEY, with_objectives
from vadv_dist.tuning.search import tune
from vadv_dist.tuning.space import Space
from vadv_dist.tuning.space_file import load_search, load_space
from vadv_dist.tuning.study import Study, costs_by_epoch

SPACE = """
search: {num_trials: 4, top: 1, leave_one_out: false, objectives: [mae, corr, student_parameters]}
space:
  objective.psi: {distribution: float, low: 0.01, high: 100.0, log: true}
  student.hidden: {distribution: int, low: 16, high: 64, log: true}
"""
KEYS = ["mae", "corr"]


@pytest.fixture
def space_path(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SPACE)
    return path


@pytest.fixture
def space(tmp_path: Path) -> Space:
    (tmp_path / "space.yaml").write_text("space: {objective.psi: {distribution: float, low: 0.1, high: 10}}")
    return load_space(tmp_path / "space.yaml", Config())[0]


def result(mae: float, corr: float | None) -> RunResult:
    return run_result({"mae": mae, "corr": corr})


def test_front_holds_the_trials_that_no_other_trial_dominates(tmp_path: Path, space: Space) -> None:
    found = [(0.9, 0.5), (0.8, 0.4), (0.85, 0.45), (0.95, 0.45), (0.7, 0.1), (0.8, 0.39), (0.6, None)]
    search = SearchConfig(num_trials=len(found), objectives=KEYS, sampler="random")
    study = Study.open(f"{tmp_path}/s.log", "s", space, Config(), search)
    for mae, corr in found:
        asked = study.ask()
        assert asked is not None
        study.complete(asked, result(mae, corr))
    # By hand: 3 loses to 0 and 2, 5 to 1. An undefined correlation counts as −1, but 6 has the lowest MAE.
    assert [trial.number for trial in front_trials(study)] == [6, 4, 1, 2, 0]
    assert study.trials()[6].values == [0.6, -1.0]


def test_front_contains_a_configuration_once(tmp_path: Path, space: Space) -> None:
    search = SearchConfig(num_trials=3, objectives=KEYS)
    again = dataclasses.replace(space, first=({"objective.psi": 1.0}, {"objective.psi": 2.0}))
    study = Study.open(f"{tmp_path}/s.log", "s", again, Config(), search)
    for mae, corr in [(0.9, 0.5), (0.9, 0.5), (0.8, 0.4)]:
        asked = study.ask()
        assert asked is not None
        study.complete(asked, result(mae, corr))
    # The second has the default's values; the third has its own.
    assert [trial.number for trial in front_trials(study)] == [2, 0]


def test_table_is_ascii_and_shows_fields_that_differ() -> None:
    row = {"values": {"objective.beta": 10.0, "student.hidden": 64}, "trial": 3}
    rows = [
        {**row, "objectives": {"mae": 0.5, "corr": -0.25, "student_parameters": 12345}},
        {**row, "values": {"objective.beta": 10.0}, "objectives": {"mae": 0.75, "corr": 0.5, "student_parameters": 99}},
    ]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(front_table({"front": rows, "trials": {"all": 7}}))
    text = console.export_text()
    assert "Pareto front: 2 of 7 trials" in text
    assert "0.5000" in text
    assert "-0.250" in text
    assert "12,345" in text
    assert "beta" not in text
    assert text.replace("─", "-").isascii()


def test_objectives_are_read_from_the_result() -> None:
    ended = run_result({"mae": 0.5, "corr": 0.2}, parameters={"teacher": 7, "student": 40}, wall_time_s=2.5)
    values = [BY_KEY[key].read(ended) for key in ("student_parameters", "wall_time_s", "corr")]
    assert values == [40.0, 2.5, 0.2]


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_study_resumed_at_every_trial_suggests_the_same_values(tmp_path: Path, space: Space, sampler: str) -> None:
    search = SearchConfig(num_trials=13, objectives=KEYS, sampler=sampler, generation=4, seed=3)  # type: ignore[arg-type]

    def resume(name: str) -> Study:
        return Study.open(f"{tmp_path}/{name}.log", name, space, Config(), search)

    def trained(values: dict) -> RunResult:
        psi = values["objective.psi"]
        return result((psi - 3) ** 2, -((psi - 5) ** 2) / 100)

    whole = resume("whole")
    while (asked := whole.ask()) is not None:
        ended = trained(asked.values)
        # No trial is stopped, however bad its score.
        assert whole.report(asked, 0, ended.score)
        whole.complete(asked, ended)
    for _ in range(13):
        begun = resume("broken").ask()
        assert begun is not None
        (asked,) = resume("broken").unfinished()
        assert asked.values == begun.values
        ended = trained(asked.values)
        resume("broken").report(asked, 0, ended.score)
        study = resume("broken")
        (asked,) = study.unfinished()
        assert asked.reported == {0: ended.score}
        study.complete(asked, ended)
    assert [trial.params for trial in resume("broken").trials()] == [trial.params for trial in whole.trials()]
    assert costs_by_epoch(whole.trials()[3]) == {1: whole.trials()[3].values[0]}


def test_repeated_objectives_are_rejected() -> None:
    with pytest.raises(UserError, match="expected unique entries"):
        load_search({"objectives": ["mae", "mae"]}, [], "space.yaml")
    assert load_search({}, ["--search.objectives=[mae,corr]"], "f").objectives == KEYS


def test_task_and_labels_define_the_objectives(write_config: Callable[..., Path], tmp_path: Path) -> None:
    def made(name: str, label: LabelSpec, labels: list[float]) -> tuple[Task, Sources]:
        with DatasetWriter(tmp_path / name, features={}, label=label, provenance={}) as writer:
            for split in ("train", "valid"):
                for i, value in enumerate(labels):
                    writer.write(split, Clip(f"{split}{i}", split, "word", value, "s", {}))
        config = load_config(write_config(name, uri=tmp_path / name, extra="objective: {kind: none}"), [])
        sources = Sources.open(config)
        return build(config, sources, weights=False), sources

    def objectives(of: tuple[Task, Sources], *keys: str) -> list[str]:
        return with_objectives(SearchConfig(objectives=[*keys]), *of).objectives

    stars = made("stars", LabelSpec(1.0, 5.0), [1.0, 4.0])
    assert objectives(stars) == ["mae"]
    assert objectives(stars, "mae", "a2_has0", "wall_time_s") == ["mae", "a2_has0", "wall_time_s"]
    with pytest.raises(UserError, match="begins with corr, expected mae, which chooses"):
        objectives(stars, "corr")
    with pytest.raises(UserError, match=r"has speed, .*there is no such objective.*student_parameters"):
        objectives(stars, "mae", "speed")
    message = (
        r"search.objectives has a7, which does not exist for .*stars: defined for labels in \[-3, 3\].* Choose from "
    )
    with pytest.raises(UserError, match=message + "mae, corr, a2_has0, a2_non0, f1_has0, f1_non0, student_parameters"):
        objectives(stars, "mae", "a7")
    # 0/1 on the default range: nothing lies below the threshold.
    with pytest.raises(UserError, match=r"has f1_has0, .*one side of the threshold 0\. Choose from mae, corr, a7, stu"):
        objectives(made("binary", LabelSpec(), [0.0, 1.0]), "mae", "f1_has0")
    with pytest.raises(UserError, match=r"has a2_neg0, .*there is no such objective"):
        objectives(made("mosi", LabelSpec(), [-1.0, 1.0]), "mae", "a2_neg0")


def test_missing_metric_counts_as_the_worst_value() -> None:
    assert [BY_KEY[key].read(run_result({"mae": 1.0})) for key in ("corr", "a2_has0")] == [-1.0, 0.0]


@pytest.mark.slow
def test_search_for_several_objectives_returns_the_front_of_its_trials(
    write_config: Callable[..., Path], made: Path, space_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blind = tmp_path / "blind"
    shutil.copytree(made, blind)
    shutil.rmtree(blind / "test")
    config = write_config("hunt", uri=blind)
    command = ["tune", "--config", str(config), "--space", str(space_path), "--no-ray"]
    assert main([*command, "--trainer.epochs=3"]) == 0
    printed = capsys.readouterr()
    assert "every trial runs to its end, because Optuna prunes only studies with a single objective" in " ".join(
        printed.err.split()
    )
    root = tmp_path / "runs" / "hunt-small"
    answer = read_json(root / "tune.json")
    assert f"Pareto front: {len(answer['front'])} of 4 trials" in printed.out
    # The same by brute force over the results of the runs.
    points = {}
    for number in range(4):
        document = read_json(root / "trials" / str(number) / "result.json")
        assert document["epochs"] == 3
        mae, corr = document["validation"]["mae"], document["validation"]["corr"]
        points[number] = (mae, -1.0 if corr is None else corr, document["parameters"]["student"])
    front = []
    for number, (mae, corr, size) in points.items():
        others = [p for other, p in points.items() if other != number]
        if not any(a <= mae and b >= corr and c <= size and (a, b, c) != (mae, corr, size) for a, b, c in others):
            front.append((mae, number))
    assert [row["trial"] for row in answer["front"]] == [number for _, number in sorted(front)]
    first = answer["front"][0]
    assert tuple(first["objectives"].values()) == points[first["trial"]]
    assert Path(first["config"]).is_file()
    page = (root / "tune-report.html").read_text()
    assert 'id="front"' in page
    assert page.count("of them on the front.") == 2
    # A search with other objectives is another search.
    with pytest.raises(UserError, match=r"settings.objectives: \['mae', 'corr', 'student_parameters'\] there"):
        tune(
            config,
            space_path,
            ["--trainer.epochs=3", "--search.objectives=[mae]"],
            Console(quiet=True, stderr=True),
            use_ray=False,
        )
