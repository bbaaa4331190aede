"""Recorded steps and predictions, with a recorder for the CPU that runs the action again at each replay: all but CUDA's
own part.
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch

from vadv_dist.config import Config, EngineConfig, load_config
from vadv_dist.data.schema import Batch
from vadv_dist.data.stream import BatchStream
from vadv_dist.data.windows import LocalWindows
from vadv_dist.engines.build import uses_graphs
from vadv_dist.engines.distributed import Distributed
from vadv_dist.engines.graphs import CudaRecorder, Graphs, Record, Replay
from vadv_dist.engines.torch_engine import TorchEngine
from vadv_dist.errors import UserError
from vadv_dist.formats.tensor_parts import HeldTensors, whole_tensors
from vadv_dist.launch.worker import train_locally
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.records import NoteLine
from vadv_dist.tasks.sentiment import SentimentTask
from vadv_dist.training.distillation_schedule import DistillationSchedule
from vadv_dist.training.loop import Trainer
from vadv_dist.training.scoring import score_split
from vadv_dist.training.splits import Splits
from vadv_dist.training.term_weights import TermWeights

R = TypeVar("R")
CPU = torch.device("cpu")


class Rerun:
    """Records like CUDA: recording changes no weights, and a replay writes its results into the recorded tensors."""

    def __init__(self) -> None:
        self.engine: TorchEngine | None = None
        self.updates = self.recorded = self.replayed = 0

    def __call__(self, action: Callable[[], R]) -> tuple[R, Replay]:
        assert self.engine is not None
        seed = torch.get_rng_state()
        weights, moments = whole_tensors(self.engine.weights()), whole_tensors(self.engine.moments())
        results = action()
        self.engine.load(HeldTensors(weights), HeldTensors(moments), self.updates)
        torch.set_rng_state(seed)
        self.recorded += 1

        def replay() -> None:
            self.replayed += 1
            for own, new in zip(tensors_in(results), tensors_in(action()), strict=True):
                own.copy_(new)

        return results, replay


class Fails(Rerun):
    """Fails after the backward pass, whose gradients have no values."""

    def __call__(self, action: Callable[[], R]) -> tuple[R, Replay]:
        assert self.engine is not None
        for parameter in self.engine._step.parameters():
            parameter.grad = torch.full_like(parameter, float("nan"))
        raise RuntimeError("operation not permitted when stream is capturing")


def tensors_in(results: object) -> Iterator[torch.Tensor]:
    """The tensors of a step's results or of outputs."""
    if isinstance(results, torch.Tensor):
        yield results
    else:
        assert isinstance(results, dict | list | tuple)
        for part in results.values() if isinstance(results, dict) else results:
            yield from tensors_in(part)


def train(
    config: Config,
    dtype: torch.dtype,
    record: Record | None,
    *,
    device: torch.device = CPU,
    epochs: int = 3,
) -> tuple[list[list[float]], dict[str, torch.Tensor]]:
    """Train; return each step's terms, weighted total and norm, and the weights."""
    splits = Splits.open(config)
    task = SentimentTask(config, splits.train.sources)
    distributed = Distributed(device=device)
    engine = TorchEngine(task.step, task.parameter_groups(), config.optimizer, distributed, dtype, record=record)
    if isinstance(record, Rerun):
        record.engine = engine
    if device.type == "cuda":
        task.collator = task.collator.with_static_shapes([[text] for text in splits.train.texts()])
    schedule = DistillationSchedule.of(config)
    weights, windows = TermWeights(task, distributed, schedule), LocalWindows(splits.train)
    numbers, step = [], 0
    for epoch in range(epochs):
        weights.begin_epoch(epoch, guard=min(0.5 * epoch, 1.0))
        plan = splits.train.plan(config.data, seed=1, epoch=epoch)
        stream = BatchStream(plan=plan, windows=windows, collator=task.collator, accumulate=config.trainer.accumulate)
        for batches in stream.steps():
            weights.begin(step)
            torch.manual_seed(step)
            if isinstance(record, Rerun):
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
        ["--objective.guard=on"],  # other weights in each epoch
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


