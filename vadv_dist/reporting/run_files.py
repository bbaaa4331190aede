"""Read the files of a run for its report."""

import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vadv_dist.errors import UserError
from vadv_dist.evaluation.description import Output, TaskDescription
from vadv_dist.formats.json_text import JsonError, parse_json
from vadv_dist.runs.history import RunHistory
from vadv_dist.runs.records import (
    EpochLine,
    Evaluation,
    Line,
    RecordError,
    RunResult,
    StartLine,
    StepLine,
    parse_line,
)

if TYPE_CHECKING:
    from vadv_dist.config import Config
    from vadv_dist.evaluation.label_scale import LabelScale
    from vadv_dist.runs.trained_on import TrainedOn

FloatArray = npt.NDArray[np.float64]

RUN_FILES = (
    *("config.yaml", "trained-on.json", "metrics.jsonl", "result.json"),
    *(f"evaluation-{split}.json" for split in ("valid", "test")),
    *(f"predictions-{split}.parquet" for split in ("valid", "test")),
)


@dataclass(frozen=True)
class Predictions:
    """A predictions file, with one entry per clip in every field; NaN where an output has no prediction.

    Attributes:
        clip_id, source, text: of the clips, [R].
        video_id: of the clips, [R]; empty strings if the file has none.
        label: [R].
        values: predictions by name of the output: values [R], probabilities or scores of classes [R, C], or embeddings
            of audio and visual [R, 2, E].
    """

    clip_id: list[str]
    source: list[str]
    text: list[str]
    video_id: list[str]
    label: FloatArray
    values: dict[str, FloatArray]

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class Scored:
    """An evaluation of one split and its predictions, both written by `vadv evaluate`."""

    document: Evaluation
    predictions: Predictions

    @property
    def split(self) -> str:
        """The evaluated split."""
        return self.document.split

    @property
    def task(self) -> TaskDescription:
        """The task's outputs and metrics."""
        return self.document.task

    @property
    def outputs(self) -> list[Output]:
        """The outputs that have predictions, in the order of every table; the first is the student."""
        return [output for output in self.task.outputs if output.name in self.document.metrics]

    @property
    def scale(self) -> "LabelScale":
        """Range and threshold of the labels, which are numbers."""
        assert self.document.labels is not None  # classes as labels have other sections
        return self.document.labels

    @property
    def retrieves(self) -> bool:
        """Whether the student embeds audio and visual, for retrieval."""
        return self.task.student.holds == "embeddings"

    @property
    def classifies(self) -> bool:
        """Whether the student predicts a probability of each class."""
        return self.task.student.holds == "probabilities"

    @cached_property
    def precisions(self) -> dict[str, FloatArray]:
        """Average precision of each clip as a query by direction, [R] each; of a student that embeds."""
        from vadv_dist.evaluation.retrieval import precision_of_clips

        return precision_of_clips(self.predictions.values[self.task.student.name], self.predictions.label)

    @cached_property
    def clip_scores(self) -> FloatArray:
        """The student's score metric on each clip, whose mean is the metric, [R]; NaN where a clip has none."""
        if self.retrieves:
            scores: FloatArray = np.mean(list(self.precisions.values()), axis=0)
            return scores
        return self.output_scores(self.task.student)

    def output_scores(self, output: Output) -> FloatArray:
        """The score metric of an output on each clip, [R], of tasks whose outputs predict labels; NaN without one."""
        if self.classifies:
            known = ~np.isnan(self.predictions.values[output.name]).any(axis=1)
            return np.where(known, self.is_right(output), np.nan)
        return self.errors(output)

    def errors(self, output: Output) -> FloatArray:
        """How wrong an output is on each clip, [R]; NaN without a prediction.

        A value's distance to the label, or 1 minus the probability of the label's class.
        """
        values, label = self.predictions.values[output.name], self.predictions.label
        if self.classifies:
            return np.asarray(1.0 - values[np.arange(len(label)), label.astype(int)])
        return np.asarray(np.abs(values - label))

    def is_right(self, output: Output) -> npt.NDArray[np.bool_]:
        """Whether an output predicts the label's class, or a value within `tolerance` of it, [R]."""
        if self.classifies:
            values = np.nan_to_num(self.predictions.values[output.name])
            return np.asarray(values.argmax(axis=1) == self.predictions.label)
        return np.asarray(self.errors(output) <= self.tolerance)

    @property
    def tolerance(self) -> float:
        """How far from its label a predicted value counts as right: half a class of seven, 0.5 in [-3, 3]."""
        return self.scale.unit / 2


