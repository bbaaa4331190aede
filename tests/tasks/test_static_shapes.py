"""Padding to static shapes changes no number, and a step reads no value of the device."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vadv_dist.config import load_config
from vadv_dist.data.plan import usable_rows
from vadv_dist.data.schema import Batch
from vadv_dist.data.windows import LocalWindows
from vadv_dist.objectives import weighted_total
from vadv_dist.tasks.sentiment import SentimentTask
from vadv_dist.training.splits import Splits

ROWS = 12
WITH_TEACHER: list[str] = []
ALONE = ["--objective.kind=none"]


@pytest.fixture(params=[WITH_TEACHER, ALONE], ids=["with teacher", "alone"])
def case(request, write_config: Callable[..., Path]) -> tuple[SentimentTask, Batch, Batch]:
    """A task in fp64 without dropout, and a batch as it is and with static shapes."""
    config = load_config(write_config(), ["--data.missing=mask", *request.param])
    splits = Splits.open(config)
    task = SentimentTask(config, splits.train.sources)
    task.step.double().eval()
    windows = LocalWindows(splits.train)
    window = windows.get(tuple(range(len(splits.train.shards))))
    windows.close()
    rows = usable_rows(window, splits.train.required)
    # Another rank has the rest of the global batch.
    mine, everyone = rows[: ROWS - 5], rows[:ROWS]
    static = task.collator.with_static_shapes([[text] for text in splits.train.texts()])
    plain = task.collator(window, mine, global_rows=everyone)
    padded = static(window, mine, global_rows=everyone, num_rows=ROWS)
    assert padded.fields["input_ids"].shape[0] == ROWS
    assert padded.fields["input_ids"].shape[1] > plain.fields["input_ids"].shape[1]
    return task, plain, padded


def terms_and_gradients(task: SentimentTask, batch: Batch) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    task.step.zero_grad()
    terms = task.step(batch)[1]
    weighted_total(terms, task.weights).backward()
    return terms, {name: p.grad for name, p in task.step.named_parameters() if p.grad is not None}


def test_terms_and_gradients_are_those_of_the_batch_without_padding(case) -> None:
    task, plain, padded = case
    terms, gradients = terms_and_gradients(task, plain)
    padded_terms, padded_gradients = terms_and_gradients(task, padded)
    assert set(terms) == {term.name for term in task.description.terms}
    assert terms["text_regression"] > 0
    torch.testing.assert_close(padded_terms, terms, rtol=1e-6, atol=1e-9)  # the heads compute in fp32
    assert any(gradient.abs().max() > 1e-3 for gradient in gradients.values())
    torch.testing.assert_close(padded_gradients, gradients, rtol=1e-4, atol=1e-7)


def test_predictions_of_real_rows_are_those_without_padding(case) -> None:
    task, plain, padded = case
    with torch.no_grad():
        expected = task.predictions(task.step(plain, with_terms=False)[0], plain)
        found = task.predictions(task.step(padded, with_terms=False)[0], padded)
    for column, values in expected.items():
        torch.testing.assert_close(found[column][: len(values)], values, rtol=1e-5, atol=1e-6, equal_nan=True)


def test_a_step_waits_for_no_value_of_the_device(case) -> None:
    """Tensors on the meta device have no values: reading one raises, as `.item()`, `.cpu()` and boolean indices do."""
    task, _, padded = case
    meta = torch.device("meta")
    step = task.step.to(meta).train()
    batch = padded.to(meta)
    outputs, terms = step(batch)
    weighted_total(terms, task.weights).backward()
    assert {value.device.type for value in (*outputs.values(), *terms.values(), *batch.counts.values())} == {"meta"}
    assert all(p.grad is not None for p in step.parameters() if p.requires_grad)
    task.predictions(outputs, batch)
    with pytest.raises(RuntimeError):
        terms["text_regression"].item()


def test_counts_follow_the_batch_to_its_device(case) -> None:
    _, plain, padded = case
    assert padded.counts == plain.counts
    assert padded.counts["rows"] == ROWS
    assert all(count.shape == () and count.dtype == torch.int64 for count in padded.counts.values())
    moved = padded.to(torch.device("meta"))
    assert {count.device.type for count in moved.counts.values()} == {"meta"}
