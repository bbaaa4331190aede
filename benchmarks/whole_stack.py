"""Time per step of the whole stack against a bare torch loop: RoBERTa-Base and its teacher, batch 16.

The stack is what `vadv train` runs on a rank: windows, plan, collation, engine, loop, and a line of metrics.jsonl for
each step. Between its steps, in the same process, the bare loop runs the same batch, held in memory, through its own
copy of the model, with the same loss, clipping and fused AdamW. Meanwhile the stack would prepare its next batch for
free: what preparing takes by itself is added to each of the stack's steps.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from material import (
    EnoughError,
    roberta,
    run_config,
    sentences,
    train_until_enough,
    write_clips,
    write_untrained_encoder,
)
from measure import NUM_THREADS, Row

from vadv_dist.config import Config, EngineConfig, RunConfig, config_from_dict, config_to_dict
from vadv_dist.data.plan import usable_rows
from vadv_dist.data.schema import text_lengths
from vadv_dist.data.sources import SplitShards
from vadv_dist.data.windows import LocalWindows, RayWindows, Windows
from vadv_dist.engines.allocator import THREAD_ENVIRONMENT
from vadv_dist.engines.distributed import Distributed
from vadv_dist.objectives import weighted_total
from vadv_dist.runs.records import StepLine
from vadv_dist.tasks.sentiment import SentimentTask
from vadv_dist.training.splits import Splits

_WARM_UPS = 2


def measure(quick: bool) -> list[Row]:
    """Run the benchmark in both modes."""
    source, texts = sentences()
    with tempfile.TemporaryDirectory() as scratch:
        write_clips(Path(scratch) / "data", texts, features=True)
        write_untrained_encoder(Path(scratch) / "encoder", roberta("base"))
        config = run_config(Path(scratch), batch_size=16, teacher=True)
        num_steps = 6 if quick else 24
        local = alternate_steps(config, Distributed(), LocalWindows, num_steps)
        zero = replace(
            config,
            run=RunConfig(name="run-in-ray", storage=scratch),
            engine=EngineConfig(kind="deepspeed", zero_stage=1),
        )
        with_ray = alternate_in_ray(zero, num_steps, Path(scratch) / "ray")
    against = f"bare torch loop, RoBERTa-Base and teacher, batch 16, {source}"
    return [
        _row("step of the whole stack, local mode", against, local, 1.05),
        _row("step of the whole stack, Ray Train × DeepSpeed ZeRO-1, one worker", against, with_ray, 1.10),
    ]


def alternate_steps(
    config: Config, distributed: Distributed, windows_of: Callable[[SplitShards], Windows], num_steps: int
) -> dict[str, list[float]]:
    """Seconds of each step of the stack, of the bare loop, and of preparing a batch alone."""
    alternation = _Alternation(config, num_steps + _WARM_UPS)
    train_until_enough(config, distributed, windows_of, alternation)
    return {name: seconds[_WARM_UPS:] for name, seconds in alternation.seconds.items()}


def alternate_in_ray(config: Config, num_steps: int, scratch: Path) -> dict[str, list[float]]:
    """The same inside one Ray Train worker, on a Ray of its own."""
    os.environ |= {"RAY_TRAIN_V2_ENABLED": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    import ray
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    ray.init(
        address="local", num_cpus=NUM_THREADS + 2, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    answer = scratch / "seconds.json"
    try:
        TorchTrainer(
            _in_worker,
            train_loop_config={"config": config_to_dict(config), "num_steps": num_steps, "answer": str(answer)},
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=ray.train.ScalingConfig(num_workers=1, resources_per_worker={"CPU": NUM_THREADS}),
            run_config=ray.train.RunConfig(
                name="benchmark",
                storage_path=str(scratch),
                worker_runtime_env={"env_vars": THREAD_ENVIRONMENT},
            ),
        ).fit()
    finally:
        ray.shutdown()
    seconds: dict[str, list[float]] = json.loads(answer.read_text())
    return seconds


def _in_worker(arguments: dict[str, Any]) -> None:
    torch.set_num_threads(NUM_THREADS)
    config = config_from_dict(arguments["config"])
    seconds = alternate_steps(
        config, Distributed(), lambda split: RayWindows(split, "benchmark"), arguments["num_steps"]
    )
    Path(arguments["answer"]).write_text(json.dumps(seconds))


class _Alternation:
    """What the training loop calls after each of its steps: runs the bare loop's, and keeps both times."""

    def __init__(self, config: Config, num_steps: int) -> None:
        self._bare = _BareLoop(config)
        self._num_steps = num_steps
        self.seconds: dict[str, list[float]] = {"stack": [], "bare": [], "preparing": self._bare.preparing_s}
        self._resumed = time.perf_counter()

    def __call__(self, line: StepLine) -> None:
        stopped = time.perf_counter()
        self.seconds["stack"].append(stopped - self._resumed)
        self._bare.step(line.step - 1)
        self._resumed = time.perf_counter()
        self.seconds["bare"].append(self._resumed - stopped)
        if line.step == self._num_steps:
            raise EnoughError


class _BareLoop:
    """Forward, backward, clipping and update on batches in memory, and nothing else."""

    def __init__(self, config: Config) -> None:
        train = Splits.open(config).train
        self._task = SentimentTask(config, train.sources)
        self._task.step.train()
        groups = self._task.parameter_groups()
        self._parameters = [parameter for group in groups for parameter in group.parameters]
        own = [{"params": g.parameters, "lr": g.lr, "weight_decay": g.weight_decay} for g in groups]
        self._optimizer = torch.optim.AdamW(own, fused=True)
        self._clip_norm = config.optimizer.clip_norm or float("inf")
        self._batches, self.preparing_s = [], []
        plan = train.plan(config.data, seed=config.run.seed, epoch=0)
        windows = LocalWindows(train)
        window = windows.get(plan.window(0).shards)
        for rows in plan.batches(plan.window(0), usable_rows(window, ()), text_lengths(window.text)):
            began = time.perf_counter()
            self._batches.append(self._task.collator(window, rows, global_rows=rows))
            self.preparing_s.append(time.perf_counter() - began)
        windows.close()

    def step(self, number: int) -> None:
        batch = self._batches[number]
        weighted_total(self._task.step(batch)[1], self._task.weights).backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)


def _row(what: str, against: str, seconds: dict[str, list[float]], asked: float) -> Row:
    stack, bare, preparing = (statistics.median(seconds[name]) for name in ("stack", "bare", "preparing"))
    detail = f"{stack * 1e3:.0f} + {preparing * 1e3:.1f} ms against {bare * 1e3:.0f} ms, {len(seconds['bare'])} steps"
    return Row(what, against, (stack + preparing) / bare, asked, "at most", detail)
