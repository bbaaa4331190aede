"""Training samples/s against Hugging Face `Trainer`: the encoder of MiniLM-L6 alone on MOSI's words, batch 16.

Ours is local mode, loop and log lines included, in what `trainer.precision: auto` chooses here. `Trainer` has its
defaults (fp32, optimizer, data loader, batches padded to their longest row) on texts that were tokenised beforehand,
and neither logs, evaluates nor saves. Blocks of steps alternate in one process, and share the allocator's setting that
our training makes. The first step of a block of `Trainer`, in which it makes its optimizer's state, does not count.
"""

import itertools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from material import (
    EnoughError,
    minilm_config,
    run_config,
    sentences,
    train_until_enough,
    write_clips,
    write_untrained_encoder,
)
from measure import Row, ratio_of_medians
from predict import minilm
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.utils import logging

from vadv_dist.data.windows import LocalWindows
from vadv_dist.engines.distributed import Distributed
from vadv_dist.runs.records import StepLine

_BATCH_SIZE = 16


def measure(quick: bool) -> list[Row]:
    """Run the benchmark."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    source, texts = sentences()
    with tempfile.TemporaryDirectory() as scratch:
        encoder = minilm()
        config = run_config(Path(scratch), batch_size=_BATCH_SIZE, teacher=False, encoder=encoder, precision="auto")
        write_clips(Path(scratch) / "data", texts, features=False)
        if encoder is None:
            write_untrained_encoder(Path(scratch) / "encoder", minilm_config())
        blocks = _Blocks(
            _HuggingFace(config.student.encoder, encoder is not None, texts, Path(scratch)),
            block=8 if quick else 16,
            num_blocks=2 if quick else 8,
        )
        train_until_enough(config, Distributed(), LocalWindows, blocks)
    rates = {name: _BATCH_SIZE / statistics.median(times) for name, times in blocks.seconds.items()}
    return [
        Row(
            f"training samples/s, MiniLM encoder, {source}, batch {_BATCH_SIZE}",
            "Hugging Face Trainer",
            ratio_of_medians(blocks.seconds["trainer"], blocks.seconds["ours"]),
            2.0,
            "at least",
            f"{rates['ours']:.0f} against {rates['trainer']:.0f} samples/s, {len(blocks.seconds['ours'])} blocks",
        )
    ]


class _HuggingFace:
    """`Trainer` on the same encoder and texts."""

    def __init__(self, encoder: str, pretrained: bool, texts: list[str], scratch: Path) -> None:
        self._scratch = scratch
        self._tokenizer = AutoTokenizer.from_pretrained(encoder)
        encoded = self._tokenizer(texts, truncation=True, max_length=100)
        self._rows = [
            {"input_ids": ids, "attention_mask": mask, "label": 0.1}
            for ids, mask in zip(encoded["input_ids"], encoded["attention_mask"], strict=True)
        ]
        options = {"num_labels": 1, "problem_type": "regression"}
        kind = AutoModelForSequenceClassification
        if pretrained:
            self._model = kind.from_pretrained(encoder, **options)
        else:
            self._model = kind.from_config(minilm_config())
        self._seeds = itertools.count()

    def step_seconds(self, num_steps: int) -> float:
        """Mean seconds of a step over some steps, each time of another order."""
        clock = _Clock()
        arguments = TrainingArguments(
            output_dir=str(self._scratch / "trainer"),
            per_device_train_batch_size=_BATCH_SIZE,
            max_steps=num_steps + 1,
            use_cpu=True,
            seed=next(self._seeds),
            report_to="none",
            logging_strategy="no",
            eval_strategy="no",
            save_strategy="no",
            disable_tqdm=True,
        )
        Trainer(
            model=self._model,
            args=arguments,
            train_dataset=self._rows,
            data_collator=DataCollatorWithPadding(self._tokenizer),
            callbacks=[clock],
        ).train()
        return (clock.ends[-1] - clock.ends[0]) / num_steps


class _Clock(TrainerCallback):
    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *arguments: Any, **options: Any) -> None:
        self.ends.append(time.perf_counter())


class _Blocks:
    """What our training loop calls after each step: at a block's end it lets `Trainer` run as many steps."""

    def __init__(self, trainer: _HuggingFace, block: int, num_blocks: int) -> None:
        self._trainer = trainer
        self._block = block
        self._num_blocks = num_blocks
        self.seconds: dict[str, list[float]] = {"ours": [], "trainer": []}
        self._resumed = time.perf_counter()

    def __call__(self, line: StepLine) -> None:
        if line.step % self._block:
            return
        if line.step > self._block:  # the first block is a warm-up
            self.seconds["ours"].append((time.perf_counter() - self._resumed) / self._block)
            self.seconds["trainer"].append(self._trainer.step_seconds(self._block))
        if len(self.seconds["ours"]) == self._num_blocks:
            raise EnoughError
        self._resumed = time.perf_counter()
