"""Write a synthetic data set for retrieval: clips from the random model without words, prompts, and the truth."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from vadv_dist.data.dataset import Dataset
from vadv_dist.data.schema import Clip, FeatureSpec, LabelSpec
from vadv_dist.data.shards import DEFAULT_SHARD_ROWS, DatasetWriter
from vadv_dist.data.synth.retrieval_model import (
    Ints,
    RetrievalModel,
    draw_features,
    draw_latents,
    prompt_embeddings,
)
from vadv_dist.data.synth.retrieval_truth import truth_document
from vadv_dist.errors import UserError

# Fewer may leave a class without clips in a split.
_MIN_CLIPS_PER_CLASS = 20
_TEST, _VALID = 0.2, 0.1  # of every class; VEGAS has 22,482 clips in train, 5,621 in test
_CHUNK_CLIPS = 4096  # latents in memory at a time
_NAMES = (
    "alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett", "kilo", "lima",
    "mike", "november", "oscar", "papa", "quebec", "romeo", "sierra", "tango", "uniform", "victor", "whiskey", "xray",
    "yankee", "zulu",
)  # fmt: skip


def make_retrieval_dataset(
    out: str | Path,
    *,
    num_clips: int,
    seed: int = 1,
    shard_rows: int = DEFAULT_SHARD_ROWS,
    **parameters: Any,
) -> Dataset:
    """Create a data set of audio vectors and video frames with classes, whose best attainable mAP is known.

    The same arguments give byte-identical shards. Data sets that differ only in their noise, their shapes or
    `informative_video` share clips, classes and labels.

    Args:
        out: the folder to create.
        num_clips: clips over all splits, at least 20 per class.
        seed: determines all random numbers.
        shard_rows: maximum number of rows per shard.
        parameters: those of `RetrievalModel`.

    Raises:
        UserError: too few clips, a parameter out of range, or `out` exists.
    """
    model = RetrievalModel(**parameters)
    least = _MIN_CLIPS_PER_CLASS * model.num_classes
    if num_clips < least:
        raise UserError(
            f"--num-clips is {num_clips}, expected at least {least}: {_MIN_CLIPS_PER_CLASS} for each of "
            f"{model.num_classes} classes, so that every split has clips of each."
        )
    if seed < 0:
        raise UserError(f"--seed is {seed}, expected an integer from 0.")
    writer = DatasetWriter(
        out,
        features={
            "visual": FeatureSpec((model.frames, 1, model.visual_width)),
            "audio": FeatureSpec((model.audio_width,)),
        },
        label=LabelSpec.of_classes(model.num_classes, class_names(model.num_classes)),
        provenance={
            "made_by": "vadv synth --task retrieval",
            "parameters": {"num_clips": num_clips, "seed": seed, **asdict(model)},
        },
        shard_rows=shard_rows,
    )
    with writer:
        writer.prompts = prompt_embeddings(model)
        num_test = 0
        for split, clip in draw_clips(model, num_clips=num_clips, seed=seed):
            num_test += split == "test"
            writer.write(split, clip)
        writer.truth = truth_document(model, num_test=num_test)
    return Dataset.open(out)


def class_names(count: int) -> tuple[str, ...]:
    """Names of the classes: the words of the spelling alphabet, then numbers."""
    return tuple(_NAMES[i] if i < len(_NAMES) else f"class {i}" for i in range(count))


def draw_clips(model: RetrievalModel, *, num_clips: int, seed: int) -> Iterator[tuple[str, Clip]]:
    """Yield every clip with its split."""
    for chunk, first in enumerate(range(0, num_clips, _CHUNK_CLIPS)):
        count = min(_CHUNK_CLIPS, num_clips - first)
        latents = draw_latents(np.random.default_rng([seed, 0, chunk]), model, count)
        splits = split_of_clips(np.random.default_rng([seed, 1, chunk]), latents.content)
        rngs = (np.random.default_rng([seed, 2, chunk]), np.random.default_rng([seed, 3, chunk]))
        row = 0
        for audio, visual in draw_features(rngs, model, latents):
            for audio_D, visual_T1D in zip(audio, visual, strict=True):
                is_wrong = splits[row] == "train" and latents.is_wrong[row]
                label = latents.wrong[row] if is_wrong else latents.content[row]
                name = f"s{seed}c{first + row:06d}"  # each clip is a video of its own, as in VEGAS and AVE
                features = {"visual": visual_T1D, "audio": audio_D}
                yield splits[row], Clip(name, name, "", float(label), "synth", features)
                row += 1


def split_of_clips(rng: np.random.Generator, content_R: Ints) -> list[str]:
    """Split of each clip: the same share of every class, and at least one clip if the class has three or more."""
    order_R = rng.permutation(len(content_R))
    splits = ["train"] * len(content_R)
    for one in np.unique(content_R):
        rows = order_R[content_R[order_R] == one]
        num_test, num_valid = (max(1, round(share * len(rows))) for share in (_TEST, _VALID))
        for n, row in enumerate(rows[: num_test + num_valid]):
            splits[row] = "test" if n < num_test else "valid"
    return splits
