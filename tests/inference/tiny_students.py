"""Tiny students with a tokenizer of a few words, for the tests of export and prediction."""

import torch
from transformers import AutoConfig, BertTokenizer

from vadv_dist.inference.model_card import ModelCard
from vadv_dist.models.encoders import build_encoder
from vadv_dist.models.text_student import TextStudent

WORDS = ["the", "a", "film", "was", "very", "good", "bad", "sad", "fun", "plot", "not", "and", "i", "it", "liked"]
TEXTS = [
    "the film was very good",
    "sad",
    "i liked it and the plot was not bad",
    "unknownword fun",
    "the plot",
    "a very very very sad film and a very very bad plot",
]
MAX_TOKENS = 10

# Sizes under all the names used by architectures.
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "vocab_size": len(WORDS) + 5,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
}
SPECIFIC = {
    "albert": {"embedding_size": 8},
    "electra": {"embedding_size": 8},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 8},
}


def make_tokenizer() -> BertTokenizer:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    return BertTokenizer(vocab={word: number for number, word in enumerate(words)})


def make_student(folder, model_type="bert", *, pooling="cls", hidden=5, num_classes=None, **sizes) -> TextStudent:
    """A tiny student with random weights that are large enough to give different scores."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **{**SIZES, **SPECIFIC.get(model_type, {}), **sizes})
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    encoder = build_encoder(str(folder), pretrained=False, dropout=None, gradient_checkpointing=False)
    student = TextStudent(encoder, hidden=hidden, pooling=pooling, dropout=0.1, num_classes=num_classes)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        student.out.weight.normal_()
    return student.eval()


def make_card(**changes) -> ModelCard:
    facts = {
        "name": "tiny",
        "encoder": "tiny-bert",
        "max_tokens": MAX_TOKENS,
        "metrics": {"valid": {"mae": 0.8125, "corr": float("nan")}},
        "data": [{"uri": "data/mosi", "fingerprint": "f00d", "rows": {"train": 1284, "valid": 229}}],
        "config": {"objective": {"kind": "step"}, "run": {"name": "tiny"}},
    }
    return ModelCard(**{**facts, **changes})


def one_by_one(student, tokenizer, texts=TEXTS) -> list[float]:
    """Scores of the student for each text alone: no padding, no batching, no export."""
    scores = []
    with torch.no_grad():
        for text in texts:
            row = tokenizer(text, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
            scores.append(float(student(row["input_ids"], row["attention_mask"])))
    return scores
