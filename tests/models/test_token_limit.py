"""The limit of an encoder is the longest text that it accepts: one token more is an error."""

import pytest
import torch
import transformers

from vadv_dist.models.token_limit import longest_text

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 30}
XLNET = {"vocab_size": 30, "d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 16}
RELATIVE = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 8}
ROWS = 20


def build(kind: str, **options: object) -> transformers.PreTrainedModel:
    sizes = XLNET if kind == "xlnet" else {**SMALL, "max_position_embeddings": ROWS}
    config = transformers.AutoConfig.for_model(kind, **{**sizes, **options})
    return transformers.AutoModel.from_config(config).eval()


def runs(encoder: transformers.PreTrainedModel, num_tokens: int) -> bool:
    ids = torch.full((1, num_tokens), 5)
    try:
        with torch.no_grad():
            encoder(input_ids=ids, attention_mask=torch.ones_like(ids))
    except (IndexError, RuntimeError):
        return False
    return True


@pytest.mark.parametrize(
    ("kind", "options", "limit"),
    [
        ("bert", {}, ROWS),
        ("electra", {"embedding_size": 8}, ROWS),
        ("albert", {"embedding_size": 8}, ROWS),
        ("distilbert", {}, ROWS),
        ("gpt2", {}, ROWS),
        ("deberta-v2", {}, ROWS),
        ("roformer", {}, ROWS),
        ("opt", {"ffn_dim": 16, "word_embed_proj_dim": 16}, ROWS),  # the table has two more rows than the limit
        ("roberta", {"pad_token_id": 1}, ROWS - 2),  # rows 0 and 1 are for padding
        ("xlm-roberta", {"pad_token_id": 1}, ROWS - 2),
        ("camembert", {"pad_token_id": 1}, ROWS - 2),
        ("mpnet", {"pad_token_id": 1}, ROWS - 2),
        ("roberta", {"pad_token_id": 0}, ROWS - 1),
        ("roberta", {"pad_token_id": 3}, ROWS - 4),
        ("longformer", {"pad_token_id": 1, "attention_window": [4]}, ROWS - 2),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_limit_is_the_longest_accepted_text(kind: str, options: dict, limit: int, device: str) -> None:
    encoder = build(kind, **options)
    with torch.device(device):
        assert longest_text(build(kind, **options)) == limit
    assert runs(encoder, limit)
    assert not runs(encoder, limit + 1)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("xlnet", {}), ("deberta-v2", {**RELATIVE, "position_biased_input": False})],
)
def test_relative_positions_have_no_limit(kind: str, options: dict) -> None:
    encoder = build(kind, **options)
    assert longest_text(encoder) is None
    assert runs(encoder, 3 * ROWS)


def test_rotary_positions_use_the_limit_of_the_config() -> None:
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    assert longest_text(build("modernbert", **tokens)) == ROWS


def test_the_limit_of_roberta_large_is_512() -> None:
    with torch.device("meta"):
        encoder = transformers.RobertaModel(
            transformers.RobertaConfig(**SMALL, max_position_embeddings=514, pad_token_id=1)
        )
    assert longest_text(encoder) == 512
