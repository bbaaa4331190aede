"""Small CLIP and expression weights, built from their configs and saved as Hugging Face folders."""

from pathlib import Path

import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

WORDS = ("a", "video", "with", "the", "face", "negative", "positive", "neutral")
SIDE, PATCH, WIDTH = 32, 8, 24


def write_clip(folder: Path, *, seed: int = 0, scale: float = 1.0) -> Path:
    """A CLIP of two layers with a tokenizer that knows the prompts' words."""
    torch.manual_seed(seed)
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1, **{word: i + 2 for i, word in enumerate(WORDS)}}
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=CLIPTextConfig(
            vocab_size=len(vocabulary), max_position_embeddings=16, bos_token_id=0, eos_token_id=1, **small
        ).to_dict(),
        vision_config=CLIPVisionConfig(image_size=SIDE, patch_size=PATCH, **small).to_dict(),
        projection_dim=WIDTH,
    )
    model = CLIPModel(config).eval()
    model.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}).save_pretrained(
        folder
    )
    tokenizer(vocabulary).save_pretrained(folder)
    return folder


def tokenizer(vocabulary: dict[str, int]) -> PreTrainedTokenizerFast:
    """Words, lower-cased, between CLIP's marks."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<|endoftext|>"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>", special_tokens=[("<|startoftext|>", 0), ("<|endoftext|>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
    )


def write_classifier(folder: Path, *, labels: int = 8, seed: int = 0) -> Path:
    """A one-layer ViT with the given number of scores."""
    torch.manual_seed(seed)
    config = ViTConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=PATCH,
        num_labels=labels,
        initializer_range=0.2,
    )
    ViTForImageClassification(config).eval().save_pretrained(folder)
    ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder
