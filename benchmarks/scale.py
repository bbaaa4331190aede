"""Where training stops scaling, from 1 to 1,024 GPUs: a simulation from costs, and its check on two processes here.

    python benchmarks/scale.py [--batch 1024 16384] [--tokens 25] [--flops 400e12] [--check]

A step's cost is what a rank computes, sends, reads and saves. Counted from the code: parameters and FLOP of the model
(RoBERTa-Large and its teacher, on the meta device), bytes that an engine sends (`engines/choice.sent_bytes`), memory it
needs, and what `engine.kind: auto` chooses (`choose_engine`). Measured here: bytes of a clip, how fast a node reads and
verifies shards, and how fast a checkpoint is copied. Assumed, because there are no GPUs here: everything else, which is
printed. The global batch is fixed, as a run's is, so ranks have fewer clips the more there are.

`--check` predicts the step of one and of two workers here (gloo, DDP, a small encoder) from costs measured apart, and
compares it with the step itself. Rates of reading and copying are by processor time, so that other programs here do not
count; the check takes the lower quartile of repeated steps.
"""

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from material import roberta, run_config, sentences, write_clips, write_untrained_encoder
from transformers import BertConfig

from vadv_dist.config import Config, EngineConfig
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.windows import LocalWindows
from vadv_dist.engines.build import build_engine
from vadv_dist.engines.choice import choose_engine, sent_bytes
from vadv_dist.engines.distributed import Distributed
from vadv_dist.engines.memory import ModelSizes, measure_sizes, memory_by_use
from vadv_dist.tasks import build
from vadv_dist.training.flops import clip_flops
from vadv_dist.training.splits import Splits

_WORLDS = tuple(1 << n for n in range(11))
_NETWORKS_GBIT = (10, 25, 100, 200, 400)
_ENGINES = {"DDP": EngineConfig(kind="torch")} | {
    f"ZeRO-{stage}": EngineConfig(kind="deepspeed", zero_stage=stage) for stage in (1, 2, 3)
}
# Doubling the GPUs must gain this much, or the run has stopped scaling.
_LEAST_GAIN = 1.5
_BACKWARD = 2 / 3
_USABLE = 0.9  # of a GPU, as of `engines/choice.py`
_READERS = 4  # threads that read for a node, as of `data/windows.py`


