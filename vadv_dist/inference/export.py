"""Hand over a student as a Hugging Face folder, and load such a folder back once its files are verified."""

import copy
import dataclasses
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vadv_dist import __version__
from vadv_dist.errors import UserError
from vadv_dist.inference.model_card import ModelCard, render
from vadv_dist.storage import atomic_directory, file_entries, read_json, require_absent, sha256_file, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from vadv_dist.models.text_student import TextStudent

__all__ = [
    "ExportManifest",
    "ExportSummary",
    "ModelCard",
    "export_run",
    "export_student",
    "load_student",
    "resolve_student",
    "verify_export",
]

MANIFEST = "vadv_export.json"
WEIGHTS = "model.safetensors"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class ExportSummary:
    """What was written.

    Args:
        folder: where it is.
        architecture: class that loads it.
        custom_reason: why the folder carries its own modelling file and needs `trust_remote_code=True`; None where a
            standard class of transformers loads it.
    """

    folder: Path
    architecture: str
    custom_reason: str | None

    @property
    def needs_remote_code(self) -> bool:
        """Whether loading it elsewhere takes `trust_remote_code=True`."""
        return self.custom_reason is not None

    def __str__(self) -> str:
        if self.custom_reason is None:
            return f"{self.folder} ({self.architecture}, loads in transformers as it is)"
        return (
            f"{self.folder} ({self.architecture}, loads in transformers with trust_remote_code=True: "
            f"{self.custom_reason})"
        )


@dataclass(frozen=True)
class ExportManifest:
    """What `vadv_export.json` says, besides the files' hashes.

    Args:
        card: what is known of the student.
        pooling, hidden, dropout: how its `TextStudent` is built.
        architecture, custom_reason: as in `ExportSummary`.
    """

    card: ModelCard
    pooling: Literal["cls", "mean"]
    hidden: int
    dropout: float
    architecture: str
    custom_reason: str | None


def export_student(
    student: "TextStudent",
    tokenizer: "PreTrainedTokenizerBase",
    out: Path,
    *,
    card: ModelCard,
    replace: bool = False,
) -> ExportSummary:
    """Write a student as a folder that transformers loads without this package; it appears whole or not at all.

    `AutoModelForSequenceClassification` gives logits [B, 1] equal to the student's within 1e-5. Weights are fp32.

    Args:
        student: the model, on any device; it is not changed.
        tokenizer: its tokenizer; a copy is saved whose `model_max_length` is `card.max_tokens`.
        out: the folder to make.
        card: what the model card and `vadv_export.json` say.
        replace: put the new folder in the place of an old one, instead of refusing.
    Raises:
        UserError: `out` exists and `replace` is false.
    """
    from safetensors.torch import save_file

    from vadv_dist.inference import modeling_text_student
    from vadv_dist.inference.layouts import MODELING_FILE, to_layout

    if not replace:
        require_absent(out, "an export", "Give another folder, or remove this one.")
    layout = to_layout(student)
    manifest = ExportManifest(
        card=card,
        pooling=student.pooling,
        hidden=student.dense.out_features,
        dropout=student.drop.p,
        architecture=layout.architecture,
        custom_reason=layout.custom_reason,
    )
    with atomic_directory(out) as folder:
        layout.config.save_pretrained(folder)
        save_file(layout.weights, folder / WEIGHTS, metadata={"format": "pt"})
        _portable(tokenizer, card.max_tokens).save_pretrained(folder)
        if layout.custom_reason is not None:
            shutil.copyfile(modeling_text_student.__file__, folder / MODELING_FILE)
        text = render(
            card,
            pooling=manifest.pooling,
            hidden=manifest.hidden,
            architecture=layout.architecture,
            custom_reason=layout.custom_reason,
        )
        (folder / "README.md").write_text(text, encoding="utf-8")
        write_json(folder / MANIFEST, _manifest_json(manifest, files=file_entries(folder)))
        if replace and out.is_dir():
            shutil.rmtree(out)
    return ExportSummary(out, layout.architecture, layout.custom_reason)


def export_run(source: Path, out: Path) -> ExportSummary:
    """Write the student of a run to a folder of its own, its card completed with the run's evaluations.

    Args:
        source: a run, or an earlier export.
        out: the folder to make.
    Raises:
        UserError: `out` exists, or `source` has no student, or one with damaged files.
    """
    require_absent(out, "an export", "Give another folder, or remove this one.")
    folder = resolve_student(source)
    card = verify_export(folder).card
    student, tokenizer, _ = load_student(folder)
    card = dataclasses.replace(card, metrics={**card.metrics, **_evaluations(source)})
    return export_student(student, tokenizer, out, card=card)


def load_student(folder: Path) -> tuple["TextStudent", "PreTrainedTokenizerBase", int]:
    """Load an export as the model it was made from, in eval mode; every file is verified before any is read.

    No code of the folder is run: a modelling file in it serves transformers alone.

    Returns:
        the student, its tokenizer, and the number of tokens after which texts are cut.
    Raises:
        UserError: not an export, or a file is missing, damaged or not listed.
    """
    manifest = verify_export(folder)

    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig

    from vadv_dist.inference.layouts import build_student
    from vadv_dist.inference.modeling_text_student import TextStudentConfig

    config: PreTrainedConfig
    if manifest.custom_reason is None:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    else:
        config = TextStudentConfig.from_pretrained(folder, local_files_only=True)
    student = build_student(
        config,
        load_file(folder / WEIGHTS),
        pooling=manifest.pooling,
        hidden=manifest.hidden,
        dropout=manifest.dropout,
    )
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return student.eval(), tokenizer, manifest.card.max_tokens


