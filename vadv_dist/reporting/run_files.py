"""Read what a run left in its folder, and say clearly what is missing or damaged."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vadv_dist.errors import UserError
from vadv_dist.formats.json_text import JsonError, parse_json
from vadv_dist.reporting.provenance import TRAINED_ON, require_own_data
from vadv_dist.storage import read_json

if TYPE_CHECKING:
    from vadv_dist.evaluation.label_scale import LabelScale

# Readers of a clip, in the order of every table and figure; column of each in a predictions file.
LOGIT_COLUMNS = {"student": "text_logit", "video": "video_logit", "prompt": "prompt_logit"}
RUN_FILES = (
    "config.yaml",
    TRAINED_ON,
    "metrics.jsonl",
    "result.json",
    *(f"evaluation-{split}.json" for split in ("valid", "test")),
    *(f"predictions-{split}.parquet" for split in ("valid", "test")),
)
_TEXT_COLUMNS = ("clip_id", "source", "text")

Metrics = Mapping[str, float | None]
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
class Evaluation:
    """What `vadv evaluate` wrote for one split."""

    split: str
    step: int | None
    metrics: dict[str, Metrics]
    sources: dict[str, dict[str, Metrics]]
    predictions: Predictions
    scale: "LabelScale"


@dataclass(frozen=True)
class RunRecord:
    """A run's folder, read.

    Attributes:
        path: the folder, or a copy of it on this machine.
        uri: the folder as the user gave it.
        config: resolved configuration as plain containers.
        config_text: the same as it stands in `config.yaml`.
        result: `result.json`; None while the run has not ended.
        steps, epochs: lines of `metrics.jsonl` in order of step.
        evaluation: the test split's where it was evaluated, else the validation split's, else None.
        called: what it is called beside another run of the same name.
    """

    path: Path
    uri: str
    config: Record
    config_text: str
    result: Record | None
    steps: list[Record]
    epochs: list[Record]
    evaluation: Evaluation | None
    called: str | None = None

    @cached_property
    def name(self) -> str:
        """The run's name, or what it is called here."""
        return self.called or str(self.section("run").get("name") or self.path.resolve().name)

    @property
    def has_teacher(self) -> bool:
        """Whether a teacher was trained beside the student."""
        return self.section("objective").get("kind") != "none"

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
    steps, epochs = read_log(log)
    if not steps and not epochs:
        raise UserError(f"{log} holds no steps yet. Wait until the run has logged some, and report on it again.")
    config_text, config = _read_config(path / "config.yaml")
    result = path / "result.json"
    return RunRecord(
        path=path,
        uri=uri or str(path),
        config=config,
        config_text=config_text,
        result=read_json(result) if result.is_file() else None,
        steps=steps,
        epochs=epochs,
        evaluation=read_evaluation(path, "test") or read_evaluation(path, "valid"),
    )


def read_log(path: Path) -> tuple[list[Record], list[Record]]:
    """Read the step lines and the epoch lines of a `metrics.jsonl`, in order of step.

    A last line that breaks off is left out: the run may be writing it. Where a run was continued after a crash, a step
    may stand there twice; the later line counts. Lines of other kinds are left out.

    Raises:
        UserError: a line is not a JSON object, or lacks its step.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    kept: dict[str, dict[int, Record]] = {"step": {}, "epoch": {}}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = parse_json(line)
        except JsonError as error:
            if number == len(lines):
                break
            raise UserError(
                f"{path}, line {number}, is damaged: {error}. Remove that line to report on the others."
            ) from None
        if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
            raise UserError(f"{path}, line {number}, is {_shown(line)}, expected an object with a `kind`.")
        if (kind := record["kind"]) in kept:
            step = record.get("step")
            if not isinstance(step, int):
                raise UserError(f"{path}, line {number}, has step {step!r}, expected a whole number.")
            kept[kind][step] = record
    steps, epochs = ([records[step] for step in sorted(records)] for records in kept.values())
    return steps, epochs


def read_evaluation(run: Path, split: str) -> Evaluation | None:
    """Read the evaluation of a split and its predictions; None where the run has not both.

    Raises:
        UserError: one of the files is damaged, or they do not belong together.
    """
    document, table = run / f"evaluation-{split}.json", run / f"predictions-{split}.parquet"
    if not document.is_file() or not table.is_file():
        return None
    raw = read_json(document)
    again = evaluate_command(str(run), split)
    require_own_data(run, document, raw, again)
    metrics = metrics_of(raw)
    if "student" not in metrics:
        raise UserError(f"{document} has no metrics of the student. Evaluate the run again: {again}.")
    scale = scale_of(raw, str(document), again)
    predictions = read_predictions(table, again)
    if missing := [reader for reader in metrics if reader not in predictions.logits]:
        raise UserError(
            f"{document} scores {', '.join(missing)} but {table.name} has no such column, so they are not of one "
            f"evaluation. Evaluate the run again: {again}."
        )
    step, sources = raw.get("step"), raw.get("sources")
    by_source = {name: metrics_of(part) for name, part in sources.items()} if isinstance(sources, Mapping) else {}
    return Evaluation(split, step if isinstance(step, int) else None, metrics, by_source, predictions, scale)


def scale_of(raw: Record, name: str, again: str) -> "LabelScale":
    """The range of labels that an evaluation was of.

    Raises:
        UserError: it does not say.
    """
    from vadv_dist.evaluation.label_scale import LabelScale

    try:
        return LabelScale.from_json(raw["labels"])
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f"{name} does not say what range the labels are in, as that of an older version. Evaluate again: {again}."
        ) from None


def read_predictions(path: Path, again: str) -> Predictions:
    """Read a predictions file.

    Args:
        path: the Parquet file.
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
    needed = (*_TEXT_COLUMNS, "label", LOGIT_COLUMNS["student"])
    if missing := [name for name in needed if name not in table.column_names]:
        raise UserError(f"{path} has no column {', '.join(missing)}. Evaluate the run again: {again}.")
    label = _numbers(table, "label")
    if not label:
        raise UserError(f"{path} holds no clips. Evaluate the run again: {again}.")
    student = _numbers(table, LOGIT_COLUMNS["student"])
    for name, values in (("label", label), (LOGIT_COLUMNS["student"], student)):
        if bad := sum(not math.isfinite(value) for value in values):
            raise UserError(f"{path} has {bad} values of {name} that are not finite numbers. Evaluate again: {again}.")
    texts = {name: [str(value) for value in table.column(name).to_pylist()] for name in _TEXT_COLUMNS}
    logits = {
        reader: _numbers(table, column) for reader, column in LOGIT_COLUMNS.items() if column in table.column_names
    }
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


def metrics_of(raw: object) -> dict[str, Metrics]:
    """Scores by reader; None where one has no value, as the correlation of a constant."""
    if not isinstance(raw, Mapping):
        return {}
    return {
        reader: {name: value if isinstance(value, int | float) else None for name, value in raw[reader].items()}
        for reader in LOGIT_COLUMNS
        if isinstance(raw.get(reader), Mapping)
    }


def _numbers(table: Any, column: str) -> list[float]:
    values: Sequence[object] = table.column(column).to_pylist()
    return [float(value) if isinstance(value, int | float) else math.nan for value in values]


def _shown(line: bytes) -> str:
    text = line.decode("utf-8", errors="replace").strip()
    return repr(text if len(text) <= 60 else f"{text[:57]}…")
