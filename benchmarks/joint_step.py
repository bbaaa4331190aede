"""A joint training step of RoBERTa-Large and its teacher, batch 4: ours against the same as the paper sets it.

Both train the same weights on the same clips with the same loss. Ours pads each batch of our plan to its longest row
and updates with the engine's fused AdamW after clipping. The other pads to 100 tokens (section 5.1) and updates with
`torch.optim.AdamW` as it comes, without clipping. Timed are batches spread evenly over the epoch's lengths. Both share
one process, and with it the allocator's setting that our training makes.
"""

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from material import roberta, run_config, sentences, write_clips, write_untrained_encoder
from measure import Row, alternate, ratio_of_medians

from vadv_dist.data.collate import MASK, TOKENS
from vadv_dist.data.plan import text_lengths
from vadv_dist.data.schema import Batch
from vadv_dist.data.windows import LocalWindows
from vadv_dist.engines.allocator import keep_freed_memory
from vadv_dist.engines.build import build_engine
from vadv_dist.engines.distributed import Distributed
from vadv_dist.objectives import weighted_total
from vadv_dist.tasks.sentiment import SentimentTask
from vadv_dist.training.splits import Splits

_PAPER_TOKENS = 100


def measure(quick: bool) -> list[Row]:
    """Run the benchmark."""
    keep_freed_memory()
    source, texts = sentences()
    with tempfile.TemporaryDirectory() as scratch:
        write_clips(Path(scratch) / "data", texts, features=True)
        write_untrained_encoder(Path(scratch) / "encoder", roberta("large"))
        config = run_config(Path(scratch), batch_size=4, teacher=True)
        splits = Splits.open(config)
        task = SentimentTask(config, splits.train.sources)
        engine = build_engine(config, task.step, task.parameter_groups(), Distributed())
        plain = torch.optim.AdamW(task.step.parameters(), lr=config.optimizer.lr)

        windows = LocalWindows(splits.train)
        plan = splits.train.plan(config.data, seed=config.run.seed, epoch=0)
        window = windows.get(plan.window(0).shards, None)
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
        weighted_total(task.step(batch)[1], task.weights).backward()
        plain.step()
        plain.zero_grad()

    task.step.train()
    turns = {"ours": iter(batches), "published": iter(batches)}
    seconds = alternate(
        {"ours": lambda: ours(next(turns["ours"])), "published": lambda: as_published(next(turns["published"]))},
        num_steps,
    )
    lengths = [batch.fields[TOKENS].shape[1] for batch in batches[1:]]
    return [
        Row(
            f"joint training step, RoBERTa-Large student, batch 4, {source}",
            "padded to 100 tokens, default AdamW",
            ratio_of_medians(seconds["published"], seconds["ours"]),
            4.0,
            "at least",
            f"{statistics.median(seconds['ours']):.2f} s against {statistics.median(seconds['published']):.2f} s; "
            f"of means {sum(seconds['published']) / sum(seconds['ours']):.2f}×; {num_steps} steps, "
            f"{min(lengths)} to {max(lengths)} tokens, median {statistics.median(lengths):g}",
        )
    ]
