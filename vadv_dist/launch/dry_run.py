"""Describe a run without starting it: parameters, batches, windows, and memory per device."""

from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from vadv_dist.config import Config
from vadv_dist.data.sources import SplitShards
from vadv_dist.engines.choice import Choice, choose_engine
from vadv_dist.engines.deepspeed_config import micro_batch_size
from vadv_dist.engines.distributed import choose_device
from vadv_dist.engines.memory import ModelSizes, device_bytes, measure_sizes, memory_by_use
from vadv_dist.engines.precision import choose_precision
from vadv_dist.launch.cautions import cautions
from vadv_dist.runtime.terminal import counted
from vadv_dist.tasks import Task, build
from vadv_dist.training.loop import planned_steps
from vadv_dist.training.splits import Splits


def describe(config: Config) -> dict[str, Any]:
    """Describe a run without starting or writing anything.

    Raises:
        UserError: the run could not start.
    """
    splits = Splits.open(config)
    with torch.device("meta"):  # only shapes: no weights are loaded or initialised
        task = build(config, splits.train.sources, weights=False)
    parts = parameters_per_part(task)
    plan = splits.train.plan(config.data, seed=config.run.seed, epoch=0)
    world = max(1, config.trainer.workers)
    micro = micro_batch_size(config.data.batch_size, world, config.trainer.accumulate)
    bf16, sizes = _computes_in_bf16(config, task), _sizes(config, task)
    choice = _choose(config, sizes, bf16=bf16)
    memory = memory_by_use(choice.engine, sizes, world, bf16=bf16)
    windows = [plan.window(i) for i in range(min(plan.num_windows, 8))]
    valid_clips = int(splits.valid.table.rows.sum())
    steps = planned_steps(config, splits.train, in_closed_form=task.in_closed_form)
    return {
        "parameters": parts,
        "trained": sizes.trained,
        "batch": {
            "global": config.data.batch_size,
            "workers": world,
            "accumulate": config.trainer.accumulate,
            "micro": micro,
        },
        "clips": {
            "train": sum(splits.train.rows_per_source),
            "valid": valid_clips,
            "dropped": splits.train.dropped,
        },
        "sources": describe_sources(config, splits.train),
        "steps": {
            "per_epoch": plan.num_steps,
            "total": steps,
        },
        "windows": {
            "number": plan.num_windows,
            "bytes": config.data.window_bytes,
            "lanes": plan.num_lanes,
            "first": [
                {"shards": len(w.shards), "rows": w.reads, "first_step": w.first_step, "batches": w.num_batches}
                for w in windows
            ],
        },
        "engine": {
            "kind": choice.engine.kind,
            "zero_stage": choice.engine.stage if choice.engine.kind == "deepspeed" else None,
            "reason": choice.reason,
            "fits": choice.fits,
        },
        "memory_per_device": {
            **memory,
            "activations": sizes.activations,
            "total": sum(memory.values()),
            "precision": "bf16" if bf16 else "fp32",
            "engine": choice.engine.title,
        },
        "warnings": cautions(config, train_clips=plan.num_rows, valid_clips=valid_clips, steps=steps),
    }


def chosen_engine(config: Config) -> Choice:
    """The engine that a run would choose on devices like those of this machine.

    Raises:
        UserError: the run could not start.
    """
    if config.engine.kind != "auto" or config.trainer.workers <= 1:
        return _choose(config, ModelSizes(0, 0), bf16=False)
    with torch.device("meta"):
        task = build(config, Splits.open(config).train.sources, weights=False)
    return _choose(config, _sizes(config, task), bf16=_computes_in_bf16(config, task))


def _choose(config: Config, sizes: ModelSizes, *, bf16: bool) -> Choice:
    world, accumulate = max(1, config.trainer.workers), config.trainer.accumulate
    return choose_engine(config.engine, sizes, world, bf16=bf16, accumulate=accumulate, device=_device_bytes(config))


def _computes_in_bf16(config: Config, task: Task) -> bool:
    if config.trainer.use_gpu is True and not torch.cuda.is_available():  # the run's GPUs are elsewhere
        return config.trainer.precision == "bf16"
    return choose_precision(config.trainer, task.step, choose_device(config.trainer.use_gpu)).kind == "bf16"


