"""The random model behind synthetic retrieval data: clips of a class, heard as one vector and seen as frames.

Both modalities place a clip's class and what its pair shares beyond the class along orthonormal directions of their own
(another basis and another offset: the modality gap). These directions belong to imaginary feature extractors: they
depend only on widths and the number of classes, not on the seed, so that data sets with different seeds can be mixed.

    audio   = gap + A [code(class) + N(0, s_audio)] + A' shared + N(0, s_ambient)
    frame t = gap + V [N(0, s_visual)] + V' shared + N(0, s_frame)
              + V code(class) + mark    in the event frames
              + V code(other)           in all other frames

`code` is one-hot; `other` is the class of what else the clip shows, independent of its class. The mean over frames has
both codes and does not say which one is the clip's; the frames do, because event frames are marked. So a teacher that
reads frames knows more than a student that reads their mean.

Shape letters: R clips, T frames, D width of a feature, C classes, K width of the shared part, M columns of a basis.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite

import numpy as np
import numpy.typing as npt

from vadv_dist.errors import UserError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Features = npt.NDArray[np.float16]

SHARED_WIDTH = 8  # K
_EVENT_SHARE = 5 / 8  # of the frames
_MARK_IN_DEVIATIONS = 8  # of a frame's noise: one frame in 30,000 is taken for the wrong kind
_GAP = 2.0  # length of a modality's offset
_BLOCK_BYTES = 32 << 20  # of features in memory at a time
# Options of `vadv synth` that set a parameter of this model.
_FLAGS = {
    "num_classes": "--classes",
    "label_noise": "--label-noise",
    "s_audio": "--audio-noise",
    "s_visual": "--visual-noise",
    "audio_width": "--audio-width",
    "visual_width": "--visual-width",
    "frames": "--frames",
}
_MAX_CLASSES = 1000
_MAX_WIDTH = 1 << 16
_MAX_FRAMES = 1024
# Random streams of the directions.
_AUDIO, _VISUAL, _PROMPT = 11, 12, 13


@dataclass(frozen=True)
class RetrievalModel:
    """Parameters of the random model; every `s_` is a standard deviation, where a class code has length 1.

    Args:
        num_classes: C, all equally frequent.
        informative_video: whether frames say more than their mean. If not, every frame has the mean's codes; the mean
            of a clip's frames is the same in both cases.
        label_noise: share of the train labels that are wrong, each of the other classes being equally likely. Labels of
            valid and test are right.
        s_audio, s_visual: private variation of a modality along the directions of the classes.
        s_shared: spread of what the pair shares beyond its class.
        s_ambient: noise of each value of the audio vector.
        s_frame: noise of each value of a frame.
        audio_width, visual_width: widths of the features.
        frames: T. With one frame, that frame is the mean, and the video cannot be informative.

    Raises:
        UserError: a parameter is out of range, or a width has no room for the directions.
    """

    num_classes: int = 10
    informative_video: bool = True
    label_noise: float = 0.4
    s_audio: float = 0.3
    s_visual: float = 0.15
    s_shared: float = 0.4
    s_ambient: float = 0.2
    s_frame: float = 0.3
    audio_width: int = 128
    visual_width: int = 64
    frames: int = 8

    def __post_init__(self) -> None:
        for name in ("s_audio", "s_visual", "s_shared", "s_ambient", "s_frame"):
            value = getattr(self, name)
            if not (isfinite(value) and 0 < value <= 100):
                raise _out_of_range(name, value, "a standard deviation above 0, up to 100 lengths of a class code")
        if not 0 <= self.label_noise < 1:
            raise _out_of_range("label_noise", self.label_noise, "a share of the train labels, from 0 to below 1")
        directions = self.num_classes + SHARED_WIDTH
        for name, low, high in (
            ("num_classes", 2, _MAX_CLASSES),
            ("frames", 1, _MAX_FRAMES),
            ("audio_width", directions + 1, _MAX_WIDTH),
            ("visual_width", directions + 2, _MAX_WIDTH),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                why = f": {self.num_classes} classes need {low} directions" if name.endswith("width") else ""
                raise _out_of_range(name, value, f"an integer from {low:,} to {high:,}{why}")

    @property
    def event_frames(self) -> int:
        """Number of frames that show the clip's class; 0 if there is one frame, which shows both."""
        return min(max(1, round(_EVENT_SHARE * self.frames)), self.frames - 1)

    @property
    def event_weight(self) -> float:
        """Weight of the clip's class in the mean over frames."""
        return self.event_frames / self.frames or _EVENT_SHARE

    @property
    def frames_say_more(self) -> bool:
        """Whether frames say more about the class than their mean."""
        return self.informative_video and self.frames > 1

    @property
    def audio_variance(self) -> float:
        """Variance of the audio vector along a class's direction, given the class."""
        return self.s_audio**2 + self.s_ambient**2

    @property
    def mean_variance(self) -> float:
        """Variance of the mean over frames along a class's direction, given both classes that the frames show."""
        return self.s_visual**2 + self.s_frame**2 / self.frames

    @property
    def contrast_variance(self) -> float:
        """Variance of the mean of event frames minus the mean of other frames, as in `mean_variance`.

        Its noise is independent of that of the mean over all frames.
        """
        return self.s_frame**2 * (1 / self.event_frames + 1 / (self.frames - self.event_frames))

    def audio_basis(self) -> Floats:
        """Directions of the classes (C columns), of the shared part (K) and of the gap, [audio width, C + K + 1]."""
        return _orthonormal(_AUDIO, self.audio_width, self.num_classes + SHARED_WIDTH + 1)

    def visual_basis(self) -> Floats:
        """Directions of the classes (C columns), shared part (K), gap and mark, [visual width, C + K + 2]."""
        return _orthonormal(_VISUAL, self.visual_width, self.num_classes + SHARED_WIDTH + 2)