@dataclass(frozen=True)
class RunRecord:
    """The files of a run.

    Attributes:
        path: the folder, or a copy of it on this machine.
        uri: the folder as given by the user.
        name: the run's name, or its folder if another run on the page has the same name.
        config: its configuration.
        trained_on: what it was trained on; None if that was not recorded.
        task: the task's terms, outputs and metrics.
        result: `result.json`; None if the run is not complete.
        steps, epochs: lines of `metrics.jsonl`, by step.
        history: what all its lines add up to, such as restarts.
        evaluation: of the test split if it was evaluated, else of the validation split, else None.
    """

    path: Path
    uri: str
    name: str
    config: "Config"
    trained_on: "TrainedOn | None"
    task: TaskDescription
    result: RunResult | None
    steps: list[StepLine]
    epochs: list[EpochLine]
    history: RunHistory
    evaluation: Scored | None


def read_run(path: Path, uri: str | None = None, *, evaluations: Path | None = None) -> RunRecord:
    """Read a run's folder.

    Args:
        path: the folder, or a copy of it on this machine.
        uri: the folder as given by the user; None is `path`.
        evaluations: folder of its evaluations; None is `path`.
    Raises:
        UserError: the folder is missing, is not a run, has no logged steps yet, or contains a damaged file.
    """
    from vadv_dist.runs.folder import RunFolder

    folder, scored = RunFolder.open(path), evaluations or path
    config, trained_on = folder.config(), folder.trained_on()
    task, steps, epochs, history = read_log(path / "metrics.jsonl")
    return RunRecord(
        path=path,
        uri=uri or str(path),
        name=config.run.name,
        config=config,
        trained_on=trained_on,
        task=task,
        result=folder.result(),
        steps=steps,
        epochs=epochs,
        history=history,
        evaluation=read_evaluation(scored, "test", trained_on) or read_evaluation(scored, "valid", trained_on),
    )


def read_log(path: Path) -> tuple[TaskDescription, list[StepLine], list[EpochLine], RunHistory]:
    """Read the task, the step lines and the epoch lines of a `metrics.jsonl`, by step, and what all lines add up to.

    An incomplete last line is left out, because the run may be writing it. If a step occurs twice, because it was
    repeated after a crash, the later line counts.

    Raises:
        UserError: a line is damaged, nothing is logged yet, or no line describes the task.
    """
    task: TaskDescription | None = None
    history = RunHistory()
    steps: dict[int, StepLine] = {}
    epochs: dict[int, EpochLine] = {}
    lines = path.read_bytes().split(b"\n") if path.is_file() else []
    for number, text in enumerate(lines, start=1):
        try:
            line = _parsed(text) if text.strip() else None
        except RecordError as error:
            raise RecordError(f"{path}, line {number},", error.field, error.problem) from None
        except JsonError as error:
            if number == len(lines):
                break
            raise UserError(
                f"{path}, line {number}, is damaged: {error}. Remove that line to report on the others."
            ) from None
        if line is not None:
            history(line)
        if isinstance(line, StartLine):
            task = line.task
        elif isinstance(line, StepLine):
            steps[line.step] = line
        elif isinstance(line, EpochLine):
            epochs[line.step] = line
    if not steps and not epochs:
        raise UserError(f"{path} contains no steps yet. Write the report after the run has logged some.")
    if task is None:
        raise UserError(f"{path} has no start line. Give the folder of a run as `vadv train` wrote it.")
    return task, [steps[step] for step in sorted(steps)], [epochs[step] for step in sorted(epochs)], history


def _parsed(text: bytes) -> Line | None:
    raw = parse_json(text)
    if not isinstance(raw, dict) or "kind" not in raw:
        raise JsonError("expected an object with a `kind`")
    return parse_line(raw)


