"""Export a student as a Hugging Face folder or as ONNX, and load such a folder after verifying its files."""

import copy
import dataclasses
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vadv_dist.formats.tensors import save_tensors
from vadv_dist.inference.manifest import (
    MANIFEST,
    ONNX,
    PYTORCH,
    RETRIEVAL,
    WEIGHTS,
    ExportManifest,
    manifest_json,
    read_manifest,
    resolve_student,
    task_of,
    verify_export,
)
from vadv_dist.inference.model_card import ModelCard, render
from vadv_dist.inference.onnx_file import require_onnx, write_onnx
from vadv_dist.storage import (
    Location,
    atomic_directory,
    file_entries,
    local_copy,
    location,
    read_json,
    remove_tree,
    require_absent,
    write_json,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from vadv_dist.models.text_student import TextStudent


@dataclass(frozen=True)
class ExportSummary:
    """An export.

    Args:
        folder: its location.
        architecture: what it is.
        loaded_by: what loads it.
        custom_reason: why the folder includes its own modelling file and needs `trust_remote_code=True`; None if a
            standard class of transformers loads it.
    """

    folder: Location
    architecture: str
    loaded_by: str
    custom_reason: str | None

    def __str__(self) -> str:
        trust = "" if self.custom_reason is None else f" with trust_remote_code=True: {self.custom_reason}"
        return f"{self.folder} ({self.architecture}, can be loaded by {self.loaded_by}{trust})"


def export_student(
    student: "TextStudent",
    tokenizer: "PreTrainedTokenizerBase",
    out: Location,
    *,
    card: ModelCard,
    format: str = PYTORCH,
    replace: bool = False,
) -> ExportSummary:
    """Write a student as a folder that needs no other code of this package, completely or not at all.

    `AutoModelForSequenceClassification` gives logits [B, 1] equal to the student's within 1e-5; an ONNX file gives
    `prediction` [B] for `input_ids` and `attention_mask`, both [B, L]. Weights are fp32.

    Args:
        student: the model, on any device; it is not modified.
        tokenizer: its tokenizer; a copy is saved with `model_max_length` set to `card.max_tokens`.
        out: the folder to create.
        card: contents of the model card and of `vadv_export.json`.
        format: `pytorch` for a folder of transformers, or `onnx`.
        replace: replace an existing folder instead of refusing.
    Raises:
        UserError: `out` exists and `replace` is false, or a package for ONNX is missing.
    """
    from vadv_dist.inference import modeling_text_student
    from vadv_dist.inference.layouts import MODELING_FILE, to_layout

    if not replace:
        _require_absent(out)
    if format == ONNX:
        require_onnx()
    layout = to_layout(student)
    manifest = ExportManifest(
        card=card,
        pooling=student.pooling,
        hidden=student.dense.out_features,
        dropout=student.drop.p,
        architecture=layout.architecture,
        custom_reason=layout.custom_reason,
    )
    with atomic_directory(out, manifest=MANIFEST) as upload:
        folder = upload.folder
        _portable(tokenizer, card.max_tokens).save_pretrained(folder)
        if format == ONNX:
            _write_onnx(student, folder / "model.onnx", card.max_tokens)
        else:
            layout.config.save_pretrained(folder)
            save_tensors(layout.weights, folder / WEIGHTS, metadata={"format": "pt"})
            if layout.custom_reason is not None:
                shutil.copyfile(modeling_text_student.__file__, folder / MODELING_FILE)
        (folder / "README.md").write_text(render(manifest, onnx=format == ONNX), encoding="utf-8")
        write_json(folder / MANIFEST, manifest_json(manifest, file_entries(folder), format=format))
        if replace and out.is_dir():
            (out / MANIFEST).unlink(missing_ok=True)
            remove_tree(out)
    how = "onnxruntime" if format == ONNX else "transformers"
    return ExportSummary(out, manifest.architecture, how, None if format == ONNX else manifest.custom_reason)


def export_run(
    source: str | Location, out: str | Location, *, format: str = PYTORCH, evaluations: Location | None = None
) -> ExportSummary:
    """Export the student of a run, with the run's evaluations in its model card.

    Args:
        source: a run, or an earlier export.
        out: the folder to create.
        format: `pytorch`, or `onnx`.
        evaluations: folder of the run's evaluations; None is the run's.
    Raises:
        UserError: `out` exists, `source` has no student or one with damaged files, or a package for ONNX is missing.
    """
    source, out = location(source), location(out)
    _require_absent(out)
    if format == ONNX:
        require_onnx()
    metrics = _evaluations(source, evaluations or source)
    with local_copy(resolve_student(source)) as folder:
        if task_of(read_manifest(folder)) == RETRIEVAL:
            from vadv_dist.inference.retrieval_export import export_again

            export_again(folder, out, metrics, format)
            return ExportSummary(out, "two towers", "onnxruntime" if format == ONNX else "torch", None)
        card = verify_export(folder).card
        student, tokenizer, _ = load_student(folder)
    card = dataclasses.replace(card, metrics={**card.metrics, **metrics})
    return export_student(student, tokenizer, out, card=card, format=format)


def _write_onnx(student: "TextStudent", path: Path, max_tokens: int) -> None:
    import torch

    tokens = min(6, max_tokens)
    inputs = {"input_ids": torch.ones(2, tokens, dtype=torch.long), "attention_mask": torch.ones(2, tokens).long()}
    inputs["attention_mask"][1, tokens // 2 :] = 0
    write_onnx(copy.deepcopy(student).cpu().float().eval(), path, inputs, ("rows", "tokens"), "prediction")


def _require_absent(out: Location) -> None:
    require_absent(out, "an export", "Choose another folder, or remove this one.", manifest=MANIFEST)


def load_student(folder: Path) -> tuple["TextStudent", "PreTrainedTokenizerBase", int]:
    """Load an export as the original model in eval mode; every file is verified before any is loaded.

    No code from the folder is executed: a modelling file in it is for transformers only.

    Returns:
        the student, its tokenizer, and the number of tokens to which texts are truncated.
    Raises:
        UserError: not an export, or a file is missing, damaged or not listed.
    """
    manifest = verify_export(folder)

    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig

    from vadv_dist.inference.layouts import build_student
    from vadv_dist.inference.modeling_text_student import TextStudentConfig
    from vadv_dist.models.pretrained import quiet_transformers

    config: PreTrainedConfig
    if manifest.custom_reason is None:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    else:
        config = TextStudentConfig.from_pretrained(folder, local_files_only=True)
    weights = load_file(folder / WEIGHTS)
    student = build_student(
        config, weights, pooling=manifest.pooling, hidden=manifest.hidden, dropout=manifest.dropout, where=folder
    )
    with quiet_transformers():  # it does not know the model type of students with their own class
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return student.eval(), tokenizer, manifest.card.max_tokens


def _portable(tokenizer: "PreTrainedTokenizerBase", max_tokens: int) -> "PreTrainedTokenizerBase":
    """A copy that truncates to `max_tokens`, without padding or truncation settings of earlier calls."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.model_max_length = max_tokens
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
    return tokenizer


def _evaluations(run: Location, folder: Location) -> dict[str, dict[str, float | None]]:
    """The student's metrics from `vadv evaluate` of a run, by split, if they are of its best step and data."""
    if not (run / "result.json").is_file():
        return {}
    result = read_json(run / "result.json")
    best_step, own = result.get("best_step"), _fingerprints(result)
    found = {}
    for path in sorted([*folder.glob("evaluation-*.json")], key=str):
        evaluation = read_json(path)
        of_this_run = evaluation.get("step") == best_step and _fingerprints(evaluation) in (own, [])
        if of_this_run and isinstance(evaluation.get("student"), dict):
            found[path.name.removeprefix("evaluation-").removesuffix(".json")] = evaluation["student"]
    return found


def _fingerprints(document: Mapping[str, Any]) -> list[str]:
    return [str(entry.get("fingerprint")) for entry in document.get("data", [])]
