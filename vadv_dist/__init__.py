"""VideoAdviser (arXiv:2309.15494): distil a video teacher into a text-only student, distributed.

The names below are the library's interface (docs/api.md). They are imported on first use, so that
`import vadv_dist` and the command line start at once.
"""

from typing import TYPE_CHECKING

from vadv_dist.lazy import lazy_exports

if TYPE_CHECKING:
    from vadv_dist.config import Config, load_config
    from vadv_dist.data.dataset import Dataset
    from vadv_dist.data.synth import make_dataset
    from vadv_dist.errors import MachineError, UserError, VadvError
    from vadv_dist.inference.predict import Student
    from vadv_dist.launch.driver import train
    from vadv_dist.objectives import StepDistillation, TeacherStudentOutputs, weighted_total
    from vadv_dist.runs.records import Evaluation, RunResult
    from vadv_dist.tasks.sentiment import build_student
    from vadv_dist.tasks.teacher import build_teacher
    from vadv_dist.training.evaluate_other_data import evaluate

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "Config": "config",
        "Dataset": "data.dataset",
        "Evaluation": "runs.records",
        "MachineError": "errors",
        "RunResult": "runs.records",
        "StepDistillation": "objectives",
        "Student": "inference.predict",
        "TeacherStudentOutputs": "objectives",
        "UserError": "errors",
        "VadvError": "errors",
        "build_student": "tasks.sentiment",
        "build_teacher": "tasks.teacher",
        "evaluate": "training.evaluate_other_data",
        "load_config": "config",
        "make_dataset": "data.synth",
        "train": "launch.driver",
        "weighted_total": "objectives",
    },
)
