"""Training that starts from the student of another run, or of an export."""

from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from vadv_dist.config import load_config
from vadv_dist.errors import UserError
from vadv_dist.launch.driver import train
from vadv_dist.runs.folder import RunFolder

QUIET = Console(quiet=True, stderr=True)
# So small a rate that the weights stay what they were.
STILL = ("--optimizer.lr=1e-20", "--optimizer.weight_decay=0", "--trainer.epochs=1")


@pytest.fixture
def earlier(write_config: Callable[..., Path]) -> tuple[Path, RunFolder, float]:
    """A configuration, its complete run, and the run's validation error."""
    path = write_config()
    config = load_config(path, ["--trainer.epochs=2", "--optimizer.lr=0.003", "--student.calibrate=false"])
    return path, RunFolder.of(config), train(config, QUIET).score


@pytest.mark.parametrize("source", ["run", "export"])
def test_training_starts_with_the_predictions_of_the_earlier_student(
    earlier: tuple[Path, RunFolder, float], source: str
) -> None:
    path, folder, score = earlier
    place = folder.root if source == "run" else folder.student
    again = load_config(path, [*STILL, "--run.name=again", f"--student.init={place}", "--student.calibrate=false"])
    assert train(again, QUIET).score == pytest.approx(score, rel=1e-5)
    fresh = load_config(path, [*STILL, "--run.name=fresh", "--student.calibrate=false"])
    assert train(fresh, QUIET).score != pytest.approx(score, rel=1e-3), "else the test shows nothing"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--student.hidden=7"], r"student\.init is .*, whose student is another model: dense.* is \[.*\] there and"),
        (["--student.init=nowhere"], "nowhere does not exist"),
    ],
)
def test_another_student_is_refused(earlier: tuple[Path, RunFolder, float], overrides: list[str], message: str) -> None:
    path, folder, _ = earlier
    config = load_config(path, [*STILL, "--run.name=other", f"--student.init={folder.root}", *overrides])
    with pytest.raises(UserError, match=message):
        train(config, QUIET)
