"""Export a student for other programs, and load such an export after verifying its files."""

import copy
import dataclasses
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vadv_dist.errors import UserError
from vadv_dist.formats.tensors import save_tensors
from vadv_dist.inference.card_metadata import Publication
from vadv_dist.inference.int8_cost import Int8Cost, TextSample, int8_cost, sample_texts
from vadv_dist.inference.manifest import (
    MANIFEST,
    ONNX,
    PYTORCH,
    RETRIEVAL,
    SENTENCE_TRANSFORMERS,
    WEIGHTS,
    ExportManifest,
    manifest_json,
    read_manifest,
    resolve_student,
    task_of,
    verify_export,
)
from vadv_dist.inference.model_card import ModelCard, render
from vadv_dist.inference.onnx_file import quantize_onnx, require_onnx, write_onnx
from vadv_dist.inference.run_scores import ScoredClips, intervals, scored_clips
from vadv_dist.storage import (
    Location,
    atomic_directory,
    file_entries,
    local_copy,
    location,
    read_json,
    remove_tree,
    require_absent,
    scratch_folder,
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
        int8: what int8 costs; None for fp32.
    """

    folder: Location
    architecture: str
    loaded_by: str
    custom_reason: str | None
    int8: Int8Cost | None = None

    def __str__(self) -> str:
        text = f"{self.folder} ({self.architecture}, can be loaded by {self.loaded_by}"
        if self.custom_reason is not None:
            text += (
                f" with trust_remote_code=True: {self.custom_reason}. Text Embeddings Inference and vLLM run no code "
                "of a model, so they need --format onnx or sentence-transformers"
            )
        return f"{text})" if self.int8 is None else f"{text})\n{self.int8.sentence()}"


def export_student(
    student: "TextStudent",
    tokenizer: "PreTrainedTokenizerBase",
    out: Location,
    *,
    card: ModelCard,
    format: str = PYTORCH,
    int8: TextSample | None = None,
    replace: bool = False,
) -> ExportSummary:
    """Write a student as a folder that needs no other code of this package, completely or not at all.

    `AutoModelForSequenceClassification` gives logits [B, 1], or [B, C] of classes, equal to the student's within 1e-5;
    so does an ONNX file for `input_ids` and `attention_mask`, both [B, L]; `SentenceTransformer` gives embeddings
    [B, 1]. Weights are fp32 unless `int8` is given.

    Args:
        student: the model, on any device; it is not modified.
        tokenizer: its tokenizer; a copy is saved with `model_max_length` set to `card.max_tokens`.
        out: the folder to create.
        card: contents of the model card and of `vadv_export.json`.
        format: `pytorch` for a folder of transformers, `onnx`, or `sentence-transformers`.
        int8: texts on which to measure what int8 costs; with `onnx`, they make the file's weights int8.
        replace: replace an existing folder instead of refusing.
    Raises:
        UserError: `out` exists and `replace` is false, a package for ONNX is missing, int8 is asked of another format,
            or classes of sentence-transformers.
    """
    from vadv_dist.inference import modeling_text_student
    from vadv_dist.inference.layouts import MODELING_FILE, onnx_config, to_layout
    from vadv_dist.inference.sentence_layout import write_length, write_sentence_layout

    if not replace:
        _require_absent(out)
    _require_possible(format, int8 is not None)
    if format == SENTENCE_TRANSFORMERS and card.classes:
        raise UserError(
            "The student predicts classes, but sentence-transformers returns an embedding, not probabilities. Use "
            "--format pytorch or onnx."
        )
    layout = to_layout(student, card.classes)
    manifest = ExportManifest(
        card=card,
        pooling=student.pooling,
        hidden=student.dense.out_features,
        dropout=student.drop.p,
        architecture=layout.architecture,
        custom_reason=layout.custom_reason,
        encoder_class=type(student.encoder).__name__,
    )
    cost: Int8Cost | None = None
    with atomic_directory(out, manifest=MANIFEST) as upload:
        folder = upload.folder
        portable = _portable(tokenizer, card.max_tokens)
        portable.save_pretrained(folder)
        if format == ONNX:
            cost = _write_onnx(student, portable, folder, card, int8)
            onnx_config(student, card.classes).save_pretrained(folder)
            write_length(folder, card.max_tokens)
        elif format == SENTENCE_TRANSFORMERS:
            write_sentence_layout(student, folder, card.max_tokens)
        else:
            layout.config.save_pretrained(folder)
            save_tensors(layout.weights, folder / WEIGHTS, metadata={"format": "pt"})
            if layout.custom_reason is None:
                write_length(folder, card.max_tokens)
            else:
                shutil.copyfile(modeling_text_student.__file__, folder / MODELING_FILE)
        readme = render(manifest, format=format, int8="" if cost is None else cost.sentence())
        (folder / "README.md").write_text(readme, encoding="utf-8")
        extra = {"format": format} if cost is None else {"format": format, "int8": dataclasses.asdict(cost)}
        write_json(folder / MANIFEST, manifest_json(manifest, file_entries(folder), **extra))
        if replace and out.is_dir():
            (out / MANIFEST).unlink(missing_ok=True)
            remove_tree(out)
    how, needs_code = _LOADED_BY[format], format == PYTORCH
    return ExportSummary(out, manifest.architecture, how, manifest.custom_reason if needs_code else None, cost)


_LOADED_BY = {PYTORCH: "transformers", ONNX: "onnxruntime", SENTENCE_TRANSFORMERS: "sentence-transformers"}


def export_run(
    source: str | Location,
    out: str | Location,
    *,
    format: str = PYTORCH,
    int8: bool = False,
    texts: TextSample | None = None,
    publication: Publication | None = None,
    evaluations: Location | None = None,
) -> ExportSummary:
    """Export the student of a run, with the run's evaluations in its model card.

    Args:
        source: a run, or an earlier export.
        out: the folder to create.
        format: `pytorch`, `onnx`, or `sentence-transformers`.
        int8: quantize the weights; with `onnx`.
        texts: on which to measure what int8 costs; None takes those that the run was evaluated on, or else
            `sample_texts`.
        publication: what the owner states; None keeps what `source` says.
        evaluations: folder of the run's evaluations; None is the run's.
    Raises:
        UserError: `out` exists, `source` has no student or one with damaged files, a package for ONNX is missing, or
            the student does not have the format.
    """
    source, out = location(source), location(out)
    _require_absent(out)
    _require_possible(format, int8)
    documents = _evaluations(source, evaluations or source)
    metrics = {split: document["student"] for split, document in documents.items()}
    scored = {split: scored_clips(evaluations or source, split, document) for split, document in documents.items()}
    with local_copy(resolve_student(source)) as folder:
        if task_of(read_manifest(folder)) == RETRIEVAL:
            from vadv_dist.inference.retrieval_export import export_again

            if format == SENTENCE_TRANSFORMERS or int8:
                what = "in int8" if int8 else "for sentence-transformers"
                raise UserError(
                    f"{source} is a student of retrieval, whose small towers are not written {what}. Leave that out."
                )
            ends = {split: intervals(clips, None, metrics[split]) for split, clips in scored.items() if clips}
            export_again(folder, out, metrics, format, intervals=ends, publication=publication)
            return ExportSummary(out, "two towers", "onnxruntime" if format == ONNX else "torch", None)
        card = verify_export(folder).card
        student, tokenizer, _ = load_student(folder)
    known = {split: clips for split, clips in scored.items() if clips and (card.labels or card.classes)}
    ends = {split: intervals(clips, card.labels, metrics[split]) for split, clips in known.items()}
    card = dataclasses.replace(
        card,
        metrics={**card.metrics, **metrics},
        intervals={**card.intervals, **ends},
        publication=publication or card.publication,
    )
    sample = texts or _sample_of(scored, card) if int8 else None
    return export_student(student, tokenizer, out, card=card, format=format, int8=sample)


def _sample_of(scored: Mapping[str, ScoredClips | None], card: ModelCard) -> TextSample:
    """The texts that a run was evaluated on, of one split."""
    for split in ("test", "valid", "train"):
        if (clips := scored.get(split)) is None:
            continue
        rows = [row for row, text in enumerate(clips.text) if text.strip()]
        if rows:
            # A student with context reads more than these texts, so their labels say little about its errors here.
            label = None if card.context else clips.label[rows]
            return TextSample([clips.text[row] for row in rows], f"{split} split of the run", label)
    return sample_texts()


def _require_possible(format: str, int8: bool) -> None:
    if int8 and format != ONNX:
        raise UserError("int8 is for ONNX files. Give --format onnx, too.")
    if format == ONNX:
        require_onnx()


def _write_onnx(
    student: "TextStudent", tokenizer: "PreTrainedTokenizerBase", folder: Path, card: ModelCard, int8: TextSample | None
) -> Int8Cost | None:
    """Write `model.onnx`, in int8 if there are texts to measure that on."""
    import torch

    from vadv_dist.inference.layouts import LogitsStudent

    tokens = min(6, card.max_tokens)
    inputs = {"input_ids": torch.ones(2, tokens, dtype=torch.long), "attention_mask": torch.ones(2, tokens).long()}
    inputs["attention_mask"][1, tokens // 2 :] = 0
    path = folder / "model.onnx"
    module = LogitsStudent(copy.deepcopy(student).cpu().float().eval())
    if int8 is None:
        write_onnx(module, path, inputs, ("rows", "tokens"), "logits")
        return None
    with scratch_folder() as scratch:
        exact = scratch / "fp32.onnx"
        write_onnx(module, exact, inputs, ("rows", "tokens"), "logits")
        quantize_onnx(exact, path)
        return int8_cost(exact, path, tokenizer, card.max_tokens, int8, card.classes)


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


def _evaluations(run: Location, folder: Location) -> dict[str, dict[str, Any]]:
    """The evaluations by `vadv evaluate` of a run's student, by split, if they are of its best step and data."""
    if not (run / "result.json").is_file():
        return {}
    result = read_json(run / "result.json")
    best_step, own = result.get("best_step"), _fingerprints(result)
    found = {}
    for path in sorted([*folder.glob("evaluation-*.json")], key=str):
        evaluation = read_json(path)
        of_this_run = evaluation.get("step") == best_step and _fingerprints(evaluation) in (own, [])
        if of_this_run and isinstance(evaluation.get("student"), dict):
            found[path.name.removeprefix("evaluation-").removesuffix(".json")] = evaluation
    return found


def _fingerprints(document: Mapping[str, Any]) -> list[str]:
    return [str(entry.get("fingerprint")) for entry in document.get("data", [])]
