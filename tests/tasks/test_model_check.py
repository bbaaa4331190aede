"""What no error would show is found before the first step: padding that matters, blind first tokens, dead weights."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn

from vadv_dist.config import Config, load_config
from vadv_dist.errors import UserError
from vadv_dist.models.encoders import build_tokenizer, require_fitting
from vadv_dist.tasks.sentiment import SentimentTask
from vadv_dist.training.splits import Splits

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, "good", "a", "longer", "text", "that", "others", "are", "padded", "to"]
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
SIZES = {**SMALL, "vocab_size": 30, "max_position_embeddings": 128}
XLNET = {"vocab_size": 30, "d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 16}
CPU = torch.device("cpu")


def write_encoder(folder: Path, kind: str, *, vocabulary: int = len(WORDS), **options: Any) -> Path:
    sizes = XLNET if kind == "xlnet" else SIZES
    transformers.AutoConfig.for_model(kind, **{**sizes, "pad_token_id": 0, **options}).save_pretrained(folder)
    words = (WORDS + [f"w{i}" for i in range(30)])[:vocabulary]
    transformers.BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(folder)
    return folder


@pytest.fixture
def build(made: Path, write_config: Callable[..., Path], tmp_path: Path) -> Callable[..., tuple[SentimentTask, Config]]:
    """Make a task whose encoder is a tiny one of some kind."""

    def build(kind: str, *overrides: str, **options: Any) -> tuple[SentimentTask, Config]:
        folder = write_encoder(tmp_path / "encoder", kind, **options)
        config = load_config(write_config(), [f"--student.encoder={folder}", *overrides])
        return SentimentTask(config, Splits.open(config).train.sources), config

    return build


def check(task: SentimentTask, config: Config) -> None:
    task.check(CPU)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("kind", ["bert", "roberta", "mpnet", "distilbert", "modernbert"])
def test_valid_encoders_pass_and_are_unchanged(build, kind: str, pooling: str) -> None:
    tokens = (
        {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3} if kind == "modernbert" else {}
    )
    task, config = build(kind, f"--student.pooling={pooling}", **tokens)
    before, state = {n: p.clone() for n, p in task.step.named_parameters()}, torch.get_rng_state()
    check(task, config)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in task.step.modules())
    for name, parameter in task.step.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None
        assert parameter.requires_grad


@pytest.mark.parametrize("kind", ["gpt2", "opt", "llama"])
def test_causal_encoder_is_rejected_with_cls_and_accepted_with_mean(build, kind: str) -> None:
    options = {"ffn_dim": 16, "word_embed_proj_dim": 16} if kind == "opt" else {}
    with pytest.raises(UserError, match=r"computes it without the tokens after it.*Set student\.pooling: mean"):
        check(*build(kind, "--student.pooling=cls", **options))
    check(*build(kind, "--student.pooling=mean", **options))


def test_bert_as_a_decoder_is_detected_as_causal(build) -> None:
    with pytest.raises(UserError, match="computes it without the tokens after it"):
        check(*build("bert", "--student.pooling=cls", is_decoder=True))


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_encoder_that_ignores_the_mask_is_rejected(build, monkeypatch, pooling: str) -> None:
    task, config = build("bert", f"--student.pooling={pooling}")
    forward = task.student.encoder.forward
    monkeypatch.setattr(
        task.student.encoder,
        "forward",
        lambda input_ids, attention_mask: forward(input_ids, torch.ones_like(input_ids)),
    )
    with pytest.raises(UserError, match=r"Padding changes the output of encoder .*\(BertModel\)"):
        check(task, config)


def test_convolutions_over_padding_are_rejected(build) -> None:
    with pytest.raises(UserError, match=r"Padding changes the output of encoder .*\(ConvBertModel\)"):
        check(*build("convbert"))


@pytest.mark.parametrize("shift", [0, 1])
def test_positions_that_shift_with_padding_are_rejected(build, monkeypatch, shift: int) -> None:
    task, config = build("bert")
    forward = task.student.encoder.forward

    def shifted(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        padding = (attention_mask.flatten(1) != 0).sum(1, keepdim=True)  # the mask is added to scores
        positions = torch.arange(input_ids.shape[1]) + shift * padding
        return forward(input_ids, attention_mask=attention_mask, position_ids=positions)

    monkeypatch.setattr(task.student.encoder, "forward", shifted)
    with torch.no_grad():  # tiny encoders hardly look at positions
        task.student.encoder.embeddings.position_embeddings.weight.mul_(30)
    if not shift:
        check(task, config)
        return
    with pytest.raises(UserError, match="Padding changes the output of encoder"):
        check(task, config)


def test_unused_parameters_are_named(build) -> None:
    task, config = build("bert")
    task.student.encoder.encoder.layer[1].ghost = nn.Linear(3, 3)
    with pytest.raises(UserError) as raised:
        check(task, config)
    assert "2 of" in str(raised.value)
    assert "student.encoder.encoder.layer.1.ghost.weight, student.encoder.encoder.layer.1.ghost.bias" in str(
        raised.value
    )


def test_unused_parameters_of_an_encoder_can_be_frozen(build) -> None:
    with pytest.raises(UserError, match=r"student\.encoder\.mask_emb, .*student\.freeze_unused: true"):
        check(*build("xlnet"))
    task, config = build("xlnet", "--student.freeze_unused=true")
    check(task, config)
    left_out = {name.split(".")[-1] for name, p in task.step.named_parameters() if not p.requires_grad}
    assert left_out == {"mask_emb", "r_s_bias", "seg_embed"}
    grouped = {name for group in task.parameter_groups() for name in group.names}
    assert not any(name.endswith("mask_emb") for name in grouped)


def test_unused_parameters_of_the_teacher_cannot_be_frozen(build) -> None:
    task, config = build("bert", "--student.freeze_unused=true")
    task.step.teacher.ghost = nn.Parameter(torch.zeros(1))
    with pytest.raises(UserError, match=r"1 of .*teacher\.ghost"):
        check(task, config)


def test_a_frozen_encoder_is_checked_for_padding_too(build, monkeypatch) -> None:
    task, config = build("bert", "--student.freeze_encoder=true")
    check(task, config)
    forward = task.student.encoder.forward
    monkeypatch.setattr(
        task.student.encoder,
        "forward",
        lambda input_ids, attention_mask: forward(input_ids, torch.ones_like(input_ids)),
    )
    with pytest.raises(UserError, match="Padding changes"):
        check(task, config)


def test_tokenizer_without_a_padding_token_is_rejected(tmp_path: Path) -> None:
    words = Tokenizer(models.WordLevel({"good": 0, "bad": 1, "unk": 2}, unk_token="unk"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.BertConfig(**SIZES).save_pretrained(tmp_path)
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="unk").save_pretrained(tmp_path)
    with pytest.raises(UserError, match="has no padding token"):
        build_tokenizer(str(tmp_path))


def test_texts_are_padded_and_truncated_on_the_right(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path, "bert")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.padding_side = tokenizer.truncation_side = "left"
    tokenizer.save_pretrained(folder)
    encoded = build_tokenizer(str(folder))(["good", "a longer text"], padding=True, truncation=True, max_length=4)
    assert encoded["input_ids"] == [[2, 5, 3, 0], [2, 6, 7, 3]]


def test_tokenizer_with_more_tokens_than_the_encoder_is_rejected(build) -> None:
    with pytest.raises(UserError, match="has 31 tokens, but the encoder has 30"):
        build("bert", vocabulary=31)
    build("bert", vocabulary=30)


def test_max_tokens_that_leaves_no_word_is_rejected(tmp_path: Path) -> None:
    folder = str(write_encoder(tmp_path, "bert"))
    tokenizer, encoder = build_tokenizer(folder), transformers.AutoModel.from_config(transformers.BertConfig(**SIZES))
    with pytest.raises(UserError, match=r"adds 2 tokens to each text.*at least 3"):
        require_fitting(encoder, tokenizer, "tiny", 2)
    require_fitting(encoder, tokenizer, "tiny", 3)


def test_invalid_model_is_rejected_before_the_first_step(build, made: Path, tmp_path: Path, write_config) -> None:
    from rich.console import Console

    from vadv_dist.launch.driver import train

    _, config = build("gpt2", "--student.pooling=cls")
    config = replace(config, run=replace(config.run, name="causal"))
    with pytest.raises(UserError, match="computes it without the tokens after it"):
        train(config, Console(quiet=True))
    assert not (tmp_path / "runs" / "causal" / "checkpoints").exists()
