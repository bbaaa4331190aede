"""How long training waits for a checkpoint of RoBERTa-Large and its teacher, and how much memory that takes.

Against it, the same weights and moments are saved by safetensors, flushed and hashed while training waits, as a loop
without a thread does it. Both hold the whole state in memory; the weights are random and the moments zero. Peak memory
is this process's, from after the state was made.
"""

import statistics
import tempfile
import time
from pathlib import Path

import torch
from material import roberta, run_config, sentences, write_clips, write_untrained_encoder
from measure import Row, alternate, ratio_of_medians

from vadv_dist.engines.build import build_engine
from vadv_dist.engines.distributed import Distributed
from vadv_dist.formats.tensor_parts import HeldTensors
from vadv_dist.formats.tensors import save_tensors
from vadv_dist.runs.checkpoint import checkpoint_at
from vadv_dist.runs.checkpoint_writer import CheckpointWriter
from vadv_dist.storage import atomic_directory, file_entries, remove_tree, write_json
from vadv_dist.tasks.sentiment import SentimentTask
from vadv_dist.training.splits import Splits

# The time between two checkpoints, `trainer.checkpoint_every_s`.
_EVERY_S = 300.0


def measure(quick: bool) -> list[Row]:
    """Run the benchmark."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_clips(folder / "data", sentences()[1][:64], features=True)
        write_untrained_encoder(folder / "encoder", roberta("large"))
        config = run_config(folder, batch_size=4, teacher=True)
        task = SentimentTask(config, Splits.open(config).train.sources)
        groups = task.parameter_groups()
        engine = build_engine(config, task.step, groups, Distributed())
        zeros = {
            f"{moment}/{name}": torch.zeros(()).expand(parameter.shape)
            for group in groups
            for name, parameter in zip(group.names, group.parameters, strict=True)
            for moment in ("exp_avg", "exp_avg_sq")
        }
        engine.load(HeldTensors({part.name: part.values for part in engine.weights()}), HeldTensors(zeros), 1)
        state_bytes = sum(part.values.nbytes for parts in (engine.weights(), engine.moments()) for part in parts)
        before = _peak_bytes(reset=True)

        writer = CheckpointWriter(folder / "checkpoints", 0, 1, "benchmark")
        written_s: list[float] = []
        steps = iter(range(1, 100))

        def ours() -> None:
            writer.copy(next(steps), best=(), weights=engine.weights(), moments=engine.moments(), state={})

        def rest() -> None:
            """What goes on while training does."""
            began = time.perf_counter()
            writer.start()
            writer.wait()
            written_s.append(time.perf_counter() - began)

        def waiting() -> None:
            with atomic_directory(folder / "waiting", manifest="manifest.json") as upload:
                save_tensors({part.name: part.values for part in engine.weights()}, upload.folder / "weights")
                save_tensors({part.name: part.values for part in engine.moments()}, upload.folder / "moments")
                write_json(upload.folder / "manifest.json", file_entries(upload.folder))

        ours()  # allocates the host memory
        rest()
        peak = _peak_bytes()
        actions = {"ours": ours, "rest": rest, "waiting": waiting, "clean": lambda: remove_tree(folder / "waiting")}
        seconds = alternate(actions, 1 if quick else 3, warm_ups=0)
        checkpoint_at(folder / "checkpoints", next(steps) - 1).verify()
    size = f"RoBERTa-Large and teacher, {state_bytes / 1e9:.1f} GB of weights and moments"
    blocked_s = statistics.median(seconds["ours"])
    return [
        Row(
            f"time that training waits for a checkpoint, {size}",
            "saved and hashed while training waits",
            ratio_of_medians(seconds["ours"], seconds["waiting"]),
            0.1,
            "at most",
            f"{blocked_s:.2f} s, then {statistics.median(written_s):.1f} s in the background, "
            f"against {statistics.median(seconds['waiting']):.1f} s",
        ),
        Row(
            "the same, as a share of the time between two checkpoints",
            f"{_EVERY_S:g} s",
            100 * blocked_s / _EVERY_S,
            2.0,
            "at most",
            f"{blocked_s:.2f} s; {100 * statistics.median(seconds['waiting']) / _EVERY_S:.1f} % when training waits",
            " %",
        ),
        Row(
            "memory that checkpoints take",
            "the state itself",
            (peak - before) / state_bytes,
            1.02,
            "at most",
            f"{(peak - before) / 1e9:.2f} against {state_bytes / 1e9:.2f} GB",
        ),
    ]


def _peak_bytes(*, reset: bool = False) -> int:
    """Peak resident memory of this process since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    [line] = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM")]
    return int(line.split()[1]) * 1024
