"""The thread that writes checkpoints: several ranks, faults, and what is given up."""

import errno
import json
import os
import threading
import time
import weakref
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vadv_dist.errors import MachineError, StorageError
from vadv_dist.formats.tensor_parts import TensorPart
from vadv_dist.runs.checkpoint import checkpoint_at, last_checkpoint, list_checkpoints
from vadv_dist.runs.checkpoint_writer import CheckpointWriter
from vadv_dist.runs.tensor_files import HostBuffer
from vadv_dist.storage import location

VALUES = torch.arange(24, dtype=torch.float32)


def part(rank: int, world_size: int, name: str = "w") -> list[TensorPart]:
    """A rank's equal share of `VALUES`, which have shape [4, 6]."""
    size = -(-len(VALUES) // world_size)
    return [TensorPart(name, (4, 6), rank * size, VALUES[rank * size : (rank + 1) * size])]


def writers(folder, count: int, attempt: str = "one", wait_s: float = 30.0) -> list[CheckpointWriter]:
    made = [CheckpointWriter(folder, rank, count, attempt, wait_s) for rank in range(count)]
    made[0].begin({})
    return made


def save(ranks: list[CheckpointWriter], step: int, best: list[int] = [], *, full: bool = True) -> None:  # noqa: B006
    for rank, writer in enumerate(ranks):
        weights, moments = part(rank, len(ranks)), part(rank, len(ranks), "exp_avg/w") if full else []
        own = {"bank": torch.full((2,), float(rank))} if full else None
        state = {"step": step, "best": best} if full else None
        writer.copy(step, best=best, weights=weights, moments=moments, own=own, state=state)
        writer.start()


def wait(ranks: list[CheckpointWriter]) -> None:
    for writer in ranks:
        writer.wait()


def look_every_step(writer: CheckpointWriter) -> None:
    for _ in range(1000):
        writer.raise_fault()
        time.sleep(0.01)


@pytest.fixture(params=["disk", "store"])
def folder(request: pytest.FixtureRequest, tmp_path: Path):
    if request.param == "disk":
        return tmp_path / "checkpoints"
    return location(f"{request.getfixturevalue('s3')}/{tmp_path.name}/checkpoints")


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_write_one_checkpoint_together(folder, world_size: int) -> None:
    ranks = writers(folder, world_size)
    save(ranks, 5)
    wait(ranks)
    saved = checkpoint_at(folder, 5)
    saved.verify()
    assert torch.equal(saved.weights()["w"], VALUES.view(4, 6))
    assert torch.equal(saved.moments()["exp_avg/w"], VALUES.view(4, 6))
    assert [own["bank"][0].item() for own in saved.ranks()] == list(range(world_size))
    assert {path.name for path in saved.path.iterdir()} == {"manifest.json", *saved.files}
    assert [path.name for path in folder.iterdir()] == ["step-5"]


def test_training_goes_on_while_a_checkpoint_is_written_and_changes_nothing_of_it(tmp_path, monkeypatch) -> None:
    release = threading.Event()
    original = CheckpointWriter._write

    def slow(self, *arguments):
        assert release.wait(30)
        return original(self, *arguments)

    monkeypatch.setattr(CheckpointWriter, "_write", slow)
    [writer] = writers(tmp_path, 1)
    weights = torch.ones(3)
    writer.copy(1, best=[], weights=[TensorPart.whole("w", weights)], state={})
    writer.start()
    weights.zero_()  # the next update
    assert not list_checkpoints(tmp_path)
    release.set()
    writer.wait()
    assert torch.equal(checkpoint_at(tmp_path, 1).weights()["w"], torch.ones(3))


def test_the_next_checkpoint_waits_for_the_last(tmp_path: Path, monkeypatch) -> None:
    original = CheckpointWriter._write
    monkeypatch.setattr(CheckpointWriter, "_write", lambda *a: time.sleep(0.2) or original(*a))
    [writer] = writers(tmp_path, 1)
    save([writer], 1)
    save([writer], 2, [1])
    assert [c.step for c in list_checkpoints(tmp_path)] == [1]
    writer.wait()
    assert [(c.step, c.is_resumable) for c in list_checkpoints(tmp_path)] == [(1, False), (2, True)]


def test_only_the_last_checkpoint_and_the_best_weights_are_kept(folder) -> None:
    ranks = writers(folder, 2)
    found = []
    for step, best, full in (
        (1, [1], True),
        (2, [2, 1], False),
        (3, [2, 1], True),
        (4, [4, 2], False),
        (5, [4, 2], True),
    ):
        save(ranks, step, best, full=full)
        wait(ranks)
        found.append([(c.step, c.is_resumable) for c in list_checkpoints(folder)])
    assert found == [
        [(1, True)],
        [(1, True), (2, False)],
        [(1, False), (2, False), (3, True)],
        # A run that is killed now resumes from 3, where 1 was still among the best.
        [(1, False), (2, False), (3, True), (4, False)],
        [(2, False), (4, False), (5, True)],
    ]


def test_the_same_step_is_completed_after_its_weights_alone(folder) -> None:
    ranks = writers(folder, 2)
    save(ranks, 1, [1])
    save(ranks, 2, [2], full=False)
    save(ranks, 2, [2])
    wait(ranks)
    assert [(c.step, c.is_resumable) for c in list_checkpoints(folder)] == [(2, True)]
    saved = checkpoint_at(folder, 2)
    saved.verify()
    assert {path.name for path in saved.path.iterdir()} == {"manifest.json", *saved.files}


def test_best_weights_stay_whole_while_the_same_step_is_written_again(folder) -> None:
    ranks = writers(folder, 2)
    save(ranks, 1, [1])
    save(ranks, 2, [2], full=False)
    wait(ranks)
    ranks[1].copy(2, best=[2], weights=[TensorPart.whole("w", torch.zeros(4, 6))], state={})
    ranks[1].start()
    ranks[1].wait()
    saved = checkpoint_at(folder, 2)
    saved.verify()
    assert torch.equal(saved.weights()["w"], VALUES.view(4, 6))


def test_weights_that_are_no_longer_among_the_best_are_not_waited_for(tmp_path: Path, monkeypatch) -> None:
    original = CheckpointWriter._write

    def stuck(self, job, name, image):
        if job.step == 1:
            assert job.given_up.wait(30)
        return original(self, job, name, image)

    monkeypatch.setattr(CheckpointWriter, "_write", stuck)
    [writer] = writers(tmp_path, 1)
    save([writer], 1, [1], full=False)
    save([writer], 2, [2], full=False)  # better: would wait for ever
    writer.wait()
    assert [path.name for path in tmp_path.iterdir()] == ["step-2"]


def test_attempt_that_was_killed_leaves_the_checkpoint_before(folder) -> None:
    ranks = writers(folder, 2)
    save(ranks, 1)
    wait(ranks)
    # Rank 1 has written its part of step 2 when both are killed.
    ranks[1].copy(2, best=[], weights=part(1, 2), state={})
    ranks[1].start()
    ranks[1].wait()
    last = last_checkpoint(folder)
    assert last is not None
    assert last.step == 1
    # The part is not taken for one of the next attempt.
    again = writers_after(folder, last.step)
    again[0].copy(2, best=[], weights=part(0, 2), state={})
    again[0].start()
    time.sleep(0.3)
    assert [c.step for c in list_checkpoints(folder)] == [1]
    again[1].copy(2, best=[], weights=part(1, 2), state={})
    again[1].start()
    wait(again)
    checkpoint_at(folder, 2).verify()
    assert [path.name for path in folder.iterdir()] == ["step-2"]


@pytest.mark.parametrize("orphan_is_last", [True, False])
def test_rank_of_a_killed_attempt_that_still_writes_changes_nothing(folder, orphan_is_last: bool) -> None:
    ranks = writers(folder, 2)
    save(ranks, 1)
    wait(ranks)
    orphan = ranks[1]
    orphan.copy(2, best=[], weights=[TensorPart.whole("w", torch.zeros(4, 6))], state={})
    again = writers_after(folder, 1)
    order = [again[1], again[0], orphan] if orphan_is_last else [again[1], orphan, again[0]]
    for rank, writer in enumerate(again):
        writer.copy(2, best=[], weights=part(rank, 2), state={})
    for writer in order:
        writer.start()
        if writer is not again[0] or orphan_is_last:
            writer.wait()
    wait(again)
    saved = checkpoint_at(folder, 2)
    saved.verify()
    assert torch.equal(saved.weights()["w"], VALUES.view(4, 6))
    # What the orphan left is removed by the next attempt.
    CheckpointWriter(folder, 0, 2, "three").begin({2: ()})
    assert {path.name for path in saved.path.iterdir()} == {"manifest.json", *saved.files}
    assert [path.name for path in folder.iterdir()] == ["step-2"]


def writers_after(folder, step: int) -> list[CheckpointWriter]:
    made = [CheckpointWriter(folder, rank, 2, "two", 30.0) for rank in range(2)]
    made[0].begin({step: ()})
    return made


def test_missing_part_of_another_rank_is_reported(folder) -> None:
    ranks = writers(folder, 2)
    save(ranks, 1)
    wait(ranks)
    impatient = CheckpointWriter(folder, 0, 2, "two", 0.2)
    impatient.begin({1: ()})
    impatient.copy(2, best=[], weights=part(0, 2), state={})
    impatient.start()
    with pytest.raises(
        StorageError, match=r"Rank 1 has not written its part of the checkpoint of step 2: .*rank-1\b.*\.json"
    ):
        impatient.wait()
    assert [c.step for c in list_checkpoints(folder)] == [1]


def test_rank_that_fails_does_not_wait_long_for_the_others(tmp_path: Path) -> None:
    ranks = writers(tmp_path, 2)
    ranks[0].copy(2, best=[], weights=part(0, 2), state={})
    ranks[0].start()
    began = time.monotonic()
    with pytest.raises(MachineError, match="Rank 1"):
        ranks[0].wait(others_s=0.1)
    assert time.monotonic() - began < 5


def test_full_disk_is_raised_in_the_loop_and_leaves_no_partial_files(tmp_path: Path, monkeypatch) -> None:
    [writer] = writers(tmp_path, 1)
    save([writer], 7)
    writer.wait()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    save([writer], 9)
    with pytest.raises(MachineError, match=r"No space left.*earlier checkpoints are complete"):
        look_every_step(writer)
    assert [p.name for p in tmp_path.iterdir()] == ["step-7"]
    checkpoint_at(tmp_path, 7).verify()


@pytest.mark.skipif(not os.access("/dev/full", os.W_OK), reason="no /dev/full")
def test_system_reports_a_full_disk_while_writing(tmp_path: Path, monkeypatch) -> None:
    original = Path.open

    def full(self: Path, mode: str = "r", *arguments, **options):
        return original(Path("/dev/full") if mode == "wb" else self, mode, *arguments, **options)

    [writer] = writers(tmp_path, 1)
    monkeypatch.setattr(Path, "open", full)
    save([writer], 9)
    with pytest.raises(MachineError, match=r"No space left.*earlier checkpoints are complete"):
        writer.wait()


def test_loop_state_of_the_last_checkpoint_is_replaced(folder) -> None:
    ranks = writers(folder, 2)
    save(ranks, 3, [1])
    for writer in ranks:
        writer.replace_state(3, [3], {"step": 3, "best": [3]})
    saved = checkpoint_at(folder, 3)
    assert saved.state() == {"step": 3, "best": [3]}
    saved.verify()


def test_lines_are_written_before_a_checkpoint_or_its_new_state_claims_them(folder) -> None:
    best: list[list[int]] = []
    writer = CheckpointWriter(folder, 0, 1, "one", before_publishing=lambda: best.append(saved_best()))

    def saved_best() -> list[int]:
        found = last_checkpoint(folder)
        return [] if found is None else found.state()["best"]

    save([writer], 3, [1])
    writer.wait()
    assert best == [[]]
    writer.replace_state(3, [3], {"step": 3, "best": [3]})
    assert best == [[], [1]]
    assert saved_best() == [3]


def test_memory_of_a_smaller_checkpoint_is_freed_before_a_larger_one_is_copied(tmp_path: Path, monkeypatch) -> None:
    [writer] = writers(tmp_path, 1)
    save([writer], 1, [1], full=False)
    writer.wait()
    assert writer._job is not None
    earlier, held = weakref.ref(writer._job), []  # its images are views of the smaller block
    copy = HostBuffer.copy
    monkeypatch.setattr(HostBuffer, "copy", lambda *given: held.append(earlier() is not None) or copy(*given))
    save([writer], 2, [1])
    writer.wait()
    assert held == [False]


def test_interrupt_gives_up_what_is_being_written(tmp_path: Path, monkeypatch) -> None:
    [writer] = writers(tmp_path, 1)
    save([writer], 1)
    writer.wait()
    original = CheckpointWriter._write
    monkeypatch.setattr(CheckpointWriter, "_write", lambda s, job, *a: job.given_up.wait(30) and original(s, job, *a))
    save([writer], 2)
    writer.give_up()
    assert [p.name for p in tmp_path.iterdir()] == ["step-1"]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=1, max_size=8), st.integers(1, 3))
def test_what_a_resumed_run_needs_is_always_there(tmp_path_factory, epochs, keep_best: int) -> None:
    """Whatever epochs are checkpoints and whatever their scores: the last state's best weights exist."""
    folder = tmp_path_factory.mktemp("runs")
    [writer] = writers(folder, 1)
    best: list[tuple[int, int]] = []
    for step, (full, cost) in enumerate(epochs, start=1):
        best = sorted([*best, (cost, step)])[:keep_best]
        steps = [s for _, s in best]
        if full or step in steps:
            save([writer], step, steps, full=full)
            writer.wait()
        last = last_checkpoint(folder)
        there = {c.step for c in list_checkpoints(folder)}
        if last is not None:
            assert set(last.state()["best"]) <= there
        assert set(steps) <= there
        assert sum(c.is_resumable for c in list_checkpoints(folder)) <= 1
    assert json.loads((folder / f"step-{max(there)}" / "manifest.json").read_text())["format"] == 2
