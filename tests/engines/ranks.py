"""Run a small joint model on two gloo processes for the tests of engines: not a test itself."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from gloo_ranks import join, leave, slow_down, whole

from vadv_dist.config import Config, EngineConfig, load_config
from vadv_dist.data.stream import BatchStream
from vadv_dist.data.windows import LocalWindows
from vadv_dist.engines.build import build_engine
from vadv_dist.engines.distributed import Distributed
from vadv_dist.formats.tensor_parts import HeldTensors
from vadv_dist.tasks.sentiment import SentimentTask
from vadv_dist.training.schedule import cosine_with_warmup
from vadv_dist.training.splits import Splits

NUM_STEPS = 20


def curve(
    config: Config,
    distributed: Distributed,
    *,
    start: int = 0,
    stop: int = NUM_STEPS,
    state: Any = None,
    computed_s: list[list[float | None]] | None = None,
) -> tuple:
    """Train some steps; return the global loss and gradient norm of each, and the engine's full state.

    `computed_s` takes the ranks' `take_compute_s`, of each step.
    """
    splits = Splits.open(config)
    task = SentimentTask(config, splits.train.sources)
    engine = build_engine(config, task.step, task.parameter_groups(), distributed)
    if state is not None:
        engine.load(*map(HeldTensors, state), start)
    windows = LocalWindows(splits.train)
    losses, step = [], 0
    for epoch in range(99):
        stream = BatchStream(
            plan=splits.train.plan(config.data, seed=1, epoch=epoch),
            windows=windows,
            collator=task.collator,
            rank=distributed.rank,
            world_size=distributed.world_size,
            accumulate=config.trainer.accumulate,
        )
        for batches in stream.steps():
            if step >= stop:
                windows.close()
                return losses, whole(engine.weights(), distributed), whole(engine.moments(), distributed)
            if step >= start:
                factor = cosine_with_warmup(step, num_steps=60, warmup_steps=3)
                terms, norm = engine.step(batches.micro, lambda _: task.weights, factor, weights_known=True)
                total = torch.stack([share["total"] for share in terms]).sum()
                if computed_s is not None:
                    computed_s.append(distributed.gather(engine.take_compute_s()))
                losses.append((float(distributed.sum(total)), float(norm)))
            step += 1
    raise AssertionError


def main(config_path: str, out: str) -> None:
    """Run every engine in turn; rank 0 saves what each gave."""
    base, distributed = load_config(Path(config_path)), join()
    answers: dict[str, Any] = {}

    def keep(name: str, value: Any) -> None:
        if distributed.is_main:
            answers[name] = value

    keep("torch", curve(base, distributed))
    for stage, offload in ((0, False), (1, False), (2, False), (3, False), (2, True)):
        name = f"zero-{stage}{'-offload' if offload else ''}"
        engine = EngineConfig(kind="deepspeed", zero_stage=stage, offload_optimizer=offload)
        config = dataclasses.replace(base, engine=engine)
        whole = curve(config, distributed)
        keep(name, whole)
        if not offload:
            half = curve(config, distributed, stop=11)
            shared = [half[1:]]
            dist.broadcast_object_list(shared, 0)
            keep(f"{name} continued", curve(config, distributed, start=11, state=shared[0]))
    shared = [answers.get("zero-3")]
    dist.broadcast_object_list(shared, 0)
    state = shared[0][1:]
    more = {"start": NUM_STEPS, "stop": NUM_STEPS + 5, "state": state}
    keep("torch after zero-3", curve(base, distributed, **more))
    config = dataclasses.replace(base, engine=EngineConfig(kind="deepspeed", zero_stage=1))
    keep("zero-1 after zero-3", curve(config, distributed, **more))
    if distributed.rank == 1:
        slow_down(0.02, 0.04)
    for kind in ({"kind": "torch"}, *({"kind": "deepspeed", "zero_stage": stage} for stage in range(4))):
        times: list[list[float | None]] = []
        config = dataclasses.replace(base, engine=EngineConfig(**kind))
        curve(config, distributed, stop=8, computed_s=times)
        keep(f"computed by {kind.get('zero_stage', 'torch')}", times)
    if distributed.is_main:
        torch.save(answers, out)
    leave()


if __name__ == "__main__":
    main(sys.argv[3], sys.argv[4])
