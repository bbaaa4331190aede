"""Training goes alike whatever unit labels have, and begins at their mean."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from vadv_dist.config import load_config
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.prompts import load_prompts
from vadv_dist.data.schema import Clip, LabelSpec
from vadv_dist.data.shards import DatasetWriter
from vadv_dist.launch.driver import train
from vadv_dist.runs.folder import RunFolder
from vadv_dist.tasks.sentiment import SentimentTask
from vadv_dist.training.evaluate import evaluate_run
from vadv_dist.training.splits import Splits


def rescaled(made: Path, out: Path, low: float, high: float) -> Path:
    """The made data with its labels in [low, high]; features included."""
    source = Dataset.open(made)
    features = source.manifest.features
    with DatasetWriter(out, features=features, label=LabelSpec(low, high), provenance={}) as writer:
        writer.prompts = load_prompts(source)
        for split in source.manifest.splits:
            for shard in source.split(split):
                table = pq.read_table(source.shard_path(shard))
                arrays = {n: table.column(n).combine_chunks().to_numpy_ndarray() for n in features}
                for i, row in enumerate(table.select(["clip_id", "video_id", "text", "label"]).to_pylist()):
                    label = low + (row.pop("label") + 3) * (high - low) / 6
                    clip = Clip(**row, label=label, source="x", features={n: a[i] for n, a in arrays.items()})
                    writer.write(split, clip)
    return out


def test_every_logit_begins_near_the_mean_label(write_config: Callable[..., Path], made: Path, tmp_path: Path) -> None:
    config = load_config(write_config(uri=rescaled(made, tmp_path / "percent", 0, 100)), [])
    splits = Splits.open(config)
    sources = splits.train.sources
    mean = sources.train_label("label_mean")
    assert mean is not None
    assert abs(mean - 50) < 20
    task = SentimentTask(config, sources)
    batch = task.example(8, 6, torch.device("cpu"))
    fields = {name: torch.randn(value.shape) for name, value in batch.fields.items() if name in sources.features}
    words = {"input_ids": torch.randint(5, 20, (8, 6))}
    with torch.no_grad():
        outputs, _ = task.step.eval()(replace(batch, fields={**batch.fields, **fields, **words}))
    for name in ("text_logit", "video_logit", "prompt_logit"):
        assert outputs[name] == pytest.approx(np.full(8, mean), abs=0.5 * 100 / 6)
        assert outputs[name].std() > 0


def write_words(out: Path, low: float, high: float) -> Path:
    """Clips whose one word of opinion decides their label."""
    with DatasetWriter(out, features={}, label=LabelSpec(low, high), provenance={}) as writer:
        for i in range(150):
            third = i % 3
            text = f"it was {('awful', 'plain', 'superb')[third]}"
            clip = Clip(f"c{i}", f"v{i}", text, low + third * (high - low) / 2, "words", {})
            writer.write(("train", "train", "train", "valid", "test")[i // 3 % 5], clip)
    return out


@pytest.mark.slow
@pytest.mark.parametrize(("low", "high"), [(1, 5), (0, 100), (-1, 1)], ids=["stars", "percent", "sims"])
def test_a_student_learns_the_same_in_any_unit(
    write_config: Callable[..., Path], tmp_path: Path, low: float, high: float
) -> None:
    # Without clipping AdamW's steps do not depend on the unit of the loss, but for epsilon.
    options = ["--trainer.epochs=4", "--optimizer.clip_norm=null", "--optimizer.eps=1e-12"]
    found = []
    for name, ends in (("mosi", (-3, 3)), ("other", (low, high))):
        data = write_words(tmp_path / f"data-{name}", *ends)
        config = load_config(write_config(name, uri=data, extra="objective: {kind: none}"), options)
        train(config, Console(quiet=True, stderr=True))
        evaluate_run(RunFolder.of(config).root, "test")
        table = pq.read_table(RunFolder.of(config).root / "predictions-test.parquet").sort_by("clip_id")
        found.append(table.column("text_logit").to_numpy())
    assert found[0].std() > 0.2
    # Rounding to fp32 is multiplied by every step.
    np.testing.assert_allclose(found[1], low + (found[0] + 3) * (high - low) / 6, atol=0.01 * (high - low) / 6)
