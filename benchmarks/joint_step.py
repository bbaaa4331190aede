"""A joint training step of RoBERTa-Large and its teacher, batch 4: ours against the same as the paper sets it.

Both train the same model on the same clips with the same loss. Ours pads each batch of our plan to its longest row and
updates with the engine's fused AdamW after clipping: in fp32, and in bf16 if `trainer.precision: auto` chooses it here.
The other pads to 100 tokens (section 5.1), computes in fp32, and updates with `torch.optim.AdamW` as it comes, without
clipping. Timed are batches spread evenly over the epoch's lengths. Both share one process, and with it the allocator's
setting that our training makes.
"""

import gc
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from material import roberta, run_config, sentences, write_clips, write_untrained_encoder
from measure import Row, alternate, ratio_of_medians

from vadv_dist.data.collate import MASK, TOKENS
from vadv_dist.data.schema import Batch, text_lengths
from vadv_dist.data.windows import LocalWindows
from vadv_dist.engines.allocator import keep_freed_memory
from vadv_dist.engines.build import build_engine
from vadv_dist.engines.distributed import Distributed
from vadv_dist.engines.precision import choose_precision
from vadv_dist.objectives import weighted_total
from vadv_dist.tasks.sentiment import SentimentTask
from vadv_dist.training.splits import Splits

_PAPER_TOKENS = 100


def measure(quick: bool) -> list[Row]:
    """Run the benchmark."""
    keep_freed_memory()
    row, chosen = _measure(quick, "fp32", asked=4.0)
    rows = [row]
    if chosen == "bf16":
        gc.collect()
        rows.append(_measure(quick, "bf16", asked=5.0)[0])
    return rows


def _measure(quick: bool, precision: Literal["fp32", "bf16"], asked: float) -> tuple[Row, str]:
    """One row, and the precision that `auto` chooses."""
    source, texts = sentences()
    with tempfile.TemporaryDirectory() as scratch:
        write_clips(Path(scratch) / "data", texts, features=True)
        write_untrained_encoder(Path(scratch) / "encoder", roberta("large"))
        config = run_config(Path(scratch), batch_size=4, teacher=True, precision="auto")
        splits = Splits.open(config)
        task, published = (SentimentTask(config, splits.train.sources) for _ in range(2))
        automatic = choose_precision(config.trainer, task.step, torch.device("cpu")).kind
        fixed = replace(config, trainer=replace(config.trainer, precision=precision))
        engine = build_engine(fixed, task.step, task.parameter_groups(), Distributed())
        plain = torch.optim.AdamW(published.step.parameters(), lr=config.optimizer.lr)

        windows = LocalWindows(splits.train)
        plan = splits.train.plan(config.data, seed=config.run.seed, epoch=0)
        window = windows.get(plan.window(0).shards)
        length = text_lengths(window.text)
        planned = plan.batches(plan.window(0), np.arange(len(window)), length)
        planned.sort(key=lambda rows: int(length[rows].max()))
        num_steps = 3 if quick else 9
        # The first is a warm-up that makes both optimizers' state.
        chosen = [planned[len(planned) // 2]]
        chosen += [planned[int((i + 0.5) / num_steps * len(planned))] for i in range(num_steps)]
        batches = [task.collator(window, rows, global_rows=rows) for rows in chosen]
        windows.close()

    def ours(batch: Batch) -> None:
        engine.step([batch], lambda _: task.weights, 1.0, weights_known=True)

    def as_published(batch: Batch) -> None:
        ids, mask = batch.fields[TOKENS], batch.fields[MASK]
        missing = _PAPER_TOKENS - ids.shape[1]
        padded = {
            TOKENS: torch.nn.functional.pad(ids, (0, missing), value=task.tokenizer.pad_token_id),
            MASK: torch.nn.functional.pad(mask, (0, missing)),
        }
        batch = replace(batch, fields={**batch.fields, **padded})
        weighted_total(published.step(batch)[1], published.weights).backward()
        plain.step()
        plain.zero_grad()

    published.step.train()
    turns = {"ours": iter(batches), "published": iter(batches)}
    seconds = alternate(
        {"ours": lambda: ours(next(turns["ours"])), "published": lambda: as_published(next(turns["published"]))},
        num_steps,
    )
    lengths = [batch.fields[TOKENS].shape[1] for batch in batches[1:]]
    row = Row(
        f"joint training step, RoBERTa-Large student, {precision}, batch 4, {source}",
        "padded to 100 tokens, fp32, default AdamW",
        ratio_of_medians(seconds["published"], seconds["ours"]),
        asked,
        "at least",
        f"{statistics.median(seconds['ours']):.2f} s against {statistics.median(seconds['published']):.2f} s; "
        f"of means {sum(seconds['published']) / sum(seconds['ours']):.2f}×; {num_steps} steps, "
        f"{min(lengths)} to {max(lengths)} tokens, median {statistics.median(lengths):g}",
    )
    return row, automatic
