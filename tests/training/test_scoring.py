"""Validation predicts every clip once, whatever the shape of its batches."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from vadv_dist.config import Config, load_config
from vadv_dist.data.schema import Batch
from vadv_dist.data.windows import LocalWindows
from vadv_dist.engines.build import build_engine
from vadv_dist.engines.distributed import Distributed
from vadv_dist.engines.protocol import Engine
from vadv_dist.tasks.base import Outputs
from vadv_dist.tasks.sentiment import SentimentTask
from vadv_dist.training.scoring import Scored, score_split
from vadv_dist.training.splits import Splits


@pytest.fixture
def parts(write_config: Callable[..., Path]) -> tuple[Config, Splits, SentimentTask, Engine]:
    config = load_config(write_config(), ["--trainer.eval_batch_size=8"])
    splits = Splits.open(config)
    task = SentimentTask(config, splits.train.sources)
    nn.init.normal_(task.student.out.weight)  # logits that differ visibly
    return config, splits, task, build_engine(config, task.step, task.parameter_groups(), Distributed())


def score(config: Config, splits: Splits, task: SentimentTask, engine: Engine) -> Scored:
    windows = LocalWindows(splits.valid)
    try:
        return score_split(task, engine, splits.valid, windows, config, Distributed())
    finally:
        windows.close()


def test_static_shapes_give_the_same_clips_predictions_and_metrics(parts) -> None:
    config, splits, task, _ = parts
    plain = score(*parts)
    task.collator = task.collator.with_static_shapes([[text] for text in splits.train.texts()])
    static = score(*parts)
    assert len(plain.names) == len(set(plain.names)) == splits.valid.table.rows.sum()
    assert len(plain.names) % config.trainer.eval_batch_size, "the last batch needs filler"
    assert static.names == plain.names
    np.testing.assert_array_equal(static.label, plain.label)
    assert plain.predictions["text_logit"].std() > 0.01
    for column, values in plain.predictions.items():
        np.testing.assert_allclose(static.predictions[column], values, atol=1e-5)
    expected = task.metrics(plain.predictions, plain.label)
    for name, metrics in task.metrics(static.predictions, static.label).items():
        assert metrics == pytest.approx(expected[name], abs=1e-5), name


class _OneBuffer:
    """An engine that writes the outputs of every batch into the same memory, as a recorded step does."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._buffers: Outputs = {}

    def predict(self, batch: Batch) -> Outputs:
        for name, value in self._engine.predict(batch).items():
            held = self._buffers.setdefault(name, value.new_empty(8, *value.shape[1:]))
            held[: len(value)].copy_(value)
        return {name: held[: len(batch.valid)] for name, held in self._buffers.items()}


def test_an_engine_may_reuse_the_memory_of_its_outputs(parts) -> None:
    config, splits, task, engine = parts
    plain, reused = score(*parts), score(config, splits, task, _OneBuffer(engine))
    for column, values in plain.predictions.items():
        np.testing.assert_array_equal(reused.predictions[column], values)
