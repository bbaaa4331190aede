"""A small data set of events for the tests of retrieval: three classes, some clips lack a modality."""

from pathlib import Path

import numpy as np

from vadv_dist.data.schema import Clip, FeatureSpec, LabelSpec
from vadv_dist.data.shards import DatasetWriter

CLASSES = ("dog", "drum", "rain")
AUDIO, VISUAL = 6, 8
SHAPES = {"audio": (AUDIO,), "visual": (2, 1, VISUAL)}


def make_events(out: Path, *, rows: int = 90, lacking: bool = True) -> None:
    """Write splits of `rows`, rows / 3 and rows / 3 clips; every tenth lacks audio and every fifteenth its frames."""
    random = np.random.default_rng(7)
    centres = {name: random.normal(size=(len(CLASSES), shape[-1])) * 2 for name, shape in SHAPES.items()}
    features = {name: FeatureSpec(shape, "float32") for name, shape in SHAPES.items()}
    label = LabelSpec.of_classes(len(CLASSES), CLASSES)
    with DatasetWriter(out, features=features, label=label, provenance={"made_by": "test"}, shard_rows=20) as writer:
        for split, count in (("train", rows), ("valid", rows // 3), ("test", rows // 3)):
            for row in range(count):
                one = row % len(CLASSES)
                values = {
                    name: (centres[name][one] + random.normal(size=shape)).astype(np.float32)
                    for name, shape in SHAPES.items()
                }
                if lacking and row % 10 == 9:
                    values["audio"] = None
                if lacking and row % 15 == 14 and values["audio"] is not None:
                    values["visual"] = None
                name = f"{split}-{row}"
                writer.write(split, Clip(name, name, "", float(one), "events", values))
