"""Write a text student in the layout of sentence-transformers: encoder, pooling, and the head's layers as modules.

The layout expresses mean pooling with a head of two layers, for which transformers has no class. The "embedding" of a
text is then one number, the prediction.
"""

import copy
from pathlib import Path
from typing import Any

import torch

from vadv_dist.formats.tensors import save_tensors
from vadv_dist.inference.layouts import fp32_weights
from vadv_dist.models.text_student import TextStudent
from vadv_dist.storage import write_json

_TANH, _IDENTITY = "torch.nn.modules.activation.Tanh", "torch.nn.modules.linear.Identity"


def write_sentence_layout(student: TextStudent, folder: Path, max_tokens: int) -> None:
    """Write the modules; the caller adds the tokenizer.

    Args:
        student: the model.
        folder: an existing folder.
        max_tokens: texts are truncated to this many tokens.
    """
    encoder = student.encoder
    config = copy.deepcopy(encoder.config)
    config.architectures, config.dtype, config.name_or_path = [type(encoder).__name__], torch.float32, ""
    config.save_pretrained(folder)
    save_tensors(fp32_weights(encoder), folder / "model.safetensors", metadata={"format": "pt"})
    write_length(folder, max_tokens)
    pooling = {f"pooling_mode_{name}": name == _POOLING[student.pooling] for name in _POOLINGS}
    _write_config(folder / "1_Pooling", {"word_embedding_dimension": student.width, **pooling})
    modules = ["Transformer", "Pooling", "Dense", "Dense"]
    for number, (layer, activation) in enumerate(((student.dense, _TANH), (student.out, _IDENTITY)), 2):
        path = folder / f"{number}_Dense"
        sizes = {"in_features": layer.in_features, "out_features": layer.out_features, "bias": True}
        _write_config(path, {**sizes, "activation_function": activation})
        weights = {f"linear.{name}": tensor for name, tensor in fp32_weights(layer).items()}
        save_tensors(weights, path / "model.safetensors", metadata={"format": "pt"})
    write_json(
        folder / "modules.json",
        [
            {
                "idx": number,
                "name": str(number),
                "path": f"{number}_{kind}" if number else "",
                "type": f"sentence_transformers.models.{kind}",
            }
            for number, kind in enumerate(modules)
        ],
    )


_POOLING = {"cls": "cls_token", "mean": "mean_tokens"}
_POOLINGS = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")


def write_length(folder: Path, max_tokens: int) -> None:
    """Write the file in which servers look for the number of tokens to which texts are truncated."""
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_tokens, "do_lower_case": False})


def _write_config(folder: Path, config: dict[str, Any]) -> None:
    folder.mkdir()
    write_json(folder / "config.json", config)
