"""Checks of a run's model before its first step.

Some problems cause no error: an encoder that attends to padding, a causal one whose first token sees no other, an
unused parameter (whose gradient data-parallel training waits for). Two texts of different lengths reveal all three.
The checks compare bits, without a tolerance: changing an input that has no influence changes nothing.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vadv_dist.config.student_sections import TextStudentConfig
from vadv_dist.data.collate import MASK, TOKENS, Collator
from vadv_dist.data.schema import Batch, FeatureColumn, Window
from vadv_dist.data.sources import Sources
from vadv_dist.errors import UserError, require_memory
from vadv_dist.models.text_student import TextStudent
from vadv_dist.objectives.base import weighted_total
from vadv_dist.tasks.base import TrainingStep

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TEXTS = ["good", "a longer text"]
_SHORT, _LONG = 0, 1
# Sums over a row of another length are rounded differently. Allowed difference of logits if masked tokens have no
# influence (TF32 alone causes 1e-3), and if they do.
_ROUNDING, _ROUNDING_OF_READERS = 1e-3, 2e-6
_NAMES_SHOWN = 5


def check_text_model(
    step: TrainingStep,
    student: TextStudent,
    tokenizer: "PreTrainedTokenizerBase",
    batch: Batch,
    weights: Mapping[str, float],
    config: TextStudentConfig,
    device: torch.device,
) -> None:
    """Run two texts through a model: padding must not matter, other tokens must, and all parameters get gradients.

    Computes in evaluation mode and fp32; weights, gradients, random generators and the model's device are unchanged.

    Args:
        step: the whole model, whose trained parameters are checked.
        student: its text student.
        tokenizer: the student's tokenizer.
        batch: result of `two_rows`.
        weights: weight of each term.
        config: the student's configuration, for messages and `freeze_unused`.
        device: device to compute on.
    Raises:
        UserError: a check failed; names the encoder or the parameters without a gradient.
        MemoryFullError: the machine's memory is full.
    """
    name = config.encoder
    home = next(step.parameters()).device
    step.to(device).eval()
    batch = batch.to(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            _, terms = step(batch)
            _check_padding(student, tokenizer, batch, name)
            _check_pooling(student, tokenizer, batch, name)
        except (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            require_memory()
            raise UserError(
                f"Encoder {name!r} ({type(student.encoder).__name__}) cannot read two short texts, one of them padded: "
                f"{type(error).__name__}: {' '.join(str(error).split())[:200]}. Give another encoder."
            ) from error
        _check_gradients(step, weighted_total(terms, weights), config)
    step.to(home).train()


def _check_padding(student: TextStudent, tokenizer: "PreTrainedTokenizerBase", batch: Batch, name: str) -> None:
    """Check that neither the content nor the amount of padding affects a row."""
    ids, mask = batch.fields[TOKENS], batch.fields[MASK].bool()
    length = int(mask[_SHORT].sum())
    if length == mask.shape[1]:  # max_tokens truncates both texts to the same length
        return
    with torch.no_grad():
        other = torch.where(mask, ids, _other_tokens(ids, tokenizer))
        padded = student(ids, batch.fields[MASK])[_SHORT]
        filled = student(other, batch.fields[MASK])[_SHORT]
        alone = student(ids[_SHORT:_LONG, :length], batch.fields[MASK][_SHORT:_LONG, :length])[0]
    rounding = _ROUNDING if torch.equal(filled, padded) else _ROUNDING_OF_READERS
    alone, padded = alone.flatten(), padded.flatten()
    worst = int((alone - padded).abs().argmax())
    if float((alone - padded).abs()[worst]) > rounding * max(0.1, float(padded.abs()[worst])):
        raise UserError(
            f"Padding changes the output of encoder {name!r} ({type(student.encoder).__name__}): a short text has the "
            f"logit {float(alone[worst]):.7f} alone and {float(padded[worst]):.7f} next to a longer one. It does not "
            "respect attention_mask, so predictions would depend on the other texts in a batch. Use another encoder."
        )


def _check_pooling(student: TextStudent, tokenizer: "PreTrainedTokenizerBase", batch: Batch, name: str) -> None:
    """Check that the tokens after the first affect the pooled representation."""
    ids = batch.fields[TOKENS][_LONG:]
    if ids.shape[1] < 2:
        return
    changed = torch.cat([ids[:, :1], _other_tokens(ids[:, 1:], tokenizer)], dim=1)
    with torch.no_grad():
        logits = [student(row, torch.ones_like(row)) for row in (ids, changed)]
    if torch.equal(*logits):
        raise UserError(
            f"student.pooling is {student.pooling!r}, which reads the first token's state, but encoder {name!r} "
            f"({type(student.encoder).__name__}) computes it without the tokens after it, as causal models do: all "
            "texts that begin alike would get one prediction. Set student.pooling: mean, or give a bidirectional "
            "encoder."
        )


def _check_gradients(step: TrainingStep, total: Tensor, config: TextStudentConfig) -> None:
    trained = {n: p for n, p in step.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(total, list(trained.values()), allow_unused=True)
    unused = [n for n, gradient in zip(trained, gradients, strict=True) if gradient is None]
    if config.freeze_unused:
        for name in unused:
            if name.startswith("student.encoder."):
                trained[name].requires_grad_(False)
        unused = [name for name in unused if trained[name].requires_grad]
    if unused:
        shown = ", ".join(unused[:_NAMES_SHOWN]) + (", …" if len(unused) > _NAMES_SHOWN else "")
        raise UserError(
            f"{len(unused)} of {len(trained)} trained parameters have no influence on the loss, so they would have no "
            f"gradient: {shown}. Give another encoder than {config.encoder!r}, or set student.freeze_unused: "
            "true if it is meant to leave them out."
        )


def _other_tokens(ids: Tensor, tokenizer: "PreTrainedTokenizerBase") -> Tensor:
    """Replace each token by another one that is not padding."""
    other = (ids + 1) % len(tokenizer)
    return torch.where(other == tokenizer.pad_token_id, (ids + 2) % len(tokenizer), other)


def two_rows(collator: Collator, sources: Sources) -> Batch:
    """Collate a short and a long text with random features, like a run's clips."""
    random = np.random.default_rng(0)
    present = np.ones(len(_TEXTS), bool)
    features = {
        name: FeatureColumn((random.normal(size=(len(_TEXTS), *spec.shape)).astype(np.float16),), present)
        for name, spec in sources.features.items()
    }
    names = [str(row) for row in range(len(_TEXTS))]
    window = Window(
        clip_id=names,
        video_id=names,
        source=names,
        text=_TEXTS,
        label=np.array([sources.label.low, sources.label.high], np.float32),
        num_words=np.array([len(text.split()) for text in _TEXTS], np.int32),
        row_id=np.arange(len(_TEXTS)),
        features=features,
    )
    rows = np.arange(len(_TEXTS))
    return collator(window, rows, global_rows=rows)
