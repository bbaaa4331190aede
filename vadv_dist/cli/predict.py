"""`vadv predict`: labels of new texts, of arguments, a file or standard input."""

import argparse
import shutil
import sys
from typing import TYPE_CHECKING, Any

from vadv_dist.cli.overwrite import add_overwrite, foreign_to_predictions, overwriting
from vadv_dist.cli.parser import Commands, place
from vadv_dist.cli.progress import progress
from vadv_dist.errors import UserError
from vadv_dist.runtime.terminal import counted, json_line
from vadv_dist.storage import Location, scratch_folder

if TYPE_CHECKING:
    from vadv_dist.evaluation.conformal import PredictionIntervals
    from vadv_dist.inference.token_counts import TokenCounts

_STDIN = "-"


def add_predict_command(commands: Commands) -> None:
    """Add `predict`."""
    predict = commands.add_parser("predict", help="predict labels of new texts with the student")
    predict.add_argument("run", type=place, metavar="RUN_OR_EXPORT")
    predict.add_argument("--text", action="append", default=[], help="a text; repeatable")
    predict.add_argument(
        "--input",
        type=_place_or_stdin,
        help="a .csv, .tsv, .jsonl or .parquet file with a text column, or a .txt file with a text per line; a path or "
        "s3:// URI; - reads a text per line from standard input, as they come",
    )
    predict.add_argument(
        "--output",
        type=place,
        help="the file to write: the input plus predictions, in the same format (of lines of text, also as a table); "
        "the same command goes on where it was stopped",
    )
    predict.add_argument("--text-column", default="text", help="column of the texts")
    sign = "sign between the cells of a .csv file, or the word tab (default: recognised)"
    predict.add_argument("--delimiter", metavar="SIGN", help=sign)
    predict.add_argument("--encoding", help="encoding of a file of text, such as cp1252 (default: recognised)")
    predict.add_argument(
        "--video-column",
        default="video_id",
        help="column of the videos, for a student that also reads the texts before (student.context); the rows of a "
        "video must be in the order in which they were said",
    )
    predict.add_argument(
        "--precision",
        choices=("fp32", "bf16"),
        default="fp32",
        help="bf16 is faster on a GPU and on a CPU with AMX or AVX512-BF16; predictions differ in the second decimal",
    )
    predict.add_argument(
        "--interval",
        type=float,
        metavar="SHARE",
        help="add an interval that encloses this share of labels, such as 0.9, from the errors on the validation split",
    )
    predict.add_argument("--skip-empty", action="store_true", help="leave rows without words without a prediction")
    predict.add_argument("--device", help="a torch device, such as cpu or cuda:1 (default: a GPU if there is one)")
    predict.add_argument(
        "--batch-size",
        type=_positive,
        metavar="N",
        help="at most so many texts at once (default: as many as have 2,048 tokens on a CPU, 32,768 on a GPU)",
    )
    predict.add_argument("--json", action="store_true", help="print JSON: one list, or of --input - an object per line")
    add_overwrite(predict)
    predict.set_defaults(call=_predict)


def _predict(options: argparse.Namespace) -> int:
    if bool(options.text) == (options.input is not None):
        raise UserError('Give either --text "…" (repeatable), or --input FILE --output FILE, or --input - for lines.')
    if options.input is None and options.output is not None:
        raise UserError("--output needs --input: it is the input plus predictions.")
    if options.input is not None and options.input != _STDIN and options.output is None:
        raise UserError("--input needs --output, the file to write. With --input -, predictions are printed.")
    if options.input is None or options.output is None:
        return _predict_and_print(options)
    if options.input != _STDIN:
        return _predict_file(options, options.input)
    with scratch_folder() as folder:  # the number of texts and whether one is empty are known before any is predicted
        lines = folder / "stdin.txt"
        with lines.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        return _predict_file(options, lines)


