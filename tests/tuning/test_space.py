"""Search spaces: the content of a file, and the message for each mistake."""

import math
import random
from pathlib import Path

import optuna
import pytest

from vadv_dist.config import Config, StepObjectiveConfig, load_config
from vadv_dist.errors import UserError
from vadv_dist.tuning.space import Entry, Space, with_values
from vadv_dist.tuning.space_file import find_space, load_space

SPACES = Path(__file__).parents[2] / "tune_spaces"
RECIPES = Path(__file__).parents[2] / "jobs" / "configs"


def space_of(tmp_path: Path, text: str, base: Config | None = None) -> Space:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    return load_space(path, base or Config())[0]


@pytest.mark.parametrize("space", ["loss_weights", "student", "joint"])
@pytest.mark.parametrize("recipe", ["demo", "mosi", "mosi-zero2", "mosei", "mosi-minilm"])
def test_shipped_spaces_fit_shipped_recipes(space: str, recipe: str) -> None:
    base = load_config(RECIPES / f"{recipe}.yaml")
    if base.objective.kind == "none" and space != "student":
        with pytest.raises(UserError, match="so weights change nothing"):
            load_space(SPACES / f"{space}.yaml", base)
        return
    found, _ = load_space(SPACES / f"{space}.yaml", base)
    default = with_values(base, found.default(base)).objective
    if space == "student":
        assert default == base.objective
    else:
        assert (default.alpha, default.beta, default.gamma, default.delta, default.psi) == (1, 10, 1, 10, 1)


@pytest.mark.parametrize("recipe", ["vegas", "ave", "demo-retrieval"])
def test_the_retrieval_space_fits_the_retrieval_recipes(recipe: str) -> None:
    base = load_config(RECIPES / f"{recipe}.yaml")
    found, _ = load_space(SPACES / "vegas.yaml", base)
    default = with_values(base, found.default(base))
    assert default.objective.beta == 10
    assert default.student.kind == "eics"
    assert default.optimizer == base.optimizer


def test_default_has_the_papers_ratio_if_another_beta_is_fixed(tmp_path: Path) -> None:
    space = space_of(
        tmp_path,
        "space: {objective.beta: {fixed: 1.0}, objective.delta: {distribution: float, low: 0.01, high: 9, log: true}}",
    )
    # Only β and δ are in the space; δ has the paper's ratio to β.
    assert space.default(Config()) == {"objective.beta": 1.0, "objective.delta": 1.0}


def test_shipped_space_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_space("joint").name == "joint.yaml"
    assert find_space("tune_spaces/joint.yaml").name == "joint.yaml"
    with pytest.raises(UserError, match=r"jiont does not exist.*mean 'joint'"):
        find_space("jiont")


def test_folder_with_the_name_of_a_shipped_space_does_not_hide_it(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "student").mkdir()  # as in a run
    monkeypatch.chdir(tmp_path)
    assert find_space("student").name == "student.yaml"


def test_zero_has_its_share_of_a_log_axis() -> None:
    entry = Entry("objective.alpha", "float", low=0.01, high=100.0, log=True, zero=0.2)
    # By hand: 4 decades are 80 % of the axis, so one more decade below them stands for zero.
    assert entry.floor == pytest.approx(0.001)
    assert entry.value(0.0099) == 0.0
    assert entry.value(0.01) == 0.01
    assert entry.value(entry.parameter(0.0)) == 0.0
    random.seed(0)
    draws = [entry.value(math.exp(random.uniform(math.log(entry.floor), math.log(100)))) for _ in range(20_000)]
    assert sum(value == 0 for value in draws) / len(draws) == pytest.approx(0.2, abs=0.01)


def test_first_trial_is_the_default_with_any_sampler(tmp_path: Path) -> None:
    space, _ = load_space(SPACES / "joint.yaml", Config())
    study = optuna.create_study()
    study.enqueue_trial(space.parameters(space.default(Config()), Config()))
    values = space.suggest(study.ask(), Config())
    assert values == pytest.approx(space.default(Config()))
    assert values["objective.psi"] == StepObjectiveConfig().psi


