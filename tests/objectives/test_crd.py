"""The memory bank of CRD: what it draws, how it moves, how ranks share it."""

import copy

import pytest
import torch
from torch import Tensor

from vadv_dist.objectives.crd import CRD
from vadv_dist.objectives.memory_bank import MemoryBank, _hashed
from vadv_dist.objectives.outputs import Rows, View
from vadv_dist.objectives.rank_state import load_rank_state, rank_state

ALL = torch.ones(3, dtype=torch.bool)


def bank(num_rows: int = 11, *, momentum: float = 0.5) -> MemoryBank:
    torch.manual_seed(0)
    return MemoryBank(num_rows, width=4, seed=7, momentum=momentum)


def unit(*values: float) -> Tensor:
    return torch.nn.functional.normalize(torch.tensor([values], dtype=torch.float32), dim=1)


def test_hash_gives_the_published_values_of_splitmix64() -> None:
    state, golden = 1234567, 0x9E3779B97F4A7C15
    states = [(state + place * golden) % 2**64 for place in range(1, 4)]
    signed = torch.tensor([value - 2**64 if value >= 2**63 else value for value in states])
    found = [value % 2**64 for value in _hashed(signed).tolist()]
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_draws_are_uniform_and_change_with_step_and_seed() -> None:
    drawn = bank().draw(11_000)
    counts = drawn.bincount(minlength=11)
    chi_square = ((counts - 1000).square() / 1000).sum().item()
    assert chi_square < 29.6  # 99.9 % quantile with 10 degrees of freedom
    assert torch.equal(drawn, bank().draw(11_000))
    later = bank()
    later.step += 1
    assert (later.draw(11_000) == drawn).float().mean() == pytest.approx(1 / 11, abs=0.02)
    other = MemoryBank(11, width=4, seed=8, momentum=0.5)
    assert (other.draw(11_000) == drawn).float().mean() == pytest.approx(1 / 11, abs=0.02)


def test_update_moves_stored_embeddings_and_normalises_them() -> None:
    stored = bank()
    before = stored.teacher.clone(), stored.student.clone()
    teacher = torch.cat([unit(1, 0, 0, 0), unit(0, 1, 0, 0), unit(0, 0, 1, 0)])
    stored.update(torch.tensor([4, 9, -1]), torch.tensor([True, True, False]), teacher, -teacher)
    for row, place in ((4, 0), (9, 1)):
        for buffer, old, new in ((stored.teacher, before[0], teacher), (stored.student, before[1], -teacher)):
            expected = 0.5 * old[row] + 0.5 * new[place]
            torch.testing.assert_close(buffer[row], expected / expected.norm())
    untouched = [row for row in range(12) if row not in (4, 9)]
    assert torch.equal(stored.teacher[untouched], before[0][untouched])
    assert stored.teacher[-1].abs().max() == 0
    assert stored.step.item() == 1


def test_order_of_rows_that_occur_twice_does_not_matter() -> None:
    embeddings = torch.cat([unit(1, 0, 0, 0), unit(0, 1, 0, 0), unit(0, 0, 1, 0)])
    first, second = bank(), bank()
    first.update(torch.tensor([4, 4, 9]), ALL, embeddings, embeddings)
    second.update(torch.tensor([9, 4, 4]), ALL, embeddings[[2, 1, 0]], embeddings[[2, 1, 0]])
    torch.testing.assert_close(first.teacher, second.teacher)


@pytest.mark.parametrize("num_rows", [11, 12])
def test_resharding_keeps_every_row(num_rows: int) -> None:
    one = bank(num_rows)
    one.step += 5
    one.scale += 3
    states = [rank_state(one)]
    for world_size in (3, 2, 2, 1):
        parts = [bank(num_rows) for _ in range(world_size)]
        for rank, part in enumerate(parts):
            load_rank_state(part, states, rank, world_size)
            for name in ("teacher", "student"):
                held = part.get_buffer(name)
                assert torch.equal(held[:-1], one.get_buffer(name)[:-1][rank::world_size])
                assert held[-1].abs().max() == 0
        states = [rank_state(part) for part in parts]
    assert all(torch.equal(states[0][name], rank_state(one)[name]) for name in one.rank_buffers)


def crd() -> CRD:
    torch.manual_seed(0)
    return CRD(
        teacher_width=5, student_width=3, num_rows=11, width=4, negatives=6, temperature=0.1, momentum=0.5, seed=1
    )


def batch() -> tuple[View, View, Rows]:
    generator = torch.Generator().manual_seed(1)
    teacher, student = (torch.randn(4, width, generator=generator) for width in (5, 3))
    valid = torch.tensor([1.0, 1.0, 1.0, 0.0])
    rows = Rows(torch.zeros(4), valid, torch.tensor([2, 7, 5, -1]), torch.tensor([1.0, 0.0, 1.0, 0.0]), 3, 2)
    return View(torch.zeros(4), teacher), View(torch.zeros(4), student), rows


def test_only_a_training_step_changes_the_bank() -> None:
    objective = crd()
    before = {name: value.clone() for name, value in rank_state(objective).items()}
    with torch.no_grad():
        first = objective(*batch())["crd"]
    objective.eval()
    second = objective(*batch())["crd"]
    assert all(torch.equal(value, before[name]) for name, value in rank_state(objective).items())
    objective.train()
    third = objective(*batch())["crd"]
    assert first.item() == second.item() == third.item()
    after = rank_state(objective)
    assert {row for row in range(11) if not torch.equal(after["bank.teacher"][row], before["bank.teacher"][row])} == {
        2,
        5,
    }
    assert after["bank.scale"].min() > 0
    scale = after["bank.scale"].clone()
    objective(*batch())
    assert torch.equal(rank_state(objective)["bank.scale"], scale)


def test_a_resumed_run_draws_and_computes_what_an_uninterrupted_one_would() -> None:
    whole = crd()
    whole(*batch())
    resumed = copy.deepcopy(crd())
    load_rank_state(resumed, [rank_state(whole)], 0, 1)
    assert torch.equal(whole.bank.draw(6), resumed.bank.draw(6))
    assert whole(*batch())["crd"].item() == resumed(*batch())["crd"].item()


def test_rows_without_video_change_neither_loss_nor_gradient() -> None:
    objective = crd()
    teacher, student, rows = batch()
    expected = torch.autograd.grad(objective.eval()(teacher, student, rows)["crd"], list(objective.parameters()))
    for view in (teacher, student):
        assert view.features is not None
        view.features[[1, 3]] = float("nan")
    found = torch.autograd.grad(objective(teacher, student, rows)["crd"], list(objective.parameters()))
    assert all(torch.equal(*pair) for pair in zip(expected, found, strict=True))


def test_a_student_that_agrees_with_the_bank_has_a_lower_loss() -> None:
    objective = crd()
    teacher, student, rows = batch()
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.05)
    losses = []
    for _ in range(40):
        loss = objective(teacher, student, rows)["crd"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
