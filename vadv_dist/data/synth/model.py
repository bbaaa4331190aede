"""The random model behind synthetic clips: a latent sentiment, annotators, words and video.

Every clip draws its latent z, and given z, independently, its annotators, its level of opinion and its video cue. What
a reader can know about the label therefore follows from tables and Gaussians (see `truth`).

The video's cues lie along directions that belong to an imaginary feature extractor: they depend only on the width, not
on the seed, so that data sets with different seeds can be mixed and read by one teacher.

Shape letters: R clips, Z latents, Y labels, U levels of opinion, T frames, N tokens per frame, D feature width,
E expression scores.
"""

from dataclasses import dataclass
from math import inf, isfinite

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from vadv_dist.errors import UserError

Floats = npt.NDArray[np.float64]
Features = npt.NDArray[np.float16]

# Options of `vadv synth` that set a parameter of this model.
_FLAGS = {"s_annot": "--annotator-noise", "s_video": "--video-noise"}
NUM_ANNOTATORS = 5  # CMU-MOSI, Zadeh et al. 2016
# Values of the latent and of a label: the mean of five integers from -3 to 3.
GRID = np.round(np.arange(-15, 16) * 0.2, 1)
# Scores of an annotator.
SCORES = np.arange(-3.0, 4.0)
# Levels of opinion that words can express.
LEVELS = np.arange(-6, 7) / 2
# Share of CMU-MOSI's 2,199 labels at each value of GRID (labels off the grid count at the nearest value).
MOSI_LABEL_SHARES = (
    0.0055, 0.0146, 0.0168, 0.0186, 0.0286, 0.0468, 0.0346, 0.0437, 0.0391, 0.0359, 0.0500,
    0.0346, 0.0305, 0.0364, 0.0296, 0.0437, 0.0332, 0.0325, 0.0334, 0.0368, 0.0282, 0.0341,
    0.0443, 0.0416, 0.0446, 0.0546, 0.0437, 0.0250, 0.0205, 0.0132, 0.0055,
)  # fmt: skip

# Random streams of the directions.
_VISUAL, _FACE, _PROMPT, _AUDIO = 1, 2, 3, 4


def latent_shares() -> Floats:
    """Probability of each latent, [Z]."""
    shares = np.array(MOSI_LABEL_SHARES)
    return shares / shares.sum()


