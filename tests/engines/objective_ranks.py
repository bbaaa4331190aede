"""Train an objective with a parameter and a memory bank of its own, for the tests of engines: not a test itself."""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from gloo_ranks import join, leave, whole
from torch import Tensor, nn

from vadv_dist.config import Config, EngineConfig, load_config
from vadv_dist.data.windows import LocalWindows
from vadv_dist.engines.build import build_engine
from vadv_dist.engines.distributed import Distributed
from vadv_dist.objectives.base import Objective
from vadv_dist.objectives.outputs import Rows, TeacherStudentOutputs
from vadv_dist.objectives.rank_state import RankState
from vadv_dist.objectives.step_distillation import StepDistillation
from vadv_dist.runs.checkpoint import last_checkpoint
from vadv_dist.runs.folder import RunFolder
from vadv_dist.tasks.sentiment import SentimentTask
from vadv_dist.training.loop import Trainer
from vadv_dist.training.splits import Splits

ENGINES = ("torch", "zero-0", "zero-1", "zero-2", "zero-3")


class Bank(RankState):
    """The last video logit of every row that this rank has seen; NaN of the others."""

    rank_buffers = ("value",)
    value: Tensor

    def __init__(self, num_rows: int) -> None:
        super().__init__()
        self.register_buffer("value", torch.full((num_rows,), float("nan")), persistent=False)

    def forward(self, row_id: Tensor, valid: Tensor, logit: Tensor) -> Tensor:
        """Mean of what was stored before, then store anew."""
        stored = self.value[~self.value.isnan()]
        mean = stored.mean() if len(stored) else logit.new_zeros(())
        keep = valid.bool() if self.training and torch.is_grad_enabled() else torch.zeros_like(valid, dtype=torch.bool)
        self.value[row_id[keep]] = logit.detach()[keep].to(self.value.dtype)
        return mean.float()

    def reshard(self, states: Sequence[Mapping[str, Tensor]], rank: int, world_size: int) -> dict[str, Tensor]:
        if len(states) == world_size:
            return dict(states[rank])
        stacked = torch.stack([state["value"] for state in states])
        joined = torch.where(stacked.isnan().all(0), float("nan"), stacked.nansum(0) / (~stacked.isnan()).sum(0))
        mine = torch.arange(joined.numel()) % world_size == rank
        return {"value": torch.where(mine, joined, float("nan"))}


class WithBank(Objective):
    """The five terms and one more that uses a parameter of the objective, and what the bank holds."""

    def __init__(self, inner: StepDistillation, num_rows: int) -> None:
        super().__init__()
        self.inner = inner
        self.scale = nn.Parameter(torch.ones(3))
        self.bank = Bank(num_rows)

    def forward(self, outputs: TeacherStudentOutputs, rows: Rows) -> dict[str, Tensor]:
        video = outputs.video_logit
        assert video is not None
        mean = self.bank(rows.row_id, rows.valid, video)
        distance = (outputs.text_logit - self.scale.float().sum() * (video.detach() + mean) / 3).square()
        terms = self.inner(outputs, rows)
        # It counts with the student's term, so that the weights need no new name.
        return {**terms, "text_regression": terms["text_regression"] + (distance * rows.valid).sum() / rows.num_rows}


class CutOffError(Exception):
    pass


def fit(config: Config, distributed: Distributed, *, cut: bool = False) -> dict[str, Any]:
    """Train to the end, or to the end of the first epoch; rank 0 gets what is then kept."""

    def on_epoch(metrics: dict[str, Any]) -> None:
        if cut:
            raise CutOffError

    splits = Splits.open(config)
    task = SentimentTask(config, splits.train.sources)
    task.step.objective = WithBank(task.step.objective, int(splits.train.table.rows.sum()))
    train, valid = LocalWindows(splits.train), LocalWindows(splits.valid)
    engine, folder = build_engine(config, task.step, task.parameter_groups(), distributed), RunFolder.of(config)
    if distributed.is_main:
        folder.claim(config)
    distributed.barrier()
    trainer = Trainer(
        config, task, engine, splits.train, splits.valid, train, valid, distributed, folder, on_epoch=on_epoch
    )
    try:
        trainer.fit()
    except CutOffError:
        pass
    finally:
        train.close()
        valid.close()
    weights, moments = whole(engine.weights(), distributed), whole(engine.moments(), distributed)
    return {
        "weights": weights,
        "moments": moments,
        "scale": weights["objective.scale"],
        "moment": moments["exp_avg/objective.scale"],
        "banks": distributed.gather(task.step.objective.bank.value.cpu().clone()),
    }


def load(run: Config, engine: str, distributed: Distributed) -> dict[str, Any]:
    """Load a run's last checkpoint into another engine; return its state."""
    config = dataclasses.replace(variant(run, engine, ""), run=dataclasses.replace(run.run, seed=99))
    sources = Splits.open(config).train
    task = SentimentTask(config, sources.sources)
    task.step.objective = WithBank(task.step.objective, int(sources.table.rows.sum()))
    built = build_engine(config, task.step, task.parameter_groups(), distributed)
    last = last_checkpoint(RunFolder.of(run).checkpoints)
    assert last is not None
    with last.read_weights(distributed.rank) as weights, last.read_moments(distributed.rank) as moments:
        built.load(weights, moments, last.step)
    return {"weights": whole(built.weights(), distributed), "moments": whole(built.moments(), distributed)}


def variant(base: Config, name: str, suffix: str) -> Config:
    stage = name.removeprefix("zero-")
    engine = base.engine if name == "torch" else EngineConfig(kind="deepspeed", zero_stage=int(stage))
    return dataclasses.replace(base, run=dataclasses.replace(base.run, name=f"{name}{suffix}"), engine=engine)


def main(config_path: str, out: str) -> None:
    """Every engine whole, and cut off after the first epoch and taken up again."""
    base, distributed = load_config(Path(config_path)), join()
    answers: dict[str, Any] = {}
    for name in ENGINES:
        answers[name] = fit(variant(base, name, ""), distributed)
        answers[f"{name} half"] = fit(variant(base, name, "-cut"), distributed, cut=True)
        answers[f"{name} continued"] = fit(variant(base, name, "-cut"), distributed)
    for name in ENGINES:
        answers[f"{name} loaded"] = {other: load(variant(base, name, ""), other, distributed) for other in ENGINES}
    if distributed.is_main:
        torch.save(answers, out)
    leave()


if __name__ == "__main__":
    main(sys.argv[3], sys.argv[4])
