"""A retrieval student for use: two towers that turn an audio or a visual vector into an embedding.

This file accompanies exported weights, as `modeling_retrieval_student.py`. It needs only torch and safetensors:

    model = RetrievalTowers.load("path/to/this/folder")
    cosines = model.audio_embedding(audio) @ model.visual_embedding(visual).T

`config.json` lists the steps of each tower: a result's name, an operation of PyTorch's ATen library, its arguments and
its options. In arguments, a text names an earlier result, a weight or the input (`vectors`).

Shape letters: B rows, A and V widths of the audio and visual vectors, E embedding width.
"""

import json
import operator
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

INPUT = "vectors"
# Name, operation, arguments, options.
Step = Sequence[Any]
Tower = Mapping[str, Any]

# Operations on sizes.
_SIZES: dict[str, Callable[..., Any]] = {
    "getitem": operator.getitem,
    "size_add": operator.add,
    "size_mul": operator.mul,
    "size_floordiv": operator.floordiv,
}
# Operations of `torch.ops.aten` that a tower may use: they compute new tensors from tensors and do nothing else.
_NAMES = """
    _native_batch_norm_legit_no_training.default _softmax.default abs.default adaptive_avg_pool1d.default
    adaptive_max_pool1d.default add.Tensor addmm.default amax.default avg_pool1d.default bmm.default cat.default
    chunk.default clamp.default clamp_max.default clamp_min.default conv1d.default div.Tensor elu.default
    exp.default expand.default flatten.using_ints gelu.default layer_norm.default leaky_relu.default
    linalg_vector_norm.default linear.default log_softmax.int matmul.default max_pool1d.default mean.dim mm.default
    mul.Tensor neg.default permute.default pow.Tensor_Scalar relu.default reshape.default rsqrt.default select.int
    sigmoid.default silu.default slice.Tensor softmax.int softplus.default split.Tensor split_with_sizes.default
    sqrt.default square.default squeeze.dim squeeze.dims stack.default sub.Tensor sum.dim_IntList sym_size.int
    t.default tanh.default transpose.int unflatten.int unsqueeze.default view.default
"""
OPERATIONS = frozenset(_NAMES.split())


class RetrievalTowers(nn.Module):
    """Embeds audio and visual vectors, so that the cosine of two embeddings says whether their clips share a class.

    Args:
        audio, visual: `steps` and the name of the `result` of each tower, as in `config.json`.
        weights: by name.
    Raises:
        ValueError: an operation that is not one of `OPERATIONS`.
    """

    def __init__(self, audio: Tower, visual: Tower, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.towers = {"audio": audio, "visual": visual}
        self._operations = {
            str(step[1]): _operation(str(step[1])) for tower in (audio, visual) for step in tower["steps"]
        }
        for name, value in weights.items():
            self.register_buffer(name, value)

    def audio_embedding(self, audio_BA: Tensor) -> Tensor:
        """Embed audio vectors: [B, E], of length 1."""
        return nn.functional.normalize(self._run("audio", audio_BA), dim=-1)

    def visual_embedding(self, visual_BV: Tensor) -> Tensor:
        """Embed visual vectors: [B, E], of length 1."""
        return nn.functional.normalize(self._run("visual", visual_BV), dim=-1)

    def forward(self, audio_BA: Tensor, visual_BV: Tensor) -> tuple[Tensor, Tensor]:
        """Embed both: [B, E] each."""
        return self.audio_embedding(audio_BA), self.visual_embedding(visual_BV)

    @classmethod
    def load(cls, folder: str | Path) -> "RetrievalTowers":
        """Load the folder that this file is part of, in eval mode."""
        from safetensors.torch import load_file

        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        return cls(**config["towers"], weights=load_file(Path(folder) / "model.safetensors")).eval()

    def _run(self, name: str, vectors: Tensor) -> Tensor:
        known: dict[str, Any] = {**dict(self.named_buffers()), INPUT: vectors.float()}
        for result, operation, arguments, options in self.towers[name]["steps"]:
            known[result] = self._operations[operation](*(_value(a, known) for a in arguments), **options)
        embedding: Tensor = known[self.towers[name]["result"]]
        return embedding


def _operation(name: str) -> Callable[..., Any]:
    if name in _SIZES:
        return _SIZES[name]
    if name not in OPERATIONS:
        raise ValueError(f"{name!r} is not an operation of a tower")
    packet, _, overload = name.partition(".")
    operation: Callable[..., Any] = getattr(getattr(torch.ops.aten, packet), overload)
    return operation


def _value(argument: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(argument, list):
        return [_value(one, known) for one in argument]
    return known[argument] if isinstance(argument, str) else argument
