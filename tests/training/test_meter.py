"""Loss terms are summed by name, whichever steps have them."""

import torch

from vadv_dist.engines.distributed import Distributed
from vadv_dist.runs.state import TrainState
from vadv_dist.training.meter import TermMeter


def terms(**values: float) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


def test_a_term_that_appears_later_is_summed_separately() -> None:
    meter = TermMeter()
    meter.add(terms(a=1.0, b=10.0))
    meter.end_step()
    meter.add(terms(new=5.0, b=30.0))  # other names, in another order
    meter.add(terms(new=1.0))  # a second micro-batch of the same step
    meter.end_step()
    assert meter.take(Distributed()) == ({"a": 1.0, "b": 40.0, "new": 6.0}, {"a": 1, "b": 2, "new": 1})
    assert meter.take(Distributed()) == ({}, {})


def test_epoch_mean_is_over_the_steps_with_the_term() -> None:
    state = TrainState()
    state.add_terms({"a": 2.0, "total": 8.0}, {"a": 2, "total": 4}, {"a": 1.0})
    state.add_terms({"a": 4.0, "b": 3.0, "total": 4.0}, {"a": 1, "b": 1, "total": 2}, {"a": 5.0})
    means, weights = state.end_epoch()
    assert means == {"a": 2.0, "b": 3.0, "total": 2.0}
    assert weights == {"a": 1.0}
    assert state.end_epoch() == ({}, {})