def resolve_student(source: str | Path) -> Path:
    """Find the exported student of a run or an export.

    Raises:
        UserError: no such folder, a run that has no student yet, or a folder that is neither.
    """
    source = Path(source)
    if not source.is_dir():
        what = "is a file" if source.is_file() else "does not exist"
        raise UserError(f"{source} {what}. Give the folder of a run, or one that `vadv export` wrote.")
    for folder in (source, source / "student"):
        if (folder / MANIFEST).is_file():
            return folder
    if (source / "config.yaml").is_file() or (source / "checkpoints").is_dir():
        raise UserError(
            f"Run {source} has no student yet: it is exported when training ends. "
            "Run `vadv train` with the run's config to the end."
        )
    raise UserError(
        f"{source} is neither a run nor an export: it has no student/{MANIFEST} and no {MANIFEST}. "
        "Give the folder of a run, or one that `vadv export` wrote."
    )


def verify_export(folder: Path) -> ExportManifest:
    """Check every file of an export against its manifest.

    Raises:
        UserError: no manifest, a malformed one, or a file that is missing, damaged or not listed.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(f"{folder} has no {MANIFEST}, so it is not an export. Give a folder that `vadv export` wrote.")
    raw = read_json(path)
    if raw.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{path} has format_version {raw.get('format_version')!r}, this version reads {FORMAT_VERSION}. "
            "Export again with this version, or use the version that wrote it."
        )
    try:
        manifest = _parse_manifest(raw)
        files = {str(name): str(entry["sha256"]) for name, entry in raw["files"].items()}
        if missing := {"config.json", WEIGHTS} - set(files):
            raise ValueError(f"it does not list {', '.join(sorted(missing))}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is malformed ({type(error).__name__}: {error}). Export the run again.") from None
    present = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} - {MANIFEST}
    for name, digest in files.items():
        if name not in present:
            raise UserError(f"{folder / name} is missing: {MANIFEST} lists it. Export the run again.")
        if sha256_file(folder / name) != digest:
            raise UserError(
                f"{folder / name} is damaged or was changed: its SHA-256 is not the one in {MANIFEST}. "
                "Export the run again, or copy the file again from where it is whole."
            )
    # Transformers reads some files for their mere presence; hidden ones (.git, .gitattributes) it does not.
    strange = sorted(n for n in present - set(files) if not any(part.startswith(".") for part in Path(n).parts))
    if strange:
        raise UserError(f"{folder / strange[0]} is not listed in {MANIFEST}. Move it out of the export.")
    return manifest


def _portable(tokenizer: "PreTrainedTokenizerBase", max_tokens: int) -> "PreTrainedTokenizerBase":
    """A copy that cuts at `max_tokens` and carries no padding or truncation over from earlier calls."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.model_max_length = max_tokens
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
    return tokenizer


def _evaluations(run: Path) -> dict[str, dict[str, float | None]]:
    """The student's metrics that `vadv evaluate` left in a run, by split, where they are of its best step."""
    if not (run / "result.json").is_file():
        return {}
    best_step = read_json(run / "result.json").get("best_step")
    found = {}
    for path in sorted(run.glob("evaluation-*.json")):
        evaluation = read_json(path)
        if evaluation.get("step") == best_step and isinstance(evaluation.get("student"), dict):
            found[path.stem.removeprefix("evaluation-")] = evaluation["student"]
    return found


def _manifest_json(manifest: ExportManifest, files: Mapping[str, Any]) -> dict[str, Any]:
    card = manifest.card
    metrics = {
        split: {name: None if v is None or not math.isfinite(v) else v for name, v in values.items()}
        for split, values in card.metrics.items()
    }
    return {
        "format_version": FORMAT_VERSION,
        "vadv_version": __version__,
        "name": card.name,
        "encoder": card.encoder,
        "max_tokens": card.max_tokens,
        "pooling": manifest.pooling,
        "hidden": manifest.hidden,
        "dropout": manifest.dropout,
        "architecture": manifest.architecture,
        "custom_reason": manifest.custom_reason,
        "metrics": metrics,
        "data": [dict(entry) for entry in card.data],
        "config": dict(card.config),
        "files": dict(files),
    }


def _parse_manifest(raw: Mapping[str, Any]) -> ExportManifest:
    reason, pooling = raw["custom_reason"], raw["pooling"]
    if pooling not in ("cls", "mean"):
        raise ValueError(f"pooling is {pooling!r}")
    return ExportManifest(
        card=ModelCard(
            name=str(raw["name"]),
            encoder=str(raw["encoder"]),
            max_tokens=int(raw["max_tokens"]),
            metrics={str(split): dict(values) for split, values in raw["metrics"].items()},
            data=[dict(entry) for entry in raw["data"]],
            config=dict(raw["config"]),
        ),
        pooling=pooling,
        hidden=int(raw["hidden"]),
        dropout=float(raw["dropout"]),
        architecture=str(raw["architecture"]),
        custom_reason=None if reason is None else str(reason),
    )
