"""`vadv_export.json`: the description of an exported student, and the hashes that verify its files."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from vadv_dist import __version__
from vadv_dist.errors import UserError
from vadv_dist.evaluation.label_scale import LabelScale
from vadv_dist.inference.model_card import ModelCard
from vadv_dist.storage import Location, location, read_json, sha256_file

MANIFEST = "vadv_export.json"
WEIGHTS = "model.safetensors"
FORMAT_VERSION = 1
PYTORCH, ONNX, SENTENCE_TRANSFORMERS = "pytorch", "onnx", "sentence-transformers"
SENTIMENT, RETRIEVAL = "sentiment", "retrieval"
_STUDENTS = {
    SENTIMENT: "a student of sentiment, which reads texts. Use `vadv predict`, or give a student of retrieval",
    RETRIEVAL: "a student of retrieval, which reads audio and visual vectors. Use `vadv retrieve`, or give a student "
    "of sentiment",
}

Parsed = TypeVar("Parsed")


@dataclass(frozen=True)
class ExportManifest:
    """The contents of `vadv_export.json`, apart from the files' hashes.

    Args:
        card: facts about the student.
        pooling, hidden, dropout: arguments of its `TextStudent`.
        architecture, custom_reason: class that loads it; why no standard class does, or None.
        encoder_class: class of transformers that loads its encoder; empty if that was not recorded.
    """

    card: ModelCard
    pooling: Literal["cls", "mean"]
    hidden: int
    dropout: float
    architecture: str
    custom_reason: str | None
    encoder_class: str = ""


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
    inner = sorted(path.name for path in source.iterdir() if (path / "student" / MANIFEST).is_file())
    advice = "Give the folder of a run, or one written by `vadv export`."
    if inner:
        advice = f"It contains runs: give one of them, such as {source / inner[0]}."
    raise UserError(
        f"{source} is neither a run nor an export: it has no student/{MANIFEST} and no {MANIFEST}. {advice}"
    )


def read_manifest(folder: Location) -> dict[str, Any]:
    """Read `vadv_export.json` of a folder, whose files are not verified.

    Raises:
        UserError: no manifest, or one of another format version.
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
    return raw


def task_of(raw: Mapping[str, Any]) -> str:
    """The kind of task in a manifest."""
    return str(raw.get("task", SENTIMENT))


def classes_of(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the classes in the manifest of a text student; none if it predicts a number."""
    names = raw.get("classes")  # of a student of retrieval, their number
    return tuple(map(str, names)) if isinstance(names, list) else ()


def words_of(raw: Mapping[str, Any]) -> dict[str, float]:
    """Numbers by the words that stood for them in the training data, from the manifest of a text student."""
    words = raw.get("words")
    found = words.items() if isinstance(words, dict) else ()
    return {str(word): float(number) for word, number in found if isinstance(number, int | float)}


def format_of(raw: Mapping[str, Any]) -> str:
    """The format in a manifest."""
    return str(raw.get("format", PYTORCH))


def verify_export(folder: Path, *formats: str) -> ExportManifest:
    """Check every file of a text student's export against its manifest.

    Args:
        folder: the export.
        formats: those that the caller loads; without any, `PYTORCH`.
    Raises:
        UserError: no manifest, a malformed one, or a file that is missing, damaged or not listed; or another kind of
            student, or another format.
    """
    needed = {PYTORCH: {"config.json", WEIGHTS}, ONNX: {"model.onnx"}}
    return verified(folder, SENTIMENT, _parse_manifest, {name: needed[name] for name in formats or (PYTORCH,)})


def verified(
    folder: Path,
    task: str,
    parse: Callable[[Mapping[str, Any]], Parsed],
    needed: Mapping[str, set[str]],
) -> Parsed:
    """Check every file of an export against its manifest, and return the parsed manifest.

    Args:
        folder: the export.
        task: the kind of task whose student is expected.
        parse: parses the JSON document; may raise KeyError, TypeError, ValueError or AttributeError.
        needed: names of files that the caller loads, by format.
    Raises:
        UserError: see `verify_export`.
    """
    path, raw = folder / MANIFEST, read_manifest(folder)
    if (format := format_of(raw)) not in needed:
        raise UserError(
            f"{folder} is an export for other programs ({format}), which this command does not load. Give the run, or "
            "an export without --format."
        )
    if task_of(raw) != task:
        raise UserError(f"{folder} is {_STUDENTS.get(task_of(raw), 'of an unknown task')}.")
    try:
        manifest = parse(raw)
        files = _sha256_by_name(raw)
        if missing := needed[format] - set(files):
            raise ValueError(f"it does not list {', '.join(sorted(missing))}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise UserError(f"{path} is malformed ({what}). Export the run again.") from None
    verify_files(folder, files)
    return manifest


def listed_files(raw: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of an export's files by name, from its manifest.

    Raises:
        UserError: the manifest has none.
    """
    try:
        return _sha256_by_name(raw)
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{MANIFEST} is malformed: it does not list files. Export the run again.") from None


def _sha256_by_name(raw: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): str(entry["sha256"]) for name, entry in raw["files"].items()}


def verify_files(folder: Path, files: Mapping[str, str]) -> None:
    """Check that a folder has exactly the files of its manifest.

    Args:
        folder: the export.
        files: SHA-256 by name.
    Raises:
        UserError: a file is missing, damaged or not listed.
    """
    present = _present(folder)
    for name, digest in files.items():
        if name not in present:
            raise UserError(f"{folder / name} is missing, but {MANIFEST} lists it. Export the run again.")
        if sha256_file(folder / name) != digest:
            raise UserError(
                f"{folder / name} is damaged or was changed: its SHA-256 differs from {MANIFEST}. "
                "Export the run again, or restore the file."
            )
    # The mere presence of some files affects transformers, but not of hidden ones (.git, .gitattributes) and of what
    # Python leaves when it imports a modelling file.
    strange = sorted(n for n in present - set(files) if not any(_is_harmless(part) for part in Path(n).parts))
    if strange:
        raise UserError(f"{folder / strange[0]} is not listed in {MANIFEST}. Move it out of the export.")


def unlisted_files(folder: Path) -> list[str]:
    """Files of an export's folder that its manifest does not list, sorted, but for what Python leaves.

    Raises:
        UserError: the manifest is malformed or of another version.
    """
    listed = listed_files(read_manifest(folder))
    return sorted(name for name in _present(folder) - set(listed) if "__pycache__" not in Path(name).parts)


def _present(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {MANIFEST}


def _is_harmless(part: str) -> bool:
    return part.startswith(".") or part == "__pycache__"


def manifest_json(manifest: ExportManifest, files: Mapping[str, Any], **extra: Any) -> dict[str, Any]:
    """The JSON document of `vadv_export.json`; `extra` are further fields."""
    fields = asdict(manifest)
    return document({**fields.pop("card"), **fields, **extra}, files)


def document(fields: Mapping[str, Any], files: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest's fields as its JSON document; in `metrics`, a value that is not finite becomes null."""
    metrics = {
        split: {name: None if v is None or not math.isfinite(v) else v for name, v in values.items()}
        for split, values in fields["metrics"].items()
    }
    versions = {"format_version": FORMAT_VERSION, "vadv_version": __version__}
    return {**versions, **fields, "metrics": metrics, "files": dict(files)}


def _parse_manifest(raw: Mapping[str, Any]) -> ExportManifest:
    labels = None if raw.get("labels") is None else LabelScale.from_json(raw["labels"])
    card = TypeAdapter(ModelCard).validate_python({**raw, "labels": labels})
    return TypeAdapter(ExportManifest).validate_python({**raw, "card": card})