def test_replayed_validation_equals_eager_validation(write_config) -> None:
    """Weights change between the epochs, a batch has filler rows, and the same engine records training."""
    config = load_config(write_config(), ["--trainer.eval_batch_size=8", "--data.missing=mask"])
    splits = Splits.open(config)

    def epochs(record: Rerun | None) -> list[dict[str, np.ndarray]]:
        task = SentimentTask(config, splits.train.sources)
        task.collator = task.collator.with_static_shapes([[text] for text in splits.train.texts()])
        engine = TorchEngine(
            task.step, task.parameter_groups(), config.optimizer, Distributed(), torch.float32, record=record
        )
        if record is not None:
            record.engine = engine
        train_windows, valid_windows = LocalWindows(splits.train), LocalWindows(splits.valid)
        found = []
        for epoch in range(3):
            plan = splits.train.plan(config.data, seed=1, epoch=0)
            for step, batches in enumerate(
                BatchStream(plan=plan, windows=train_windows, collator=task.collator).steps()
            ):
                number = epoch * plan.num_steps + step
                torch.manual_seed(number)
                if record is not None:
                    record.updates = number
                engine.step(batches.micro, lambda _: task.weights, 1.0, weights_known=True)
            if record is not None:
                record.updates = (epoch + 1) * plan.num_steps
                record.recorded = record.replayed = 0  # of training
            scored = score_split(task, engine, splits.valid, valid_windows, config, Distributed())
            found.append({**scored.predictions, "label": scored.label})
        train_windows.close()
        valid_windows.close()
        assert engine.take_notes() == []
        return found

    record = Rerun()
    expected, found = epochs(None), epochs(record)
    for before, after in zip(expected, found, strict=True):
        for name, values in before.items():
            np.testing.assert_array_equal(after[name], values)
    assert not np.array_equal(expected[1]["text_logit"], expected[2]["text_logit"])
    # The third validation replays everything that the second recorded.
    assert record.recorded == 0
    assert record.replayed > 1


def test_a_recorded_batch_is_a_copy(write_config) -> None:
    """Replays write into it, and the caller's batch is read afterwards."""
    graphs = Graphs(torch.device("cpu"), lambda action: (action(), lambda: None), lambda: None)
    first, second, third = batch(2), batch(2), replace(batch(2), label=torch.zeros(2))
    for given in (first, second, third):
        graphs.run(norm, [given], what="It")
    assert second.label.tolist() == [1, 1]


def batch(rows: int) -> Batch:
    ones = torch.ones(rows)
    return Batch({"x": torch.ones(rows, 2)}, {}, ones, ones, torch.arange(rows), {"rows": torch.tensor(rows)})


def norm(batches: Sequence[Batch]) -> torch.Tensor:
    return torch.linalg.vector_norm(batches[0].fields["x"])


def label(batches: Sequence[Batch]) -> torch.Tensor:
    return batches[0].label.sum()


def full(where: str) -> Exception:
    return torch.OutOfMemoryError(f"CUDA out of memory {where}")


def test_what_cannot_be_recorded_runs_as_it_is_and_is_said_once() -> None:
    attempts = []

    def record(action: Callable[[], R]) -> tuple[R, Replay]:
        attempts.append(action)
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    graphs = Graphs(torch.device("cpu"), record, lambda: None)
    for rows in (2, 2, 2, 3, 3, 3):
        assert graphs.run(norm, [batch(rows)], what="A step") == pytest.approx((2 * rows) ** 0.5)
    assert len(attempts) == 1
    (note,) = graphs.take_notes()
    assert note == (
        "A step cannot be recorded as a CUDA graph (operation not permitted when stream is capturing), and runs "
        "without CUDA graphs, which is slower."
    )
    assert graphs.take_notes() == []


