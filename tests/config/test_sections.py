import pytest

from vadv_dist.config import ObjectiveConfig
from vadv_dist.errors import UserError


@pytest.mark.parametrize("switches", [{"psi": 0.0}, {"kind": "none"}, {"step2": False}])
def test_an_objective_that_trains_no_student_is_refused(switches: dict) -> None:
    with pytest.raises(UserError, match=r"objective.beta is 0.0, expected a positive weight"):
        ObjectiveConfig(beta=0.0, **switches)


def test_distillation_alone_may_train_the_student() -> None:
    assert ObjectiveConfig(beta=0.0).psi > 0
