"""A data set for tests of the guard: one word says the label, and the video says a little of it."""

from pathlib import Path

import numpy as np

from vadv_dist.data.schema import Clip, FeatureSpec, LabelSpec
from vadv_dist.data.shards import DatasetWriter

_WORDS = ("awful", "bad", "the", "good", "great")


def write_weak_video(out: Path, *, noise: float = 4.0) -> Path:
    """Write 200 clips to train on and 100 to validate on; `noise` of the video, in label units."""
    random = np.random.default_rng(0)
    with DatasetWriter(out, features={"visual": FeatureSpec((2, 1, 8))}, label=LabelSpec(), provenance={}) as writer:
        for split, clips in (("train", 200), ("valid", 100)):
            for number in range(clips):
                level = number % 5
                visual = np.full((2, 1, 8), level - 2 + random.normal(scale=noise)) + random.normal(size=(2, 1, 8))
                name = f"{split}{number}"
                writer.write(split, Clip(name, name, _WORDS[level], float(level - 2), "test", {"visual": visual}))
    return out
