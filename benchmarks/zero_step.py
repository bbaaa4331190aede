"""A training step by DeepSpeed's ZeRO on one rank against plain torch: the work of the host alone.

RoBERTa-Large's 24 layers and its teacher, but eight numbers wide: what is computed costs next to nothing, and what is
left is Python and the calls of operations, which an eager step on a GPU waits for. Operations are counted too.
"""

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from material import run_config, sentences, write_clips, write_untrained_encoder
from measure import Row, alternate, ratio_of_medians
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import RobertaConfig

from vadv_dist.config import Config, EngineConfig, TeacherConfig
from vadv_dist.data.schema import text_lengths
from vadv_dist.data.windows import LocalWindows
from vadv_dist.engines.build import build_engine
from vadv_dist.engines.distributed import Distributed
from vadv_dist.tasks.sentiment import SentimentTask
from vadv_dist.training.splits import Splits

_ENGINES = {"plain": EngineConfig(kind="torch")} | {
    f"ZeRO-{stage}": EngineConfig(kind="deepspeed", zero_stage=stage) for stage in (1, 2, 3)
}


class _Operations(TorchDispatchMode):
    """Counts operations, without those that only make a view."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def measure(quick: bool) -> list[Row]:
    """Run the benchmark."""
    torch.set_num_threads(1)
    _, texts = sentences()
    with tempfile.TemporaryDirectory() as scratch:
        write_clips(Path(scratch) / "data", texts[:64], features=True)
        narrow = RobertaConfig(
            hidden_size=8, num_hidden_layers=24, num_attention_heads=2, intermediate_size=16, type_vocab_size=1
        )
        write_untrained_encoder(Path(scratch) / "encoder", narrow)
        config = run_config(Path(scratch), batch_size=4, teacher=True)
        config = replace(
            config,
            teacher=TeacherConfig(width=8, hidden=8, heads=1),
            trainer=replace(config.trainer, precision="bf16"),
        )
        steps = {name: _step(replace(config, engine=engine)) for name, engine in _ENGINES.items()}
        seconds = alternate(steps, 10 if quick else 40, warm_ups=3)
    counts = {}
    for name, step in steps.items():
        with _Operations() as operations:
            step()
        counts[name] = operations.count
    return [
        Row(
            f"host time of a {name} step on one rank, bf16, 24 layers 8 wide",
            "plain torch",
            ratio_of_medians(seconds[name], seconds["plain"]),
            1.3 if name != "ZeRO-3" else 2.5,
            "at most",
            f"{1000 * statistics.median(seconds[name]):.0f} ms against "
            f"{1000 * statistics.median(seconds['plain']):.0f} ms; "
            f"{counts[name]:,} operations against {counts['plain']:,}",
        )
        for name in _ENGINES
        if name != "plain"
    ]


def _step(config: Config) -> Callable[[], object]:
    """A whole training step of a new model on its engine, always on the same batch."""
    splits = Splits.open(config)
    task = SentimentTask(config, splits.train.sources)
    engine = build_engine(config, task.step, task.parameter_groups(), Distributed())
    windows = LocalWindows(splits.train)
    plan = splits.train.plan(config.data, seed=config.run.seed, epoch=0)
    window = windows.get(plan.window(0).shards)
    rows = plan.batches(plan.window(0), np.arange(len(window)), text_lengths(window.text))[0]
    batch = task.collator(window, rows, global_rows=rows)
    windows.close()
    return lambda: engine.step([batch], lambda _: task.weights, 1.0, weights_known=True)
