"""Choices between an engine's ways to run steps."""

import pytest
import torch

from vadv_dist.config import load_config
from vadv_dist.data.sources import Sources
from vadv_dist.engines.build import compile_layers
from vadv_dist.tasks.sentiment import SentimentTask
from vadv_dist.training.splits import Splits


@pytest.mark.slow
def test_compiled_layers_give_the_same_outputs_for_all_lengths(write_config) -> None:
    config = load_config(write_config(), ["--student.dropout=0", "--student.encoder_dropout=0"])
    sources: Sources = Splits.open(config).train.sources
    task = SentimentTask(config, sources)
    task.step.eval()
    batches = [task.example(rows, tokens, torch.device("cpu")) for rows, tokens in ((3, 5), (3, 9), (2, 17))]
    with torch.no_grad():
        expected = [task.step(batch)[0] for batch in batches]
        compile_layers(task.step)
        for batch, outputs in zip(batches, expected, strict=True):
            for name, value in task.step(batch)[0].items():
                torch.testing.assert_close(value, outputs[name], rtol=1e-4, atol=1e-5)
    assert any(layer._compiled_call_impl is not None for layer in task.step.modules())
    assert all("_orig_mod" not in name for name in task.step.state_dict())
