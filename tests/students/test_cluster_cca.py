"""The closed form against CCA of the listed pairs: by generalised eigenvalues (scipy) and by scikit-learn."""

import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.cross_decomposition import CCA
from torch import Tensor

from vadv_dist.students.cluster_cca import ClassMoments, Covariances, batch_covariances, solve

SIZES = (3, 7, 5, 9)  # unequal, so that a weight by class matters


def classes_of_rows(seed: int = 0, *, width_x: int = 4, width_y: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Rows whose views share the means of four classes, up to a linear map, plus noise; in a random order."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    label = torch.repeat_interleave(torch.arange(len(SIZES)), torch.tensor(SIZES))
    label = label[torch.randperm(len(label), generator=generator)]
    means = normal(len(SIZES), 3)[label]
    x = means @ normal(3, width_x) + normal(len(label), width_x) + 5
    y = means @ normal(3, width_y) + normal(len(label), width_y) - 2
    return x, y, label


def listed_pairs(x: Tensor, y: Tensor, label: Tensor) -> tuple[np.ndarray, np.ndarray]:
    pairs = [(i, j) for i in range(len(label)) for j in range(len(label)) if label[i] == label[j]]
    assert len(pairs) == sum(size**2 for size in SIZES)
    left, right = zip(*pairs, strict=True)
    return x[list(left)].numpy(), y[list(right)].numpy()


def moments(x: Tensor, y: Tensor, label: Tensor, batch: int = 5) -> ClassMoments:
    sums = ClassMoments(len(SIZES), x.shape[1], y.shape[1])
    for start in range(0, len(label), batch):
        rows = slice(start, start + batch)
        sums.add(x[rows], y[rows], label[rows])
    return sums


def brute_force(x: Tensor, y: Tensor, label: Tensor) -> Covariances:
    left, right = listed_pairs(x, y, label)
    width = left.shape[1]
    both = torch.from_numpy(np.cov(left.T, right.T, bias=True))
    means = torch.from_numpy(left.mean(0)), torch.from_numpy(right.mean(0))
    return Covariances(*means, both[:width, :width], both[width:, width:], both[:width, width:])


@pytest.mark.parametrize("way", ["streamed", "batch"])
def test_covariances_are_those_of_the_listed_pairs(way: str) -> None:
    x, y, label = classes_of_rows()
    every = torch.ones(len(label), dtype=torch.bool)
    found = moments(x, y, label).covariances() if way == "streamed" else batch_covariances(x, y, label, every, 4)
    for name, expected in vars(brute_force(x, y, label)).items():
        torch.testing.assert_close(getattr(found, name), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("ridge", [0.0, 1e-4, 0.3])
def test_projections_solve_the_generalised_eigenproblem_of_the_listed_pairs(ridge: float) -> None:
    x, y, label = classes_of_rows()
    found = solve(moments(x, y, label).covariances(), components=3, ridge=ridge)
    expected = brute_force(x, y, label)
    xx, yy, xy = (part.numpy() for part in (expected.xx, expected.yy, expected.xy))
    metric = scipy.linalg.block_diag(xx, yy) + ridge * np.eye(len(xx) + len(yy))
    cross = np.block([[np.zeros_like(xx), xy], [xy.T, np.zeros_like(yy)]])
    values, vectors = scipy.linalg.eigh(cross, metric)
    np.testing.assert_allclose(found.correlations, values[::-1][:3], rtol=1e-9)
    for k in range(3):
        vector = vectors[:, ::-1][:, k] * np.sqrt(2)  # both halves have half of its unit norm
        mine = np.concatenate([found.x[:, k], found.y[:, k]])
        np.testing.assert_allclose(mine, vector * np.sign(vector @ mine), rtol=1e-6, atol=1e-9)


def test_embeddings_are_those_of_scikit_learn_on_the_listed_pairs() -> None:
    x, y, label = classes_of_rows()
    covariances = moments(x, y, label).covariances()
    found = solve(covariances, components=2, ridge=0.0)
    left, right = listed_pairs(x, y, label)
    reference = CCA(n_components=2, scale=False, max_iter=20_000, tol=1e-14).fit(left, right)
    expected_x, expected_y = reference.transform(x.numpy(), y.numpy())
    mine_x = ((x - covariances.mean_x) @ found.x).numpy()
    mine_y = ((y - covariances.mean_y) @ found.y).numpy()
    for k in range(2):
        for mine, expected in ((mine_x[:, k], expected_x[:, k]), (mine_y[:, k], expected_y[:, k])):
            assert abs(np.corrcoef(mine, expected)[0, 1]) == pytest.approx(1, abs=1e-6)
        scores_x, scores_y = reference.transform(left, right)
        expected = abs(np.corrcoef(scores_x[:, k], scores_y[:, k])[0, 1])
        assert found.correlations[k] == pytest.approx(expected, abs=1e-6)


def test_projected_pairs_are_white_and_correlated_as_stated() -> None:
    x, y, label = classes_of_rows()
    covariances = brute_force(x, y, label)
    found = solve(covariances, components=4, ridge=0.0)
    identity = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(found.x.T @ covariances.xx @ found.x, identity, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.y.T @ covariances.yy @ found.y, identity, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.x.T @ covariances.xy @ found.y, found.correlations.diag(), rtol=0, atol=1e-9)
    assert found.correlations[3] < 1e-9  # four classes differ in three directions


def test_rows_that_do_not_count_change_nothing() -> None:
    x, y, label = classes_of_rows()
    counted = torch.ones(len(label) + 2, dtype=torch.bool)
    counted[-2:] = False
    padded = [torch.cat([part, part.new_full((2, *part.shape[1:]), 77)]) for part in (x, y, label)]
    found = batch_covariances(padded[0], padded[1], padded[2], counted, 4)
    for name, expected in vars(batch_covariances(x, y, label, counted[:-2], 4)).items():
        torch.testing.assert_close(getattr(found, name), expected, rtol=1e-12, atol=1e-12)


def test_paired_share_mixes_the_covariance_of_own_pairs() -> None:
    x, y, label = classes_of_rows()
    every = torch.ones(len(label), dtype=torch.bool)
    weight = np.array([SIZES[c] for c in label.tolist()], dtype=float)
    own = np.cov(x.numpy().T, y.numpy().T, aweights=weight, bias=True)[:4, 4:]
    clustered = brute_force(x, y, label).xy.numpy()
    found = batch_covariances(x, y, label, every, 4, paired=0.2)
    np.testing.assert_allclose(found.xy, 0.2 * own + 0.8 * clustered, rtol=1e-9, atol=1e-12)


def test_memory_does_not_grow_with_rows() -> None:
    sums = ClassMoments(2, 3, 4)
    sizes = [one.numel() for one in sums.sums]
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        rows = torch.randn(500, 7, generator=generator)
        sums.add(rows[:, :3], rows[:, 3:], torch.arange(500) % 2)
    assert [one.numel() for one in sums.sums] == sizes
    assert sums.count.sum() == 10_000


def test_no_rows_and_too_many_components_are_errors() -> None:
    with pytest.raises(ValueError, match="no rows"):
        ClassMoments(2, 3, 4).covariances()
    x, y, label = classes_of_rows()
    with pytest.raises(ValueError, match="expected 1 to 4"):
        solve(moments(x, y, label).covariances(), components=5, ridge=1e-4)
