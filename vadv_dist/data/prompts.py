"""Frozen prompt embeddings of a data set, and the check that several sets share theirs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vadv_dist.data.dataset import Dataset
from vadv_dist.errors import UserError

if TYPE_CHECKING:
    import torch

# The same words through the same encoder on another machine differ by less, of the largest value.
_TOLERANCE = 1e-3


def load_prompts(dataset: Dataset) -> "torch.Tensor | None":
    """Prompt embeddings [C, D] in fp32, or None where the data set has none.

    Raises:
        UserError: the file is gone, damaged, changed, or holds no [2, D] tensor called `prompts`.
    """
    prompts = dataset.read_prompts()
    if prompts is None:
        return None
    import torch

    if prompts.shape[0] != 2:
        shape = list(prompts.shape)
        raise UserError(f"{dataset.prompts_path} holds prompts of shape {shape}, expected [2, D]: negative, positive.")
    return torch.tensor(prompts, dtype=torch.float32)


def require_same_prompts(datasets: Sequence[Dataset]) -> None:
    """Refuse data sets whose prompts are not the same embeddings: a teacher has one set of them.

    Raises:
        UserError: one has none where another has some, or they differ in shape or values; or as `load_prompts`.
    """
    first, *others = datasets
    expected = load_prompts(first)
    for other in others:
        found = load_prompts(other)
        difference = ""
        if (expected is None) != (found is None):
            one, none = (first, other) if found is None else (other, first)
            difference = f"{one.root} has some, {none.root} has none"
        elif expected is not None and found is not None:
            difference = _difference(expected, found)
        if difference:
            raise UserError(
                f"The prompts of {other.root} are not those of {first.root}: {difference}. Sources of one run must "
                "share their prompts.safetensors: extract both with the same text encoder and the same words, or set "
                "teacher.prompting: none."
            )


def _difference(a: "torch.Tensor", b: "torch.Tensor") -> str:
    """How two sets of embeddings differ; empty where they do not."""
    if a.shape != b.shape:
        return f"their shape is {list(b.shape)}, not {list(a.shape)}"
    largest = float((a - b).abs().max())
    return f"they differ by up to {largest:.3g}" if largest > _TOLERANCE * float(a.abs().max()) else ""