def _sizes(config: Config, task: Task) -> ModelSizes:
    return measure_sizes(
        task,
        config.data.max_tokens,
        micro_batch_size(config.data.batch_size, max(1, config.trainer.workers), config.trainer.accumulate),
        bf16=_computes_in_bf16(config, task),
    )


def describe_sources(config: Config, train: SplitShards) -> list[dict[str, Any]]:
    """Training clips of each source, and how many of them an epoch reads."""
    return [
        {"uri": str(dataset.root), "name": source.title, "clips": clips, "per_epoch": quota}
        for dataset, source, clips, quota in zip(
            train.sources.datasets, config.data.sources, train.rows_per_source, train.quotas(config.data), strict=True
        )
    ]


def _device_bytes(config: Config) -> int | None:
    """Memory of a device as this machine has them; None if the run's GPUs are elsewhere."""
    if config.trainer.use_gpu is not False and torch.cuda.is_available():
        return device_bytes(torch.device("cuda", 0))
    if config.trainer.use_gpu is True:
        return None
    return device_bytes(torch.device("cpu"), max(1, config.trainer.workers))


def parameters_per_part(task: Task) -> dict[str, int]:
    """Number of parameters of each part of teacher and student."""
    parts: dict[str, int] = {}
    for name, parameter in task.step.named_parameters():
        pieces = name.split(".")
        part = "student.head" if pieces[0] == "student" and pieces[1] != "encoder" else ".".join(pieces[:2])
        parts[part] = parts.get(part, 0) + parameter.numel()
    return parts


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB" if num_bytes >= 2**28 else f"{num_bytes / 2**20:.1f} MiB"


def render(facts: dict[str, Any], console: Console) -> None:
    """Print the result of `describe`."""
    table = Table("part", "parameters", title="Parameters", title_justify="left")
    table.columns[1].justify = "right"
    for part, count in facts["parameters"].items():
        table.add_row(part, f"{count:,}")
    table.add_section()
    table.add_row("all", f"{sum(facts['parameters'].values()):,}")
    table.add_row("trained", f"{facts['trained']:,}")
    console.print(table)
    batch, steps, clips, windows = facts["batch"], facts["steps"], facts["clips"], facts["windows"]
    micro_batches = counted(batch["accumulate"], "micro-batch", "micro-batches")
    ranks = f"{counted(batch['workers'], 'rank')} × {micro_batches} of at most {counted(batch['micro'], 'clip')}"
    dropped = f", {clips['dropped']:,} left out for missing features" if clips["dropped"] else ""
    lines = [
        f"Batch: {counted(batch['global'], 'clip')} per step = {ranks}",
        f"Clips: {clips['train']:,} train, {clips['valid']:,} valid{dropped}",
        *(
            f"  {source['name']}: {source['clips']:,} train; an epoch reads {source['per_epoch']:,} "
            f"({source['per_epoch'] / source['clips']:.3g} times each)"
            for source in facts["sources"]
            if len(facts["sources"]) > 1 and source["clips"]
        ),
        f"Steps: {steps['per_epoch']:,} per epoch, {steps['total']:,} in total",
        f"Windows: {windows['number']} per epoch, each with at most {windows['bytes'] / 2**20:.0f} MiB of shards"
        + (f" in {windows['lanes']} lanes, of which a rank reads its own" if windows["lanes"] > 1 else ""),
    ]
    for number, window in enumerate(windows["first"]):
        span = f"{window['first_step']} to {window['first_step'] + window['batches'] - 1}"
        size = f"{counted(window['shards'], 'shard')}, {counted(window['rows'], 'row')}"
        lines.append(f"  window {number}: {size}, steps {span}")
    if windows["number"] > len(windows["first"]):
        lines.append(f"  … and {windows['number'] - len(windows['first'])} more")
    memory, engine = facts["memory_per_device"], facts["engine"]
    if engine["reason"]:
        lines.append(f"Engine: {memory['engine']}, {engine['reason']}")
    unknown = "not measurable" if memory["activations"] is None else _size(memory["activations"])
    held = ", ".join(f"{name} {_size(memory[name])}" for name in ("weights", "gradients", "optimizer"))
    lines.append(
        f"Memory per device ({memory['engine']}, {memory['precision']}): {_size(memory['total'])} = {held}, "
        f"activations {unknown}"
    )
    lines += [f"warning: {caution}" for caution in facts["warnings"]]
    lines.append("Nothing was started.")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
