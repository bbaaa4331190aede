"""The best possible predictions on synthetic data, computed from the random model.

The best prediction under absolute error is the median of p(label | observation); words are enumerated, and the video's
sufficient statistic is integrated over a fine grid.

Shape letters: Y labels, Z latents, U levels of opinion, M values of the video's estimate, O observations.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from vadv_dist.data.synth.classes import classes_of
from vadv_dist.data.synth.model import GRID, SCORES, Floats, GenerativeModel, latent_shares

_GRID_POINTS = 4001
_REACH_IN_DEVIATIONS = 8


def truth_document(model: GenerativeModel, num_classes: int | None = None) -> dict[str, Any]:
    """The `truth` of a synthetic data set in `dataset.json`; its labels are numbers without a number of classes."""
    if num_classes is not None:
        return _truth_of_classes(model, num_classes)
    best = best_errors(model)
    annotator = {name: round(value, 6) for name, value in annotator_metrics(model).items()}
    sentences = _sentences(model, "the labels' median")
    return {
        "model": _model_in_words(model),
        "parameters": asdict(model),
        "best_mae": {name: {"mae": round(best[name], 6), "who": text} for name, text in sentences.items()},
        "best_a2_has0": {name: round(share, 6) for name, share in best_accuracies(model).items()},
        "annotator": annotator,
        "human": (
            f"Another annotator reaches MAE {annotator['mae']:.2f} and A2 {annotator['a2_has0']:.1%} on these labels; "
            "a human reaches 0.71 and 85.7% on CMU-MOSI."
        ),
        "how": (
            "Best attainable mean absolute error over all clips of the model (posterior median; sums over labels, "
            "latents and levels, quadrature over the video's estimate). A finite test split deviates from it. "
            "best_a2_has0: best share of clips whose sign (0 counts as positive) is predicted correctly. annotator: "
            "metrics of another annotator compared with the mean of the five."
        ),
    }


def _truth_of_classes(model: GenerativeModel, num_classes: int) -> dict[str, Any]:
    best = best_class_accuracies(model, num_classes)
    sentences = _sentences(model, "the most frequent class")
    return {
        "model": f"{_model_in_words(model)} The class is the interval of the label, of {num_classes} in [-3, 3].",
        "parameters": asdict(model),
        "best_accuracy": {name: {"accuracy": round(best[name], 6), "who": text} for name, text in sentences.items()},
        "how": (
            "Best attainable share of clips whose class is predicted correctly, over all clips of the model (the "
            "likeliest class; sums over labels, latents and levels, quadrature over the video's estimate). A finite "
            "test split deviates from it."
        ),
    }


def _model_in_words(model: GenerativeModel) -> str:
    return (
        "A latent sentiment z follows CMU-MOSI's label histogram. A label is the mean of five annotators' "
        "round(clip(z + N(0, s_annot))). Words express the level clip(z + N(0, s_text)) rounded to a half. "
    ) + (
        "Visual and face features each carry z + N(0, s_video) along one direction, under frame noise."
        if model.informative_video
        else "Visual and face features depend on an independent latent, and so not on the label."
    )


def _sentences(model: GenerativeModel, constant: str) -> dict[str, str]:
    """What a best possible reader knows, by input."""
    all_features = "video and face" if model.audio_shape is None else "video, face and audio"
    return {
        "constant": f"Without any input: predict {constant} for every clip.",
        "text": "Reading every opinion word correctly, without video.",
        "video": f"From {all_features}, knowing how features depend on the latent, without words.",
        "text_and_video": f"From words and {all_features}.",
        "latent": "Knowing the latent: what remains is the annotators' noise.",
    }


def best_class_accuracies(model: GenerativeModel, num_classes: int) -> dict[str, float]:
    """Best attainable share of correct classes, by input as in `best_errors`."""
    class_Y = classes_of(GRID, num_classes)

    def best(joint_YO: Floats) -> float:
        joint_CO = np.stack([joint_YO[class_Y == one].sum(axis=0) for one in range(num_classes)])
        return float(joint_CO.max(axis=0).sum())

    return _best(model, best)


def best_errors(model: GenerativeModel) -> dict[str, float]:
    """Best attainable mean absolute error by input: constant, text, video, text_and_video, latent."""
    return _best(model, _best_error)


def best_accuracies(model: GenerativeModel) -> dict[str, float]:
    """Best attainable share of correct signs (0 counts as positive), by input as in `best_errors`."""
    return _best(model, _best_accuracy)


def mutual_informations(model: GenerativeModel) -> tuple[float, float]:
    """I(words; video) and I(words; label) in nats, of the level of opinion, the video's best estimate and the label.

    Distillation can help a reader of words if the former is larger (arXiv:2510.13182).
    """
    level_UZ, latent_Z = model.level_given_latent(), latent_shares()
    label = _mutual_information((model.label_given_latent() * latent_Z) @ level_UZ.T)
    if not model.informative_video:
        return 0.0, label
    estimate_MZ = _estimate_given_latent(np.sqrt(model.video_variance))
    return _mutual_information((estimate_MZ * latent_Z) @ level_UZ.T), label


def _mutual_information(joint_AB: Floats) -> float:
    product_AB = joint_AB.sum(axis=1, keepdims=True) * joint_AB.sum(axis=0, keepdims=True)
    seen = (joint_AB > 0) & (product_AB > 0)  # tiny products underflow
    return float((joint_AB[seen] * np.log(joint_AB[seen] / product_AB[seen])).sum())


def annotator_metrics(model: GenerativeModel) -> dict[str, float]:
    """Metrics of another annotator, who did not contribute to the label: the human reader of synthetic data.

    Source: on CMU-MOSI, humans reach MAE 0.71, A2 85.7 %, correlation 0.82 (VideoAdviser, Table 2).
    """
    share_SY = (model.score_given_latent() * latent_shares()) @ model.label_given_latent().T
    score_SY, label_SY = np.broadcast_arrays(SCORES[:, None], GRID)
    covariance = np.cov(score_SY.ravel(), label_SY.ravel(), aweights=share_SY.ravel(), ddof=0)
    nonzero_SY = label_SY != 0
    same_non0_SY = nonzero_SY & ((score_SY > 0) == (label_SY > 0))
    return {
        "mae": float((share_SY * np.abs(score_SY - label_SY)).sum()),
        "corr": float(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])),
        "a2_has0": float(share_SY[(score_SY >= 0) == (label_SY >= 0)].sum()),
        "a2_non0": float(share_SY[same_non0_SY].sum() / share_SY[nonzero_SY].sum()),
    }


def _best(model: GenerativeModel, of: Callable[[Floats], float]) -> dict[str, float]:
    """Apply `of` to p(label, observation), by input."""
    latent_Z = latent_shares()
    joint_YZ = model.label_given_latent() * latent_Z
    level_UZ = model.level_given_latent()
    best = {
        "constant": of(joint_YZ.sum(axis=1, keepdims=True)),
        "text": of(joint_YZ @ level_UZ.T),
        "latent": of(joint_YZ),
    }
    if not model.informative_video:
        return best | {"video": best["constant"], "text_and_video": best["text"]}
    estimate_MZ = _estimate_given_latent(np.sqrt(model.video_variance))
    best["video"] = of(joint_YZ @ estimate_MZ.T)
    best["text_and_video"] = sum(of((joint_YZ * level_Z) @ estimate_MZ.T) for level_Z in level_UZ)
    return best


def _estimate_given_latent(s: float) -> Floats:
    """Quadrature weights times density of the video's estimate given the latent, [M, Z]; columns sum to 1."""
    reach = GRID[-1] + _REACH_IN_DEVIATIONS * s
    points_M = np.linspace(-reach, reach, _GRID_POINTS)
    density_MZ = np.exp(-0.5 * ((points_M[:, None] - GRID) / s) ** 2)
    return np.asarray(density_MZ / density_MZ.sum(axis=0))


def _medians(joint_YO: Floats) -> Floats:
    cumulative_YO = np.cumsum(joint_YO, axis=0)
    return np.asarray(GRID[np.argmax(cumulative_YO >= 0.5 * cumulative_YO[-1], axis=0)])


def _best_error(joint_YO: Floats) -> float:
    """Expected absolute error of the posterior median, from p(label, observation)."""
    return float((np.abs(GRID[:, None] - _medians(joint_YO)) * joint_YO).sum())


def _best_accuracy(joint_YO: Floats) -> float:
    """Probability that the likelier sign is the label's sign, from p(label, observation)."""
    positive_Y = GRID >= 0
    return float(np.maximum(joint_YO[positive_Y].sum(axis=0), joint_YO[~positive_Y].sum(axis=0)).sum())
