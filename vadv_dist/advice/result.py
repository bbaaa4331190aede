"""What `vadv advise` found, as data and as text."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from vadv_dist.evaluation.complementarity import Complementarity
from vadv_dist.evaluation.paired import Interval

Verdict = Literal["likely helps", "unlikely", "not enough data"]

# Smaller shares of the text probe's squared error are taken as nothing.
_LEAST_GAIN = 0.02
_LEAST_CLEARER = 0.05


@dataclass(frozen=True)
class Probe:
    """A probe's error and R² on clips of videos that it was not fitted to.

    The error is the mean absolute one in label units, or the share of clips with another class.
    """

    error: float
    r2: float


@dataclass(frozen=True)
class Advice:
    """Whether a text student can gain from a teacher that sees the video.

    Attributes:
        verdict: the answer.
        why: sentences that give the reasons.
        clips, videos: what the probes were fitted to.
        available: clips of the train and valid splits.
        lacking: drawn clips that were left out because they lack a feature.
        features: features of the teacher.
        text: how words became features.
        probes: by input: `text`, `video`, `both`; empty if there are too few clips.
        complementarity: see `evaluation.complementarity`; None if there are too few clips.
        classes: names of the classes; empty if labels are numbers.
    """

    verdict: Verdict
    why: tuple[str, ...]
    clips: int
    videos: int
    available: int
    lacking: int
    features: tuple[str, ...]
    text: str
    probes: dict[str, Probe]
    complementarity: Complementarity | None
    classes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain containers; an interval is `{mean, low, high}`."""
        raw = asdict(self)
        if self.complementarity is not None:
            for name in ("difference", "gain", "clearer_target"):
                raw["complementarity"][name] = getattr(self.complementarity, name)._asdict()
        return raw


def judge(found: Complementarity) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict, and why.

    *Likely helps* needs two things: the video says something about the label that the text probe does not, and a
    mixture of the label and the video's view of it is a clearer target for a reader of text than the label. *Unlikely*
    is said where one of them is excluded.
    """
    gain, clearer = found.gain, found.clearer_target
    information = (
        f"I(video; text) is {found.teacher_student:.3f} nats and I(text; label) {found.student_label:.3f}, a "
        f"difference of {_signed(found.difference, 3)}."
    )
    removes = f"the video removes {_signed(gain, 1, 100)} % of the text probe's squared error"
    mixture = (
        "the best mixture of the label and the video's view of it is nearer to what the text predicts, by "
        f"{_signed(clearer, 1, 100)} % of the squared distance"
    )
    if gain.high < _LEAST_GAIN:
        return "unlikely", (f"The video adds nothing to the text: {removes}.", information)
    if clearer.high < _LEAST_CLEARER:
        return "unlikely", (
            f"For a reader of text, the video's view of the label hardly makes a clearer target: {mixture}.",
            information,
            f"A model that reads the video when it is used may still gain: {removes}.",
        )
    if gain.low > 0 and clearer.low > _LEAST_CLEARER:
        return "likely helps", (
            f"A teacher gives a clearer target than the label: {mixture}.",
            f"Also, {removes}.",
            information,
        )
    return "not enough data", (f"The intervals do not decide: {mixture}; {removes}.", information)


def _error(probe: Probe, advice: Advice) -> str:
    return f"wrong class {probe.error:.1%}" if advice.classes else f"mean absolute error {probe.error:.3f}"


def _signed(interval: Interval, digits: int, factor: float = 1.0) -> str:
    # Adding 0 to a rounded -0.0 gives 0.0.
    mean, low, high = (f"{round(value * factor, digits) + 0.0:+.{digits}f}".replace("-", "−") for value in interval)
    return f"{mean} ({low} to {high})"


def lines(advice: Advice, uri: str) -> Sequence[str]:
    """The advice as lines of text."""
    drawn = f"{advice.clips:,} clips of {advice.videos:,} videos from train and valid ({advice.available:,} clips)"
    lacking = f"; {advice.lacking:,} were left out because they lack a feature" if advice.lacking else ""
    return [
        f"{advice.verdict}: a teacher that sees {' and '.join(advice.features)}, a student that reads text, on {uri}",
        *(f"  {why}" for why in advice.why),
        *(
            f"  probe on {name:5}  {_error(probe, advice)}, R² {probe.r2:.3f}".replace("-", "−")
            for name, probe in advice.probes.items()
        ),
        f"  {drawn}{lacking}; text as {advice.text}",
    ]
