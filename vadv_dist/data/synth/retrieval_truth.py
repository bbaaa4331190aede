"""The best possible retrieval on synthetic data, estimated from the random model.

No ranking has a higher expected precision at any rank than the one by the probability of relevance. It follows from the
posterior of the class given each vector, which is known in closed form, and from the probability that two vectors are
of one clip. Galleries are drawn from the model, ranked in this way, and scored.

Shape letters: R clips of a gallery, C classes, K width of the shared part.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import logsumexp, softmax

from vadv_dist.data.synth.retrieval_model import SHARED_WIDTH, Floats, Ints, RetrievalModel

_QUERIES = 4000  # over all galleries: the standard error is then about 0.003
_MAX_GALLERY = 1000
_SEED = 1


@dataclass(frozen=True)
class Readings:
    """What an ideal reader makes of the clips of a gallery.

    Attributes:
        content: their classes, [R].
        audio, mean, frames: posterior of the class from the audio vector, the mean over frames and the frames, [R, C].
        heard, seen: the shared part as it is in the audio vector and in the frames, in its standard deviations, [R, K].
    """

    content: Ints
    audio: Floats
    mean: Floats
    frames: Floats
    heard: Floats
    seen: Floats


def truth_document(model: RetrievalModel, *, num_test: int) -> dict[str, Any]:
    """The `truth` of a synthetic retrieval data set in `dataset.json`.

    Args:
        model: the random model.
        num_test: clips of the test split, because mAP depends on the size of the gallery.
    """
    gallery = min(num_test, _MAX_GALLERY)
    draws = [_scores(model, gallery, draw) for draw in range(max(2, -(-_QUERIES // gallery)))]
    mean = {name: float(np.mean([draw[name] for draw in draws])) for name in draws[0]}
    error = max(float(np.std([draw[name] for draw in draws], ddof=1)) for name in mean if name in _MAPS)
    error /= np.sqrt(len(draws))
    return {
        "title": "Highest possible mAP",
        "value": "mAP",
        "model": (
            f"A clip has one of {model.num_classes} classes. Its audio vector has the class's code along directions of "
            "its own, under private variation and noise. "
            + (
                f"{model.event_frames} of {model.frames} frames, which are marked, show the class; the others show an "
                "independent one. The student reads the mean over frames, which does not say which is which; the "
                "teacher reads the frames."
                if model.frames_say_more
                else "Frames show the class mixed with an independent one and say no more than their mean, which the "
                "student reads."
            )
            + f" Both modalities also share {SHARED_WIDTH} values beyond the class."
        ),
        "summary": (
            f"An ideal reader names the right class for {mean['accuracy_audio']:.1%} of audio vectors, "
            f"{mean['accuracy_mean']:.1%} of means over frames and {mean['accuracy_frames']:.1%} of the frames "
            f"themselves. {model.label_noise:.0%} of the train labels are wrong; those of valid and test are right."
        ),
        "parameters": asdict(model),
        "best_map": {
            name: {"map": round(mean[name], 6), "knowing": knowing, "who": who}
            for name, (knowing, who) in _MAPS.items()
        },
        "best_accuracy": {
            "constant": round(1 / model.num_classes, 6),
            **{name: round(mean[f"accuracy_{name}"], 6) for name in ("audio", "mean", "frames")},
        },
        "how": (
            "Mean average precision of both directions. Galleries drawn from the model are ranked by the probability "
            "that query and item have the same class, from the classes' posteriors and from whether both are of one "
            f"clip: {len(draws)} galleries of {gallery} clips, standard error {error:.4f}. A finite test split "
            "deviates from it. best_accuracy: share of clips whose likeliest class is right."
        ),
    }


_MAPS = {
    "chance": ("nothing", "Ranking at random."),
    "classes": (
        "audio, mean of frames",
        "From the audio vector and the mean over frames, using the class alone: what a student can reach that does not "
        "tell a query's own clip from others of its class.",
    ),
    "student": (
        "the same, and own pairs",
        "From the audio vector and the mean over frames, also recognising a query's own clip by what both vectors "
        "share beyond the class. No student ranks better.",
    ),
    "frames": (
        "audio, all frames",
        "As before, but from all frames, which only a teacher sees.",
    ),
}


def draw_readings(rng: np.random.Generator, model: RetrievalModel, num_clips: int) -> Readings:
    """Draw clips from the random model and read them ideally.

    Only sufficient statistics of the features are drawn: their values along the directions of classes and shared part.
    """
    codes, count = np.eye(model.num_classes), num_clips
    content_R, other_R = rng.integers(model.num_classes, size=(2, count))
    own_RC, other_RC = codes[content_R], codes[other_R]
    weight = model.event_weight

    def noisy(mean_RC: Floats, variance: float) -> Floats:
        return mean_RC + rng.normal(0.0, np.sqrt(variance), mean_RC.shape)

    audio_RC = noisy(own_RC, model.audio_variance)
    mean_RC = noisy(weight * own_RC + (1 - weight) * other_RC, model.mean_variance)
    contrast_RC = noisy(own_RC - other_RC, model.contrast_variance) if model.frames_say_more else None
    shared_RK = rng.normal(0.0, model.s_shared, (count, SHARED_WIDTH))
    heard_RK = noisy(shared_RK, model.s_ambient**2)
    seen_RK = noisy(shared_RK, model.s_frame**2 / model.frames)
    return read(model, content_R, audio_RC, mean_RC, contrast_RC, heard_RK, seen_RK)


def read(
    model: RetrievalModel,
    content_R: Ints,
    audio_RC: Floats,
    mean_RC: Floats,
    contrast_RC: Floats | None,
    heard_RK: Floats,
    seen_RK: Floats,
) -> Readings:
    """The ideal reader's posteriors.

    Args:
        model: the random model.
        content_R: classes of the clips.
        audio_RC, mean_RC: audio vector and mean over frames along the classes' directions.
        contrast_RC: mean of event frames minus mean of other frames along these directions; None if frames say no more
            than their mean.
        heard_RK, seen_RK: audio vector and mean over frames along the directions of the shared part.
    """
    # Squared lengths of the means: w² + (1-w)² + 2w(1-w) if both classes are one, and 2 or 0 for the contrast.
    weight = model.event_weight
    own_RC, other_RC = (share * mean_RC / model.mean_variance for share in (weight, 1 - weight))
    both_one = -weight * (1 - weight) / model.mean_variance
    mean_posterior = frames_posterior = _posterior_of_two(own_RC, other_RC, both_one)
    if contrast_RC is not None:
        evidence_RC = contrast_RC / model.contrast_variance
        both_one += 1 / model.contrast_variance
        frames_posterior = _posterior_of_two(own_RC + evidence_RC, other_RC - evidence_RC, both_one)
    return Readings(
        content_R,
        np.asarray(softmax(audio_RC / model.audio_variance, axis=1)),
        mean_posterior,
        frames_posterior,
        heard_RK / np.hypot(model.s_shared, model.s_ambient),
        seen_RK / np.sqrt(model.s_shared**2 + model.s_frame**2 / model.frames),
    )


def relevance(audio_RC: Floats, visual_RC: Floats) -> Floats:
    """Probability that an audio vector and a visual one of different clips have the same class, [R, R]."""
    return np.asarray(audio_RC @ visual_RC.T)


def relevance_with_pairs(model: RetrievalModel, readings: Readings, visual_RC: Floats) -> Floats:
    """Probability that an audio vector and a visual one have the same class, if they may be of one clip, [R, R].

    Args:
        model: the random model.
        readings: of the clips.
        visual_RC: their posteriors from the visual side.
    """
    same_class_RR = relevance(readings.audio, visual_RC)
    correlation = model.s_shared**2 / (
        np.hypot(model.s_shared, model.s_ambient) * np.sqrt(model.s_shared**2 + model.s_frame**2 / model.frames)
    )
    squares_RR = (readings.heard**2).sum(axis=1)[:, None] + (readings.seen**2).sum(axis=1)
    products_RR = readings.heard @ readings.seen.T
    # Log density ratio of K pairs of standard normal values with this correlation to independent ones.
    evidence_RR = (correlation * products_RR - correlation**2 * squares_RR / 2) / (1 - correlation**2)
    evidence_RR -= SHARED_WIDTH / 2 * np.log(1 - correlation**2)
    with np.errstate(divide="ignore"):
        evidence_RR += np.log(model.num_classes * same_class_RR)
    others = max(1, len(visual_RC) - 1)  # as many clips as the query's own one is not
    same_clip_RR = 1 / (1 + others * np.exp(-np.clip(evidence_RR, -700, 700)))
    return np.asarray(same_clip_RR + (1 - same_clip_RR) * same_class_RR)


def mean_average_precision(score_RR: Floats, content_R: Ints) -> float:
    """mAP of ranking by score without ties, as the mean of both directions.

    Args:
        score_RR: score of each pair of an audio vector and a visual one of the same clips.
        content_R: classes of the clips.
    """
    both = []
    for one in (score_RR, score_RR.T):
        order = np.argsort(np.ascontiguousarray(-one), axis=1)
        relevant = content_R[order] == content_R[:, None]
        precision = np.cumsum(relevant, axis=1) / np.arange(1, len(content_R) + 1)
        both.append(float(((precision * relevant).sum(axis=1) / relevant.sum(axis=1)).mean()))
    return sum(both) / 2


def _scores(model: RetrievalModel, gallery: int, draw: int) -> dict[str, float]:
    rng = np.random.default_rng([_SEED, gallery, draw])
    readings = draw_readings(rng, model, gallery)
    content_R = readings.content
    rankings = {
        "chance": rng.random((gallery, gallery)),
        "classes": relevance(readings.audio, readings.mean),
        "student": relevance_with_pairs(model, readings, readings.mean),
        "frames": relevance_with_pairs(model, readings, readings.frames),
    }
    scores = {name: mean_average_precision(score_RR, content_R) for name, score_RR in rankings.items()}
    for name, posterior_RC in (("audio", readings.audio), ("mean", readings.mean), ("frames", readings.frames)):
        scores[f"accuracy_{name}"] = float((posterior_RC.argmax(axis=1) == content_R).mean())
    return scores


def _posterior_of_two(own_RC: Floats, other_RC: Floats, both_one: float) -> Floats:
    """Posterior of a clip's class, [R, C], if another class, which may be the same, is shown as well.

    Args:
        own_RC, other_RC: log likelihood of each class as the clip's, and as the other one.
        both_one: what is added to the sum of both if they are the same class.
    """
    rows, top_R = np.arange(len(other_RC)), other_RC.argmax(axis=1)
    share_RC = np.exp(other_RC - other_RC[rows, top_R, None])
    # Log of the sum over all other classes; the difference is at least 1 except at the largest one.
    different_RC = np.log(np.maximum(share_RC.sum(axis=1, keepdims=True) - share_RC, 1)) + other_RC[rows, top_R, None]
    without_top_RC = other_RC.copy()
    without_top_RC[rows, top_R] = -np.inf
    different_RC[rows, top_R] = logsumexp(without_top_RC, axis=1)
    return np.asarray(softmax(own_RC + np.logaddexp(different_RC, other_RC + both_one), axis=1))
