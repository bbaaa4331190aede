"""A small text encoder for synthetic data, as a folder that transformers loads offline: a config and a tokenizer."""

from pathlib import Path

from vadv_dist.data.synth.grammar import vocabulary
from vadv_dist.storage import write_json

_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_MAX_TOKENS = 128


def write_encoder(folder: Path) -> None:
    """Write `config.json` of a BERT without weights, and a tokenizer of the grammar's words."""
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
    write_json(
        folder / "config.json",
        {
            "architectures": ["BertModel"],
            "model_type": "bert",
            "vocab_size": len(vocab),
            "hidden_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 256,
            "max_position_embeddings": _MAX_TOKENS,
        },
    )
