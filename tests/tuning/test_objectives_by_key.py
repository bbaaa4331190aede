import pytest

from vadv_dist.evaluation.label_scale import LabelScale
from vadv_dist.tasks import retrieval, sentiment
from vadv_dist.tasks.label_kinds import ClassLabels
from vadv_dist.tuning.objectives import BY_KEY

TASKS = {
    "retrieval": retrieval.describe(),
    "numbers": sentiment.describe(LabelScale(1, 5, 3)),
    "classes": sentiment.describe(ClassLabels(("negative", "positive"))),
}


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_every_metric_of_a_task_can_be_searched(task) -> None:
    for metric in task.metrics:
        assert BY_KEY[metric.key].lower_is_better == metric.lower_is_better
    assert task.score in BY_KEY
