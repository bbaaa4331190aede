"""Write a synthetic data set: clips from the random model, its computed truth, and a small encoder for its words."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vadv_dist.data.dataset import Dataset
from vadv_dist.data.schema import SPLITS, Clip, FeatureSpec, LabelSpec
from vadv_dist.data.shards import DEFAULT_SHARD_ROWS, DatasetWriter
from vadv_dist.data.synth.classes import class_spec, classes_of
from vadv_dist.data.synth.encoder import ENCODERS, write_encoder
from vadv_dist.data.synth.grammar import draw_word_counts, render
from vadv_dist.data.synth.model import GenerativeModel, draw_audio, draw_features, prompt_embeddings
from vadv_dist.data.synth.truth import truth_document
from vadv_dist.errors import UserError

MIN_CLIPS = 12
_CLIPS_PER_VIDEO = 24  # CMU-MOSI: 2,199 clips of 93 videos
_MIN_VIDEOS = 10  # if there are enough clips: keeps the splits near their shares
_SPLIT_SHARES = {"test": 0.31, "valid": 0.10}  # CMU-MOSI's 1284/229/686; the rest is train
_CHUNK_CLIPS = 4096  # bounds memory for any number of clips


def make_dataset(
    out: str | Path,
    *,
    num_clips: int,
    seed: int = 1,
    informative_video: bool = True,
    s_annot: float = GenerativeModel.s_annot,
    s_video: float = GenerativeModel.s_video,
    visual_shape: tuple[int, int, int] = GenerativeModel.visual_shape,
    face_shape: tuple[int, int] = GenerativeModel.face_shape,
    audio_shape: tuple[int, int] | None = None,
    num_classes: int | None = None,
    encoders: Sequence[str] = (),
    shard_rows: int = DEFAULT_SHARD_ROWS,
) -> Dataset:
    """Create a data set with known best attainable errors, and an untrained encoder in `<out>/encoder`.

    The same arguments give byte-identical shards.

    Args:
        out: the folder to create.
        num_clips: clips over all splits, at least 12.
        seed: determines all random numbers.
        informative_video: whether video and face depend on the label.
        s_annot, s_video: noise of an annotator and of the video, in label units.
        visual_shape, face_shape: features of a clip, [T, N, D] and [T, E].
        audio_shape: audio features of a clip, [T, D]; None leaves them out.
        num_classes: number of classes into which the label range is cut; None keeps labels that are numbers.
        encoders: further encoders, each in `<out>/encoders/<name>`: `bert`, `roberta`, `roberta-large`, `deberta-v3`,
            `modernbert`; all are small and untrained.
        shard_rows: maximum number of rows per shard.

    Raises:
        UserError: an unknown encoder, too few clips, a noise that is not positive, a number of classes that does not
            exist, or `out` exists.
    """
    if num_clips < MIN_CLIPS:
        raise UserError(
            f"--num-clips is {num_clips}, expected at least {MIN_CLIPS}: "
            "fewer do not fill three splits with whole videos."
        )
    if seed < 0:
        raise UserError(f"--seed is {seed}, expected an integer from 0.")
    if unknown := [name for name in encoders if name not in ENCODERS]:
        raise UserError(f"There is no encoder {unknown[0]!r} for synthetic data (available: {', '.join(ENCODERS)}).")
    model = GenerativeModel(
        informative_video=informative_video,
        s_annot=s_annot,
        s_video=s_video,
        visual_shape=visual_shape,
        face_shape=face_shape,
        audio_shape=None if audio_shape is None else (audio_shape[0], audio_shape[1]),
    )
    label = LabelSpec() if num_classes is None else class_spec(num_classes)
    parameters = {"num_clips": num_clips, "seed": seed, **asdict(model)}
    if num_classes is not None:
        parameters["num_classes"] = num_classes
    features = {"visual": FeatureSpec(visual_shape), "face": FeatureSpec(face_shape)}
    if audio_shape is not None:
        features["audio"] = FeatureSpec(tuple(audio_shape))
    writer = DatasetWriter(
        out,
        features=features,
        label=label,
        provenance={"made_by": "vadv synth", "parameters": parameters},
        shard_rows=shard_rows,
    )
    with writer:
        writer.prompts = prompt_embeddings(visual_shape[-1], label.num_prompts)
        writer.truth = truth_document(model, num_classes)
        for split, clip in draw_clips(model, num_clips=num_clips, seed=seed, num_classes=num_classes):
            writer.write(split, clip)
        write_encoder(writer.folder / "encoder")
        for name in encoders:
            write_encoder(writer.folder / "encoders" / name, name)
    return Dataset.open(out)


def draw_clips(
    model: GenerativeModel, *, num_clips: int, seed: int, num_classes: int | None = None
) -> Iterator[tuple[str, Clip]]:
    """Yield every clip with its split, video by video; data sets that differ only in their classes share all else."""
    sizes = _video_sizes(np.random.default_rng([seed, 0]), num_clips)
    splits = _video_splits(np.random.default_rng([seed, 1]), sizes)
    first = 0
    for chunk, last in enumerate(_chunk_ends(sizes)):
        rng = np.random.default_rng([seed, 2, chunk])
        speaker_R = np.repeat(np.arange(last - first), sizes[first:last])
        latent_R = model.draw_latents(rng, len(speaker_R))
        label_R = model.draw_labels(rng, latent_R)
        if num_classes is not None:
            label_R = classes_of(label_R, num_classes).astype(float)
        half_R = model.draw_half_levels(rng, latent_R)
        # From a separate generator: data sets that differ only in their video share words and labels.
        visual, face = draw_features(np.random.default_rng([seed, 3, chunk]), model, latent_R, speaker_R)
        audio = draw_audio(np.random.default_rng([seed, 4, chunk]), model, latent_R, speaker_R)
        words_R = draw_word_counts(rng, len(speaker_R))
        index_in_video_R = np.concatenate([np.arange(size) for size in sizes[first:last]])
        for r, speaker in enumerate(speaker_R):
            video = first + int(speaker)
            video_id = f"s{seed}v{video:05d}"
            yield (
                splits[video],
                Clip(
                    clip_id=f"{video_id}_{index_in_video_R[r] + 1}",
                    video_id=video_id,
                    text=render(rng, int(half_R[r]), words_R[r]),
                    label=float(label_R[r]),
                    source="synth",
                    features={
                        "visual": visual[r],
                        "face": face[r],
                        **({} if audio is None else {"audio": audio[r]}),
                    },
                ),
            )
        first = last


def _video_sizes(rng: np.random.Generator, num_clips: int) -> npt.NDArray[np.int64]:
    """Number of clips of each video: about 24, between half and one and a half times the mean."""
    num_videos = max(min(_MIN_VIDEOS, num_clips // 2), round(num_clips / _CLIPS_PER_VIDEO))
    ends = np.cumsum(rng.uniform(0.5, 1.5, num_videos))
    bounds = np.rint(ends / ends[-1] * (num_clips - num_videos)).astype(np.int64)
    return np.diff(bounds, prepend=0) + 1


def _video_splits(rng: np.random.Generator, sizes: npt.NDArray[np.int64]) -> list[str]:
    """Split of each video: whole videos until each split is as close to its share as possible."""
    order = iter(rng.permutation(len(sizes)))
    splits = [SPLITS[0]] * len(sizes)
    for split, share in _SPLIT_SHARES.items():
        wanted, taken = share * sizes.sum(), 0
        for video in order:
            splits[video] = split
            taken += int(sizes[video])
            if taken + sizes.mean() / 2 > wanted:
                break
    return splits


def _chunk_ends(sizes: npt.NDArray[np.int64]) -> list[int]:
    """Indices of videos after which a chunk of at most about `_CHUNK_CLIPS` clips ends."""
    chunk = (np.cumsum(sizes) - 1) // _CHUNK_CLIPS
    return [*(np.flatnonzero(np.diff(chunk)) + 1).tolist(), len(sizes)]