def test_an_action_that_cannot_be_recorded_leaves_others_recorded() -> None:
    def record(action: Callable[[], R]) -> tuple[R, Replay]:
        results = action()
        if float(results) == 2.0:  # type: ignore[arg-type]
            raise RuntimeError("operation not permitted when stream is capturing")
        return results, lambda: recorded.append(results)

    recorded: list[object] = []
    graphs = Graphs(torch.device("cpu"), record, lambda: None)
    for _ in range(3):
        assert float(graphs.run(norm, [batch(2)], what="A step")) == 2.0
        assert float(graphs.run(label, [batch(3)], what="A validation batch")) == 3.0
    assert len(graphs.take_notes()) == 1
    assert recorded == [3.0, 3.0]


def test_full_memory_while_recording_keeps_the_graphs_that_there_are() -> None:
    replayed, discarded = [], []

    def record(action: Callable[[], R]) -> tuple[R, Replay]:
        if len(recorded) == 1:
            raise full("while recording")
        recorded.append(action)
        return action(), lambda: replayed.append(action)

    recorded: list[object] = []
    graphs = Graphs(torch.device("cpu"), record, lambda: discarded.append(True))
    for rows in (2, 2, 3, 3, 4, 4, 2, 3):
        assert graphs.run(norm, [batch(rows)], what="A step") == pytest.approx((2 * rows) ** 0.5)
    assert len(recorded) == 1
    assert len(replayed) == 2  # both of two rows
    assert len(discarded) == 1
    assert graphs.take_notes() == [
        "Memory is full after recording 1 shapes of batches. Others run without CUDA graphs, which is slower."
    ]


def test_steps_that_do_not_fit_beside_graphs_run_without_any() -> None:
    """The step that failed runs again, from the same random state."""
    replayed: list[object] = []
    released: list[object] = []

    class Recording:
        """What a graph holds."""

        def __init__(self) -> None:
            weakref.finalize(self, released.append, True)

        def __call__(self) -> None:
            replayed.append(True)

    def step(batches: Sequence[Batch]) -> torch.Tensor:
        drawn = torch.rand(())
        if len(batches[0].label) == 5 and not released:
            raise full("in a step")
        return drawn

    graphs = Graphs(torch.device("cpu"), lambda action: (action(), Recording()), lambda: None)
    for rows in (2, 2, 2):
        graphs.run(step, [batch(rows)], what="A step")
    assert len(replayed) == 2
    torch.manual_seed(1)
    drawn = graphs.run(step, [batch(5)], what="A step")
    torch.manual_seed(1)
    assert drawn == torch.rand(())
    assert graphs.take_notes() == [
        "Memory is full beside the recorded shapes of batches, which are removed. All run without CUDA graphs, which "
        "is slower."
    ]
    for _ in range(3):
        graphs.run(step, [batch(2)], what="A step")
    assert len(replayed) == 2
    assert graphs.take_notes() == []


def test_a_step_that_does_not_fit_without_graphs_is_an_error() -> None:
    def step(batches: Sequence[Batch]) -> torch.Tensor:
        raise full("in a step")

    graphs = Graphs(torch.device("cpu"), lambda action: (action(), lambda: None), lambda: None)
    with pytest.raises(torch.OutOfMemoryError, match="in a step"):
        graphs.run(step, [batch(2)], what="A step")


def test_number_of_graphs_is_limited() -> None:
    graphs = Graphs(torch.device("cpu"), lambda action: (action(), lambda: None), lambda: None)
    for rows in range(1, 40):
        graphs.run(norm, [batch(rows)], what="A step")
        graphs.run(norm, [batch(rows)], what="A step")
    assert len(graphs.take_notes()) == 1


