"""`vadv_export.json`: the description of an exported student, and the hashes that verify its files."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from vadv_dist import __version__
from vadv_dist.errors import UserError
from vadv_dist.evaluation.label_scale import LabelScale
from vadv_dist.inference.model_card import ModelCard
from vadv_dist.storage import Location, location, read_json, sha256_file

MANIFEST = "vadv_export.json"
WEIGHTS = "model.safetensors"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class ExportManifest:
    """The contents of `vadv_export.json`, apart from the files' hashes.

    Args:
        card: facts about the student.
        pooling, hidden, dropout: arguments of its `TextStudent`.
        architecture, custom_reason: class that loads it; why no standard class does, or None.
    """

    card: ModelCard
    pooling: Literal["cls", "mean"]
    hidden: int
    dropout: float
    architecture: str
    custom_reason: str | None


def resolve_student(source: str | Location) -> Location:
    """Find the exported student of a run or an export.

    Raises:
        UserError: no such folder, a run without a student, or a folder that is neither.
    """
    source = location(source)
    if not source.is_dir():
        what = "is a file" if source.is_file() else "does not exist"
        raise UserError(f"{source} {what}. Give the folder of a run, or one written by `vadv export`.")
    for folder in (source, source / "student"):
        if (folder / MANIFEST).is_file():
            return folder
    if (source / "config.yaml").is_file() or (source / "checkpoints").is_dir():
        raise UserError(
            f"Run {source} has no student yet: it is exported when training ends. "
            "Finish the run with `vadv train` and the run's config."
        )
    raise UserError(
        f"{source} is neither a run nor an export: it has no student/{MANIFEST} and no {MANIFEST}. "
        "Give the folder of a run, or one written by `vadv export`."
    )


def verify_export(folder: Path) -> ExportManifest:
    """Check every file of an export against its manifest.

    Raises:
        UserError: no manifest, a malformed one, or a file that is missing, damaged or not listed.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(f"{folder} has no {MANIFEST}, so it is not an export. Give a folder written by `vadv export`.")
    raw = read_json(path)
    if raw.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{path} has format_version {raw.get('format_version')!r}, but this version reads {FORMAT_VERSION}. "
            "Export again with this version, or use the version that wrote it."
        )
    try:
        manifest = _parse_manifest(raw)
        files = {str(name): str(entry["sha256"]) for name, entry in raw["files"].items()}
        if missing := {"config.json", WEIGHTS} - set(files):
            raise ValueError(f"it does not list {', '.join(sorted(missing))}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise UserError(f"{path} is malformed ({what}). Export the run again.") from None
    present = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} - {MANIFEST}
    for name, digest in files.items():
        if name not in present:
            raise UserError(f"{folder / name} is missing, but {MANIFEST} lists it. Export the run again.")
        if sha256_file(folder / name) != digest:
            raise UserError(
                f"{folder / name} is damaged or was changed: its SHA-256 differs from {MANIFEST}. "
                "Export the run again, or restore the file."
            )
    # The mere presence of some files affects transformers, but not of hidden ones (.git, .gitattributes).
    strange = sorted(n for n in present - set(files) if not any(part.startswith(".") for part in Path(n).parts))
    if strange:
        raise UserError(f"{folder / strange[0]} is not listed in {MANIFEST}. Move it out of the export.")
    return manifest


def manifest_json(manifest: ExportManifest, files: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON document of `vadv_export.json`; a metric that is not finite becomes null."""
    fields = asdict(manifest)
    card = fields.pop("card")
    card["metrics"] = {
        split: {name: None if v is None or not math.isfinite(v) else v for name, v in values.items()}
        for split, values in card["metrics"].items()
    }
    return {"format_version": FORMAT_VERSION, "vadv_version": __version__, **card, **fields, "files": dict(files)}


def _parse_manifest(raw: Mapping[str, Any]) -> ExportManifest:
    labels = None if raw.get("labels") is None else LabelScale.from_json(raw["labels"])
    card = TypeAdapter(ModelCard).validate_python({**raw, "labels": labels})
    return TypeAdapter(ExportManifest).validate_python({**raw, "card": card})