def read_evaluation(run: Path, split: str, trained_on: "TrainedOn | None") -> Scored | None:
    """Read the evaluation of a split and its predictions; None if one of them is missing.

    Args:
        run: the run's folder.
        split: the evaluated split.
        trained_on: what the run was trained on; None does not compare it with the evaluated data.
    Raises:
        UserError: one of the files is damaged, or the evaluated data is not the run's own.
    """
    path, table = run / f"evaluation-{split}.json", run / f"predictions-{split}.parquet"
    if not path.is_file() or not table.is_file():
        return None
    again = f"Evaluate the run again: {evaluate_command(str(run), split)}."
    document = Evaluation.read(path)
    if document.task.student.name not in document.metrics:
        raise UserError(f"{path} has no metrics of the student. {again}")
    own = None if trained_on is None else [source.fingerprint for source in trained_on.data]
    if trained_on is not None and own != [source.get("fingerprint") for source in document.data]:
        evaluated = " and ".join(
            f"{source.get('uri')} (fingerprint {str(source.get('fingerprint'))[:12]})" for source in document.data
        )
        trained = " and ".join(map(str, trained_on.data))
        raise UserError(f"{path} is an evaluation of {evaluated}, but the run was trained on {trained}. {again}")
    return Scored(document, _read_predictions(table, document, again))


def _read_predictions(path: Path, document: Evaluation, again: str) -> Predictions:
    """Read a predictions file; `again` says how to write it again.

    Raises:
        UserError: not Parquet, a column missing, no rows, or a label or prediction of the student that is not finite.
    """
    import pyarrow as pa

    from vadv_dist.formats.parquet import read_table

    outputs = [output for output in document.task.outputs if output.name in document.metrics]
    student = document.task.student
    try:
        table = read_table(path)
        needed = ("clip_id", "source", "text", "label", *(output.column for output in outputs))
        if missing := [name for name in needed if name not in table.column_names]:
            raise UserError(f"{path} has no column {', '.join(missing)}. {again}")
        texts = {name: _strings(table[name]) for name in needed[:3]}
        has_videos = "video_id" in table.column_names
        texts["video_id"] = _strings(table["video_id"]) if has_videos else [""] * len(table)
        values = {name: _numbers(table[name]) for name in needed[3:]}
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read as Parquet: {error}. {again}") from None
    if not len(table):
        raise UserError(f"{path} contains no clips. {again}")
    if student.holds == "embeddings":
        values[student.column] = _pairs(values[student.column], path, again)
    num_classes = len(document.task.classes)
    for name, bad in (
        ("label", ~np.isfinite(values["label"])),
        (
            student.column,
            np.isinf(values[student.column])
            | (student.holds in ("value", "probabilities")) & np.isnan(values[student.column]),
        ),
    ):
        if count := int(bad.sum()):
            raise UserError(f"{path} has {count} values of {name} that are not finite numbers. {again}")
    if num_classes and not np.isin(values["label"], np.arange(num_classes)).all():
        raise UserError(f"{path} has labels that are not one of the {num_classes} classes. {again}")
    return Predictions(**texts, label=values["label"], values={o.name: values[o.column] for o in outputs})


def _strings(column: Any) -> list[str]:
    import pyarrow as pa

    strings: list[str] = column.cast(pa.string()).fill_null("").to_pylist()
    return strings


def _numbers(column: Any) -> FloatArray:
    """A column of numbers [R], or of lists of equal length [R, N]."""
    import pyarrow as pa

    width = column.type.list_size if pa.types.is_fixed_size_list(column.type) else None
    if width is None:
        numbers: FloatArray = column.cast(pa.float64()).to_numpy()
        return numbers
    # `flatten` leaves out null lists, which `vadv evaluate` does not write.
    flat: FloatArray = column.combine_chunks().flatten().cast(pa.float64()).to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), width)


def _pairs(flat: FloatArray, path: Path, again: str) -> FloatArray:
    """Embeddings of audio and visual, [R, 2, E], stored as one list per clip; a side may be NaN as a whole."""
    if flat.ndim != 2 or not flat.shape[1] or flat.shape[1] % 2:
        raise UserError(f"{path} has embeddings of shape {list(flat.shape[1:])}, not one for each modality. {again}")
    pairs = flat.reshape(len(flat), 2, -1)
    unknown = np.isnan(pairs)
    if bad := int((unknown.any(axis=2) & ~unknown.all(axis=2)).sum()):
        raise UserError(f"{path} has {bad} embeddings that are not finite in part. {again}")
    return pairs


def evaluate_command(uri: str, split: str) -> str:
    """The command that evaluates a run."""
    return f"vadv evaluate {shlex.quote(uri)} --split {split}"
