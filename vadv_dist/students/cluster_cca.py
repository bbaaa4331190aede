"""Canonical correlation analysis of all pairs within a class (cluster-CCA, Rasiwasia et al. 2014, AISTATS).

The data of ordinary CCA are pairs (x_i, y_i). Those of cluster-CCA are all pairs (x_i, y_j) of a class: n² for a class
of n clips. Their means and covariances are sums over clips, in which a clip of a class of n counts n times, so the
pairs are never listed:

    N = Σ_c n_c²    mean_x = Σ_c n_c Σ_i x_i / N    cov_xx = Σ_c n_c Σ_i x_i x_iᵀ / N - mean_x mean_xᵀ
                                                    cov_xy = Σ_c n_c² x̄_c ȳ_cᵀ / N - mean_x mean_yᵀ

Shape letters: R rows, C classes, X and Y widths of the two views, K components.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Covariances:
    """Means [X], [Y] and covariances [X, X], [Y, Y], [X, Y] of two views, in float64."""

    mean_x: Tensor
    mean_y: Tensor
    xx: Tensor
    yy: Tensor
    xy: Tensor


@dataclass(frozen=True)
class Projections:
    """Linear maps into the common space.

    Attributes:
        x, y: canonical directions in columns, [X, K], [Y, K]: a projected view has unit covariance (less what the ridge
            takes).
        correlations: of the projected views, [K], in decreasing order.
    """

    x: Tensor
    y: Tensor
    correlations: Tensor


class ClassMoments:
    """Sums over the clips of each class, which batches are added to. Memory: C · (X² + Y²) numbers in float64.

    Args:
        num_classes: C.
        width_x, width_y: X, Y.
        device: of the sums.
    """

    def __init__(self, num_classes: int, width_x: int, width_y: int, device: torch.device | None = None) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(num_classes, *shape, dtype=torch.float64, device=device)

        self.count, self.sum_x, self.sum_y = zeros(), zeros(width_x), zeros(width_y)
        self.squares_x, self.squares_y = zeros(width_x, width_x), zeros(width_y, width_y)

    @property
    def sums(self) -> tuple[Tensor, ...]:
        """All sums; those of ranks add up."""
        return self.count, self.sum_x, self.sum_y, self.squares_x, self.squares_y

    def add(self, x_RX: Tensor, y_RY: Tensor, label_R: Tensor) -> None:
        """Add rows of integer classes."""
        for label in set(label_R.tolist()):
            x, y = x_RX[label_R == label].double(), y_RY[label_R == label].double()
            self.count[label] += len(x)
            self.sum_x[label] += x.sum(dim=0)
            self.sum_y[label] += y.sum(dim=0)
            self.squares_x[label] += x.T @ x
            self.squares_y[label] += y.T @ y

    def covariances(self) -> Covariances:
        """Means and covariances of all pairs within a class.

        Raises:
            ValueError: there are no rows.
        """
        num_pairs = self.count.square().sum()
        if num_pairs == 0:
            raise ValueError("There are no rows to compute covariances of.")
        share_C = self.count / num_pairs
        mean_x, mean_y = share_C @ self.sum_x, share_C @ self.sum_y
        xx = torch.einsum("c,cij->ij", share_C, self.squares_x) - mean_x.outer(mean_x)
        yy = torch.einsum("c,cij->ij", share_C, self.squares_y) - mean_y.outer(mean_y)
        xy = self.sum_x.T @ self.sum_y / num_pairs - mean_x.outer(mean_y)
        return Covariances(mean_x, mean_y, xx, yy, xy)


def batch_covariances(
    x_RX: Tensor, y_RY: Tensor, label_R: Tensor, counted_R: Tensor, num_classes: int, *, paired: float = 0.0
) -> Covariances:
    """Means and covariances of all pairs within a class of one batch; gradients flow into both views.

    Args:
        x_RX, y_RY: views, with finite values.
        label_R: integer classes below C; those of rows that do not count may be anything.
        counted_R: true for rows that count.
        num_classes: C.
        paired: share of the covariance of x and y that is taken from each clip's own pair, instead of all pairs of its
            class.
    """
    x_RX, y_RY = x_RX.double(), y_RY.double()
    inside_RC = torch.nn.functional.one_hot(torch.where(counted_R, label_R, 0).long(), num_classes).double()
    inside_RC = inside_RC * counted_R[:, None]
    count_C = inside_RC.sum(dim=0)
    num_pairs = count_C.square().sum().clamp(min=1)
    weight_R = inside_RC @ count_C / num_pairs
    mean_x, mean_y = weight_R @ x_RX, weight_R @ y_RY
    x_RX, y_RY = x_RX - mean_x, y_RY - mean_y
    weighted_RX = weight_R[:, None] * x_RX
    clustered = (inside_RC.T @ x_RX).T @ (inside_RC.T @ y_RY) / num_pairs
    xy = clustered if paired == 0 else paired * (weighted_RX.T @ y_RY) + (1 - paired) * clustered
    return Covariances(mean_x, mean_y, weighted_RX.T @ x_RX, y_RY.T @ (weight_R[:, None] * y_RY), xy)


def coherence(covariances: Covariances, ridge: float) -> tuple[Tensor, Tensor, Tensor]:
    """The covariance of the whitened views, [X, Y], whose singular values are the canonical correlations.

    Returns:
        it, and the Cholesky factors of the covariances of x and y plus the ridge.
    """
    factor_x, factor_y = (
        torch.linalg.cholesky(one + ridge * torch.eye(len(one), dtype=one.dtype, device=one.device))
        for one in (covariances.xx, covariances.yy)
    )
    half = torch.linalg.solve_triangular(factor_x, covariances.xy, upper=False)
    return torch.linalg.solve_triangular(factor_y, half.T, upper=False).T, factor_x, factor_y


def solve(covariances: Covariances, *, components: int, ridge: float) -> Projections:
    """Solve CCA in closed form, in float64.

    Args:
        covariances: of the views.
        components: K, at most X and Y.
        ridge: added to the variances, above 0 unless both covariances have full rank.
    Returns:
        the projections; the sign of each component is the one with which the largest entry of x is positive.
    Raises:
        ValueError: more components than the views have dimensions.
    """
    most = min(covariances.xy.shape)
    if not 1 <= components <= most:
        raise ValueError(f"components is {components}, expected 1 to {most}, the width of the narrower view.")
    whitened, factor_x, factor_y = coherence(covariances, ridge)
    left, correlations, right_T = torch.linalg.svd(whitened, full_matrices=False)
    x = torch.linalg.solve_triangular(factor_x.T, left[:, :components], upper=True)
    y = torch.linalg.solve_triangular(factor_y.T, right_T[:components].T, upper=True)
    largest = x.gather(0, x.abs().argmax(dim=0, keepdim=True))
    sign = torch.where(largest < 0, -1.0, 1.0)
    return Projections(x * sign, y * sign, correlations[:components])
