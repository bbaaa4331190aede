"""Triplet losses against loops over all triplets."""

import itertools

import pytest
import torch
from torch import Tensor

from vadv_dist.students.triplets import batch_all, batch_hard, cosine_distance, relations


def rows(seed: int, num: int = 9, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    audio = torch.randn(num, 5, generator=generator, dtype=dtype)
    visual = torch.randn(num, 5, generator=generator, dtype=dtype)
    label = torch.randint(3, (num,), generator=generator)
    return audio, visual, label, torch.rand(num, generator=generator) < 0.8


def triplets(label: Tensor, counted: Tensor) -> list[tuple[int, int, int]]:
    kept = [i for i in range(len(label)) if counted[i]]
    return [
        (i, j, k) for i, j, k in itertools.product(kept, kept, kept) if label[i] == label[j] and label[i] != label[k]
    ]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("margin", [0.1, 0.5, 3.0])
def test_batch_all_is_the_mean_over_violating_triplets(seed: int, margin: float) -> None:
    audio, visual, label, counted = rows(seed)
    audio.requires_grad_()
    distance = cosine_distance(audio, visual)
    losses = [distance[i, j] - distance[i, k] + margin for i, j, k in triplets(label, counted)]
    expected = torch.stack([loss for loss in losses if loss > 0]).mean()
    found = batch_all(distance, distance, *relations(label, counted), margin)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    for one, other in zip(
        torch.autograd.grad(found, audio, retain_graph=True), torch.autograd.grad(expected, audio), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_batch_hard_takes_the_farthest_positive_and_the_nearest_negative(seed: int) -> None:
    audio, visual, label, counted = rows(seed)
    distance = cosine_distance(audio, visual)
    found = batch_hard(distance, distance, *relations(label, counted), 0.3)
    worst: dict[int, float] = {}
    for i, j, k in triplets(label, counted):
        loss = max(0.0, float(distance[i, j] - distance[i, k] + 0.3))
        worst[i] = max(worst.get(i, 0.0), loss)
    assert found.item() == pytest.approx(sum(worst.values()) / len(worst), rel=1e-10)


@pytest.mark.parametrize("loss", [batch_all, batch_hard])
@pytest.mark.parametrize("case", ["one class", "no rows"])
def test_without_triplets_the_loss_is_zero_and_so_is_its_gradient(loss, case: str) -> None:  # type: ignore[no-untyped-def]
    audio, visual, label, counted = rows(0)
    audio.requires_grad_()
    label = torch.zeros_like(label) if case == "one class" else label
    counted = torch.zeros_like(counted) if case == "no rows" else torch.ones_like(counted)
    distance = cosine_distance(audio, visual)
    found = loss(distance, distance, *relations(label, counted), 0.3)
    assert found.item() == 0
    found.backward()
    assert audio.grad is not None
    assert audio.grad.abs().max() == 0


def test_batch_all_in_single_precision_is_close_for_large_batches() -> None:
    audio, visual, label, counted = rows(1, num=600)
    expected = batch_all(*[cosine_distance(audio, visual)] * 2, *relations(label, counted), 0.3)
    found = batch_all(*[cosine_distance(audio.float(), visual.float())] * 2, *relations(label, counted), 0.3)
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
