"""Frozen prompt embeddings of a data set, and the check that several data sets share them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vadv_dist.data.dataset import Dataset
from vadv_dist.errors import UserError

if TYPE_CHECKING:
    import torch

# Relative to the largest value; the same encoder on another machine differs by less.
_TOLERANCE = 1e-3


def load_prompts(dataset: Dataset) -> "torch.Tensor | None":
    """Prompt embeddings [C, D] in fp32, or None if the data set has none.

    Raises:
        UserError: the file is missing, damaged or changed, or has no [2, D] tensor named `prompts`.
    """
    prompts = dataset.read_prompts()
    if prompts is None:
        return None
    import torch

    if prompts.shape[0] != 2:
        shape = list(prompts.shape)
        raise UserError(f"{dataset.prompts_path} has prompts of shape {shape}, expected [2, D]: negative, positive.")
    return torch.tensor(prompts, dtype=torch.float32)


def require_same_prompts(datasets: Sequence[Dataset]) -> None:
    """Refuse data sets with different prompt embeddings, because a teacher has only one set.

    Raises:
        UserError: only some have prompts, or they differ in shape or values; or as in `load_prompts`.
    """
    first, *others = datasets
    expected = load_prompts(first)
    for other in others:
        found = load_prompts(other)
        difference = ""
        if (expected is None) != (found is None):
            one, none = (first, other) if found is None else (other, first)
            difference = f"{one.root} has prompts, {none.root} has none"
        elif expected is not None and found is not None:
            difference = _difference(expected, found)
        if difference:
            raise UserError(
                f"{other.root} and {first.root} have different prompts: {difference}. The sources of a run must share "
                "their prompts.safetensors: extract both with the same text encoder and the same words, or set "
                "teacher.prompting: none."
            )


def _difference(a: "torch.Tensor", b: "torch.Tensor") -> str:
    """How two sets of embeddings differ; empty if they do not."""
    if a.shape != b.shape:
        return f"shape {list(b.shape)} instead of {list(a.shape)}"
    largest = float((a - b).abs().max())
    return f"values differ by up to {largest:.3g}" if largest > _TOLERANCE * float(a.abs().max()) else ""
