"""Small text encoders for synthetic data, as folders that transformers loads offline: a config and a tokenizer."""

from pathlib import Path
from typing import Any

from vadv_dist.data.synth.grammar import vocabulary
from vadv_dist.storage import write_json

_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_MAX_TOKENS = 128

_SIZE = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 256,
    "max_position_embeddings": _MAX_TOKENS,
}
# RoBERTa's positions begin after that of its padding token, which is 0 here.
_ROBERTA = {"model_type": "roberta", **_SIZE, "max_position_embeddings": _MAX_TOKENS + 1}
_IDS = {"pad_token_id": 0, "bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3}
# Small encoders of the architectures that studies compare, by name. Their weights are drawn at random.
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": {"architectures": ["BertModel"], "model_type": "bert", **_SIZE},
    "roberta": {"architectures": ["RobertaModel"], **_ROBERTA, **_IDS},
    "roberta-large": {"architectures": ["RobertaModel"], **_ROBERTA, **_IDS, "num_hidden_layers": 4},
    "deberta-v3": {
        "architectures": ["DebertaV2Model"],
        "model_type": "deberta-v2",
        **_SIZE,
        "relative_attention": True,
        "position_buckets": 32,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "type_vocab_size": 0,
        "pad_token_id": 0,
    },
    "modernbert": {"architectures": ["ModernBertModel"], "model_type": "modernbert", **_SIZE, **_IDS},
}


def write_encoder(folder: Path, kind: str = "bert") -> None:
    """Write an encoder's `config.json` without weights, and a tokenizer of the grammar's words.

    Args:
        folder: is created.
        kind: one of `ENCODERS`.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.normalizers import Lowercase
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import TemplateProcessing

    folder.mkdir(parents=True, exist_ok=True)
    vocab = {token: i for i, token in enumerate((*_SPECIALS, *vocabulary()))}
    tokenizer = Tokenizer(WordLevel(vocab, unk_token="[UNK]"))
    tokenizer.add_special_tokens(list(_SPECIALS))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocab[token]) for token in ("[CLS]", "[SEP]")],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": _MAX_TOKENS,
            "model_input_names": ["input_ids", "attention_mask"],
            **{f"{token[1:-1].lower()}_token": token for token in _SPECIALS},
        },
    )
    config = ENCODERS[kind]
    head = {name: config[name] for name in ("architectures", "model_type")}
    write_json(folder / "config.json", {**head, "vocab_size": len(vocab), **config})
