"""Processor time that a batch of 4 clips takes the host, from the rows of a window to tensors in the training loop.

A first epoch tokenizes each text; later ones find the ids. The clips are MOSI's sentences with a teacher's features, in
one window, which is in memory. It is the time of the thread that prepares batches, so that other programs do not count.
Beside it, what the same tokenizer takes for the same batches when it is called once per batch.
"""

import statistics
import tempfile
import time
from pathlib import Path

from material import minilm_config, run_config, sentences, write_clips, write_untrained_encoder
from measure import Row
from transformers import AutoTokenizer

from vadv_dist.data.stream import BatchStream
from vadv_dist.data.windows import LocalWindows
from vadv_dist.tasks import build
from vadv_dist.training.splits import Splits

_BATCH = 4


def measure(quick: bool) -> list[Row]:
    """Run the benchmark."""
    with tempfile.TemporaryDirectory() as scratch:
        texts = sentences()[1]
        write_clips(Path(scratch) / "data", texts, features=True)
        write_untrained_encoder(Path(scratch) / "encoder", minilm_config())
        config = run_config(Path(scratch), batch_size=_BATCH, teacher=True)
        train = Splits.open(config).train
        task = build(config, train.sources, weights=False)
        windows = LocalWindows(train)
        windows.get(tuple(range(len(train.shards))))

        def epoch(number: int) -> float:
            plan = train.plan(config.data, seed=1, epoch=number)
            stream = BatchStream(
                plan=plan,
                windows=windows,
                collator=task.collator,
                rows_in_use=train.rows_in_use,
                is_complete=train.is_complete,
            )
            began = time.thread_time()
            steps = sum(1 for _ in stream.prepared())
            return (time.thread_time() - began) / steps * 1e6

        first = epoch(0)
        later = [epoch(number) for number in range(1, 6 if quick else 16)]
        windows.close()
        tokenizer = AutoTokenizer.from_pretrained(Path(scratch) / "encoder")
        cut = [texts[at : at + _BATCH] for at in range(0, len(texts), _BATCH)]
        began = time.thread_time()
        for batch in cut:
            tokenizer(batch, truncation=True, max_length=config.data.max_tokens)
        apart = (time.thread_time() - began) / len(cut) * 1e6
    what = f"processor time per batch of {_BATCH} on the host"
    detail = f"median of {len(later)} epochs"
    return [
        Row(f"{what}, later epochs", "–", statistics.median(later), 100, "at most", detail, " µs"),
        Row(f"{what}, first epoch", "–", first, 286, "at most", f"tokenizing batch by batch: {apart:.0f} µs", " µs"),
    ]
