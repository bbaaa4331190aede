"""Almost Stochastic Order: whether one model's scores are larger than another's over their whole distributions.

Shape letters: N scores of one model, M of the other, K intervals of equal quantiles, B bootstraps.
"""

import math

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Number of resampled scores in memory at a time.
_CHUNK_VALUES = 1 << 22


def aso(
    scores_a: npt.ArrayLike,
    scores_b: npt.ArrayLike,
    *,
    seed: int,
    confidence: float = 0.95,
    num_comparisons: int = 1,
    num_bootstraps: int = 1000,
) -> float:
    """Upper confidence bound ε_min on how far model A is from being better than model B in every quantile.

    The violation ratio is 0 if each quantile of A's scores is at least that of B's, 1 if it is the other way round, and
    0.5 if neither is better. ε_min is its upper bound at the given confidence, with the standard deviation that
    bootstraps of both samples give. If ε_min < 0.5, A almost stochastically dominates B; the smaller, the stronger.
    A against B and B against A can both be at least 0.5: then neither is shown to be better.

    ε_min < 0.2 is the recommended limit, because few scores give many false positives at 0.5: of two equal models with
    five normally distributed scores each, 19 % are below 0.5 and 5 % below 0.2 (of 10,000 pairs; 9 % with three
    scores, 3 % with twenty). If all of A's scores are above all of B's, no resample violates the order and ε_min is 0,
    even for one score each. The number of scores must therefore be reported too.

    Args:
        scores_a: scores of the model that may be better, [N]; higher is better. Negate errors.
        scores_b: scores of the other model, [M], in the same unit; N and M may differ.
        seed: seed of the resampling; the same seed gives the same bound.
        confidence: probability that the bound holds.
        num_comparisons: number of comparisons that are made together; each bound then has confidence
            1 - (1 - confidence) / num_comparisons (Bonferroni), so that all hold together with `confidence`.
        num_bootstraps: number of resamples.
    Returns:
        ε_min in [0, 1].
    Raises:
        ValueError: a sample without scores, an array of more than one dimension, a score that is not finite, fewer than
            one comparison or two bootstraps, or a confidence outside [0.5, 1).
    Source:
        Dror, Shlomov and Reichart, Deep Dominance (ACL 2019); del Barrio, Cuesta-Albertos and Matrán (2018); Ulmer,
        Hardmeier and Frellsen (arXiv:2204.06815) for the limit 0.2. The package deepsig computes the same on a grid of
        199 quantiles; here the integral is exact. For several comparisons deepsig's confidence is
        confidence + (1 - confidence) / num_comparisons, which is Bonferroni's for two and falls as more are added.
    """
    from scipy import stats

    a, b = _checked(scores_a, "scores_a"), _checked(scores_b, "scores_b")
    if num_comparisons < 1:
        raise ValueError(f"num_comparisons is {num_comparisons}, expected at least 1")
    if num_bootstraps < 2:
        raise ValueError(f"num_bootstraps is {num_bootstraps}, expected at least 2")
    if not 0.5 <= confidence < 1:
        raise ValueError(f"confidence is {confidence}, expected a number in [0.5, 1)")
    rng = np.random.default_rng(seed)
    ratio_B = np.empty(num_bootstraps)
    step = max(1, _CHUNK_VALUES // (a.size + b.size))
    for start in range(0, num_bootstraps, step):
        count = min(step, num_bootstraps - start)
        ratio_B[start : start + count] = _ratios(
            rng.choice(a, (count, a.size)), rng.choice(b, (count, b.size)), *_quantiles(a.size, b.size)
        )
    reach = float(stats.norm.isf((1 - confidence) / num_comparisons))
    return min(max(violation_ratio(a, b) + reach * float(ratio_B.std()), 0.0), 1.0)


def violation_ratio(scores_a: npt.ArrayLike, scores_b: npt.ArrayLike) -> float:
    """Part of the squared 2-Wasserstein distance of two samples that lies where B's quantile is above A's.

    Args:
        scores_a, scores_b: scores, [N] and [M]; higher is better.
    Returns:
        A fraction in [0, 1]; 0.5 if the samples have the same distribution.
    Raises:
        ValueError: a sample without scores, an array of more than one dimension, or a score that is not finite.
    """
    a, b = _checked(scores_a, "scores_a"), _checked(scores_b, "scores_b")
    return float(_ratios(a[None], b[None], *_quantiles(a.size, b.size))[0])


def _checked(scores: npt.ArrayLike, name: str) -> FloatArray:
    values = np.asarray(scores, np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"{name} has shape {list(values.shape)}, expected [N] with at least one score")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} has {int((~np.isfinite(values)).sum())} of {values.size} values that are not finite")
    return values


def _quantiles(num_a: int, num_b: int) -> tuple[IntArray, IntArray, FloatArray]:
    """Intervals of (0, 1) in which neither sample's quantile changes.

    Returns:
        place of the quantile in each sorted sample, [K] each, and widths of the intervals, [K].
    """
    # In integers: multiples of 1 / lcm(N, M).
    whole = math.lcm(num_a, num_b)
    ends = np.union1d(np.arange(1, num_a + 1) * (whole // num_a), np.arange(1, num_b + 1) * (whole // num_b))
    starts = np.concatenate(([0], ends[:-1]))
    return starts // (whole // num_a), starts // (whole // num_b), (ends - starts) / whole


def _ratios(
    a_BN: FloatArray, b_BM: FloatArray, place_a_K: IntArray, place_b_K: IntArray, width_K: FloatArray
) -> FloatArray:
    a_BN, b_BM = np.sort(a_BN, axis=1), np.sort(b_BM, axis=1)
    above_BK = b_BM[:, place_b_K] - a_BN[:, place_a_K]
    distance_B = above_BK**2 @ width_K
    violation_B = np.maximum(above_BK, 0.0) ** 2 @ width_K
    ratio: FloatArray = np.divide(violation_B, distance_B, out=np.full(len(a_BN), 0.5), where=distance_B > 0)
    return ratio
