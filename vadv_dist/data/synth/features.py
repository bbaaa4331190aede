"""Synthetic video: frame features and expression scores with a cue along one direction.

The directions belong to an imaginary feature extractor: they depend only on the width, not on the seed, so that data
sets with different seeds can be mixed and read by one teacher.

Shape letters: R clips, T frames, N tokens per frame, D feature width, E expression scores, C prompts.
"""

import numpy as np
import numpy.typing as npt

from vadv_dist.data.synth.model import Floats, GenerativeModel

Features = npt.NDArray[np.float16]
_VISUAL, _FACE, _PROMPT = 1, 2, 3


def draw_features(
    rng: np.random.Generator, model: GenerativeModel, latent_R: Floats, speaker_R: npt.NDArray[np.int64]
) -> tuple[Features, Features]:
    """Visual features [R, T, N, D] and expression scores [R, T, E] of clips.

    Args:
        rng: source of all random numbers.
        model: determines shapes and noise, and whether the latent is the clip's own.
        latent_R: latents, [R].
        speaker_R: index of each clip's speaker, from 0, [R].
    """
    if not model.informative_video:
        latent_R = model.draw_latents(rng, len(latent_R))
    frames, tokens, width = model.visual_shape
    visual = _draw(rng, model, latent_R, speaker_R, (frames, tokens), _direction(_VISUAL, width))
    frames, scores = model.face_shape
    face = _draw(rng, model, latent_R, speaker_R, (frames,), _direction(_FACE, scores))
    return visual, face


def prompt_embeddings(width: int) -> npt.NDArray[np.float32]:
    """Embeddings of a negative and a positive prompt in the space of the visual features, [2, D].

    They have a large common part, like CLIP's prompts, and differ along the direction of the cue.
    """
    shared = _direction(_PROMPT, width)
    cue = _direction(_VISUAL, width)
    return np.stack([shared - 0.5 * cue, shared + 0.5 * cue]).astype(np.float32)


def _draw(
    rng: np.random.Generator,
    model: GenerativeModel,
    latent_R: Floats,
    speaker_R: npt.NDArray[np.int64],
    axes: tuple[int, ...],
    direction: Floats,
) -> Features:
    cue_R = latent_R + rng.normal(0.0, model.s_video, len(latent_R))
    offset = rng.normal(0.0, model.s_speaker, (int(speaker_R.max()) + 1, len(direction)))
    # Orthogonal to the cue: knowing the speaker does not help, so the statistic stays exact.
    offset -= (offset * direction).sum(axis=1, keepdims=True) * direction
    clip_RD = cue_R[:, None] * direction + offset[speaker_R]
    values = rng.standard_normal((len(latent_R), *axes, len(direction)), dtype=np.float32) * np.float32(model.s_frame)
    values += clip_RD.reshape(len(latent_R), *(1 for _ in axes), len(direction)).astype(np.float32)
    return values.astype(np.float16)


def _direction(kind: int, width: int) -> Floats:
    direction = np.random.default_rng([kind, width]).normal(size=width)
    return np.asarray(direction / np.sqrt((direction**2).sum()))
