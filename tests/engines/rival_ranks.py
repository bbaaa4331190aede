"""Rivals on two gloo processes for the tests of engines: not a test itself."""

import dataclasses
import itertools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from gloo_ranks import join, leave
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from kinds import kinds, students, variant

from vadv_dist.config import Config, EngineConfig, load_config
from vadv_dist.config.rival_sections import RivalConfig
from vadv_dist.data.stream import BatchStream
from vadv_dist.data.windows import LocalWindows
from vadv_dist.engines.build import build_engine
from vadv_dist.engines.distributed import Distributed
from vadv_dist.launch.worker import train_rank
from vadv_dist.objectives.base import weighted_total
from vadv_dist.objectives.outputs import Rows, View
from vadv_dist.runs.folder import RunFolder
from vadv_dist.tasks import build
from vadv_dist.tasks.rivals import Sides, build_rival
from vadv_dist.tasks.students import STUDENTS
from vadv_dist.training.closed_form import fit_in_closed_form
from vadv_dist.training.splits import Splits

NUM_STEPS, NUM_MICRO = 2, 2
# Rows of a micro-batch of all ranks, and how two ranks divide them.
ROWS, FIRST_RANK = 9, 5
SIDES = Sides(teacher_width=6, student_width=5, num_rows=23, seed=3, num_classes=3)


def rivals(base: Config) -> dict[str, RivalConfig]:
    """The section of each rival, with a small memory bank."""
    found: dict[str, RivalConfig] = {}
    for kind in kinds("objective"):
        section = variant(base, kind, objective=kind).objective
        if isinstance(section, RivalConfig):
            found[kind] = small(section)
    return found


def small(section: Any) -> Any:
    return dataclasses.replace(section, negatives=16, width=4) if section.kind == "crd" else section


def micro_batch(step: int, micro: int) -> dict[str, Tensor]:
    """A micro-batch of all ranks: the last row is filler, the third has no video; rows without a meaning are NaN."""
    generator = torch.Generator().manual_seed(10 * step + micro)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    valid, has_video = torch.ones(ROWS), torch.ones(ROWS)
    valid[-1] = has_video[-1] = has_video[2] = 0
    values = {"teacher": random(ROWS, 6), "student": random(ROWS, 5), "scores": random(ROWS, 3), "own": random(ROWS, 3)}
    for name in ("teacher", "scores"):
        values[name][has_video == 0] = float("nan")
    row_id = torch.randperm(SIDES.num_rows, generator=generator)[:ROWS]
    row_id[-1] = -1
    row_id[1] = row_id[7]  # a mixture may read a row twice
    return values | {
        "label": torch.randint(0, 3, (ROWS,), generator=generator),
        "valid": valid,
        "has_video": has_video,
        "row_id": row_id,
    }


def train(section: RivalConfig, rank: int, world_size: int) -> dict[str, Any]:
    """Losses of each step, and the gradients of features and parameters, of all ranks together."""
    torch.manual_seed(0)
    distillation, weights = build_rival(section, SIDES)
    distillation.double()
    mine = slice(0, FIRST_RANK) if rank == 0 else slice(FIRST_RANK, ROWS)
    mine = slice(0, ROWS) if world_size == 1 else mine
    losses: list[Tensor] = []
    gradients: dict[str, Tensor] = {}
    for step in range(NUM_STEPS):
        loss = torch.zeros((), dtype=torch.float64)
        for micro in range(NUM_MICRO):
            given = {name: values[mine].clone() for name, values in micro_batch(step, micro).items()}
            leaves = {name: given[name].requires_grad_() for name in ("teacher", "student", "scores", "own")}
            rows = Rows(
                given["label"],
                given["valid"],
                given["row_id"],
                given["has_video"],
                num_rows=NUM_MICRO * (ROWS - 1),
                num_video_rows=NUM_MICRO * (ROWS - 2),
            )
            teacher = View(leaves["scores"], leaves["teacher"], leaves["scores"])
            student = View(leaves["own"], leaves["student"], leaves["own"])
            total = weighted_total(distillation(teacher, student, rows), weights)
            total.backward()
            loss += total.detach()
            for name, leaf in leaves.items():
                whole = torch.zeros(ROWS, leaf.shape[1], dtype=torch.float64)
                if leaf.grad is not None:
                    whole[mine] = leaf.grad
                gradients[f"{name} {step} {micro}"] = summed(whole, world_size)
        losses.append(summed(loss, world_size))
    for name, parameter in distillation.named_parameters():
        assert parameter.grad is not None
        gradients[name] = summed(parameter.grad, world_size)
    return {"losses": torch.stack(losses), "gradients": gradients}


