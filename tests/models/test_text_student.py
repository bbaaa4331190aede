import copy
import json
import logging
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from vadv_dist.errors import UserError
from vadv_dist.models.encoders import build_encoder, build_tokenizer
from vadv_dist.models.text_student import TextStudent

SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 24,
}
CONFIGS: dict[str, transformers.PreTrainedConfig] = {
    "bert": transformers.BertConfig(**SIZES),
    "roberta": transformers.RobertaConfig(**SIZES, pad_token_id=1),
    "distilbert": transformers.DistilBertConfig(vocab_size=40, dim=16, n_layers=2, n_heads=2, hidden_dim=32),
    "mpnet": transformers.MPNetConfig(**SIZES),
    "modernbert": transformers.ModernBertConfig(
        **SIZES, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2
    ),
    "albert": transformers.AlbertConfig(**SIZES, embedding_size=8),
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep tests away from the real hub and the user's cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def folder(tmp_path: Path, kind: str = "bert") -> str:
    CONFIGS[kind].save_pretrained(tmp_path / kind)
    return str(tmp_path / kind)


def make_student(tmp_path: Path, kind: str = "bert", *, dropout: float = 0.0, **changes: Any) -> TextStudent:
    torch.manual_seed(0)
    checkpointing = changes.pop("gradient_checkpointing", False)
    encoder = build_encoder(
        folder(tmp_path, kind), pretrained=False, dropout=dropout, gradient_checkpointing=checkpointing
    )
    return TextStudent(encoder, **{"hidden": 8, "pooling": "cls", "dropout": dropout, **changes})


def words() -> tuple[Tensor, Tensor]:
    """Three texts of 7, 4 and 1 tokens."""
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(3, 40, (3, 7), generator=generator)
    attention_mask = (torch.arange(7) < torch.tensor([[7], [4], [1]])).long()
    return input_ids, attention_mask


def gradients(student: TextStudent) -> dict[str, Tensor | None]:
    student.zero_grad()
    torch.manual_seed(3)  # the same dropout
    student(*words()).square().sum().backward()
    return {name: p.grad for name, p in student.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_any_encoder_reads_words_and_trains_every_parameter(tmp_path: Path, kind: str, pooling: str) -> None:
    student = make_student(tmp_path, kind, pooling=pooling)
    logit = student(*words())
    assert logit.shape == (3,)
    assert logit.dtype == torch.float32
    assert logit.abs().max() < 0.3
    assert [name for name, grad in gradients(student).items() if grad is None] == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_the_mask_is_converted_once_and_changes_no_bit(tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    """Each layer's attention would turn a mask of booleans into one that is added to its scores."""
    student = make_student(tmp_path, kind)
    student.encoder.to(dtype)
    input_ids, mask = words()

    class Conversions(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.count += func is torch.ops.aten.where.self
            return func(*args, **(kwargs or {}))

    with torch.no_grad(), Conversions() as by_student:
        pooled = student.read(input_ids, mask).pooled
    with torch.no_grad(), Conversions() as by_layers:
        states = student.encoder(input_ids=input_ids, attention_mask=mask.bool()[:, None, None, :]).last_hidden_state
    assert torch.equal(pooled, states[:, 0])
    assert by_student.count == 0
    assert by_layers.count == 2  # of two layers


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_padding_does_not_matter(tmp_path: Path, kind: str, pooling: str) -> None:
    student = make_student(tmp_path, kind, pooling=pooling).eval()
    input_ids, mask = words()
    together = student(input_ids, mask)
    alone = torch.cat([student(input_ids[i : i + 1, :n], mask[i : i + 1, :n]) for i, n in enumerate((7, 4, 1))])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-4)
    other_filler = torch.where(mask.bool(), input_ids, 5)
    torch.testing.assert_close(student(other_filler, mask), together, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_logit_equals_the_formula_on_the_encoders_states(tmp_path: Path, kind: str) -> None:
    input_ids, mask = words()
    for pooling in ("cls", "mean"):
        student = make_student(tmp_path, kind, pooling=pooling).eval()
        states = student.encoder(input_ids=input_ids, attention_mask=mask).last_hidden_state
        rows = [states[i, 0] if pooling == "cls" else states[i, :n].mean(0) for i, n in enumerate((7, 4, 1))]
        by_hand = torch.stack([student.out(torch.tanh(student.dense(row))) for row in rows]).squeeze(-1)
        torch.testing.assert_close(student(input_ids, mask), by_hand, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradient_checkpointing_changes_no_gradient(tmp_path: Path, dropout: float) -> None:
    plain = make_student(tmp_path, dropout=dropout)
    saving = make_student(tmp_path, dropout=dropout, gradient_checkpointing=True)
    assert saving.encoder.is_gradient_checkpointing
    for (name, grad), reference in zip(gradients(saving).items(), gradients(plain).values(), strict=True):
        torch.testing.assert_close(grad, reference, rtol=0, atol=0, msg=name)


def test_frozen_encoder_stays_in_evaluation_mode_without_gradient(tmp_path: Path) -> None:
    student = make_student(tmp_path, dropout=0.5, freeze_encoder=True).train()
    assert student.training
    assert not any(module.training for module in student.encoder.modules())
    assert student.drop.training
    assert set(gradients(student)) == {"dense.weight", "dense.bias", "out.weight", "out.bias"}
    student(*words()).sum().backward()
    assert all(parameter.grad is None for parameter in student.encoder.parameters())
    thawed = make_student(tmp_path, dropout=0.5)
    assert thawed.train().encoder.training


def test_evaluation_disables_dropout(tmp_path: Path) -> None:
    student = make_student(tmp_path, dropout=0.5)
    assert not torch.equal(student(*words()), student(*words()))
    student.eval()
    assert torch.equal(student(*words()), student(*words()))


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16], ids=["autocast", "bf16-weights"])
def test_head_is_fp32_with_a_bf16_encoder(tmp_path: Path, pooling: str, weights: torch.dtype) -> None:
    student = make_student(tmp_path, pooling=pooling).to(weights).eval()
    input_ids, mask = words()
    with torch.autocast("cpu", torch.bfloat16, enabled=weights == torch.float32):
        logit = student(input_ids, mask)
        states = student.encoder(input_ids=input_ids, attention_mask=mask).last_hidden_state.double()
    rows = [states[i, 0] if pooling == "cls" else states[i, :n].mean(0) for i, n in enumerate((7, 4, 1))]
    head = copy.deepcopy(student).double()
    by_hand = torch.stack([head.out(torch.tanh(head.dense(row))) for row in rows]).squeeze(-1)
    assert logit.dtype == torch.float32
    torch.testing.assert_close(logit.double(), by_hand, atol=1e-6, rtol=1e-6)


def test_logits_of_a_bf16_run_are_not_rounded_to_bf16(tmp_path: Path) -> None:
    # Between 2 and 4, bf16 has 128 values: some of 60 texts with logits there would be equal.
    student = make_student(tmp_path).eval()
    with torch.no_grad():
        student.out.bias.fill_(2.5)
    ids = torch.randint(3, 40, (60, 7), generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        logit = student(ids, torch.ones_like(ids))
    assert len(set(logit.tolist())) > 55
    assert (logit == logit.bfloat16().float()).float().mean() < 0.1


def test_dropout_replaces_all_rates_of_the_encoder_or_none(tmp_path: Path) -> None:
    def rates(dropout: float | None) -> set[float]:
        encoder = build_encoder(folder(tmp_path), pretrained=False, dropout=dropout, gradient_checkpointing=False)
        return {module.p for module in encoder.modules() if isinstance(module, nn.Dropout)}

    assert rates(None) == {0.1}
    assert rates(0.0) == {0.0}
    assert rates(0.3) == {0.3}


def save_weights(tmp_path: Path, kind: str = "bert", **options: Any) -> tuple[str, transformers.PreTrainedModel]:
    torch.manual_seed(5)
    model = transformers.AutoModel.from_config(CONFIGS[kind])
    model.save_pretrained(tmp_path / "weights", **options)
    return str(tmp_path / "weights"), model


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_pretrained_weights_are_loaded_in_fp32_silently(
    tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    source, model = save_weights(tmp_path, kind)
    model.half().save_pretrained(source)
    capfd.readouterr()
    encoder = build_encoder(source, pretrained=True, dropout=None, gradient_checkpointing=False)
    assert capfd.readouterr() == ("", "")
    assert encoder.training
    for name, value in encoder.state_dict().items():
        assert not name.startswith("pooler")
        torch.testing.assert_close(value, model.state_dict()[name].float(), rtol=0, atol=0)
    assert transformers.logging.get_verbosity() < logging.ERROR
    assert transformers.utils.logging.is_progress_bar_enabled()


def test_weights_that_do_not_fit_the_config_are_refused(tmp_path: Path) -> None:
    source, _ = save_weights(tmp_path)
    config = json.loads(Path(source, "config.json").read_text())

    Path(source, "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(UserError, match=r"lack 16 of the tensors of its config, such as encoder\.layer\.2"):
        build_encoder(source, pretrained=True, dropout=None, gradient_checkpointing=False)

    Path(source, "config.json").write_text(json.dumps({**config, "vocab_size": 41}))
    with pytest.raises(UserError, match="cannot be used"):
        build_encoder(source, pretrained=True, dropout=None, gradient_checkpointing=False)


def truncate(source: Path) -> None:
    weights = source / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda source: (source / "model.safetensors").unlink(), "cannot be used: .*no file named"),
        (truncate, "cannot be used"),
        (lambda source: (source / "config.json").unlink(), "has no config.json"),
        (lambda source: (source / "config.json").write_text("{"), "cannot be used: .*JSON"),
        (lambda source: (source / "config.json").write_text('{"model_type": "bird"}'), "cannot be used"),
        (
            lambda source: transformers.T5Config(d_model=16).save_pretrained(source),
            "is a T5Model, not a text encoder",
        ),
        (
            lambda source: transformers.ViTConfig(hidden_size=16).save_pretrained(source),
            "is a ViTModel, not a text encoder",
        ),
    ],
)
def test_an_unusable_folder_is_refused(tmp_path: Path, harm: Any, message: str) -> None:
    source, _ = save_weights(tmp_path)
    harm(Path(source))
    with pytest.raises(UserError, match=message) as raised:
        build_encoder(source, pretrained=True, dropout=None, gradient_checkpointing=False)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500


def test_an_unknown_encoder_is_refused_at_once_without_network(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def unreachable(*_: object, **options: object) -> None:
        assert options["timeout"] is not None
        raise TimeoutError("no answer")

    begin = time.monotonic()
    with pytest.raises(UserError, match=r"'no-such/encoder' is neither a folder nor .*HF_HUB_OFFLINE"):
        build_encoder("no-such/encoder", pretrained=False, dropout=None, gradient_checkpointing=False)

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    for build in (
        lambda name: build_encoder(name, pretrained=True, dropout=None, gradient_checkpointing=False),
        build_tokenizer,
    ):
        with pytest.raises(UserError, match=r"'no-such/encoder' is neither .* cannot be reached \(no answer\)"):
            build("no-such/encoder")
        with pytest.raises(UserError, match="is not an existing folder and not a valid Hugging Face name"):
            build("./runs/no/such/folder")
    assert time.monotonic() - begin < 2
    assert capfd.readouterr() == ("", "")


def test_a_tokenizer_without_vocabulary_is_refused(tmp_path: Path) -> None:
    source = Path(folder(tmp_path))
    with pytest.raises(UserError, match="has no tokenizer"):
        build_tokenizer(str(source))
    (source / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad"]))
    assert build_tokenizer(str(source))(["good bad"])["input_ids"] == [[2, 5, 6, 3]]


def test_unknown_pooling_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pooling is 'max'"):
        make_student(tmp_path, pooling="max")


def test_student_starts_near_zero_at_a_real_width() -> None:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=1024, num_hidden_layers=1, num_attention_heads=16, intermediate_size=64
    )
    student = TextStudent(transformers.BertModel(config), hidden=128, pooling="mean", dropout=0.1).eval()
    logit = student(*words())
    assert logit.abs().max() < 1.0
    assert logit.std() > 1e-3