def _predict_file(options: argparse.Namespace, source: str | Location) -> int:
    from vadv_dist.formats.table_rows import TableFormat
    from vadv_dist.inference.predicted_files import PredictedFile, predict_file

    _told_intervals(options)

    def predict() -> PredictedFile:
        with progress("texts") as report:
            return predict_file(
                options.run,
                source,
                options.output,
                text_column=options.text_column,
                video_column=options.video_column,
                skip_empty=options.skip_empty,
                interval=options.interval,
                batch_rows=options.batch_size,
                device=options.device,
                precision=options.precision,
                given=TableFormat(options.delimiter, options.encoding),
                tell=warn_of_cut_texts,
                progress=report,
            )

    done = overwriting(options, options.output, foreign_to_predictions, predict)
    notes = [f"{done.resumed:,} of them by the command before"] if done.resumed else []
    notes += [f"{done.skipped:,} rows without words have none"] if done.skipped else []
    notes += [f"read as {done.read_as}"] if done.read_as else []
    print(f"wrote {options.output}: {'; '.join([f'{done.rows - done.skipped} predictions', *notes])}")
    return 0


def _predict_and_print(options: argparse.Namespace) -> int:
    from vadv_dist.inference.manifest import classes_of, read_manifest, resolve_student, words_of
    from vadv_dist.inference.predict import open_text_student, predict_lines, predict_texts
    from vadv_dist.inference.prediction_columns import described_prediction

    manifest = read_manifest(resolve_student(options.run))
    classes, words = classes_of(manifest), words_of(manifest)
    if context := manifest.get("context"):
        print(
            f"vadv: warning: this student also reads up to {context} utterances before a text, and these texts are "
            "predicted without. Give a table with the videos of its texts (--input, --video-column).",
            file=sys.stderr,
        )
    intervals = _told_intervals(options)

    def row_of(text: str, value: Any) -> dict[str, Any]:
        ends: dict[str, float | None] = {}
        if intervals is not None:
            low, high = (None, None) if value is None else map(float, intervals.around(value))
            ends = {"prediction_low": low, "prediction_high": high}
        return {"text": text, **described_prediction(value, classes, words), **ends}

    width = max(map(len, classes)) + 6 if classes else 6
    longest = max(map(len, words), default=0)

    def line_of(row: dict[str, Any]) -> str:
        if row["prediction"] is None:
            return f"{'':{width}}  {row['text']}"
        if classes:
            probability = row["probabilities"][row["prediction"]]
            return f"{row['prediction']:{width - 6}} {probability:5.1%}  {row['text']}"
        ends = "" if intervals is None else f"  [{row['prediction_low']:+.3f}, {row['prediction_high']:+.3f}]"
        word = f"  {row['prediction_word']:{longest}}" if words else ""
        return f"{row['prediction']:+.3f}{ends}{word}  {row['text']}"

    if options.input is None:
        scores = predict_texts(
            options.run, options.text, device=options.device, precision=options.precision, tell=warn_of_cut_texts
        )
        rows = [row_of(text, score) for text, score in zip(options.text, scores, strict=True)]
        print(json_line(rows) if options.json else "\n".join(map(line_of, rows)))
        return 0
    student = open_text_student(options.run, device=options.device, precision=options.precision)
    student.batch_rows = options.batch_size
    for number, (text, value) in enumerate(predict_lines(student, sys.stdin), 1):
        if value is None and not options.skip_empty:
            raise UserError(f"Line {number} of standard input is empty. Give words, or --skip-empty.")
        print(json_line(row_of(text, value)) if options.json else line_of(row_of(text, value)), flush=True)
    warn_of_cut_texts(student.counts)
    return 0


def _told_intervals(options: argparse.Namespace) -> "PredictionIntervals | None":
    """The intervals that are asked for, after saying on what they rest."""
    from vadv_dist.inference.predict import prediction_intervals

    if options.interval is None:
        return None
    intervals = prediction_intervals(options.run, options.interval)
    clips = counted(intervals.clips, "validation clip")
    bounds = f", cut to labels in [{intervals.low:g}, {intervals.high:g}]" if intervals.is_bounded else ""
    print(f"vadv: the intervals rest on the errors on {clips}{bounds}", file=sys.stderr)
    return intervals


def _place_or_stdin(text: str) -> str:
    return _STDIN if text == _STDIN else place(text)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a positive number")
    return number


def warn_of_cut_texts(counts: "TokenCounts") -> None:
    """Print how many texts were truncated, if any."""
    if counts.cut:
        print(f"vadv: warning: {counts.sentence()}", file=sys.stderr)
