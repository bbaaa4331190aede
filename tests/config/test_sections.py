"""Values that are never valid are rejected, whether they are loaded or given in Python."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from vadv_dist.config import Config, DataConfig, StepObjectiveConfig, TrainerConfig
from vadv_dist.config.extract_sections import ComputeConfig, ExtractConfig
from vadv_dist.config.load import build, config_from_dict, config_to_dict, load_config
from vadv_dist.errors import UserError


def refusal(kind: type, raw: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        build(kind, raw, (), "run.yaml")
    return str(caught.value)


@pytest.mark.parametrize("switches", [{"psi": 0.0}, {"step2": False}])
def test_objective_that_does_not_train_the_student_is_rejected(switches: dict) -> None:
    message = refusal(Config, {"objective": {"beta": 0.0, **switches}})
    assert message.startswith("run.yaml: objective.beta is 0.0, expected a positive weight")


def test_student_can_be_trained_by_distillation_alone() -> None:
    assert StepObjectiveConfig(beta=0.0).psi > 0


@pytest.mark.parametrize(
    ("kind", "name", "value", "expected"),
    [
        (Config, "data.bucket_batches", 0, "an integer of at least 1"),
        (Config, "data.temperature", 0.5, "a number of at least 1"),
        (Config, "teacher.cct_layers", -1, "an integer of at least 0"),
        (Config, "teacher.heads", 0, "an integer of at least 1 or null"),
        (Config, "teacher.dropout", 1.0, "a number of at least 0 and below 1"),
        (Config, "optimizer.lr", float("inf"), "a finite number"),
        (Config, "optimizer.clip_norm", float("nan"), "a finite number"),
        (Config, "run.name", "a/b", "a plain folder name without / \\ or :"),
        (Config, "engine.zero_stage", 4, "an integer of at least 0 and up to 3 or null"),
        (Config, "telemetry.port", 65536, "an integer of at least 0 and up to 65535 or null"),
        (Config, "run.storage", "", "a text that is not empty"),
        (ExtractConfig, "output.shard_rows", 0, "an integer of at least 1"),
        (ExtractConfig, "clips.label_range", [1.0, -1.0], "the lower one first"),
        (ExtractConfig, "prompts.classes", ["a"], "a list of at least 2 values such as [a, b]"),
        (
            ExtractConfig,
            "clips.threshold",
            3.0,
            "a number between the lowest and highest label (-3 and 3), or null for the middle",
        ),
        (ExtractConfig, "faces.margin", -0.1, "a number of at least 0"),
        (ExtractConfig, "compute.num_workers", -1, "an integer of at least 0 or null"),
    ],
)
def test_value_out_of_range_is_rejected_with_its_field(kind: type, name: str, value: object, expected: str) -> None:
    section, field = name.split(".")
    assert refusal(kind, {section: {field: value}}) == f"run.yaml: {name} is {value!r}, expected {expected}."


def test_sections_are_checked_in_python_too() -> None:
    for wrong in ({"epochs": 0}, {"epochs": "many"}, {"epoch": 3}):
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            TrainerConfig(**wrong)
    with pytest.raises(ValidationError, match=r"sources\[1\]\.name is 'a', expected a unique name"):
        DataConfig(sources=[{"uri": "x/a"}, {"uri": "y/a"}])  # type: ignore[list-item]  # pydantic builds sections


def test_lowest_numbers_and_null_are_accepted() -> None:
    assert TrainerConfig(num_workers=0, epochs=1, max_failures=0, patience=None, max_steps=1).patience is None
    assert ComputeConfig(num_workers=None, max_actors=1).num_workers is None


def test_text_that_is_not_unicode_is_rejected() -> None:
    assert refusal(Config, {"run": {"name": "\ud800"}}).startswith("run.yaml: ")


def test_auto_chooses_the_zero_stage() -> None:
    message = refusal(Config, {"engine": {"zero_stage": 3}})
    assert "engine.zero_stage is 3, expected null, because engine.kind is auto" in message
    engine = build(Config, {"engine": {"kind": "deepspeed"}}, (), "run.yaml").engine
    assert (engine.stage, engine.title) == (2, "deepspeed ZeRO-2")


def test_on_and_off_need_no_quotes_in_yaml(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("objective: {guard: on}\nstudent: {calibrate: off}\nengine: {graphs: 'off'}\n")
    config = load_config(path, ["--engine.compile=on"])
    found = (config.objective.guard, config.student.calibrate, config.engine.graphs, config.engine.compile)
    assert found == ("on", "off", "off", "on")
    assert load_config(None).student.calibrate == "auto"
    assert config_from_dict(config_to_dict(config)) == config
