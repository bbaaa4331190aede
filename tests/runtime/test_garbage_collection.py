import gc
from collections.abc import Iterator

import pytest

from vadv_dist.runtime.garbage_collection import collect_as_usual, collect_rarely, no_collection


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[tuple[int, int, int]]:
    before = gc.get_threshold()
    yield before
    gc.set_threshold(*before)


def test_thresholds_are_restored_after_the_start(thresholds) -> None:
    collect_rarely()
    collect_rarely()
    assert gc.get_threshold() > thresholds
    collect_as_usual()
    assert gc.get_threshold() == thresholds


def test_collect_as_usual_alone_does_nothing(thresholds) -> None:
    gc.set_threshold(123, 4, 5)
    collect_as_usual()
    assert gc.get_threshold() == (123, 4, 5)


def test_training_collects_as_usual_and_frees_its_model(thresholds, write_config) -> None:
    import weakref

    from rich.console import Console

    from vadv_dist.config import load_config
    from vadv_dist.launch.driver import train
    from vadv_dist.tasks import sentiment

    alive: list[weakref.ref] = []
    make = sentiment.SentimentTask.__init__

    def made(self, *arguments, **others) -> None:
        make(self, *arguments, **others)
        alive.append(weakref.ref(self.step))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sentiment.SentimentTask, "__init__", made)
        collect_rarely()
        train(load_config(write_config(), ["--trainer.max_steps=1"]), Console(quiet=True))
    assert gc.get_threshold() == thresholds
    gc.collect()
    assert alive
    assert all(model() is None for model in alive)


def test_a_finalizer_does_not_run_while_torch_records_a_student() -> None:
    import torch
    from torch import nn

    from vadv_dist.inference.towers import towers_of

    ran: list[bool] = []

    class Old:
        """Like a DeepSpeed engine: a reference cycle whose finalizer uses a tensor."""

        def __init__(self) -> None:
            self.me, self.tensor = self, torch.zeros(3)

        def __del__(self) -> None:
            self.tensor.is_pinned()
            ran.append(gc.isenabled())

    class Student(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.audio, self.visual = nn.Linear(4, 2), nn.Linear(5, 2)

        def forward(self, audio: torch.Tensor, visual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            Old()
            return self.audio(audio), self.visual(visual)

    gc.set_threshold(1)
    towers = towers_of(Student().eval(), {"audio": 4, "visual": 5})
    assert gc.isenabled()
    gc.collect()
    assert ran
    assert all(ran)
    assert [step[1] for step in towers.towers["audio"]["steps"] if "pinned" in step[1]] == []


def test_collection_stays_off_where_it_was_off() -> None:
    gc.disable()
    try:
        with no_collection():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()
