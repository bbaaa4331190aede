"""Describe a run without starting it: parameters, batches, windows, and memory per device."""

from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from vadv_dist.config import Config
from vadv_dist.data.sources import SplitShards
from vadv_dist.engines.deepspeed_config import micro_batch_size
from vadv_dist.engines.distributed import has_bf16
from vadv_dist.runtime.terminal import counted
from vadv_dist.tasks import Task, build
from vadv_dist.training.loop import planned_steps
from vadv_dist.training.splits import Splits


def memory_per_device(config: Config, parameters: int, trained: int, activations: int, *, bf16: bool) -> dict[str, int]:
    """Bytes of one device by use under the chosen engine (Rajbhandari et al. 2020, arXiv:1910.02054, section 3).

    Args:
        parameters, trained: all parameters, and those with gradients.
        activations: bytes kept for the backward pass.
        bf16: whether ZeRO keeps bf16 weights besides fp32 masters; the torch engine and stage 0 keep fp32 weights.
    """
    world = max(1, config.trainer.num_workers)
    zero = config.engine.zero_stage if config.engine.kind == "deepspeed" else 0
    mixed = bf16 and zero > 0
    weight, gradient = (2, 2) if mixed else (4, 4)
    # AdamW's two moments; ZeRO also keeps fp32 masters, even in fp32 training.
    optimizer = 12 if zero >= 1 else 8
    share = -(-trained // world)
    return {
        "weights": weight * (-(-parameters // world) if zero == 3 else parameters),
        "gradients": gradient * (share if zero >= 2 else trained),
        "optimizer": 0 if config.engine.offload_optimizer else optimizer * (share if zero >= 1 else trained),
        "activations": activations,
    }


def activation_bytes(task: Task, max_tokens: int, micro: int) -> int:
    """Bytes that autograd saves for the largest micro-batch at `data.max_tokens`, measured on the meta device.

    Every tensor saved for the backward pass is counted once, except weights.
    """
    meta = torch.device("meta")
    step = task.step.to(meta).train()
    weights = {id(p) for p in step.parameters()}
    seen: dict[tuple[int, torch.Size], int] = {}
    kept: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        base = tensor if tensor._base is None else tensor._base
        if id(tensor) not in weights and id(base) not in weights:
            seen[(id(base), base.shape)] = base.numel() * base.element_size()
            kept.append(base)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step(task.example(micro, max_tokens, meta), with_terms=False)
    return sum(seen.values())


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
    world = max(1, config.trainer.num_workers)
    micro = micro_batch_size(config.data.batch_size, world, config.trainer.accumulate)
    bf16 = config.trainer.precision == "bf16" or (config.trainer.precision == "auto" and has_bf16())
    trained = sum(p.numel() for p in task.step.parameters() if p.requires_grad)
    try:
        activations: int | None = activation_bytes(task, config.data.max_tokens, micro)
    except (RuntimeError, NotImplementedError):  # an operation that the meta device does not support
        activations = None
    if activations is not None and bf16:
        activations //= 2
    memory = memory_per_device(config, sum(parts.values()), trained, activations or 0, bf16=bf16)
    windows = [plan.window(i) for i in range(min(plan.num_windows, 8))]
    return {
        "parameters": parts,
        "trained": trained,
        "batch": {
            "global": config.data.batch_size,
            "workers": world,
            "accumulate": config.trainer.accumulate,
            "micro": micro,
        },
        "clips": {
            "train": sum(splits.train.rows_per_source),
            "valid": int(splits.valid.table.rows.sum()),
            "dropped": splits.train.dropped,
        },
        "sources": describe_sources(config, splits.train),
        "steps": {"per_epoch": plan.num_steps, "total": planned_steps(config, splits.train)},
        "windows": {
            "number": plan.num_windows,
            "bytes": config.data.window_bytes,
            "first": [
                {"shards": len(w.shards), "rows": w.reads, "first_step": w.first_step, "batches": w.num_batches}
                for w in windows
            ],
        },
        "memory_per_device": {
            **memory,
            "activations": activations,
            "total": sum(memory.values()),
            "precision": "bf16" if bf16 else "fp32",
            "engine": config.engine.kind
            + (f", ZeRO-{config.engine.zero_stage}" if config.engine.kind == "deepspeed" else ""),
        },
    }


def describe_sources(config: Config, train: SplitShards) -> list[dict[str, Any]]:
    """Training clips of each source, and how many of them an epoch reads."""
    return [
        {"uri": str(dataset.root), "name": source.title, "clips": clips, "per_epoch": quota}
        for dataset, source, clips, quota in zip(
            train.sources.datasets, config.data.sources, train.rows_per_source, train.quotas(config.data), strict=True
        )
    ]


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
        f"Windows: {windows['number']} per epoch, each with at most {windows['bytes'] / 2**20:.0f} MiB of shards",
    ]
    for number, window in enumerate(windows["first"]):
        span = f"{window['first_step']} to {window['first_step'] + window['batches'] - 1}"
        size = f"{counted(window['shards'], 'shard')}, {counted(window['rows'], 'row')}"
        lines.append(f"  window {number}: {size}, steps {span}")
    if windows["number"] > len(windows["first"]):
        lines.append(f"  … and {windows['number'] - len(windows['first'])} more")
    memory = facts["memory_per_device"]
    unknown = "not measurable" if memory["activations"] is None else _size(memory["activations"])
    held = ", ".join(f"{name} {_size(memory[name])}" for name in ("weights", "gradients", "optimizer"))
    lines.append(
        f"Memory per device ({memory['engine']}, {memory['precision']}): {_size(memory['total'])} = {held}, "
        f"activations {unknown}"
    )
    lines.append("Nothing was started.")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
