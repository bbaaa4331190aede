"""A value of the wrong type is reported with its location, its field and what was expected."""

from pathlib import Path

import pytest

from vadv_dist.config import load_config
from vadv_dist.errors import UserError
from vadv_dist.tuning.space_file import load_search


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--trainer.epochs=abc", "trainer.epochs is 'abc', expected an integer of at least 1."),
        ("--trainer.patience=x", "trainer.patience is 'x', expected an integer of at least 1 or null."),
        ("--optimizer.lr=[1]", "optimizer.lr is [1], expected a number above 0."),
        ("--teacher.use_face=3", "teacher.use_face is 3, expected true or false."),
        ("--trainer.precision=fp8", "trainer.precision is 'fp8', expected 'auto', 'fp32' or 'bf16'."),
        ("--trainer.use_gpu=perhaps", "trainer.use_gpu is 'perhaps', expected 'auto' or true or false."),
        (
            "--data.sources=data/made",
            "data.sources is 'data/made', expected a list such as [{uri: …}] (fields: uri, weight, name). "
            "Write --data.sources='[{uri: data/made}]'.",
        ),
    ],
)
def test_error_on_the_command_line_names_the_argument(override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(None, ["--run.name=a", override])
    assert str(caught.value) == f"{override}: {message}"


def test_error_in_a_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("trainer: {epochs: many}")
    with pytest.raises(UserError) as caught:
        load_config(path, ["--trainer.patience=3"])
    assert str(caught.value) == f"{path}: trainer.epochs is 'many', expected an integer of at least 1."


def test_errors_in_search_settings_are_reported_alike() -> None:
    with pytest.raises(UserError) as caught:
        load_search({"seeds": "many"}, [], "space.yaml")
    assert str(caught.value) == "space.yaml: search.seeds is 'many', expected an integer of at least 3."
    with pytest.raises(UserError) as caught:
        load_search({}, ["--search.sampler=foo"], "space.yaml")
    assert str(caught.value) == "--search.sampler=foo: search.sampler is 'foo', expected 'tpe', 'random' or 'nsga2'."
