"""Frozen prompt embeddings of a data set, and the check that several data sets share them."""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vadv_dist.data.dataset import Dataset
from vadv_dist.data.schema import Array
from vadv_dist.errors import UserError
from vadv_dist.storage import file_size

_MAX_BYTES = 64 << 20  # 2 × 1024 values take 8 KiB
# Relative to the largest value; the same encoder on another machine differs by less.
_TOLERANCE = 1e-3
_RESTORE = "Restore it, or recreate the data set."


def load_prompts(dataset: Dataset) -> npt.NDArray[np.float32] | None:
    """Prompt embeddings [C, D], verified if their hash is declared; None if there are none.

    C is the number of classes; real-valued labels have two, negative and positive.

    Raises:
        UserError: the file is missing, damaged or changed, or has no [C, D] tensor named `prompts`.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path, manifest = dataset.prompts_path, dataset.manifest
    if not manifest.num_classes_prompts and not path.is_file():
        return None
    try:
        if file_size(path) > _MAX_BYTES:
            raise UserError(f"{path} has more than {_MAX_BYTES:,} bytes, so it is not a prompts file.")
        content = path.read_bytes()
    except FileNotFoundError:
        declared = manifest.num_classes_prompts
        raise UserError(f"{path} is missing, but dataset.json declares {declared} prompts. {_RESTORE}") from None
    digest = hashlib.sha256(content).hexdigest()
    if manifest.prompts_sha256 not in (None, digest):
        raise UserError(
            f"{path} has SHA-256 {digest[:12]}…, but dataset.json declares {manifest.prompts_sha256[:12]}…: it was "
            f"changed after the data set was written. {_RESTORE}"
        )
    try:
        prompts: Array | None = load(content).get("prompts")
    except (SafetensorError, ValueError) as error:
        raise UserError(f"{path} is not a readable safetensors file ({error}). Recreate the data set.") from None
    expected = manifest.label.num_prompts
    if prompts is None or prompts.ndim != 2 or len(prompts) != expected:
        shape = None if prompts is None else list(prompts.shape)
        which = "one per class" if manifest.label.is_class else "negative, positive"
        raise UserError(
            f"{path} has prompts of shape {shape}, expected [{expected}, D]: {which}. Recreate the data set."
        )
    return prompts.astype(np.float32)


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
        if expected is None or found is None:
            if expected is not found:
                one, none = (first, other) if found is None else (other, first)
                difference = f"{one.root} has prompts, {none.root} has none"
        elif expected.shape != found.shape:
            difference = f"shape {list(found.shape)} instead of {list(expected.shape)}"
        elif not np.allclose(expected, found, rtol=0, atol=_TOLERANCE * np.abs(expected).max()):
            difference = f"values differ by up to {np.abs(expected - found).max():.3g}"
        if difference:
            raise UserError(
                f"{other.root} and {first.root} have different prompts: {difference}. The sources of a run must share "
                "their prompts.safetensors: extract both with the same text encoder and the same words, or set "
                "teacher.prompting: none."
            )
