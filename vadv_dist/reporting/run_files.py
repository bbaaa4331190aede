"""Read what a run left in its folder, and say clearly what is missing or damaged."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vadv_dist.errors import UserError
from vadv_dist.evaluation.description import TaskDescription
from vadv_dist.formats.json_text import JsonError, parse_json
from vadv_dist.reporting.provenance import TRAINED_ON, require_own_data
from vadv_dist.reporting.words import score
from vadv_dist.runs.records import (
    EpochLine,
    Evaluation,
    Metrics,
    RecordError,
    RunResult,
    StartLine,
    StepLine,
    parse_line,
)

if TYPE_CHECKING:
    from vadv_dist.evaluation.label_scale import LabelScale

RUN_FILES = (
    "config.yaml",
    TRAINED_ON,
    "metrics.jsonl",
    "result.json",
    *(f"evaluation-{split}.json" for split in ("valid", "test")),
    *(f"predictions-{split}.parquet" for split in ("valid", "test")),
)
_TEXT_COLUMNS = ("clip_id", "source", "text")

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Predictions:
    """A predictions file: one entry per clip in every field, [R]; nan where a reader has no answer."""

    clip_id: list[str]
    source: list[str]
    text: list[str]
    label: list[float]
    logits: dict[str, list[float]]

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class Scored:
    """What `vadv evaluate` wrote for one split: the document, and the predictions beside it."""

    document: Evaluation
    predictions: Predictions

    @property
    def split(self) -> str:
        """The split whose clips were scored."""
        return self.document.split

    @property
    def task(self) -> TaskDescription:
        """The task's outputs and metrics."""
        return self.document.task

    @property
    def scale(self) -> "LabelScale":
        """Range and threshold of the labels."""
        assert self.document.labels is not None  # a run of class labels has other sections
        return self.document.labels

    @property
    def score(self) -> float | None:
        """The student's score."""
        return value(self.document.metrics, self.task)

    @property
    def score_text(self) -> str:
        """The student's score as it is written."""
        return score(self.score, percent=self.task.score_metric.percent)


@dataclass(frozen=True)
class RunRecord:
    """A run's folder, read.

    Attributes:
        path: the folder, or a copy of it on this machine.
        uri: the folder as the user gave it.
        config: resolved configuration as plain containers.
        config_text: the same as it stands in `config.yaml`.
        task: the task's terms, outputs and metrics.
        result: `result.json`; None while the run has not ended.
        steps, epochs: lines of `metrics.jsonl` in order of step.
        evaluation: the test split's where it was evaluated, else the validation split's, else None.
        called: what it is called beside another run of the same name.
    """

    path: Path
    uri: str
    config: Record
    config_text: str
    task: TaskDescription
    result: RunResult | None
    steps: list[StepLine]
    epochs: list[EpochLine]
    evaluation: Scored | None
    called: str | None = None

    @cached_property
    def name(self) -> str:
        """The run's name, or what it is called here."""
        return self.called or str(self.section("run").get("name") or self.path.resolve().name)

    @property
    def has_teacher(self) -> bool:
        """Whether a teacher was trained beside the student."""
        return self.section("objective").get("kind") != "none"

    @property
    def weighting(self) -> str:
        """The kind of what weighs the loss terms."""
        weighting = self.section("objective").get("weighting", "fixed")
        return str(weighting.get("kind", "fixed") if isinstance(weighting, Mapping) else weighting)

    def section(self, name: str) -> Record:
        """One section of the configuration, empty where it has none."""
        section = self.config.get(name)
        return section if isinstance(section, Mapping) else {}


def read_run(path: Path, uri: str | None = None) -> RunRecord:
    """Read a run's folder.

    Args:
        path: the folder, or a copy of it on this machine.
        uri: what the user calls it, where that is another place.

    Raises:
        UserError: no such folder, not a run, nothing logged in it yet, or a file in it that is damaged.
    """
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise UserError(f"{path} {what}, expected a run's folder: <run.storage>/<run.name> of the training.")
    log = path / "metrics.jsonl"
    if not log.is_file():
        raise UserError(
            f"{path} has no metrics.jsonl, so it is not a run, or one that has not taken its first steps. "
            "Give the folder <run.storage>/<run.name> that `vadv train` writes to."
        )
    task, steps, epochs = read_log(log)
    config_text, config = _read_config(path / "config.yaml")
    result = path / "result.json"
    return RunRecord(
        path=path,
        uri=uri or str(path),
        config=config,
        config_text=config_text,
        task=task,
        result=RunResult.read(result) if result.is_file() else None,
        steps=steps,
        epochs=epochs,
        evaluation=read_evaluation(path, "test") or read_evaluation(path, "valid"),
    )