@dataclass(frozen=True)
class Costs:
    """What a step costs.

    Attributes:
        sizes: parameters of the model, and activations of one clip.
        layers: layers of the encoder, each of which ZeRO-3 fetches apart.
        flop_per_clip: FLOP of a forward and backward pass on a clip.
        bytes_per_clip: bytes of a clip in a shard.
        read_rate: bytes per second that a node reads and verifies.
        copy_rate: bytes per second of a checkpoint's copy.
        batch: clips of a global batch.
        flops: FLOP per second that a GPU reaches.
        step_s: time of a step without clips: launches, the optimizer.
        gpus_per_node: GPUs that share a node's network.
        local_rate: bytes per second between the GPUs of a node.
        latency_s: of one hop of a collective.
        bucket: bytes that DDP and ZeRO-2 send at once.
        checkpoint_s: time between two checkpoints.
        device: memory of a GPU.
    """

    sizes: ModelSizes
    layers: int
    flop_per_clip: float
    bytes_per_clip: float
    read_rate: float
    copy_rate: float
    batch: int
    flops: float
    step_s: float = 0.005
    gpus_per_node: int = 8
    local_rate: float = 300e9
    latency_s: float = 15e-6
    bucket: int = 25 << 20
    checkpoint_s: float = 300.0
    device: int = 80 << 30

    def clips(self, world: int) -> int:
        """Clips of a rank."""
        return -(-self.batch // world)

    def compute(self, world: int) -> float:
        """Seconds in which a rank computes."""
        return self.step_s + self.clips(world) * self.flop_per_clip / self.flops

    def fits(self, engine: EngineConfig, world: int) -> bool:
        """Whether an engine fits a GPU, by the same estimate as `engine.kind: auto`."""
        return sum(memory_by_use(engine, self.on(world), world, bf16=True).values()) <= _USABLE * self.device

    def on(self, world: int) -> ModelSizes:
        """Sizes with the activations of a rank's clips."""
        return replace(self.sizes, activations=(self.sizes.activations or 0) * self.clips(world))

    def auto(self, world: int) -> str:
        """What `engine.kind: auto` picks."""
        choice = choose_engine(EngineConfig(), self.on(world), world, bf16=True, accumulate=1, device=self.device)
        return next(name for name, engine in _ENGINES.items() if engine.title == choice.engine.title)


@dataclass(frozen=True)
class Step:
    """Seconds of one step, and what limits it."""

    compute: float
    network: float
    reading: float
    saving: float

    @property
    def total(self) -> float:
        """Seconds of the step: reading goes on beside it."""
        return max(self.compute + self.network, self.reading) + self.saving

    @property
    def limit(self) -> str:
        """What takes longest besides computing."""
        if self.reading > self.compute + self.network:
            return "reading"
        return "network" if self.network > self.saving else "saving"


def simulate(costs: Costs, engine: EngineConfig, world: int, network_gbit: float, *, lanes: bool = True) -> Step:
    """One step of a run on `world` GPUs; with `lanes` a node reads only its part of the data."""
    nodes = -(-world // costs.gpus_per_node)
    rate = costs.local_rate if nodes == 1 else min(costs.local_rate, network_gbit * 1e9 / 8)
    sent = sent_bytes(engine, costs.sizes.trained, world, bf16=True, accumulate=1)
    compute, hops = costs.compute(world), 2 * math.ceil(math.log2(world)) if world > 1 else 0
    gradients = 2 * costs.sizes.trained
    if engine.kind == "torch" or engine.stage == 2:
        collectives, hidden = math.ceil(gradients / costs.bucket), _BACKWARD * compute
    elif engine.stage == 1:
        collectives, hidden = 2, 0.0  # one pass after the backward pass, and the weights after the update
    else:
        collectives, hidden = 3 * costs.layers, compute
    if engine.kind == "deepspeed" and engine.stage == 2:  # the updated weights are gathered after the step
        exposed = sent / 3 / rate
        network = exposed + max(0.0, (sent - sent / 3) / rate + collectives * hops * costs.latency_s - hidden)
    else:
        network = max(0.0, sent / rate + collectives * hops * costs.latency_s - hidden)
    partitions = world if engine.kind == "deepspeed" and engine.stage > 0 else 1
    state = 12 * costs.sizes.trained / partitions
    step = Step(
        compute,
        network,
        costs.bytes_per_clip * costs.batch / (nodes if lanes else 1) / costs.read_rate,
        0.0,
    )
    return replace(step, saving=state / costs.copy_rate * step.total / costs.checkpoint_s)


def stops_at(costs: Costs, engine: EngineConfig, network_gbit: float, *, lanes: bool = True) -> tuple[int, float, str]:
    """Most GPUs that are worth their doubling, their efficiency, and what limits the next doubling."""
    alone = simulate(costs, engine, 1, network_gbit, lanes=lanes).total
    last = alone
    for world, following in pairwise(_WORLDS):
        more = simulate(costs, engine, following, network_gbit, lanes=lanes)
        if last / more.total < _LEAST_GAIN:
            too_few = more.compute > 0.7 * more.total and costs.step_s > 0.5 * more.compute
            return world, alone / last / world, "too few clips per GPU" if too_few else more.limit
        last = more.total
    return _WORLDS[-1], alone / last / _WORLDS[-1], "nothing here"


def measured(options: argparse.Namespace, scratch: Path) -> Costs:
    """Count and measure the costs."""
    config, splits = _large(scratch)
    sizes, flop = _counted(config, options.tokens)
    shards = Dataset.open(scratch / "data").split("train")
    return Costs(
        sizes=sizes,
        layers=roberta("large").num_hidden_layers,
        flop_per_clip=flop,
        bytes_per_clip=float(shards.bytes.sum() / shards.rows.sum()),
        read_rate=_read_rate(splits),
        copy_rate=_copy_rate(),
        batch=options.batch[0],
        flops=options.flops,
    )


def _large(scratch: Path) -> tuple[Config, Splits]:
    write_clips(scratch / "data", (sentences()[1] * 5)[:10_000], features=True)
    write_untrained_encoder(scratch / "encoder", roberta("large"))
    config = run_config(scratch, batch_size=16, teacher=True)
    return config, Splits.open(config)


def _counted(config: Config, tokens: int) -> tuple[ModelSizes, float]:
    sources = Splits.open(config).train.sources
    with torch.device("meta"):
        task = build(config, sources, weights=False)
    sizes = measure_sizes(task, tokens, 1, bf16=True)
    return sizes, clip_flops(config, sources).of(1, tokens)


def _read_rate(splits: Splits) -> float:
    shards = tuple(range(len(splits.train.shards)))
    rates = []
    for _ in range(3):
        windows = LocalWindows(splits.train)  # a new one verifies everything
        began = time.process_time()
        windows.get(shards)
        rates.append(float(splits.train.table.bytes.sum()) / (time.process_time() - began))
        windows.close()
    return _READERS * statistics.median(rates)


def _copy_rate() -> float:
    source, target = torch.ones(64 << 20), torch.zeros(64 << 20)
    rates = []
    for _ in range(5):
        began = time.process_time()
        target.copy_(source)
        rates.append(source.nbytes / (time.process_time() - began))
    return statistics.median(rates)


def report(costs: Costs) -> str:
    """Assumptions and results as Markdown."""
    sizes = costs.sizes
    lines = [
        f"Counted: {sizes.trained / 1e6:.0f} M trained parameters, {costs.flop_per_clip / 1e9:.0f} GFLOP and "
        f"{(sizes.activations or 0) / 1e6:.0f} MB of activations per clip.",
        f"Measured here: {costs.bytes_per_clip / 1e3:.1f} kB per clip, {costs.read_rate / 1e6:.0f} MB/s read and "
        f"verified by {_READERS} threads of a node, {costs.copy_rate / 1e9:.1f} GB/s copied for a checkpoint.",
        f"Assumed: a global batch of {costs.batch:,} clips; {costs.flops / 1e12:.0f} TFLOP/s per GPU; "
        f"{1000 * costs.step_s:g} ms per step for launches and the optimizer; {costs.gpus_per_node} GPUs per node with "
        f"{costs.local_rate / 1e9:.0f} GB/s between them, which share the network; {1e6 * costs.latency_s:g} µs per "
        f"hop; backward {_BACKWARD:.0%} of computing, behind which DDP and ZeRO-2 send gradients; ZeRO-3 sends behind "
        f"all of it; a checkpoint each {costs.checkpoint_s:g} s; {costs.device >> 30} GiB per GPU.",
        "",
        f"Most GPUs whose last doubling gains {_LEAST_GAIN} times (efficiency there; what limits the next doubling):",
        "",
        "| network per node | " + " | ".join(_ENGINES) + " | DDP, each node reads everything |",
        "|---|" + "---|" * (len(_ENGINES) + 1),
    ]
    for network in _NETWORKS_GBIT:
        cells = [stops_at(costs, engine, network) for engine in _ENGINES.values()]
        cells.append(stops_at(costs, _ENGINES["DDP"], network, lanes=False))
        found = " | ".join(f"{world:,} ({efficiency:.0%}; {limit})" for world, efficiency, limit in cells)
        lines.append(f"| {network} Gb/s | {found} |")
    lines += [
        "",
        "Clips/s at 100 Gb/s, with what `engine.kind: auto` picks and whether each fits:",
        "",
        "| GPUs | auto | " + " | ".join(_ENGINES) + " |",
        "|---|---|" + "---|" * len(_ENGINES),
    ]
    for world in _WORLDS:
        cells_of = []
        for engine in _ENGINES.values():
            rate = costs.batch / simulate(costs, engine, world, 100).total
            cells_of.append(f"{rate:,.0f}" if costs.fits(engine, world) else f"({rate:,.0f}: does not fit)")
        lines.append(f"| {world:,} | {costs.auto(world)} | " + " | ".join(cells_of) + " |")
    return "\n".join(lines)


def check() -> str:
    """Predictions of one and two workers here beside measurements."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, __file__, "--meeting", f"{scratch}/meeting", "--scratch", scratch]
        _small(Path(scratch), 4)
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        ranks = [
            subprocess.Popen([*command, "--rank", str(rank)], stdout=subprocess.PIPE, text=True, env=environment)
            for rank in range(2)
        ]
        printed = [rank.communicate()[0] for rank in ranks]
    if any(rank.returncode for rank in ranks):
        raise SystemExit("the two workers did not run")
    return printed[0]


_CHECK_BATCH = 32


def _small(scratch: Path, batch: int) -> Config:
    if not (scratch / "data").exists():
        write_clips(scratch / "data", sentences()[1][:256], features=False)
        narrow = BertConfig(hidden_size=192, num_hidden_layers=4, num_attention_heads=6, intermediate_size=768)
        write_untrained_encoder(scratch / "encoder", narrow)
    return run_config(scratch, batch_size=batch, teacher=False)


def check_rank(rank: int, meeting: str, scratch: Path) -> None:
    """Measure costs apart, predict, and measure the step, on one of two ranks."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    alone, both = Distributed(), Distributed(rank, 2)

    def step(batch: int, distributed: Distributed) -> tuple[Callable[[], object], int]:
        config = _small(scratch, batch)
        splits = Splits.open(config)
        task = build(config, splits.train.sources, weights=False)
        windows = LocalWindows(splits.train)
        window = windows.get(splits.train.plan(config.data, seed=1, epoch=0).window(0).shards)
        windows.close()
        rows = np.argsort(window.length, kind="stable")[len(window) // 2 :][:batch]  # of about one length
        made = task.collator(window, rows, global_rows=rows)
        engine = build_engine(config, task.step, task.parameter_groups(), distributed)
        trained = sum(p.numel() for p in task.step.parameters() if p.requires_grad)
        return lambda: engine.step([made], lambda _: task.weights, 1.0, weights_known=True), trained

    few, many = _CHECK_BATCH // 4, 3 * _CHECK_BATCH // 4
    small, trained = step(few, alone)
    actions = {"few": small, "many": step(many, alone)[0], "whole": step(_CHECK_BATCH, alone)[0]}
    actions["two"] = step(_CHECK_BATCH // 2, both)[0]
    gradient = torch.zeros(trained)
    actions["sum"] = lambda: dist.all_reduce(gradient)
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(27):
        for name, action in actions.items():
            dist.barrier()  # both compute at the same time, as they do in training
            began = time.perf_counter()
            action()
            slower = torch.tensor(time.perf_counter() - began)
            dist.all_reduce(slower, dist.ReduceOp.MAX)
            if turn >= 3:
                seconds[name].append(float(slower))
    typical = {name: statistics.quantiles(times, n=4)[0] for name, times in seconds.items()}
    per_clip = (typical["many"] - typical["few"]) / (many - few)
    predicted = {
        1: typical["few"] + (_CHECK_BATCH - few) * per_clip,
        2: typical["few"] + (_CHECK_BATCH // 2 - few) * per_clip + typical["sum"],
    }
    if rank == 0:
        print(f"Step of {_CHECK_BATCH} clips, {trained / 1e6:.1f} M parameters, one thread per worker:\n")
        print("| workers | predicted | measured | ratio |\n|---|---|---|---|")
        for workers, name in ((1, "whole"), (2, "two")):
            ratio = predicted[workers] / typical[name]
            print(f"| {workers} | {1e3 * predicted[workers]:.0f} ms | {1e3 * typical[name]:.0f} ms | {ratio:.2f} |")
        sent = sent_bytes(_ENGINES["DDP"], trained, 2, bf16=False, accumulate=1)
        print(f"\nSumming gradients: {1e3 * typical['sum']:.0f} ms, {sent / typical['sum'] / 1e9:.2f} GB/s per rank.")
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    """Print the simulation, or its check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="*", default=[1024, 16384], help="clips of a global batch")
    parser.add_argument("--tokens", type=int, default=25, help="tokens of a clip")
    parser.add_argument("--flops", type=float, default=400e12, help="FLOP/s that a GPU reaches")
    parser.add_argument("--check", action="store_true", help="compare predictions with measurements here")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--meeting", help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank is not None:
        check_rank(options.rank, options.meeting, options.scratch)
    elif options.check:
        print(check())
    else:
        with tempfile.TemporaryDirectory() as scratch:
            costs = measured(options, Path(scratch))
        print("\n\n".join(report(replace(costs, batch=batch)) for batch in options.batch))


if __name__ == "__main__":
    main()
