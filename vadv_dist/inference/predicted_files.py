"""Predict a column of texts of a file, as large as it may be: with progress, and resumed if it was stopped."""

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vadv_dist import __version__
from vadv_dist.errors import ExistsError, UserError
from vadv_dist.formats.table_rows import TableFormat
from vadv_dist.formats.tabular import ANY_FORMAT
from vadv_dist.inference.context import VIDEO_COLUMN, readings
from vadv_dist.inference.manifest import MANIFEST, classes_of, read_manifest, resolve_student, words_of
from vadv_dist.inference.partial_predictions import PartialPredictions
from vadv_dist.inference.predict import Precision, Tell, open_text_student, prediction_intervals
from vadv_dist.inference.prediction_columns import (
    PREDICTION_COLUMN,
    WORD_COLUMN,
    columns_of_predictions,
    prediction_columns,
    probability_column,
)
from vadv_dist.inference.suffixes import either, ending
from vadv_dist.inference.text_predictor import TextPredictor
from vadv_dist.inference.text_table import TextTable, require_table
from vadv_dist.storage import Location, atomic_file, local_copy, location, sha256_file

FloatArray = npt.NDArray[np.float32]
# Called with the number of texts that are done and that of all.
Progress = Callable[[int, int], None]

LOW_COLUMN, HIGH_COLUMN = "prediction_low", "prediction_high"


@dataclass(frozen=True)
class PredictedFile:
    """What was predicted.

    Attributes:
        rows: number of rows.
        skipped: how many of them are empty and have no prediction.
        resumed: how many an earlier command had predicted.
        read_as: how the input was read, if something about it had to be recognised; else empty.
    """

    rows: int
    skipped: int
    resumed: int
    read_as: str


def predict_file(
    folder: str | Location,
    input_path: str | Location,
    output_path: str | Location,
    *,
    text_column: str = "text",
    video_column: str = VIDEO_COLUMN,
    skip_empty: bool = False,
    interval: float | None = None,
    batch_rows: int | None = None,
    device: str | None = None,
    precision: Precision = "fp32",
    given: TableFormat = ANY_FORMAT,
    tell: Tell = lambda counts: None,
    progress: Progress = lambda done, total: None,
) -> PredictedFile:
    """Copy a table and add a column `prediction`, in label units.

    If words stood for labels in the training data, `prediction_word` has the one with the nearest number.
    For a student of classes, it has the name of the likeliest one, and there is a column `probability_<class>` of each.

    The file is read in pieces, so that it may be larger than memory; the new one appears completely or not at all.
    Predictions of a long file are saved beside it every few seconds (`PartialPredictions`), and the same call goes on
    from there.

    Args:
        folder: a run, or a folder written by `vadv export`.
        input_path: a .csv, .tsv, .jsonl or .parquet file, or a .txt file with a text per line; one in an object store
            is copied to this machine.
        output_path: the file to create, in the same format, if it is text in UTF-8; a .txt file also as a table.
        text_column: column of `input_path` with the texts.
        video_column: column with the video of each text, in whose order they were said; read only for a student with
            context.
        skip_empty: rows without words get no prediction, instead of an error.
        interval: share of labels that the columns `prediction_low` and `prediction_high` shall enclose; see
            `prediction_intervals`.
        batch_rows: bound on the texts of a batch; None bounds only its tokens.
        device, precision: as in `Student`.
        given: delimiter and encoding of a text file; None recognises them.
        tell: called at the end with the number of truncated texts, of those that this call predicted.
        progress: called after each batch.
    Raises:
        UserError: input and output are the same file or have different formats, the output exists, the input cannot be
            read or lacks the text column or, for a student with context, that of videos, a text is empty, the student
            has no errors for an interval, or as in `Student.load`.
    """
    source, target = location(input_path), location(output_path)
    require_table(source)
    with local_copy(source) as path:
        # Cheap checks first, so that an empty text is reported before any prediction.
        _require_new(source, target, TextTable(path, text_column, given=given).table.outputs)
        student = resolve_student(folder)
        manifest = read_manifest(student)
        classes, words = classes_of(manifest), words_of(manifest)
        ends = () if interval is None else (LOW_COLUMN, HIGH_COLUMN)
        table = TextTable(path, text_column, (*prediction_columns(classes, words), *ends), given)
        intervals = None if interval is None else prediction_intervals(student, interval)
        rows, skipped = table.check_texts(skip_empty=skip_empty)
        predictor = open_text_student(student, device=device, precision=precision)
        predictor.batch_rows = batch_rows
        partial = PartialPredictions(
            target,
            {
                "input": sha256_file(path),
                "student": (student / MANIFEST).read_text(),
                "columns": [text_column, video_column],
                "read_as": table.table.read_as,
                "computed": [predictor.place, predictor.batch_tokens, batch_rows, predictor.chunk_rows],
                "version": __version__,
            },
            predictor.shape,
        )
        resumed = partial.rows
        with _reported(predictor, resumed, rows, progress), _saved(partial):
            for chunk in _predictions(table, predictor, video_column, resumed):
                partial.add(chunk)
        predictions = partial.all()
        columns = columns_of_predictions(predictions, classes, words)
        if intervals is not None:
            low, high = intervals.around(predictions)
            columns |= {LOW_COLUMN: low.astype(np.float32), HIGH_COLUMN: high.astype(np.float32)}
        with atomic_file(target) as new:
            table.write_with(new, columns, target.suffix.lower())
        partial.remove()
    tell(predictor.counts)
    return PredictedFile(rows, skipped, resumed, "" if table.table.is_plain else table.table.read_as)


