"""Estimate before a run whether a teacher that sees the video can help a student that reads text."""

from collections.abc import Sequence

import numpy as np

from vadv_dist.advice.probed_clips import ProbedClips, read_clips
from vadv_dist.advice.probes import NUM_FOLDS, Features, Floats, dense, out_of_fold, video_folds, words
from vadv_dist.advice.result import Advice, Probe, Verdict, judge
from vadv_dist.data.dataset import Dataset
from vadv_dist.errors import UserError
from vadv_dist.evaluation.complementarity import Complementarity, complementarity
from vadv_dist.models.frozen_text import FrozenText
from vadv_dist.storage import Location

# As the keys of a dictionary, in the order of messages.
TEACHER_FEATURES = dict.fromkeys(("visual", "face")).keys()
DEFAULT_CLIPS = 4000
MIN_CLIPS, MIN_VIDEOS = 100, 2 * NUM_FOLDS


def advise(
    uri: str | Location,
    *,
    encoder: str | None = None,
    features: Sequence[str] | None = None,
    max_clips: int = DEFAULT_CLIPS,
    seed: int = 1,
) -> Advice:
    """Compare what text and video say about the label, by probes on the train and valid splits.

    Args:
        uri: a data set with words, whose labels are numbers or classes.
        encoder: folder or name of a pretrained encoder, whose mean token embedding represents a text; None takes words
            and pairs of words, weighted by TF-IDF.
        features: features of the teacher; None takes those of visual and face that the data set has.
        max_clips: number of clips to draw at most, which bounds memory and time.
        seed: seed of the draw, the folds and the bootstrap.
    Raises:
        UserError: the data set has no such feature or no words; or `max_clips` is too small.
    """
    dataset = Dataset.open(uri)
    chosen = _features(dataset, features)
    if max_clips < MIN_CLIPS:
        raise UserError(f"--max-clips is {max_clips}, expected at least {MIN_CLIPS}.")
    clips = read_clips(dataset, chosen, max_clips=max_clips, seed=seed)
    if encoder is None and not any(letter.isalnum() for text in clips.text for letter in text):
        raise UserError(f"The clips of {dataset.root} have no words, so there is nothing for a student to read.")
    videos = len(set(clips.video_id))
    probes: dict[str, Probe] = {}
    found: Complementarity | None = None
    if len(clips.text) < MIN_CLIPS or videos < MIN_VIDEOS or clips.label.std() == 0:
        verdict: Verdict = "not enough data"
        why: tuple[str, ...] = (
            f"There are {len(clips.text):,} clips of {videos:,} videos to probe, expected {MIN_CLIPS} clips of "
            f"{MIN_VIDEOS} videos and labels that differ.",
        )
    else:
        probes, found = _probed(clips, encoder, seed)
        verdict, why = judge(found)
    return Advice(
        verdict=verdict,
        why=why,
        clips=len(clips.text),
        videos=videos,
        available=clips.available,
        lacking=clips.lacking,
        features=chosen,
        text=f"mean token embeddings of {encoder}" if encoder else "words and pairs of words (TF-IDF)",
        probes=probes,
        complementarity=found,
        classes=clips.classes,
    )


def _probed(clips: ProbedClips, encoder: str | None, seed: int) -> tuple[dict[str, Probe], Complementarity]:
    """Fit the probes. The teacher's view of a clip is the label as predicted from its video."""
    folds = video_folds(clips.video_id, seed=seed)
    label = clips.label[:, None]
    if clips.classes:  # 1 in the class, 0 in the others
        label = np.eye(len(clips.classes))[clips.label.astype(int)]
    video = out_of_fold(dense(clips.features), label, folds)
    text, video_of_text = np.split(
        out_of_fold(_text(clips, encoder), np.concatenate([label, video], axis=1), folds), 2, axis=1
    )
    both = out_of_fold(dense(np.concatenate([text, video], axis=1)), label, folds)
    found = complementarity(label, video, text, video_of_text, clips.video_id, seed=seed)
    return {name: _probe(label, of) for name, of in (("text", text), ("video", video), ("both", both))}, found


def _features(dataset: Dataset, features: Sequence[str] | None) -> tuple[str, ...]:
    has = dataset.manifest.features
    chosen = tuple(dict.fromkeys(features)) if features else tuple(name for name in TEACHER_FEATURES if name in has)
    absent = [name for name in chosen if name not in has]
    if absent or not chosen:
        raise UserError(
            f"{dataset.root} has no {' and no '.join(absent or TEACHER_FEATURES)} features (it has: "
            f"{', '.join(has) or 'words only'}), so there is nothing for a teacher to see. Add them with `vadv extract`"
            f"{', or choose others with --features' if has else ''}."
        )
    return chosen


def _text(clips: ProbedClips, encoder: str | None) -> Features:
    if encoder is None:
        return words(clips.text)
    return dense(np.concatenate([batch.means() for batch in FrozenText(encoder).embed(clips.text)]))


def _probe(label_RK: Floats, predicted_RK: Floats) -> Probe:
    squares = ((label_RK - predicted_RK) ** 2).mean(axis=0).sum()
    if label_RK.shape[1] == 1:
        error = np.abs(label_RK - predicted_RK).mean()
    else:
        error = (label_RK.argmax(axis=1) != predicted_RK.argmax(axis=1)).mean()
    return Probe(float(error), float(1 - squares / label_RK.var(axis=0).sum()))