def test_field_is_searched_if_its_condition_holds(tmp_path: Path) -> None:
    space = space_of(
        tmp_path,
        """
space:
  objective.step2: {distribution: categorical, choices: [true, false]}
  objective.psi: {distribution: float, low: 0.1, high: 10, log: true, condition: {objective.step2: true}}
""",
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = [space.suggest(study.ask(), Config()) for _ in range(20)]
    assert {values["objective.step2"] for values in seen} == {True, False}
    assert all(("objective.psi" in values) == values["objective.step2"] for values in seen)


def test_first_values_of_the_file_are_read(tmp_path: Path) -> None:
    space = space_of(
        tmp_path,
        "space: {objective.psi: {distribution: float, low: 0.1, high: 10}}\nfirst: [{objective.psi: 3.0}]",
    )
    assert space.first == ({"objective.psi": 3.0},)


FLOAT = "{distribution: float, low: 0.1, high: 10}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"space: {{objective.alhpa: {FLOAT}}}", r"objective.alhpa: the config has no such field.*'objective.alpha'"),
        (f"space: {{run.seed: {FLOAT}}}", "run cannot be searched"),
        (f"space: {{trainer.epochs: {FLOAT}}}", "trainer cannot be searched"),
        ("space: {objective.alpha: {distribution: flaot, low: 0, high: 1}}", "expected one of .* mean 'float'"),
        ("space: {objective.alpha: {distribution: float, low: 0, hihg: 1}}", "unknown key 'hihg'.*mean 'high'"),
        (
            "space: {objective.alpha: {distribution: float, low: -1, high: 1}}",
            r"reaches -1.0.*refuses.*number of at least 0",
        ),
        (
            "space: {objective.alpha: {distribution: float, low: 0, high: 9, log: true}}",
            "low is 0, expected a positive number on a log axis.*zero: 0.1",
        ),
        ("space: {objective.alpha: {distribution: float, low: 2, high: 1}}", "2 is not below high 1"),
        ("space: {objective.alpha: {distribution: float, low: 2, high: 9}}", r"paper's weight 1.0 is always tried"),
        ("space: {optimizer.lr: {distribution: float, low: 1e-6, high: 1}}", r"low is '1e-6'.*1.0e-6"),
        ("space: {optimizer.lr: {distribution: float, low: 0.1, high: 1}}", "config's value 8e-06.*outside"),
        ("space: {student.hidden: {distribution: float, low: 1.5, high: 300}}", "student.hidden.*refuses"),
        ("space: {student.pooling: {distribution: categorical, choices: [cls, max]}}", "reaches 'max'"),
        ("space: {objective.beta: {fixed: 10.0}}", "nothing to search"),
        ("space: {objective.beta: {fixed: 10.0, low: 1}}", "unknown key 'low' with `fixed`"),
        (
            "space: {student.hidden: {distribution: int, low: 1, high: 300, zero: 0.1}}",
            "unknown key 'zero' with `distribution: int`",
        ),
        (
            f"space: {{objective.psi: {FLOAT[:-1]}, condition: {{objective.step2: true}}}}, objective.step2: "
            "{distribution: categorical, choices: [true, false]}}",
            "objective.step2, which must be listed above it",
        ),
        ("space: {}", "names no fields"),
        ("spaces: {}", "unknown section 'spaces'.*mean 'space'"),
        (f"space: {{objective.psi: {FLOAT}}}\nfirst: [{{objective.psi: 99}}]", "99 lies outside the space"),
        (
            "space: {objective.psi: {distribution: float, low: 0, high: 9, condition: {objective.setp2: true}}}",
            "unknown field objective.setp2.*'objective.step2'",
        ),
    ],
)
def test_mistakes_are_reported_with_the_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        space_of(tmp_path, text)
    assert "space.yaml" in str(refused.value)
