"""Training on one CUDA device: the product's own loop and engines, against the floor that bytes and operations set.

    python benchmarks/gpu.py                      # RoBERTa-Large and its teacher, batch 4, 16, 64; then mosi.yaml
    python benchmarks/gpu.py --check              # losses of all variants over 50 steps; exits with 1 if one differs
    python benchmarks/gpu.py --device cpu --tiny  # only to see that it runs

Needs no Ray, and leaves ZeRO out where DeepSpeed is not installed. Clips have MOSI's sentences, or made ones of the
same lengths, and random features of real shape. Every row is a run of `vadv train` in this process: its first 60 steps
warm up, or its first two epochs if steps are recorded (each shape of batches in the second step that has it), then its
lines in metrics.jsonl give the time per step. Results belong into docs/results.md.

Floor of a step = max(operations / matmul rate, 6 P / bandwidth) + 30 P / bandwidth, with P trained parameters, for bf16
weights beside fp32 masters: forward and backward read the weights (2 + 2 bytes a parameter) and write the gradient (2);
the norm reads it (2); the update reads gradient, master and moments (2 + 12) and writes master, moments and weight
(12 + 2). Operations are those of the matrix products on real tokens (`training/flops.py`). Rate and bandwidth are
measured on the device first, on a large bf16 product and a large copy. MFU = operations / (step time × measured rate).
Host time is the median of what `Engine.step` takes to return; a step with a log line waits for the device.
"""

import argparse
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from material import EnoughError, roberta, run_config, sentences, write_clips, write_untrained_encoder
from transformers import RobertaConfig

from vadv_dist.config import Config, EngineConfig, load_config
from vadv_dist.engines import torch_engine
from vadv_dist.launch.worker import train_locally
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.records import CheckpointLine, EpochLine, Line, NoteLine, StepLine
from vadv_dist.tasks import build
from vadv_dist.tasks.base import parameter_counts
from vadv_dist.training.flops import ClipFlops, clip_flops
from vadv_dist.training.splits import Splits

VARIANTS = {
    "eager": EngineConfig(kind="torch", graphs="off", compile="off"),
    "graphs": EngineConfig(kind="torch", graphs="on", compile="auto"),
    "graphs + compile": EngineConfig(kind="torch", graphs="on", compile="on"),
    "ZeRO-1": EngineConfig(kind="deepspeed", zero_stage=1),
    "ZeRO-2": EngineConfig(kind="deepspeed", zero_stage=2),
    "ZeRO-3": EngineConfig(kind="deepspeed", zero_stage=3),
}
LINE_STEPS = 20
WRITING_S = 6.0  # for the thread that writes the weights of the best epoch
CHECK_STEPS, CHECK_TOLERANCE = 50, 0.02
HEADER = "| batch | variant | ms/step | floor ms | × floor | MFU | host ms | launches | checkpoint s | memory GB |"


@dataclass
class Measured:
    """What a run gave: lines after its warm-up, and what was seen beside them."""

    warm_steps: int
    num_steps: int
    lines: list[StepLine] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    host_s: list[float] = field(default_factory=list)
    launches: float | None = None
    kernels: str = ""
    blocked_s: float | None = None


