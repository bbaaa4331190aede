"""Rungs decide as Optuna's own successive halving does."""

import random

import optuna
import pytest

from vadv_dist.config.search import SearchConfig
from vadv_dist.tuning.rungs import is_rung, passes_rung


@pytest.mark.parametrize(("min_epochs", "reduction"), [(1, 2), (1, 4), (2, 3), (3, 2)])
def test_decisions_are_those_of_optuna_in_whatever_order_trials_report(min_epochs: int, reduction: int) -> None:
    search = SearchConfig(min_epochs=min_epochs, reduction=reduction)
    draw = random.Random(min_epochs * 10 + reduction)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=min_epochs, reduction_factor=reduction)
    )
    courses: list[dict[int, float]] = []
    running: list[tuple[optuna.Trial, dict[int, float]]] = []
    stopped = 0
    while len(courses) < 40 or running:
        while len(running) < 3 and len(courses) < 40:
            courses.append({})
            running.append((study.ask(), courses[-1]))
        trial, course = draw.choice(running)
        epochs = len(course) + 1
        mae = round(draw.random(), 1)  # with ties
        trial.report(mae, epochs)
        others = [other for other in courses if other is not course]
        goes_on = not is_rung(search, epochs) or passes_rung(search, epochs, mae, others)
        assert goes_on == (not trial.should_prune())
        course[epochs] = mae
        stopped += not goes_on
        if not goes_on or epochs == 9:
            running.remove((trial, course))
    assert 10 < stopped < 40