@dataclass(frozen=True)
class GenerativeModel:
    """Parameters of the random model; every `s_` is a standard deviation in label units.

    Args:
        informative_video: whether video, face and audio depend on the clip's latent; if not, they depend on another
            latent with the same distribution.
        s_annot: one annotator's noise, before rounding to an integer.
        s_text: noise of the words' level of opinion, before rounding to a half.
        s_video: noise of the cue shared by all visual frames, and of those shared by all face crops and all of audio.
        s_frame: noise of each value of a frame or crop.
        s_speaker: spread of the speakers' offsets, which are orthogonal to the cue.
        visual_shape: [T, N, D] of a clip's visual features.
        face_shape: [T, E] of a clip's expression scores.
        audio_shape: [T, D] of a clip's audio features, which carry a cue like the others; None has no audio.

    Raises:
        UserError: a noise that is not a positive number, or a shape with an axis below 1.
    """

    informative_video: bool = True
    s_annot: float = 0.8  # one annotator then matches a human on MOSI: MAE 0.71, A2 86 % (Table 2)
    s_text: float = 0.7
    s_video: float = 0.4
    s_frame: float = 1.0
    s_speaker: float = 0.5
    visual_shape: tuple[int, int, int] = (8, 1, 32)
    face_shape: tuple[int, int] = (64, 8)
    audio_shape: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for name in ("s_annot", "s_text", "s_video", "s_frame", "s_speaker"):
            value = getattr(self, name)
            if not (isfinite(value) and value > 0):
                flag = f" ({_FLAGS[name]})" if name in _FLAGS else ""
                raise UserError(f"{name}{flag} is {value!r}, expected a positive standard deviation in label units.")
        for name, axes in (("visual_shape", 3), ("face_shape", 2), ("audio_shape", 2)):
            shape = getattr(self, name)
            if shape is None:
                continue
            if len(shape) != axes or min(shape) < 1:
                raise UserError(f"{name} is {list(shape)}, expected {axes} positive integers.")

    def draw_latents(self, rng: np.random.Generator, num_clips: int) -> Floats:
        """Latents of clips, [R]."""
        drawn: Floats = rng.choice(GRID, size=num_clips, p=latent_shares())
        return drawn

    def draw_labels(self, rng: np.random.Generator, latent_R: Floats) -> Floats:
        """Labels of clips: the mean of five annotators' integers, [R]."""
        heard = latent_R[:, None] + rng.normal(0.0, self.s_annot, (len(latent_R), NUM_ANNOTATORS))
        total_R = np.rint(np.clip(heard, -3, 3)).sum(axis=1)
        return np.asarray(total_R / NUM_ANNOTATORS)

    def draw_half_levels(self, rng: np.random.Generator, latent_R: Floats) -> npt.NDArray[np.int64]:
        """Levels of opinion in half points, -6 to 6, [R]."""
        meant_R = np.clip(latent_R + rng.normal(0.0, self.s_text, len(latent_R)), -3, 3)
        return np.rint(meant_R * 2).astype(np.int64)

    def score_given_latent(self) -> Floats:
        """p(one annotator's score | latent), [7, Z], for scores -3 to 3."""
        return _rounded_normal(SCORES, GRID, self.s_annot, step=1.0)

    def label_given_latent(self) -> Floats:
        """p(label | latent), [Y, Z]: the sum of five independent annotators."""
        columns = []
        for share in self.score_given_latent().T:
            total = share
            for _ in range(NUM_ANNOTATORS - 1):
                total = np.convolve(total, share)
            columns.append(total)
        return np.stack(columns, axis=1)

    def level_given_latent(self) -> Floats:
        """p(level of opinion | latent), [U, Z]."""
        return _rounded_normal(LEVELS, GRID, self.s_text, step=0.5)

    @property
    def visual_variance(self) -> float:
        """Variance around the latent of the best estimate from visual features."""
        frames, tokens, _ = self.visual_shape
        return self.s_video**2 + self.s_frame**2 / (frames * tokens)

    @property
    def face_variance(self) -> float:
        """Variance around the latent of the best estimate from expression scores."""
        return self.s_video**2 + self.s_frame**2 / self.face_shape[0]

    @property
    def video_variance(self) -> float:
        """Variance around the latent of the best estimate from all features together."""
        parts = [self.visual_variance, self.face_variance]
        if self.audio_shape is not None:
            parts.append(self.s_video**2 + self.s_frame**2 / self.audio_shape[0])
        return 1 / sum(1 / part for part in parts)


def _rounded_normal(values: Floats, means: Floats, s: float, step: float) -> Floats:
    """Probability that clip(N(mean, s)) rounds to each value, [len(values), len(means)]."""
    edges = np.concatenate([[-inf], values[:-1] + step / 2, [inf]])
    return np.asarray(np.diff(ndtr((edges[:, None] - means) / s), axis=0))


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


def draw_audio(
    rng: np.random.Generator, model: GenerativeModel, latent_R: Floats, speaker_R: npt.NDArray[np.int64]
) -> Features | None:
    """Audio features [R, T, D] of clips, as `draw_features` draws the others; None if the model has none."""
    if model.audio_shape is None:
        return None
    if not model.informative_video:
        latent_R = model.draw_latents(rng, len(latent_R))
    frames, width = model.audio_shape
    return _draw(rng, model, latent_R, speaker_R, (frames,), _direction(_AUDIO, width))


def prompt_embeddings(width: int, num_prompts: int = 2) -> npt.NDArray[np.float32]:
    """Embeddings of prompts from a negative to a positive one in the space of the visual features, [C, D].

    They have a large common part, like CLIP's prompts, and differ along the direction of the cue.
    """
    shared = _direction(_PROMPT, width)
    cue = _direction(_VISUAL, width)
    return np.stack([shared + place * cue for place in np.linspace(-0.5, 0.5, num_prompts)]).astype(np.float32)


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
