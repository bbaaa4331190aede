"""Readers of synthetic clips that know the random model: a second way to the errors that `truth` computes.

Shape letters: R clips, Z latents, Y labels.
"""

import numpy as np

from vadv_dist.data.synth.model import _FACE, _VISUAL, GRID, Floats, GenerativeModel, _direction, latent_shares
from vadv_dist.data.synth.words import DOWNTONERS, INTENSIFIERS, NEGATIONS, OPINION_WORDS

_LEVEL_OF_WORD = {word: half for half, words in OPINION_WORDS.items() for word in words}


def read_level(text: str) -> float:
    """Level expressed by a clip's words.

    Raises:
        ValueError: there is no opinion in the text, or several that differ.
    """
    words = text.split()
    levels = {
        _modified(words[i - 1] if i else "", _LEVEL_OF_WORD[word])
        for i, word in enumerate(words)
        if word in _LEVEL_OF_WORD
    }
    if len(levels) != 1:
        raise ValueError(f"expected one level of opinion in {text!r}, found {sorted(levels)}")
    return levels.pop() / 2


def _modified(modifier: str, half: int) -> int:
    away = (half > 0) - (half < 0)
    if modifier in INTENSIFIERS:
        return half + away
    if modifier in DOWNTONERS:
        return half - away
    return -half if modifier in NEGATIONS else half


def estimate_latent(model: GenerativeModel, visual: np.ndarray, face: np.ndarray) -> Floats:
    """Best unbiased estimate of the latent from video, [R]: a sufficient statistic with variance `video_variance`."""
    visual_R = _project(visual, _direction(_VISUAL, model.visual_shape[-1])) / model.visual_variance
    face_R = _project(face, _direction(_FACE, model.face_shape[-1])) / model.face_variance
    return (visual_R + face_R) * model.video_variance


def _project(values: np.ndarray, direction: Floats) -> Floats:
    per_frame = (values.astype(np.float64) * direction).sum(axis=-1)
    return per_frame.reshape(len(values), -1).mean(axis=1)


def estimate_likelihood(estimate_R: Floats, model: GenerativeModel) -> Floats:
    """p(video's estimate | latent) up to a factor per clip, [R, Z]; constant if the video is uninformative."""
    if not model.informative_video:
        return np.ones((len(estimate_R), len(GRID)))
    distance_RZ = (estimate_R[:, None] - GRID) ** 2 / model.video_variance
    return np.exp(-0.5 * (distance_RZ - distance_RZ.min(axis=1, keepdims=True)))


def posterior_medians(likelihood_RZ: Floats, model: GenerativeModel) -> Floats:
    """Best prediction of clips under absolute error, [R], from p(observation | latent) up to a factor per clip."""
    joint_YR = model.label_given_latent() @ (likelihood_RZ * latent_shares()).T
    cumulative_YR = np.cumsum(joint_YR, axis=0)
    return GRID[np.argmax(cumulative_YR >= 0.5 * cumulative_YR[-1], axis=0)]
