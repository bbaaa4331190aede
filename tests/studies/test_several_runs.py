"""`vadv train --seeds`, `vadv compare` and `vadv runs`."""

import json
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vadv_dist.cli import main
from vadv_dist.config import load_config
from vadv_dist.evaluation.paired import paired_bootstrap
from vadv_dist.reporting.compare import compare_many
from vadv_dist.reporting.run_files import read_run
from vadv_dist.runs.folder import FAILURE
from vadv_dist.storage import location, read_json, write_json
from vadv_dist.studies.plan import plan_seeds
from vadv_dist.studies.record import numbered_for_seeds, write_record
from vadv_dist.watching.runs import list_runs

pytestmark = pytest.mark.slow


@pytest.fixture
def runs(finished) -> Path:
    """The runs of the finished study; do not change them."""
    return Path(str(finished[1].root)) / "runs"


def test_seeds_of_one_run_are_the_smallest_study(
    write_config: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config()
    command = ["train", "--config", str(config), "--trainer.epochs=1", "--seeds", "3,4", "--json"]
    assert main(command) == 0
    document = json.loads(capsys.readouterr().out)
    folders = [Path(run["folder"]) for run in document["variants"][0]["runs"]]
    assert folders == [tmp_path / "runs" / "run" / "runs" / f"run-seed-{seed}" for seed in (3, 4)]
    scores = [read_json(folder / "result.json")["validation"]["mae"] for folder in folders]
    cell = document["variants"][0]["cells"]["valid"]["mae"]
    assert cell["mean"] == pytest.approx(statistics.fmean(scores), abs=1e-5)
    assert cell["sd"] == pytest.approx(statistics.stdev(scores), abs=1e-5)
    assert not list(tmp_path.rglob("*test.parquet"))  # only evaluate may open the test split
    assert main([*command[:-1]]) == 0
    shown = capsys.readouterr()
    assert "2 complete, 0 to train" in shown.err
    assert f"{cell['mean']:.3f} +- {cell['sd']:.3f}" in shown.out
    assert shown.out.replace("─", "").isascii()


@pytest.mark.parametrize(
    ("seeds", "said"),
    [("1,x", "expected integers separated by commas"), ("1,1", "different integers"), ("", "integers separated")],
)
def test_impossible_seeds_are_refused(
    write_config: Callable[..., Path], capsys: pytest.CaptureFixture[str], seeds: str, said: str
) -> None:
    assert main(["train", "--config", str(write_config()), "--seeds", seeds]) == 2
    assert said in capsys.readouterr().err


def test_seeds_do_not_go_into_the_folder_of_a_run(
    runs: Path, write_config: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs / "alone-seed-1", tmp_path / "runs" / "run")
    assert main(["train", "--config", str(write_config()), "--seeds", "1,2"]) == 2
    assert "is a run, not a study" in capsys.readouterr().err


def test_seeds_without_a_name_go_into_a_numbered_folder(write_config: Callable[..., Path], tmp_path: Path) -> None:
    config = load_config(write_config())
    assert numbered_for_seeds(config) == config
    (tmp_path / "runs" / "run").mkdir(parents=True)
    (tmp_path / "runs" / "run" / "config.yaml").touch()
    second = numbered_for_seeds(config)
    assert second.run.name == "run-2"
    write_record(plan_seeds(second, (1, 2)), best_per_metric=False)
    assert numbered_for_seeds(config) == second, "the same study, also with more seeds"
    other = load_config(write_config(), ["--optimizer.lr=0.5"])
    assert numbered_for_seeds(other).run.name == "run-3"


def test_compared_runs_have_paired_differences_and_their_configuration(
    runs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    names = ["alone-seed-1", "both-steps-seed-1", "alone-seed-2"]
    html = tmp_path / "page" / "runs.html"
    assert main(["compare", *(str(runs / name) for name in names), "--json", "--html", str(html)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["config"]["run.seed"] == [1, 1, 2]
    assert document["config"]["objective.kind"] == ["none", "step", "none"]
    assert "run.name" not in document["config"]
    assert "data.sources" not in document["config"]
    first, second = (read_run(runs / name).evaluation for name in names[:2])
    exact = paired_bootstrap(second.clip_scores, first.clip_scores, seed=0)
    found = document["runs"][1]["differences"]["mae"]
    assert found["mean"] == pytest.approx(exact.mean, abs=1e-6)
    assert found["high"] - found["low"] == pytest.approx(exact.high - exact.low, rel=0.15)
    assert [len(run["curve"]) for run in document["runs"]] == [2, 2, 2]
    assert "Learning curves" in html.read_text()
    assert main(["compare", *(str(runs / name) for name in names)]) == 0
    assert "MAE, test split" in capsys.readouterr().out


def test_retrieval_is_compared_by_clips_too(
    write_retrieval_config: Callable[..., Path], runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = [str(tmp_path / "runs" / name) for name in ("a", "b")]
    for name, student in (("a", "random"), ("b", "{kind: eics, hidden: 16}")):
        config = write_retrieval_config(name, student=student, objective="none")
        assert main(["train", "--config", str(config), "--trainer.epochs=1"]) == 0
        assert main(["evaluate", str(tmp_path / "runs" / name), "--split", "valid"]) == 0
    found = compare_many(places)
    assert found.split == "valid"
    difference = found.runs[1].differences["map"]
    assert difference.low < difference.mean < difference.high
    [value, other] = [run.value(found.task.metric("map")) for run in found.runs]
    assert difference.mean == pytest.approx(other - value)
    whole = found.runs[1].clips.of(np.arange(len(found.runs[1].clips.names)))
    assert whole["map"] == pytest.approx(other)
    capsys.readouterr()
    assert main(["compare", places[0], str(runs / "alone-seed-1")]) == 2
    assert "Compare runs of the same task" in capsys.readouterr().err


def test_runs_that_cannot_be_compared_are_refused(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = str(runs / "alone-seed-1")
    unevaluated = tmp_path / "unevaluated"
    shutil.copytree(one, unevaluated)
    (unevaluated / "evaluation-test.json").unlink()
    for given, said in (
        ([one], "at least two runs"),
        ([one, one], "the same run twice"),
        ([one, str(tmp_path)], "has no config.yaml"),
        ([one, str(unevaluated)], "vadv evaluate"),
    ):
        assert main(["compare", *given]) == 2
        assert said in capsys.readouterr().err


def test_runs_are_listed_with_state_score_data_and_age(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = runs.parent.parent
    found = {run["name"]: run for run in list_runs(str(storage))}
    assert len(found) == 6
    complete, failed = found["parts/runs/alone-seed-1"], found["parts/runs/far-too_fast-seed-2"]
    result = read_json(runs / "alone-seed-1" / "result.json")
    assert complete["state"] == "complete"
    assert complete["best"] == pytest.approx(result["validation"]["mae"])
    assert complete["data"] == ["data"]
    assert complete["age_s"] > 0
    assert failed["state"] == "failed"
    assert "NaN" in failed["why"]
    assert {run["name"] for run in list_runs(str(runs.parent))} == {name.removeprefix("parts/") for name in found}
    assert main(["runs", str(storage)]) == 0
    shown = capsys.readouterr().out
    assert f"MAE {complete['best']:.3f}" in shown
    assert main(["runs", str(storage), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 6


def test_unfinished_and_damaged_runs_are_listed(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("running", "damaged"):
        shutil.copytree(runs / "alone-seed-1", tmp_path / name)
        (tmp_path / name / "result.json").unlink()
    (tmp_path / "damaged" / "trained-on.json").write_text('{"data": 3}')
    (tmp_path / "refused").mkdir()
    (tmp_path / "refused" / "config.yaml").write_text("run: {}")
    write_json(tmp_path / "refused" / FAILURE, {"kind": "refused", "message": "no such encoder"})
    states = {run["name"]: run["state"] for run in list_runs(str(tmp_path))}
    assert states["running"] in ("running", "stopped")  # by the age of its last line
    assert states["damaged"] == "unreadable"
    assert states["refused"] == "failed"
    assert main(["runs", str(tmp_path / "running" / "student")]) == 2
    assert "contains no runs" in capsys.readouterr().err
    assert main(["runs", str(tmp_path / "none")]) == 2
    assert "none does not exist. Give the folder" in capsys.readouterr().err


def test_runs_in_an_object_store_are_listed_and_compared(runs: Path, s3: str) -> None:
    places = [location(f"{s3}/listed/{name}") for name in ("alone-seed-1", "both-steps-seed-1")]
    for place in places:
        for file in (runs / place.name).iterdir():
            if file.is_file():
                (place / file.name).write_bytes(file.read_bytes())
    assert [run["state"] for run in list_runs(f"{s3}/listed")] == ["complete", "complete"]
    found = compare_many([str(place) for place in places])
    assert (
        found.runs[1].differences["mae"]
        == compare_many([str(runs / p.name) for p in places]).runs[1].differences["mae"]
    )
