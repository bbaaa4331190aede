"""The configuration of a run: its sections, and functions to load it."""

from vadv_dist.config.data_sections import DataConfig, SourceConfig
from vadv_dist.config.load import config_from_dict, config_to_dict, config_to_yaml, load_config, names_run
from vadv_dist.config.objective_sections import AloneObjectiveConfig, ObjectiveConfig, StepObjectiveConfig
from vadv_dist.config.sections import (
    Config,
    OptimizerConfig,
    RunConfig,
    TeacherConfig,
)
from vadv_dist.config.student_sections import EicsConfig, StudentConfig, TextStudentConfig
from vadv_dist.config.trainer_sections import EngineConfig, TelemetryConfig, TrainerConfig

__all__ = [
    "AloneObjectiveConfig",
    "Config",
    "DataConfig",
    "EicsConfig",
    "EngineConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "RunConfig",
    "SourceConfig",
    "StepObjectiveConfig",
    "StudentConfig",
    "TeacherConfig",
    "TelemetryConfig",
    "TextStudentConfig",
    "TrainerConfig",
    "config_from_dict",
    "config_to_dict",
    "config_to_yaml",
    "load_config",
    "names_run",
]
