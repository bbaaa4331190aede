"""`--section.field VALUE` is equivalent to `--section.field=VALUE`, whatever the value starts with."""

import pytest

from vadv_dist.config import load_config
from vadv_dist.config.load import take_overrides
from vadv_dist.errors import UserError
from vadv_dist.tuning.space_file import load_search, split_overrides


@pytest.mark.parametrize("value", ["3", "-1", "-1e-3", "-inf", "-hello", "[-1, 2]", "[{uri: x}]", "null", "", "a=b"])
def test_argument_after_a_field_is_its_value(value: str) -> None:
    given = ["--config", "c.yaml", "--optimizer.lr", value, "--json"]
    assert take_overrides(given) == ([f"--optimizer.lr={value}"], ["--config", "c.yaml", "--json"])
    assert take_overrides([f"--optimizer.lr={value}"]) == ([f"--optimizer.lr={value}"], [])


@pytest.mark.parametrize("given", [["--optimizer.lr"], ["--optimizer.lr", "--json"], ["--a.b", "--optimizer.lr", "1"]])
def test_field_without_a_value_is_rejected(given: list[str]) -> None:
    with pytest.raises(UserError, match=r"has no value. Write --\w+\.\w+=VALUE or --\w+\.\w+ VALUE\.$"):
        take_overrides(given)


def test_both_forms_give_the_same_configuration() -> None:
    spaced = ["--optimizer.clip_norm", "null", "--trainer.epochs", "7", "--data.sources", "[{uri: a}, {uri: b}]"]
    joined = ["--optimizer.clip_norm=null", "--trainer.epochs=7", "--data.sources=[{uri: a}, {uri: b}]"]
    assert load_config(None, spaced) == load_config(None, joined)
    with pytest.raises(UserError, match=r"objective\.alpha is -1, expected a number of at least 0"):
        load_config(None, ["--objective.alpha", "-1"])


def test_both_forms_override_search_settings() -> None:
    of_search, of_run = split_overrides(
        ["--search.sampler", "random", "--trainer.epochs", "2", "--search.storage=null"]
    )
    assert of_run == ["--trainer.epochs=2"]
    assert load_search({}, of_search, "space.yaml").sampler == "random"
