"""Weightings without search, as rivals of a search."""

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path

import optuna
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from run_lines import line

from vadv_dist.config import load_config
from vadv_dist.config.search import SearchConfig
from vadv_dist.errors import UserError
from vadv_dist.runs.folder import RunFolder
from vadv_dist.storage import read_json
from vadv_dist.tuning.rivals import end_weights, require_rivals, seed_trial
from vadv_dist.tuning.search import tune
from vadv_dist.tuning.space import Space
from vadv_dist.tuning.space_file import load_search, load_space
from vadv_dist.tuning.study import Study

SPACE = """
search: {num_trials: 2, top: 1, leave_one_out: false, rivals: [equal, uncertainty]}
space:
  objective.beta: {fixed: 10.0}
  objective.alpha: {distribution: float, low: 0.01, high: 100.0, log: true, zero: 0.1}
  objective.psi: {distribution: float, low: 0.1, high: 20.0, log: true}
"""


@pytest.fixture
def space_path(tmp_path: Path) -> Path:
    path = tmp_path / "weights.yaml"
    path.write_text(SPACE)
    return path


def write_run(root: Path, *epochs: dict[str, float]) -> RunFolder:
    root.mkdir()
    folder = RunFolder(root)
    folder.metrics_log().append(line({"kind": "start"}))
    for weights in epochs:
        folder.metrics_log().append(line({"kind": "epoch", "weights": weights}))
    return folder


def test_end_weights_are_those_of_the_last_epoch_relative_to_beta(tmp_path: Path) -> None:
    runs = {
        ("rival a", 1): write_run(
            tmp_path / "a1", {"text_regression": 9.0}, {"text_regression": 0.5, "video_to_text": 1}
        ),
        ("rival a", 2): write_run(tmp_path / "a2", {"text_regression": 0.25, "video_to_text": 1, "prompt_to_video": 2}),
        ("rival b", 1): write_run(tmp_path / "b1", {"text_regression": 1.0}),
        ("rival c", 1): write_run(tmp_path / "c1"),
    }
    maes = {"rival a": {1: 0.9, 2: 0.7}, "rival b": {1: 0.7}, "rival c": {1: 0.1}, "failed": {}}
    ended = end_weights(maes, lambda name, seed: runs[name, seed])
    assert list(ended) == ["rival c", "rival b", "rival a"]  # by mean MAE
    assert ended["rival a"] == {"alpha": 0.0, "beta": 1.0, "gamma": 0.0, "delta": 4.0, "psi": 3.0}
    assert ended["rival c"] == {}


