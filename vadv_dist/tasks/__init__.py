"""Tasks: what is trained, on which fields, by which terms, and how it is measured.

Nothing outside of this room names the class of a task.
"""

from vadv_dist.config.sections import Config
from vadv_dist.data.sources import Sources
from vadv_dist.tasks.base import Scorer, StudentScorer, Task
from vadv_dist.tasks.exported import open_student
from vadv_dist.tasks.predicted import PredictedLabels
from vadv_dist.tasks.retrieval import RetrievalTask
from vadv_dist.tasks.sentiment import SentimentTask

__all__ = ["PredictedLabels", "Scorer", "StudentScorer", "Task", "build", "open_student"]


def build(config: Config, sources: Sources, *, weights: bool = True) -> Task:
    """Build the task that a configuration names.

    Args:
        config: the run's.
        sources: its data sets.
        weights: False leaves the encoder's own weights out, for a model that takes those of a checkpoint, or none.
    Raises:
        UserError: the configuration and the data sets do not fit, or the encoder is not found.
    """
    if config.task.kind == "retrieval":
        return RetrievalTask(config, sources)
    return SentimentTask(config, sources, weights=weights)