@dataclass(frozen=True)
class Latents:
    """What is drawn for each clip before its features.

    Attributes:
        content: class of the clip, [R].
        other: class of what else the frames show, [R].
        wrong: a class other than `content`, for a label that is wrong, [R].
        is_wrong: whether the label is wrong if the clip is in train, [R].
        shared: what the pair shares beyond the class, [R, K].
        event: which frames are event frames, [R, T].
    """

    content: Ints
    other: Ints
    wrong: Ints
    is_wrong: Bools
    shared: Floats
    event: Bools


def draw_latents(rng: np.random.Generator, model: RetrievalModel, num_clips: int) -> Latents:
    """Draw the latents of some clips."""
    content_R = rng.integers(model.num_classes, size=num_clips)
    other_R = rng.integers(model.num_classes, size=num_clips)
    wrong_R = (content_R + rng.integers(1, model.num_classes, size=num_clips)) % model.num_classes
    is_wrong_R = rng.random(num_clips) < model.label_noise
    shared_RK = rng.normal(0.0, model.s_shared, (num_clips, SHARED_WIDTH))
    order_RT = rng.random((num_clips, model.frames)).argsort(axis=1)
    return Latents(content_R, other_R, wrong_R, is_wrong_R, shared_RK, order_RT < model.event_frames)


def draw_features(
    rngs: tuple[np.random.Generator, np.random.Generator], model: RetrievalModel, latents: Latents
) -> Iterator[tuple[Features, Features]]:
    """Yield audio vectors [r, D] and frames [r, T, 1, D] of consecutive clips, some megabytes at a time.

    Args:
        rngs: sources of the random numbers of audio and of video, so that neither depends on the other's shape.
        model, latents: what the features depend on.
    """
    classes = model.num_classes
    audio_basis_DM, visual_basis_DM = model.audio_basis(), model.visual_basis()
    size = max(1, _BLOCK_BYTES // (4 * (model.frames * model.visual_width + model.audio_width)))
    for start in range(0, len(latents.content), size):
        rows = slice(start, start + size)
        own_RC, other_RC = (np.eye(classes)[codes[rows]] for codes in (latents.content, latents.other))
        shared_RK, count = latents.shared[rows], len(own_RC)
        gap_R = np.full((count, 1), _GAP)

        heard_RC = own_RC + rngs[0].normal(0.0, model.s_audio, own_RC.shape)
        audio_RD = np.hstack([heard_RC, shared_RK, gap_R]) @ audio_basis_DM.T
        audio_RD += rngs[0].normal(0.0, model.s_ambient, audio_RD.shape)

        seen_RC = other_RC + rngs[1].normal(0.0, model.s_visual, own_RC.shape)
        mark_R = np.full((count, 1), _MARK_IN_DEVIATIONS * model.s_frame)
        always_RD = np.hstack([seen_RC, shared_RK, gap_R, 0 * mark_R]) @ visual_basis_DM.T
        event_RD = np.hstack([own_RC - other_RC, 0 * shared_RK, 0 * gap_R, mark_R]) @ visual_basis_DM.T
        noise_RTD = rngs[1].standard_normal((count, model.frames, model.visual_width), dtype=np.float32)
        weight_RT = latents.event[rows] if model.frames_say_more else np.full((count, model.frames), model.event_weight)
        visual_RTD = noise_RTD * np.float32(model.s_frame) + always_RD[:, None].astype(np.float32)
        visual_RTD += weight_RT[..., None].astype(np.float32) * event_RD[:, None].astype(np.float32)
        yield audio_RD.astype(np.float16), visual_RTD[:, :, None].astype(np.float16)


def prompt_embeddings(model: RetrievalModel) -> npt.NDArray[np.float32]:
    """Embeddings of the classes' prompts in the space of the visual features, [C, D].

    They have a large common part, like CLIP's prompts, and differ along the classes' directions.
    """
    common_D = np.random.default_rng([_PROMPT, model.visual_width]).normal(size=model.visual_width)
    common_D /= np.sqrt((common_D**2).sum())
    codes_CD = model.visual_basis()[:, : model.num_classes].T
    return (common_D + 0.5 * codes_CD).astype(np.float32)


def _orthonormal(kind: int, width: int, columns: int) -> Floats:
    values = np.random.default_rng([kind, width, columns]).normal(size=(width, columns))
    return np.asarray(np.linalg.qr(values)[0])


def _out_of_range(name: str, value: float, expected: str) -> UserError:
    flag = f" ({_FLAGS[name]})" if name in _FLAGS else ""
    return UserError(f"{name}{flag} is {value!r}, expected {expected}.")