def main() -> int:
    """Measure, and print tables; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--steps", type=int, default=120, help="measured steps of each row")
    parser.add_argument("--minutes", type=float, default=6.0, help="bound on all of it; mosi.yaml is cut and scaled up")
    parser.add_argument("--no-checkpoint", action="store_true", help="save none, which takes a row half its time")
    parser.add_argument("--tiny", action="store_true", help="a toy model, to see that the script runs")
    parser.add_argument("--check", action="store_true", help="compare losses instead of times")
    options = parser.parse_args()
    began = time.monotonic()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("gpu.py: no CUDA device is found. --device cpu --tiny shows only that the script runs.")
    variants = {name: VARIANTS[name] for name in options.variants}
    if importlib.util.find_spec("deepspeed") is None:
        variants = {name: engine for name, engine in variants.items() if engine.kind != "deepspeed"}
        print("DeepSpeed is not installed: no rows for ZeRO.")
    if options.device == "cpu":
        variants = {name: replace(engine, graphs="auto") for name, engine in variants.items()}
    torch.manual_seed(1)
    with tempfile.TemporaryDirectory() as scratch:
        base = prepare(Path(scratch), options.device, tiny=options.tiny)
        if options.check:
            return check(base, variants, 6 if options.tiny else CHECK_STEPS)
        device = torch.device(options.device)
        rate, bandwidth = ceilings(device, options.tiny)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
        print(f"{name}, torch {torch.__version__}: {rate / 1e12:.1f} TFLOP/s bf16, {bandwidth / 1e12:.3f} TB/s copy\n")
        table(base, variants, options, rate, bandwidth)
        if options.minutes > 0:
            paper_run(base, began + 60 * options.minutes)
    return 0


def prepare(scratch: Path, device: str, *, tiny: bool) -> Config:
    """Write clips and an encoder without weights; the configuration of runs on them."""
    source, texts = sentences()
    texts = texts[: 64 if tiny else 1284]
    print(f"{len(texts)} clips, {source}.")
    write_clips(scratch / "data", texts, features=True)
    small = RobertaConfig(vocab_size=50265, hidden_size=32, num_hidden_layers=2, num_attention_heads=2)
    write_untrained_encoder(scratch / "encoder", small if tiny else roberta("large"))
    config = run_config(scratch, batch_size=4, teacher=True)
    teacher = replace(config.teacher, width=32, heads=2, hidden=16) if tiny else config.teacher
    return replace(
        config,
        teacher=teacher,
        trainer=replace(config.trainer, use_gpu=device == "cuda", precision="bf16", epochs=10_000),
        telemetry=replace(config.telemetry, log_every_steps=5 if tiny else LINE_STEPS),
    )


def table(
    base: Config, variants: dict[str, EngineConfig], options: argparse.Namespace, rate: float, bandwidth: float
) -> None:
    """One row for each batch size and variant; its largest kernels go to standard error."""
    sources = Splits.open(base).train.sources
    flops = clip_flops(base, sources)
    with torch.device("meta"):
        trained = parameter_counts(build(base, sources, weights=False))["trained"]
    print(f"{trained / 1e6:.0f} M trained parameters.\n\n{HEADER}\n|{'---|' * HEADER.count(' | ')}---|")
    for batch_size in options.batch_sizes:
        for name, engine in variants.items():
            config = replace(
                base,
                run=replace(base.run, name=f"{name}-{batch_size}".replace(" ", "")),
                data=replace(base.data, batch_size=batch_size),
                engine=engine,
            )
            steps = 10 if options.tiny else options.steps
            epoch = Splits.open(config).train.plan(config.data, seed=1, epoch=0).num_steps
            # Every shape is recorded in the second step that has it.
            warm = 60 if engine.graphs == "off" or engine.kind == "deepspeed" else max(2 * epoch + LINE_STEPS, 60)
            found = run(config, Measured(10 if options.tiny else warm, steps), checkpoint=not options.no_checkpoint)
            print(row(batch_size, name, found, flops, trained, rate, bandwidth), flush=True)
            notes = [f"{name}, batch {batch_size}: {note}" for note in found.notes]
            kernels = f"\n{name}, batch {batch_size}, largest kernels:\n{found.kernels}"
            print("\n".join([*notes, kernels]), file=sys.stderr, flush=True)


def row(
    batch_size: int, name: str, found: Measured, flops: ClipFlops, trained: int, rate: float, bandwidth: float
) -> str:
    """A row of the table."""
    seconds = sum(line.line_s for line in found.lines)
    steps = found.num_steps
    clips = sum(line.samples_per_s * line.line_s for line in found.lines)
    tokens = sum(line.tokens_per_s * line.line_s for line in found.lines)
    operations = flops.of(round(clips), round(tokens))
    floor = steps * (max(operations / steps / rate, 6 * trained / bandwidth) + 30 * trained / bandwidth)
    memory = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0
    launches = "" if found.launches is None else f"{found.launches:.0f}"
    blocked = "" if found.blocked_s is None else f"{found.blocked_s:.2f}"
    return (
        f"| {batch_size} | {name} | {1e3 * seconds / steps:.2f} | {1e3 * floor / steps:.2f} | {seconds / floor:.2f} | "
        f"{operations / seconds / rate:.1%} | {1e3 * statistics.median(found.host_s):.2f} | {launches} | {blocked} | "
        f"{memory:.1f} |"
    )


def run(config: Config, found: Measured, *, checkpoint: bool) -> Measured:
    """Train until the measured steps, as many as a line has under a profiler, and maybe a checkpoint are over."""
    line_steps = config.telemetry.log_every_steps
    first, last = found.warm_steps + line_steps, found.warm_steps + line_steps + found.num_steps
    first, last = first - first % line_steps, last - last % line_steps
    found.num_steps = last - first
    profiler: Any = None

    def show(line: Line) -> None:
        nonlocal profiler
        if isinstance(line, NoteLine):
            found.notes.append(line.what)
        elif isinstance(line, CheckpointLine):
            if line.step == last + line_steps:
                found.blocked_s = line.seconds
                raise EnoughError
        elif isinstance(line, StepLine) and line.step == first - line_steps and torch.cuda.is_available():
            time.sleep(WRITING_S)
        elif isinstance(line, StepLine) and first < line.step <= last:
            found.lines.append(line)
            if line.step == last:
                profiler = torch.profiler.profile()
                profiler.start()
        elif isinstance(line, StepLine) and line.step == last + line_steps:
            profiler.stop()
            found.kernels, found.launches = read_profile(profiler, line_steps)
            if not checkpoint:
                raise EnoughError

    # No other checkpoint, which would be written during the measured steps.
    save_at = last + line_steps if checkpoint else None
    trainer = replace(config.trainer, checkpoint_every_steps=save_at, checkpoint_every_s=None)
    config = replace(config, trainer=trainer)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with timed_steps(found.host_s):
        train_until_enough(config, show)
    del found.host_s[: found.warm_steps]
    return found


def train_until_enough(config: Config, show: Callable[[Line], None]) -> None:
    """Train as `vadv train` does, until `show` raises `EnoughError`."""
    folder = RunFolder.of(config)
    folder.root.mkdir(parents=True)
    folder.claim(config)
    with suppress(EnoughError):
        train_locally(config, show, lambda: False)


@contextmanager
def timed_steps(seconds: list[float]) -> Iterator[None]:
    """Keep what each step of the plain engine or DeepSpeed's takes to return to the host."""
    engines: list[type] = [torch_engine.TorchEngine]
    if importlib.util.find_spec("deepspeed") is not None:
        from vadv_dist.engines.deepspeed_engine import DeepSpeedEngine

        engines.append(DeepSpeedEngine)
    originals = [engine.step for engine in engines]

    def timed(original: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return original(*arguments, **options)
            finally:
                seconds.append(time.perf_counter() - began)

        return step

    for engine, original in zip(engines, originals, strict=True):
        engine.step = timed(original)
    try:
        yield
    finally:
        for engine, original in zip(engines, originals, strict=True):
            engine.step = original


def read_profile(profiler: Any, steps: int) -> tuple[str, float]:
    """The ten largest kernels as a table, and the host's launches per step."""
    events = profiler.key_averages()
    launches = sum(
        event.count for event in events if event.key.startswith(("cudaLaunch", "cuLaunch", "cudaGraphLaunch"))
    )
    order = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    return events.table(sort_by=order, row_limit=10, max_name_column_width=60), launches / steps


def check(base: Config, variants: dict[str, EngineConfig], steps: int) -> int:
    """Compare each variant's losses with the first one's; 1 if one differs by more than bf16 explains."""
    losses: dict[str, list[float]] = {}
    for name, engine in variants.items():
        config = replace(
            base,
            run=replace(base.run, name=f"check-{name}".replace(" ", "")),
            engine=engine,
            trainer=replace(base.trainer, max_steps=steps),
            telemetry=replace(base.telemetry, log_every_steps=1),
        )
        found: list[float] = []

        def show(line: Line, found: list[float] = found) -> None:
            if isinstance(line, StepLine):
                found.append(line.terms["total"])
                if line.step == steps:
                    raise EnoughError

        train_until_enough(config, show)
        losses[name] = found
    (first, reference), *others = losses.items()
    differ = False
    for name, values in others:
        worst = max(abs(a - b) / max(abs(b), 1e-9) for a, b in zip(values, reference, strict=True))
        mean = abs(sum(values) / sum(reference) - 1)
        ok = mean <= CHECK_TOLERANCE
        differ |= not ok
        verdict = "ok" if ok else "DIFFERS"
        print(f"{name} against {first}, {steps} steps: mean loss {mean:.2%} apart, worst step {worst:.2%}: {verdict}")
    return int(differ)


def paper_run(base: Config, until: float) -> None:
    """Train `mosi.yaml` with this data and encoder, until it ends or the time is over."""
    recipe = load_config(Path(__file__).parents[1] / "jobs" / "configs" / "mosi.yaml")
    config = replace(
        recipe,
        run=replace(recipe.run, name="mosi", storage=base.run.storage),
        data=replace(recipe.data, sources=base.data.sources),
        student=replace(recipe.student, encoder=base.student.encoder, pretrained=False),
        teacher=base.teacher,
        trainer=replace(recipe.trainer, use_gpu=base.trainer.use_gpu, patience=None),
    )
    epochs, began, recorded = 0, time.monotonic(), 0.0
    blocked = 0.0

    def show(line: Line) -> None:
        nonlocal epochs, recorded, blocked
        if isinstance(line, CheckpointLine):
            blocked += line.seconds
        if isinstance(line, EpochLine):
            epochs += 1
            recorded = time.monotonic() - began
            if time.monotonic() > until:
                raise EnoughError

    train_until_enough(config, show)
    total = config.trainer.epochs
    scaled = "" if epochs == total else f"; all {total} would take {recorded * total / epochs / 60:.1f} min"
    print(
        f"\nmosi.yaml with validation and checkpoints: {epochs} of {total} epochs in {recorded:.0f} s{scaled}; "
        f"checkpoints blocked {blocked:.1f} s."
    )


def seconds(action: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median time of an action, after warming up."""
    times = []
    for repeat in range(3 + repeats):
        began = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if repeat >= 3:
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def ceilings(device: torch.device, tiny: bool) -> tuple[float, float]:
    """Measured bf16 matmul rate (operations/s) and copy bandwidth (bytes read and written per second)."""
    size, elements = (256, 1 << 16) if tiny else (8192, 1 << 30)
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    rate = 2 * size**3 / seconds(lambda: torch.mm(a, b), device, 10)
    source, target = torch.randn(elements, device=device), torch.empty(elements, device=device)
    return rate, 8 * elements / seconds(lambda: target.copy_(source), device, 10)


if __name__ == "__main__":
    raise SystemExit(main())