def test_graphs_need_one_gpu_and_no_deepspeed(tmp_path: Path) -> None:
    cuda, cpu = Distributed(device=torch.device("cuda", 0)), Distributed()
    assert uses_graphs(EngineConfig(), cuda)
    assert not uses_graphs(EngineConfig(), cpu)
    assert not uses_graphs(EngineConfig(graphs="off"), cuda)
    assert not uses_graphs(EngineConfig(), Distributed(0, 2, torch.device("cuda", 0)))
    with pytest.raises(UserError, match=r"engine\.graphs is on, but"):
        uses_graphs(EngineConfig(graphs="on"), cpu)


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 1e-2)])
def test_losses_of_recorded_steps_equal_those_of_eager_steps(
    gpu: torch.device, write_config, dtype: torch.dtype, tolerance: float
) -> None:
    options = ["--teacher.dropout=0", "--student.dropout=0", "--student.encoder_dropout=0"]
    config = load_config(write_config(), options)
    expected, _ = train(config, dtype, None, device=gpu, epochs=9)
    numbers, _ = train(config, dtype, CudaRecorder(), device=gpu, epochs=9)
    assert len(expected) >= 50
    losses, norms = np.split(np.array(numbers), [-1], axis=1)
    expected_losses, expected_norms = np.split(np.array(expected), [-1], axis=1)
    np.testing.assert_allclose(losses, expected_losses, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(norms, expected_norms, rtol=10 * tolerance)


@pytest.mark.gpu
def test_dropout_differs_per_replay_and_has_the_eager_distribution(gpu: torch.device, write_config) -> None:
    config = load_config(write_config(), ["--teacher.dropout=0.3", "--student.dropout=0.3"])

    def losses(record: Record | None) -> np.ndarray:
        splits = Splits.open(config)
        task = SentimentTask(config, splits.train.sources)
        distributed = Distributed(device=gpu)
        groups = task.parameter_groups()
        engine = TorchEngine(task.step, groups, config.optimizer, distributed, torch.float32, record=record)
        windows = LocalWindows(splits.train)
        plan = splits.train.plan(config.data, seed=1, epoch=0)
        step = next(BatchStream(plan=plan, windows=windows, collator=task.collator).steps())
        found = []
        for seed in range(300):
            torch.manual_seed(seed)
            terms, _ = engine.step(step.micro, lambda _: task.weights, 0.0, weights_known=True)  # no update
            found.append(float(terms[0]["total"]))
        windows.close()
        assert engine.take_notes() == []
        return np.array(found[2:])  # the first is eager, the second recorded

    eager, replayed = losses(None), losses(CudaRecorder())
    assert len(set(replayed.tolist())) > 250
    standard_error = np.hypot(eager.std(), replayed.std()) / len(eager) ** 0.5
    assert abs(eager.mean() - replayed.mean()) < 4 * standard_error
    assert replayed.std() == pytest.approx(eager.std(), rel=0.3)


@pytest.mark.gpu
@pytest.mark.parametrize("graphs", ["on", "off"])
def test_nothing_waits_for_the_gpu_between_two_log_lines(
    gpu: torch.device, write_config, monkeypatch: pytest.MonkeyPatch, graphs: str
) -> None:
    """Nor during validation, from the third epoch on: each shape has been recorded then."""
    options = ["--trainer.use_gpu=true", "--trainer.epochs=4", "--telemetry.log_every_steps=4"]
    config = load_config(write_config(), [*options, f"--engine.graphs={graphs}"])
    checked = []

    def guarded(original: Callable[..., R], trainer: Trainer) -> Callable[..., R]:
        def call(*arguments: object, **named: object) -> R:
            if trainer.state.epoch < 2:
                return original(*arguments, **named)
            checked.append(original)
            torch.cuda.set_sync_debug_mode("error")
            try:
                return original(*arguments, **named)
            finally:
                torch.cuda.set_sync_debug_mode("default")

        return call

    def allowed(original: Callable[[], None]) -> Callable[[], None]:
        def call() -> None:
            torch.cuda.set_sync_debug_mode("default")
            original()

        return call

    original_fit = Trainer.fit

    def fit(trainer: Trainer) -> object:
        monkeypatch.setattr(trainer, "_train_step", guarded(trainer._train_step, trainer))
        monkeypatch.setattr(trainer, "_flush_terms", allowed(trainer._flush_terms))
        monkeypatch.setattr(trainer.engine, "predict", guarded(trainer.engine.predict, trainer))
        return original_fit(trainer)

    monkeypatch.setattr(Trainer, "fit", fit)
    folder = RunFolder.of(config)
    folder.root.mkdir(parents=True)
    folder.claim(config)
    notes: list[str] = []
    train_locally(config, lambda line: notes.append(line.what) if isinstance(line, NoteLine) else None, lambda: False)
    assert len(checked) >= 10
    assert notes == []
