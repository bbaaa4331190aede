"""Try everything that a run does on two batches: train, validate, checkpoint, reload. Nothing is kept."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from vadv_dist.config import Config
from vadv_dist.cuda import prepare_cuda
from vadv_dist.data.windows import LocalWindows
from vadv_dist.engines.build import build_engine
from vadv_dist.engines.distributed import Distributed, choose_device
from vadv_dist.errors import MachineError
from vadv_dist.formats.tensor_parts import whole_tensors
from vadv_dist.launch.attempt import agreed_precision
from vadv_dist.runs.checkpoint import list_checkpoints
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.trained_on import TrainedOn
from vadv_dist.tasks import build
from vadv_dist.training.loop import Trainer
from vadv_dist.training.splits import Splits

_NUM_BATCHES = 2


def smoke(config: Config) -> Iterator[str]:
    """Run two steps in this process in a temporary folder; yield one line per part that works.

    Raises:
        UserError: the run would fail.
        MachineError: a reloaded checkpoint differs from the saved one.
    """
    config = replace(
        config, trainer=replace(config.trainer, num_workers=0, max_steps=_NUM_BATCHES, checkpoint_every_steps=1)
    )
    splits = Splits.open(config)
    with tempfile.TemporaryDirectory(prefix="vadv-smoke-") as scratch:
        config = replace(config, run=replace(config.run, storage=scratch))
        first = trainer_here(config, splits)
        state = first.fit()
        yield f"train: {_NUM_BATCHES} steps of {config.data.batch_size} clips"
        shown = first.task.description
        score = state.best_metrics[shown.student.name][shown.score]
        clips = min(int(splits.valid.table.rows.sum()), _NUM_BATCHES * config.trainer.eval_batch_size)
        yield f"validation: {clips} clips, {shown.student.phrase} {shown.score_metric.title} {score:.3f}"
        saved = list_checkpoints(RunFolder.of(config).checkpoints)[-1]
        size = sum(entry["bytes"] for entry in saved.files.values())
        yield f"checkpoint: step {saved.step}, {size / 2**20:.1f} MiB, hashes verified"
        second = trainer_here(config, splits)
        second.fit()
        for trainer in (first, second):
            trainer.train_windows.close()
            trainer.valid_windows.close()
        weights, again = whole_tensors(first.engine.weights()), whole_tensors(second.engine.weights())
        if not all(torch.equal(weights[name], again[name]) for name in weights):
            raise MachineError("The reloaded checkpoint differs from the saved one. This is a bug: please report it.")
        yield "reload: bit-identical"
        yield f"smoke test passed on {first.distributed.device}; nothing was kept in {Path(scratch).parent}"


def trainer_here(config: Config, splits: Splits) -> Trainer:
    """A trainer in this process that validates on two batches."""
    device = choose_device(config.trainer.use_gpu)
    prepare_cuda(device, config.trainer.matmul_precision)
    distributed = Distributed(device=device)
    task = build(config, splits.train.sources)
    task.check(device)
    folder = RunFolder.of(config)
    folder.claim(config, TrainedOn.of(config, splits.train.sources))
    precision = agreed_precision(config, task.step, folder, distributed)
    config = replace(config, trainer=replace(config.trainer, precision=precision.kind))
    return Trainer(
        config=config,
        task=task,
        engine=build_engine(config, task.step, task.parameter_groups(), distributed),
        train=splits.train,
        valid=splits.valid,
        train_windows=LocalWindows(splits.train),
        valid_windows=LocalWindows(splits.valid),
        distributed=distributed,
        folder=folder,
        max_valid_batches=_NUM_BATCHES,
    )
