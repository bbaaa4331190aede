"""The best that any reader of made data can do, computed from the random model.

The best prediction under absolute error is the median of p(label | what is seen); words are enumerated, video's
sufficient statistic is integrated over a fine grid.

Shape letters: Y labels, Z latents, U levels of opinion, M values of the video's estimate, O observations.
"""

from dataclasses import asdict
from typing import Any

import numpy as np

from vadv_dist.data.synth.model import GRID, Floats, GenerativeModel, latent_shares

_GRID_POINTS = 4001
_REACH_IN_DEVIATIONS = 8


def truth_document(model: GenerativeModel) -> dict[str, Any]:
    """What `dataset.json` says of a made data set under `truth`."""
    best = best_errors(model)
    sentences = {
        "constant": "Knowing nothing: predict the labels' median for every clip.",
        "text": "Reading every opinion word rightly, without video.",
        "video": "Watching both video and face, knowing how features depend on the latent, without words.",
        "text_and_video": "Reading and watching.",
        "latent": "Knowing the latent itself: what remains is the annotators' noise.",
    }
    return {
        "model": (
            "A latent sentiment z follows CMU-MOSI's label histogram. A label is the mean of five annotators' "
            "round(clip(z + N(0, s_annot))). Words say the level clip(z + N(0, s_text)) rounded to a half. "
            + (
                "Visual and face features each carry z + N(0, s_video) along one direction, under frame noise."
                if model.informative_video
                else "Visual and face features carry a latent of another draw, and so tell nothing of the label."
            )
        ),
        "parameters": asdict(model),
        "best_mae": {name: {"mae": round(best[name], 6), "who": text} for name, text in sentences.items()},
        "how": (
            "Best attainable mean absolute error over all clips that the model can make (posterior median; sums over "
            "labels, latents and levels, quadrature over the video's estimate). A finite test split lies around it."
        ),
    }


def best_errors(model: GenerativeModel) -> dict[str, float]:
    """Best attainable mean absolute error by what is seen: constant, text, video, text_and_video, latent."""
    latent_Z = latent_shares()
    joint_YZ = model.label_given_latent() * latent_Z
    level_UZ = model.level_given_latent()
    best = {
        "constant": _best_error(joint_YZ.sum(axis=1, keepdims=True)),
        "text": _best_error(joint_YZ @ level_UZ.T),
        "latent": _best_error(joint_YZ),
    }
    if not model.informative_video:
        return best | {"video": best["constant"], "text_and_video": best["text"]}
    estimate_MZ = _estimate_given_latent(np.sqrt(model.video_variance))
    best["video"] = _best_error(joint_YZ @ estimate_MZ.T)
    best["text_and_video"] = sum(_best_error((joint_YZ * level_Z) @ estimate_MZ.T) for level_Z in level_UZ)
    return best


def posterior_medians(likelihood_RZ: Floats, model: GenerativeModel) -> Floats:
    """Best prediction of clips under absolute error, [R], from p(what is seen | latent) up to a factor per clip."""
    joint_YR = model.label_given_latent() @ (likelihood_RZ * latent_shares()).T
    return _medians(joint_YR)


def estimate_likelihood(estimate_R: Floats, model: GenerativeModel) -> Floats:
    """p(video's estimate | latent) up to a factor per clip, [R, Z]; flat where the video tells nothing."""
    if not model.informative_video:
        return np.ones((len(estimate_R), len(GRID)))
    distance_RZ = (estimate_R[:, None] - GRID) ** 2 / model.video_variance
    return np.asarray(np.exp(-0.5 * (distance_RZ - distance_RZ.min(axis=1, keepdims=True))))


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
