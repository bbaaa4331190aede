"""Values that are never valid are rejected when the configuration is loaded."""

import pytest

from vadv_dist.config import DataConfig, StepObjectiveConfig, TeacherConfig, TelemetryConfig, TrainerConfig
from vadv_dist.config.extract_sections import ClipsConfig, ComputeConfig, FacesConfig, OutputConfig
from vadv_dist.errors import UserError


@pytest.mark.parametrize("switches", [{"psi": 0.0}, {"step2": False}])
def test_objective_that_does_not_train_the_student_is_rejected(switches: dict) -> None:
    with pytest.raises(UserError, match=r"objective.beta is 0.0, expected a positive weight"):
        StepObjectiveConfig(beta=0.0, **switches)


def test_student_can_be_trained_by_distillation_alone() -> None:
    assert StepObjectiveConfig(beta=0.0).psi > 0


@pytest.mark.parametrize(
    ("section", "fields", "message"),
    [
        (DataConfig, {"bucket_batches": 0}, "data.bucket_batches is 0, expected at least 1. "),
        (TeacherConfig, {"cct_layers": -1}, "teacher.cct_layers is -1, expected at least 0. "),
        (TeacherConfig, {"heads": 0}, "teacher.heads is 0, expected at least 1, or null. "),
        (TrainerConfig, {"epochs": 0}, "trainer.epochs is 0, expected at least 1. "),
        (TrainerConfig, {"patience": 0}, "trainer.patience is 0, expected at least 1, or null. "),
        (TelemetryConfig, {"log_every_steps": 0}, "telemetry.log_every_steps is 0, expected at least 1. "),
        (OutputConfig, {"shard_rows": 0}, "output.shard_rows is 0, expected at least 1. "),
        (
            ClipsConfig,
            {"threshold": 3.0},
            "clips.threshold is 3.0, expected a number between the lowest and highest label (-3 and 3), or null for "
            "the middle. ",
        ),
        (FacesConfig, {"margin": -0.1}, "faces.margin is -0.1, expected at least 0. "),
        (ComputeConfig, {"num_workers": -1}, "compute.num_workers is -1, expected at least 0, or null. "),
    ],
)
def test_out_of_range_number_is_rejected_with_its_field(section: type, fields: dict, message: str) -> None:
    with pytest.raises(UserError) as caught:
        section(**fields)
    assert str(caught.value) == f"{message}Change it in the config file or override it."


def test_lowest_numbers_and_null_are_accepted() -> None:
    assert TrainerConfig(num_workers=0, epochs=1, max_failures=0, patience=None, max_steps=1).patience is None
    assert ComputeConfig(num_workers=None, max_actors=1).num_workers is None