def summed(values: Tensor, world_size: int) -> Tensor:
    values = values.clone()
    if world_size > 1:
        dist.all_reduce(values)
    return values


def curve(config: Config, distributed: Distributed) -> list[float]:
    """Global losses of the first steps of a run."""
    torch.manual_seed(0)
    split = Splits.open(config).train
    task = build(config, split.sources)
    if task.begins_with_fit:
        fit_in_closed_form(task, split, config)
    engine = build_engine(config, task.step, task.parameter_groups(), distributed)
    windows = LocalWindows(split)
    stream = BatchStream(
        plan=split.plan(config.data, seed=1, epoch=0),
        windows=windows,
        collator=task.collator,
        rank=distributed.rank,
        world_size=distributed.world_size,
        accumulate=config.trainer.accumulate,
    )
    losses = []
    for batches in itertools.islice(stream.steps(), 2):
        terms, _ = engine.step(batches.micro, lambda _: task.weights, 1.0, weights_known=True)
        losses.append(float(distributed.sum(torch.stack([share["total"] for share in terms]).sum())))
    windows.close()
    return losses


def variants(sentiment: Config, retrieval: Config) -> Mapping[str, Config]:
    """A run for each objective of each task."""
    found = {}
    for task, base in (("sentiment", sentiment), ("retrieval", retrieval)):
        for kind in kinds("objective"):
            config = variant(base, kind, objective=kind)
            found[f"{task} {kind}"] = dataclasses.replace(config, objective=small(config.objective))
    return found


def student_runs(retrieval: Config) -> Mapping[str, Config]:
    """A run for each retrieval student alone, as narrow as it can be, with bf16 for whatever computes in it."""
    found = {}
    for kind in students():
        config = variant(retrieval, kind, student=kind, objective="none")
        narrow = {"hidden": 128 if kind == "dclma" else 8, "width": 8}
        own = {field.name for field in dataclasses.fields(config.student)}
        student = dataclasses.replace(config.student, **{name: narrow[name] for name in narrow if name in own})
        trainer = dataclasses.replace(config.trainer, precision="bf16")
        found[kind] = dataclasses.replace(config, student=student, trainer=trainer)
    return found


def closed_form(config: Config, distributed: Distributed) -> list[float]:
    """Validation mAP of a student that is not trained by gradients."""
    if distributed.is_main:
        RunFolder.of(config).claim(config)
    state = train_rank(config, distributed, LocalWindows)
    return [state.best_metrics["student"]["map"]]


def main(config_path: str, out: str) -> None:
    """Rank 0 saves what both computed."""
    base, distributed = load_config(Path(config_path)), join()
    answers: dict[str, Any] = {"rivals": {}, "curves": {}, "students": {}}
    for kind, section in rivals(base).items():
        answers["rivals"][kind] = train(section, distributed.rank, distributed.world_size)
    retrieval = load_config(Path(config_path).with_name("retrieval.yaml"))
    for name, config in variants(base, retrieval).items():
        for stage in (1, 2):
            engine = EngineConfig(kind="deepspeed", zero_stage=stage)
            losses = curve(dataclasses.replace(config, engine=engine), distributed)
            answers["curves"][f"{name}, ZeRO-{stage}"] = losses
    for name, config in student_runs(retrieval).items():
        result = closed_form if STUDENTS[type(config.student)].in_closed_form else curve
        for stage in (1, 2):
            run = dataclasses.replace(config.run, name=f"{name}-{stage}")
            engine = EngineConfig(kind="deepspeed", zero_stage=stage)
            values = result(dataclasses.replace(config, run=run, engine=engine), distributed)
            answers["students"][f"{name}, ZeRO-{stage}"] = values
    if distributed.is_main:
        torch.save(answers, out)
    leave()


if __name__ == "__main__":
    main(sys.argv[3], sys.argv[4])
