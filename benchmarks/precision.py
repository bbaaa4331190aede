"""CPU seconds of a training step in bf16 against fp32, one thread: what `trainer.precision: auto` rests on.

    python benchmarks/precision.py [--model demo|minilm|large] [--steps N]

CPU time of one thread hardly depends on what else runs. The engine's steps of both precisions alternate on the same
batches: `demo` is the demo's student (128 wide), `minilm` MiniLM-L6 (384), `large` RoBERTa-Large with its teacher.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from material import minilm_config, roberta, run_config, sentences, write_clips, write_encoder, write_untrained_encoder

from vadv_dist.data.schema import Batch, text_lengths
from vadv_dist.data.windows import LocalWindows
from vadv_dist.engines.allocator import keep_freed_memory
from vadv_dist.engines.build import build_engine
from vadv_dist.engines.distributed import Distributed
from vadv_dist.tasks.sentiment import SentimentTask
from vadv_dist.training.splits import Splits

_WARM_UPS = 3


def main() -> None:
    """Run the benchmark and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["demo", "minilm", "large"], default="minilm")
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    large = options.model == "large"
    with tempfile.TemporaryDirectory() as scratch:
        write_clips(Path(scratch) / "data", sentences()[1], features=large)
        encoder = Path(scratch) / "encoder"
        if options.model == "demo":
            write_encoder(encoder)
        else:
            write_untrained_encoder(encoder, roberta("large") if large else minilm_config())
        config = run_config(Path(scratch), batch_size=4 if large else 16, teacher=large)
        splits = Splits.open(config)
        windows = LocalWindows(splits.train)
        plan = splits.train.plan(config.data, seed=1, epoch=0)
        window = windows.get(plan.window(0).shards)
        planned = plan.batches(plan.window(0), np.arange(len(window)), text_lengths(window.text))
        collator = SentimentTask(config, splits.train.sources).collator
        batches = [collator(window, rows, global_rows=rows) for rows in planned[: _WARM_UPS + options.steps]]
        windows.close()

        def steps_in(precision: Literal["fp32", "bf16"]) -> Callable[[Batch], object]:
            task = SentimentTask(config, splits.train.sources)
            chosen = replace(config, trainer=replace(config.trainer, precision=precision))
            engine = build_engine(chosen, task.step, task.parameter_groups(), Distributed())
            return lambda batch: engine.step([batch], lambda _: task.weights, 1.0, weights_known=True)

        ways = {"fp32": steps_in("fp32"), "bf16": steps_in("bf16")}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for batch in batches:
            for name, way in ways.items():
                began = time.thread_time()
                way(batch)
                seconds[name].append(time.thread_time() - began)
    fp32, bf16 = (statistics.median(times[_WARM_UPS:]) for times in (seconds["fp32"], seconds["bf16"]))
    print(
        f"{options.model}: fp32 {1e3 * fp32:.0f} ms, bf16 {1e3 * bf16:.0f} ms of CPU time per step, {bf16 / fp32:.2f} ×"
    )


if __name__ == "__main__":
    main()
