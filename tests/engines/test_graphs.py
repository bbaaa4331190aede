"""Recorded steps, with a recorder for the CPU that runs the step again at each replay: all but CUDA's own part."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vadv_dist.config import Config, EngineConfig, load_config
from vadv_dist.data.schema import Batch
from vadv_dist.data.stream import BatchStream
from vadv_dist.data.windows import LocalWindows
from vadv_dist.engines.build import uses_graphs
from vadv_dist.engines.distributed import Distributed
from vadv_dist.engines.graphs import Replay, StepGraphs
from vadv_dist.engines.protocol import StepResult
from vadv_dist.engines.torch_engine import TorchEngine
from vadv_dist.errors import UserError
from vadv_dist.formats.tensor_parts import HeldTensors, whole_tensors
from vadv_dist.tasks.sentiment import SentimentTask
from vadv_dist.training.splits import Splits
from vadv_dist.training.term_weights import TermWeights


class Rerun:
    """Records like CUDA: recording changes no weights, and a replay writes its results into the recorded tensors."""

    def __init__(self) -> None:
        self.engine: TorchEngine | None = None
        self.updates = self.recorded = self.replayed = 0

    def __call__(self, step: Callable[[], StepResult]) -> tuple[StepResult, Replay]:
        assert self.engine is not None
        seed = torch.get_rng_state()
        weights, moments = whole_tensors(self.engine.weights()), whole_tensors(self.engine.moments())
        results = step()
        self.engine.load(HeldTensors(weights), HeldTensors(moments), self.updates)
        torch.set_rng_state(seed)
        self.recorded += 1

        def replay() -> None:
            self.replayed += 1
            terms, norm = step()
            for own, new in zip(results[0], terms, strict=True):
                for name, tensor in own.items():
                    tensor.copy_(new[name])
            results[1].copy_(norm)

        return results, replay


class Fails(Rerun):
    """Fails after the backward pass, whose gradients have no values."""

    def __call__(self, step: Callable[[], StepResult]) -> tuple[StepResult, Replay]:
        assert self.engine is not None
        for parameter in self.engine._step.parameters():
            parameter.grad = torch.full_like(parameter, float("nan"))
        raise RuntimeError("operation not permitted when stream is capturing")


def train(
    config: Config, dtype: torch.dtype, record: Rerun | None
) -> tuple[list[list[float]], dict[str, torch.Tensor]]:
    """Three epochs; return each step's terms, weighted total and norm, and the weights."""
    splits = Splits.open(config)
    task = SentimentTask(config, splits.train.sources)
    engine = TorchEngine(task.step, task.parameter_groups(), config.optimizer, Distributed(), dtype, record=record)
    if record is not None:
        record.engine = engine
    weights, windows = TermWeights(task, Distributed()), LocalWindows(splits.train)
    numbers, step = [], 0
    for epoch in range(3):
        plan = splits.train.plan(config.data, seed=1, epoch=epoch)
        stream = BatchStream(plan=plan, windows=windows, collator=task.collator, accumulate=config.trainer.accumulate)
        for batches in stream.steps():
            weights.begin(step)
            torch.manual_seed(step)
            if record is not None:
                record.updates = step
            terms, norm = engine.step(batches.micro, weights.of, (step + 1) / 30, weights_known=weights.are_known)
            numbers.append([float(value) for share in terms for value in share.values()] + [float(norm)])
            weights.end_step(terms)
            step += 1
        weights.end_epoch()
    windows.close()
    assert len(engine.take_notes()) == (1 if isinstance(record, Fails) else 0)
    return numbers, whole_tensors(engine.weights())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "options",
    [
        ["--trainer.accumulate=1"],
        ["--trainer.accumulate=2"],
        ["--objective.weighting.kind=rlw"],  # other weights in each step
        ["--objective.weighting.kind=dwa"],  # weights that learn from the terms
    ],
)
def test_replayed_steps_equal_eager_steps(write_config, dtype: torch.dtype, options: list[str]) -> None:
    config = load_config(write_config(), options)
    expected, expected_weights = train(config, dtype, None)
    record = Rerun()
    numbers, weights = train(config, dtype, record)
    assert numbers == expected
    assert all(torch.equal(tensor, weights[name]) for name, tensor in expected_weights.items())
    assert 0 < record.recorded <= record.replayed
    # The numbers differ between steps: replays do not repeat the recorded step.
    assert len({tuple(step) for step in numbers}) == len(numbers)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_failed_recording_leaves_no_gradients(write_config, dtype: torch.dtype) -> None:
    config = load_config(write_config())
    numbers, weights = train(config, dtype, Fails())
    expected, expected_weights = train(config, dtype, None)
    assert numbers == expected
    assert all(torch.equal(tensor, weights[name]) for name, tensor in expected_weights.items())


def test_weights_that_need_the_step_s_losses_are_not_recorded(write_config) -> None:
    config = load_config(write_config(), ["--objective.weighting.kind=uw_so", "--trainer.accumulate=1"])
    record = Rerun()
    assert train(config, torch.float32, record)[0] == train(config, torch.float32, None)[0]
    assert record.recorded == 0


def batch(rows: int) -> Batch:
    ones = torch.ones(rows)
    return Batch({"x": torch.ones(rows, 2)}, {}, ones, ones, torch.arange(rows), {"rows": torch.tensor(rows)})


def run(batches: object) -> StepResult:
    return [{"total": torch.ones(())}], torch.ones(())


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "Memory is full after recording 0 shapes"),
        (
            RuntimeError("operation not permitted when stream is capturing\nmore"),
            "(operation not permitted when stream",
        ),
    ],
)
def test_what_cannot_be_recorded_runs_as_it_is_and_is_said_once(error: Exception, why: str) -> None:
    attempts = []

    def record(step: Callable[[], StepResult]) -> tuple[StepResult, Replay]:
        attempts.append(step)
        raise error

    graphs = StepGraphs(run, lambda: None, torch.device("cpu"), record)
    for rows in (2, 2, 2, 3, 3, 3):
        _, norm = graphs([batch(rows)])
        assert float(norm) == 1.0
    assert len(attempts) == 1
    (note,) = graphs.take_notes()
    assert why in note
    assert graphs.take_notes() == []


def test_number_of_graphs_is_limited() -> None:
    graphs = StepGraphs(run, lambda: None, torch.device("cpu"), lambda step: (step(), lambda: None))
    for rows in range(1, 40):
        graphs([batch(rows)])
        graphs([batch(rows)])
    assert len(graphs.take_notes()) == 1


def test_graphs_need_one_gpu_and_no_deepspeed(tmp_path: Path) -> None:
    cuda, cpu = Distributed(device=torch.device("cuda", 0)), Distributed()
    assert uses_graphs(EngineConfig(), cuda)
    assert not uses_graphs(EngineConfig(), cpu)
    assert not uses_graphs(EngineConfig(graphs="off"), cuda)
    assert not uses_graphs(EngineConfig(), Distributed(0, 2, torch.device("cuda", 0)))
    with pytest.raises(UserError, match=r"engine\.graphs is on, but"):
        uses_graphs(EngineConfig(graphs="on"), cpu)