def test_end_weights_are_without_the_factor_of_the_guard(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    for psi, factor in ((3.0, 0.0), (1.0, 0.25), (0.0, 0.0)):
        values = {"text_regression": 2.0, "prompt_to_video": 6.0, "video_to_text": psi}
        folder.metrics_log().append(line({"kind": "epoch", "weights": values, "distillation": factor}))
    ended = end_weights({"rival": {1: 0.5}}, lambda name, seed: folder)
    assert ended["rival"] == {"alpha": 0.0, "beta": 1.0, "gamma": 0.0, "delta": 3.0, "psi": 2.0}


def test_one_trial_starts_from_the_weights_of_the_best_rival(
    write_config: Callable[..., Path], space_path: Path
) -> None:
    config = load_config(write_config())
    space, _ = load_space(space_path, config)
    search = SearchConfig(num_trials=3, storage="unused")
    study = Study.open(f"{space_path}.log", "s", space, config, search)
    ended = {
        "rival a": {},
        "rival b": {"alpha": 0.0, "beta": 1.0, "gamma": 5.0, "delta": 5.0, "psi": 4.0},
        "rival c": {"alpha": 1.0, "beta": 1.0, "gamma": 1.0, "delta": 1.0, "psi": 1.0},
    }
    for _ in range(2):  # a resumed search does not queue it again
        seed_trial(study, space, config, ended)
    asked = [study.ask() for _ in range(2)]
    assert asked[0].values == {"objective.beta": 10.0, "objective.alpha": 1.0, "objective.psi": 1.0}
    # β is 10, so ψ would be 40, which is above the space; α of 0 has its segment of the axis.
    assert asked[1].values == {"objective.beta": 10.0, "objective.alpha": 0.0, "objective.psi": pytest.approx(20.0)}
    marks = [trial.user_attrs.get("from_rival") for trial in study.optuna.get_trials()]
    assert marks == [None, "rival b"]


@pytest.mark.parametrize(
    ("rivals", "space", "overrides", "message"),
    [
        (["equal"], SPACE, ["--objective.weighting=equal"], "search.rivals names equal, which is the config's own"),
        ([], SPACE, ["--objective.weighting=dwa"], "objective.alpha is searched, but objective.weighting may be dwa"),
        (
            [],
            SPACE + "  objective.weighting: {distribution: categorical, choices: [fixed, famo]}",
            [],
            "objective.alpha is searched, but objective.weighting may be famo",
        ),
        (["equal"], "space: {optimizer.lr: {distribution: float, low: 0.0001, high: 0.1}}", ["--objective.kind=none"],
         "but it is 'none'"),
    ],
)  # fmt: skip
def test_contradictory_settings_are_rejected(
    write_config: Callable[..., Path], space_path: Path, rivals, space: str, overrides: list[str], message: str
) -> None:
    space_path.write_text(space)
    config = load_config(write_config(), overrides)
    with pytest.raises(UserError, match=message):
        require_rivals(config, load_space(space_path, config)[0], load_search({"rivals": rivals}, [], "f"))


def test_weights_can_be_searched_if_the_weighting_is_fixed(write_config: Callable[..., Path], space_path: Path) -> None:
    space_path.write_text(
        """
space:
  objective.weighting: {distribution: categorical, choices: [fixed, famo]}
  objective.alpha: {distribution: float, low: 0.1, high: 9.0, condition: {objective.weighting: fixed}}
"""
    )
    config = load_config(write_config())
    space: Space = load_space(space_path, config)[0]
    require_rivals(config, space, SearchConfig())
    assert [entry.field for entry in space.searched] == ["objective.weighting", "objective.alpha"]
    # With another condition, the weight would be ignored.
    weighting, alpha = space.entries
    ignored = dataclasses.replace(alpha, condition={"objective.weighting": ("famo",)})
    with pytest.raises(UserError, match=r"objective\.alpha is searched, but objective\.weighting may be famo"):
        require_rivals(config, Space((weighting, ignored)), SearchConfig())


@pytest.mark.slow
def test_search_trains_its_rivals_and_reports_them(
    write_config: Callable[..., Path], space_path: Path, tmp_path: Path
) -> None:
    answer = tune(write_config(), space_path, ["--data.batch_size=40"], Console(quiet=True, stderr=True), use_ray=False)
    root = tmp_path / "runs" / "run-weights"
    assert answer == read_json(root / "tune.json")
    rivals = {c["name"]: c for c in answer["candidates"] if c["name"].startswith("rival ")}
    assert set(rivals) == {"rival equal", "rival uncertainty"}
    assert all(set(rival["mae"]) == set(answer["noise"]["mae"]) for rival in rivals.values())
    for name, rival in rivals.items():
        method = name.removeprefix("rival ")
        for seed, mae in rival["mae"].items():
            run = root / "repeats" / f"rival-{method}-seed-{seed}"
            assert load_config(run / "config.yaml").objective.weighting.kind == method
            assert read_json(run / "result.json")["validation"]["mae"] == mae
    assert not any(rival["collapsed"] for rival in answer["rivals"].values())
    assert answer["rivals"]["rival equal"]["end_weights"] == dict.fromkeys(
        ("alpha", "beta", "gamma", "delta", "psi"), 1.0
    )
    best = answer["rivals"][min(rivals, key=lambda name: rivals[name]["mean"])]["end_weights"]
    storage = f"sqlite:///{root}/study.db"
    trials = optuna.load_study(study_name=answer["study"], storage=storage).get_trials()
    assert trials[1].user_attrs["values"]["objective.psi"] == pytest.approx(10 * best["psi"])
    seed = min(answer["noise"]["mae"])
    clips = pq.read_table(root / "repeats" / f"rival-equal-seed-{seed}" / "validation-errors.parquet").num_rows
    assert {c["clips"] for c in answer["candidates"]} == {clips}
    page = (root / "tune-report.html").read_text()
    assert "intervals cover the sampling of seeds and of validation clips" in page
    assert "<h2>Rivals without search</h2>" in page
    assert f"{rivals['rival equal']['mean']:.4f}" in page


@pytest.mark.slow
def test_rival_with_collapsed_weights_is_reported_and_seeds_no_trial(
    write_config: Callable[..., Path], space_path: Path, tmp_path: Path
) -> None:
    # At this temperature, uw_so gives all the weight to the smallest loss, a distance between two logits.
    space_path.write_text(SPACE.replace("[equal, uncertainty]", "[uw_so]"))
    options = ["--data.batch_size=40", "--search.rivals=[{kind: uw_so, temperature: 0.1}]"]
    printed = io.StringIO()
    answer = tune(write_config(), space_path, options, Console(file=printed, width=200), use_ray=False)
    assert answer["rivals"]["rival uw_so"]["collapsed"]
    assert "its weights collapsed" in printed.getvalue()
    root = tmp_path / "runs" / "run-weights"
    assert "uw_so (collapsed)" in (root / "tune-report.html").read_text()
    trials = optuna.load_study(study_name=answer["study"], storage=f"sqlite:///{root}/study.db").get_trials()
    assert not any("from_rival" in trial.user_attrs for trial in trials)
