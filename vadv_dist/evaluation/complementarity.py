"""What a teacher's view of the label is worth to a student, from the predictions of probes on frozen features.

Shape letters: R clips, K values of a label (1 for a number, one per class), G groups (videos), B bootstraps.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vadv_dist.evaluation.paired import Interval

FloatArray = npt.NDArray[np.float64]

_LARGEST_R2 = 1 - 1e-6
# Number of resampling weights in memory at a time.
_CHUNK_VALUES = 1 << 22


@dataclass(frozen=True)
class Complementarity:
    """How a teacher's view of the label relates to the student's input; mutual information is in nats.

    Attributes:
        teacher_student: I(teacher; student), how much the student's input says about the teacher's view.
        student_label: I(student; label), how much it says about the label.
        difference: the former minus the latter, with its interval. Above 0, the teacher's view is the clearer target.
        gain: share of the student's probe's squared error that disappears if the probe also sees the teacher's view.
        clearer_target: share of the squared distance between the student's probe and its target that disappears if the
            target is the best mixture of label and teacher's view instead of the label.
    """

    teacher_student: float
    student_label: float
    difference: Interval
    gain: Interval
    clearer_target: Interval


def complementarity(
    label: npt.ArrayLike,
    teacher: npt.ArrayLike,
    label_from_student: npt.ArrayLike,
    teacher_from_student: npt.ArrayLike,
    group: npt.ArrayLike,
    *,
    seed: int,
    num_samples: int = 2000,
    confidence: float = 0.95,
) -> Complementarity:
    """Compare I(teacher; student) with I(student; label), and the student's error with and without the teacher's view.

    A class is a label of K values: 1 in the class, 0 in the others. Sums of squares and products are then those over
    all values, and so is R², so that mutual information is that per dimension. Two classes give the same as a label of
    0 and 1.

    Distillation across modalities helps if I(teacher; student) > I(student; label): then the student can follow the
    teacher more closely than the noisy label. Mutual information is that of jointly Gaussian variables, for which it is
    -ln(1 - R²) / 2. With R² of clips that a probe was not fitted to, both are lower bounds.

    That is neither necessary nor enough: a student is trained on a mixture of both, the mean of two noisy targets is
    less noisy than either, and where labels have little noise there is little to gain. `clearer_target` measures this.
    The teacher's view is scaled such that it moves with the student's prediction as the label does; its distance to
    that prediction is noise, also if the student's input predicts it in another direction than the label.

    Args:
        label: in label units, [R] or [R, K].
        teacher: the teacher's view, as a prediction of the label, of the same shape.
        label_from_student: the label as predicted from the student's input, of the same shape.
        teacher_from_student: `teacher` as predicted from the student's input, of the same shape.
        group: the video of each clip, [R]; whole videos are resampled, because clips of one video resemble each other.
        seed: seed of the resampling.
        num_samples: number of resamples.
        confidence: fraction of the resampled values inside an interval.
    Raises:
        ValueError: arrays of different shapes, fewer than two groups, a value that is not finite, or a constant label.
    Source:
        Xie, Xu and Sanguinetti, Information-Theoretic Criteria for Knowledge Distillation in Multimodal Learning
        (arXiv:2510.13182). There, mutual information is that of trained representations; here the teacher's is reduced
        to its prediction of the label, so that what it knows about other things does not count.
    """
    names = ("label", "teacher", "label_from_student", "teacher_from_student")
    columns = [np.asarray(c, np.float64) for c in (label, teacher, label_from_student, teacher_from_student)]
    for name, column in zip(names, columns, strict=True):
        if column.ndim not in (1, 2) or column.shape != columns[0].shape:
            shapes = f"{name} has shape {list(column.shape)}, label {list(columns[0].shape)}"
            raise ValueError(f"{shapes}; expected [R] or [R, K]")
        if not np.isfinite(column).all():
            raise ValueError(f"{name} has {int((~np.isfinite(column)).sum())} values that are not finite")
    y, t, y_hat, t_hat = (column.reshape(len(column), -1) for column in columns)
    _, group_R = np.unique(np.asarray(group), return_inverse=True)
    groups = int(group_R.max()) + 1
    deviation = y.std(axis=0).max()
    if groups < 2 or deviation == 0:
        raise ValueError(
            f"there are {groups} groups and the label's deviation is {deviation:g}; expected 2 and above 0"
        )

    student_error = _residual(y, y_hat)
    both_error = _residual(y, y_hat, t)
    # Sums by group, of P quantities for each value of the label: a resample is a weighted sum of them.
    parts_GKP = np.stack(
        [
            np.stack([np.bincount(group_R, value_R, groups) for value_R in values.T], axis=1)
            for values in (
                *(np.ones_like(y), y, y**2, (y - y_hat) ** 2),
                *(t, t**2, (t - t_hat) ** 2),
                *(student_error**2, both_error**2),
                *(y_hat, y_hat**2, y * t, y * y_hat, t * y_hat),
            )
        ],
        axis=2,
    )
    rng = np.random.default_rng(seed)
    drawn = []
    step = max(1, _CHUNK_VALUES // max(groups, y.shape[1]))
    for start in range(0, num_samples, step):
        count_BG = rng.multinomial(groups, np.full(groups, 1 / groups), size=min(step, num_samples - start))
        sums_BKP = np.asarray(np.tensordot(count_BG, parts_GKP, axes=1), np.float64)
        drawn.append(_summary(sums_BKP))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(drawn), (tail, 1 - tail), axis=0)
    seen = _summary(parts_GKP.sum(axis=0, keepdims=True))[0]
    return Complementarity(
        teacher_student=float(seen[0]),
        student_label=float(seen[1]),
        difference=Interval(float(seen[2]), float(low[2]), float(high[2])),
        gain=Interval(float(seen[3]), float(low[3]), float(high[3])),
        clearer_target=Interval(float(seen[4]), float(low[4]), float(high[4])),
    )


def _residual(y_RK: FloatArray, *predictors_RK: FloatArray) -> FloatArray:
    """What is left of each value of the label after a line in its predictors, by least squares, [R, K]."""
    left = np.empty_like(y_RK)
    for number, y in enumerate(y_RK.T):
        table = np.stack([np.ones_like(y), *(predictor[:, number] for predictor in predictors_RK)], axis=1)
        left[:, number] = y - table @ np.linalg.lstsq(table, y, rcond=None)[0]
    return left


def _summary(sums_BKP: FloatArray) -> FloatArray:
    """The five quantities of `Complementarity`, [B, 5], from sums over clips."""
    count, y, y_2, y_errors, t, t_2, t_errors, of_student, of_both, y_hat, y_hat_2, *products = np.moveaxis(
        sums_BKP, -1, 0
    )
    y_error, t_error, student_error, both_error = (e.sum(axis=1) for e in (y_errors, t_errors, of_student, of_both))
    var_y, var_t, var_hat = (
        (squares - values**2 / count).sum(axis=1) for values, squares in ((y, y_2), (t, t_2), (y_hat, y_hat_2))
    )
    pairs = ((y, t), (y, y_hat), (t, y_hat))
    cov_yt, cov_y_hat, cov_t_hat = (
        (product - a * b / count).sum(axis=1) for product, (a, b) in zip(products, pairs, strict=True)
    )
    label, teacher = _information(var_y, y_error), _information(var_t, t_error)
    gain = 1 - _ratio(both_error, student_error)

    scale = _ratio(cov_y_hat, np.where((cov_y_hat > 0) & (cov_t_hat > 0), cov_t_hat, 0.0), without=0.0)
    # Squared distances from the student's prediction, and their product.
    of_label = var_y - 2 * cov_y_hat + var_hat
    of_teacher = scale**2 * var_t - 2 * scale * cov_t_hat + var_hat
    shared = scale * (cov_yt - cov_t_hat) - cov_y_hat + var_hat
    weight = np.clip(_ratio(of_label - shared, of_label + of_teacher - 2 * shared, without=0.0), 0.0, 1.0)
    weight = np.where(scale > 0, weight, 0.0)
    mixed = (1 - weight) ** 2 * of_label + weight**2 * of_teacher + 2 * weight * (1 - weight) * shared
    return np.stack([teacher, label, teacher - label, gain, 1 - _ratio(mixed, of_label)], axis=1)


def _ratio(value: FloatArray, of: FloatArray, without: float = 1.0) -> FloatArray:
    """A quotient; `without` where the divisor is not positive."""
    return np.divide(value, of, out=np.full_like(value, without), where=of > 0)


def _information(total: FloatArray, error: FloatArray) -> FloatArray:
    r2 = 1 - _ratio(error, total)
    return np.asarray(0.5 * np.log(1 / (1 - np.clip(r2, 0.0, _LARGEST_R2))))
