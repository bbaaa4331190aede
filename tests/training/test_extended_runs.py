"""A complete run that is given more epochs goes on from its last checkpoint."""

from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from vadv_dist.config import Config, load_config
from vadv_dist.errors import StoppedError, UserError
from vadv_dist.launch.driver import train
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.records import EpochLine, StartLine
from vadv_dist.training.loop import Trainer

QUIET = Console(quiet=True, stderr=True)


@pytest.fixture
def configured(write_config: Callable[..., Path]) -> Callable[..., Config]:
    path = write_config()
    return lambda *overrides: load_config(path, overrides)


def test_more_epochs_are_trained_after_those_of_the_run(
    configured: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = train(configured("--trainer.epochs=2"), QUIET)
    longer, folder = configured("--trainer.epochs=4"), RunFolder.of(configured())
    epoch_ends = Trainer._end_epoch

    def stop_after_the_third(self: Trainer) -> None:
        epoch_ends(self)
        if self.state.epoch == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_end_epoch", stop_after_the_third)
        with pytest.raises((KeyboardInterrupt, StoppedError)):
            train(longer, QUIET)
    assert folder.result() == before, "until the longer run is complete, its result is that of the shorter one"
    assert folder.completed(longer) is None
    result = train(longer, QUIET)
    assert (result.epochs, result.steps, result.stopped) == (4, 2 * before.steps, "epochs")
    assert folder.completed(longer) == result
    lines = list(folder.metrics_log().lines())
    assert [line.epoch for line in lines if isinstance(line, EpochLine)] == [0, 1, 2, 3]
    starts = [line for line in lines if isinstance(line, StartLine)]
    assert [line.cause for line in starts[:2]] == ["", "extended"]
    assert [line.steps for line in starts] == [before.steps, result.steps, result.steps]
    modified = folder.result_path.stat().st_mtime_ns
    assert train(longer, QUIET) == result
    assert folder.result_path.stat().st_mtime_ns == modified


@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        (("--trainer.epochs=2",), ("--trainer.epochs=1",), "trainer.epochs: 2 there, 1 now"),
        (("--trainer.epochs=1",), ("--trainer.epochs=2", "--optimizer.lr=0.5"), r"optimizer\.lr: .* there, 0\.5 now"),
        (
            ("--trainer.epochs=2", "--trainer.max_steps=1"),
            ("--trainer.epochs=3", "--trainer.max_steps=1"),
            r"ended before all its epochs \(max_steps\)",
        ),
    ],
)
def test_nothing_else_may_change(
    configured: Callable[..., Config], first: tuple[str, ...], then: tuple[str, ...], message: str
) -> None:
    train(configured(*first), QUIET)
    with pytest.raises(UserError, match=message):
        train(configured(*then), QUIET)
    assert RunFolder.of(configured()).config().trainer.epochs == configured(*first).trainer.epochs