def read_log(path: Path) -> tuple[TaskDescription, list[StepLine], list[EpochLine]]:
    """Read the task, the step lines and the epoch lines of a `metrics.jsonl`, in order of step.

    A last line that breaks off is left out: the run may be writing it. Where a run was continued after a crash, a step
    may be there twice; the later line counts.

    Raises:
        UserError: a line is damaged, nothing is logged yet, or no line describes the task.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    task: TaskDescription | None = None
    steps: dict[int, StepLine] = {}
    epochs: dict[int, EpochLine] = {}
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            raw = parse_json(text)
        except JsonError as error:
            if number == len(lines):
                break
            raise UserError(
                f"{path}, line {number}, is damaged: {error}. Remove that line to report on the others."
            ) from None
        if not isinstance(raw, dict) or not isinstance(raw.get("kind"), str):
            raise UserError(f"{path}, line {number}, is {_shown(text)}, expected an object with a `kind`.")
        try:
            line = parse_line(raw)
        except RecordError as error:
            raise RecordError(f"{path}, line {number},", error.field, error.problem) from None
        if isinstance(line, StartLine):
            task = line.task
        elif isinstance(line, StepLine):
            steps[line.step] = line
        elif isinstance(line, EpochLine):
            epochs[line.step] = line
    if not steps and not epochs:
        raise UserError(f"{path} holds no steps yet. Wait until the run has logged some, and report on it again.")
    if task is None:
        raise UserError(f"{path} has no line that begins the run. Give the folder of a run as `vadv train` wrote it.")
    return task, [steps[step] for step in sorted(steps)], [epochs[step] for step in sorted(epochs)]


def read_evaluation(run: Path, split: str) -> Scored | None:
    """Read the evaluation of a split and its predictions; None where the run has not both.

    Raises:
        UserError: one of the files is damaged, or they do not belong together.
    """
    path, table = run / f"evaluation-{split}.json", run / f"predictions-{split}.parquet"
    if not path.is_file() or not table.is_file():
        return None
    again = evaluate_command(str(run), split)
    document = Evaluation.read(path)
    require_own_data(run, path, document.data, again)
    outputs = {output.name: output.column for output in document.task.outputs if output.name in document.metrics}
    if document.task.student.name not in outputs:
        raise UserError(f"{path} has no metrics of the student. Evaluate the run again: {again}.")
    return Scored(document, read_predictions(table, outputs, again))


def value(metrics: Metrics, task: TaskDescription, output: str | None = None) -> float | None:
    """The score of an output (the student's by default); None where it has none."""
    return metrics.get(output or task.student.name, {}).get(task.score)


def read_predictions(path: Path, outputs: Mapping[str, str], again: str) -> Predictions:
    """Read a predictions file.

    Args:
        path: the Parquet file.
        outputs: column of each output by name; the first must have a value on every clip.
        again: the command that writes it anew, for messages.
    Raises:
        UserError: not Parquet, a column missing, no rows, or a label that is not a finite number.
    """
    import pyarrow as pa

    from vadv_dist.formats.parquet import read_table

    try:
        table = read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read as Parquet: {error}. Evaluate the run again: {again}.") from None
    needed = (*_TEXT_COLUMNS, "label", *outputs.values())
    if missing := [name for name in needed if name not in table.column_names]:
        raise UserError(f"{path} has no column {', '.join(missing)}. Evaluate the run again: {again}.")
    label = _numbers(table, "label")
    if not label:
        raise UserError(f"{path} holds no clips. Evaluate the run again: {again}.")
    student = next(iter(outputs.values()))
    for name, values in (("label", label), (student, _numbers(table, student))):
        if bad := sum(not math.isfinite(value) for value in values):
            raise UserError(f"{path} has {bad} values of {name} that are not finite numbers. Evaluate again: {again}.")
    texts = {name: [str(value) for value in table.column(name).to_pylist()] for name in _TEXT_COLUMNS}
    logits = {name: _numbers(table, column) for name, column in outputs.items()}
    return Predictions(**texts, label=label, logits=logits)


def evaluate_command(uri: str, split: str) -> str:
    """The command that evaluates a run."""
    return f"vadv evaluate {shlex.quote(uri)} --split {split}"


def _read_config(path: Path) -> tuple[str, Record]:
    from vadv_dist.config.yaml_text import parse_yaml

    try:
        text = path.read_text(encoding="utf-8")
        config = parse_yaml(text, path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist, so its folder is not a whole run. Give another folder.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(config, dict):
        raise UserError(f"{path} holds a {type(config).__name__}, expected sections such as `run:` and `data:`.")
    return text, config


def _numbers(table: Any, column: str) -> list[float]:
    values: Sequence[object] = table.column(column).to_pylist()
    return [float(value) if isinstance(value, int | float) else math.nan for value in values]


def _shown(line: bytes) -> str:
    text = line.decode("utf-8", errors="replace").strip()
    return repr(text if len(text) <= 60 else f"{text[:57]}…")