def _predictions(table: TextTable, predictor: TextPredictor, video_column: str, done: int) -> Iterator[FloatArray]:
    """Predictions of the rows after the first `done`, in chunks; NaN for empty texts."""
    masks: deque[npt.NDArray[np.bool_]] = deque()

    def texts_to_predict() -> Iterator[list[str]]:
        before = 0
        for own, read in _chunks(table, predictor, video_column):
            before += len(own)
            if before <= done:
                continue
            given = np.fromiter((bool(text.strip()) for text in own), bool, len(own))
            masks.append(given)  # before the chunk is handed out, and so before its predictions
            yield [text for text, is_given in zip(read, given, strict=True) if is_given]

    for predicted in predictor.predict_chunks(texts_to_predict()):
        given = masks.popleft()
        chunk = np.full((len(given), *predictor.shape), np.nan, np.float32)
        chunk[given] = predicted
        yield chunk


def _chunks(table: TextTable, predictor: TextPredictor, video_column: str) -> Iterator[tuple[list[str], list[str]]]:
    """The texts of each chunk of rows, and what the student reads of them."""
    given: Iterator[list[str]] = table.texts()
    read = given
    if predictor.context:
        given, read = (
            table.texts(),
            readings(table, video_column, context=predictor.context, separator=predictor.separator),
        )
    else:
        given, read = itertools.tee(given)
    size = predictor.chunk_rows
    for own, joined in zip(given, read, strict=True):
        for start in range(0, len(own), size):
            yield own[start : start + size], joined[start : start + size]


@contextmanager
def _reported(predictor: TextPredictor, done: int, total: int, progress: Progress) -> Iterator[None]:
    """Call `progress` after each batch of the block."""

    def advance(rows: int) -> None:
        nonlocal done
        done += rows
        progress(done, total)

    if done:
        progress(done, total)
    predictor.on_batch = advance
    try:
        yield
    finally:
        predictor.on_batch = lambda rows: None


@contextmanager
def _saved(partial: PartialPredictions) -> Iterator[None]:
    """Save predictions if the block is left by a signal or an error."""
    try:
        yield
    except BaseException:
        partial.save()
        raise


def _require_new(source: Location, target: Location, outputs: tuple[str, ...]) -> None:
    if source.resolve() == target.resolve():
        raise UserError(f"Input and output are both {source}. Choose another output file.")
    if target.suffix.lower() not in outputs:
        raise UserError(
            f"The output {target} {ending(target)}, but for the input {source} it has to end in {either(outputs)}."
        )
    if target.exists():
        raise ExistsError(f"{target} already exists and is not overwritten. Choose another file, or remove it.")


def is_predicted(path: Path) -> bool:
    """Whether the last columns of a table are those that `predict_file` adds."""
    try:
        columns = list(TextTable(path, PREDICTION_COLUMN).table.names)
    except UserError:
        return False
    if columns[-2:] == [LOW_COLUMN, HIGH_COLUMN]:
        columns = columns[:-2]
    if columns[-1:] == [WORD_COLUMN]:
        columns.pop()
    while columns and columns[-1].startswith(probability_column("")):
        columns.pop()
    return columns[-1:] == [PREDICTION_COLUMN]
