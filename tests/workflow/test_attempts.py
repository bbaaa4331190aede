"""Attempts at a stage: one living process at a time, and a late one cannot complete it."""

import contextlib
import itertools
from collections.abc import Callable
from multiprocessing.pool import ThreadPool
from pathlib import Path

import pytest

from vadv_dist.errors import MachineError
from vadv_dist.storage import Location, location, read_json, write_new
from vadv_dist.workflow import attempts
from vadv_dist.workflow.attempts import Attempt, last_attempt, last_outcome, next_attempt
from vadv_dist.workflow.stage import MANIFEST, read_finished

_numbers = itertools.count()


@pytest.fixture(params=["disk", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """A stage's folder on a disk or in an object store."""
    if request.param == "disk":
        return location(tmp_path / "stage")
    return location(f"{request.getfixturevalue('s3')}/attempts-{next(_numbers)}")


def quiet(text: str) -> None:
    """Say nothing."""


def test_exactly_one_of_several_writers_writes_a_new_file(folder: Location) -> None:
    with ThreadPool(8) as pool:
        wrote = pool.map(lambda number: write_new(folder / "file", f"by {number}"), range(8))
    assert sum(wrote) == 1
    assert (folder / "file").read_text() == f"by {wrote.index(True)}"
    assert not write_new(folder / "file", "later")


def test_attempts_are_numbered_and_the_complete_one_is_recorded(folder: Location) -> None:
    with pytest.raises(RuntimeError), next_attempt(folder, quiet):
        raise RuntimeError("a fault")
    assert last_outcome(folder)["state"] == "failed"
    assert last_outcome(folder)["message"] == "a fault"
    assert read_finished(folder) is None
    with pytest.raises(KeyboardInterrupt), next_attempt(folder, quiet):
        raise KeyboardInterrupt
    assert last_outcome(folder)["state"] == "stopped"
    with next_attempt(folder, quiet) as attempt:
        assert last_outcome(folder)["state"] == "open"
        attempt.complete({"values": {"a": 1}})
    assert last_attempt(folder) == 3
    finished = read_finished(folder)
    assert finished is not None
    assert (finished.values, finished.manifest["attempt"]) == ({"a": 1}, 3)


@pytest.fixture
def without_lock(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lose the lock, as a process does whose lease expired while it was paused."""

    def lose() -> None:
        monkeypatch.setattr(attempts, "_take", lambda folder, stack, say: None)

    return lose


def test_a_late_process_cannot_complete_a_stage_that_was_taken_over(
    folder: Location, without_lock: Callable[[], None]
) -> None:
    without_lock()
    with contextlib.ExitStack() as stack:
        late: Attempt = stack.enter_context(next_attempt(folder, quiet))
        with next_attempt(folder, quiet) as second:
            assert (late.number, second.number) == (1, 2)
            with pytest.raises(MachineError, match="taken over by another process"):
                late.complete({"values": {"by": "late"}})
            assert not (folder / MANIFEST).is_file()
            second.complete({"values": {"by": "second"}})
        with pytest.raises(MachineError, match="taken over"):
            late.complete({"values": {"by": "late"}})
    assert read_json(folder / MANIFEST)["values"] == {"by": "second"}
    assert read_json(folder / "attempts" / "000001.outcome.json")["state"] == "lost"


def test_a_process_that_completes_first_is_not_declared_lost(
    folder: Location, without_lock: Callable[[], None]
) -> None:
    without_lock()
    with next_attempt(folder, quiet) as first:
        first.complete({"values": {"by": "first"}})
        with next_attempt(folder, quiet) as second:
            assert read_json(folder / "attempts" / "000001.outcome.json")["state"] == "complete"
            assert second.number == 2
    assert read_json(folder / MANIFEST)["values"] == {"by": "first"}


def test_an_outcome_without_manifest_is_published_by_the_next_process(folder: Location) -> None:
    """The first process was killed between both writes."""
    with next_attempt(folder, quiet) as first:
        assert first.end("complete", manifest={"values": {"by": "first"}})
    assert read_finished(folder) is None
    with next_attempt(folder, quiet):
        finished = read_finished(folder)
        assert finished is not None
        assert finished.values == {"by": "first"}


def test_a_second_process_waits_for_the_first(tmp_path: Path) -> None:
    said: list[str] = []
    with ThreadPool(1) as pool:
        with next_attempt(tmp_path, quiet) as first:
            other = pool.apply_async(_number, (tmp_path, said.append))
            while not said:
                assert not other.ready()
            first.complete({"values": {}})
        assert other.get() == 2
    assert "another process works on" in said[0]


def _number(folder: Path, say: Callable[[str], None]) -> int:
    with next_attempt(folder, say) as attempt:
        return attempt.number
