"""`vadv ingest`: convert foreign formats to data sets, one library call per format."""

import argparse
import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vadv_dist.cli.overwrite import add_overwrite, foreign_to_dataset, overwriting
from vadv_dist.cli.parser import Commands, path, place
from vadv_dist.errors import UserError
from vadv_dist.runtime.terminal import json_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from vadv_dist.inference.token_counts import TokenCounts


def add_ingest_command(commands: Commands) -> None:
    """Add `ingest` with one subcommand per format."""
    ingest = commands.add_parser("ingest", help="convert existing features and labels to a data set")
    formats = ingest.add_subparsers(dest="format", required=True, metavar="FORMAT", parser_class=type(ingest))
    _add_table(formats)
    _add_mmsa(formats)
    _add_cmu_sdk(formats)
    _add_vegas(formats)


def _add_table(formats: Commands) -> None:
    table = formats.add_parser("table", help="a table with id, split, label and text, plus arrays keyed by id")
    kinds = "a CSV, Parquet, JSONL or Excel file, or a folder that Hugging Face datasets saved"
    table.add_argument("--csv", "--table", type=path, required=True, metavar="FILE", help=kinds)
    sign = "sign between the cells of a CSV file, or the word tab (default: recognised)"
    table.add_argument("--delimiter", metavar="SIGN", help=sign)
    table.add_argument(
        "--encoding", metavar="NAME", help="encoding of a CSV or JSON file, such as cp1252 (default: recognised)"
    )
    _add_id_and_text_columns(table)
    table.add_argument("--label-column", default="label", metavar="COLUMN", help="column of the label")
    table.add_argument(
        "--video-column",
        default="video_id",
        metavar="COLUMN",
        help="column of the video; if it is missing, the id without its last number",
    )
    _add_label_range(table, "that of --label-map, or -3 3")
    words = "what words in the label column stand for, such as positive=1,neutral=0,negative=-1"
    table.add_argument("--label-map", metavar="WORD=LABEL,...", help=words)
    classes = "the labels are classes with these names, in order; cells are names, or numbers from 0"
    table.add_argument("--classes", metavar="NAME,NAME,...", help=classes)
    table.add_argument("--split-column", default="split", metavar="COLUMN", help="column of the split")
    words = "what words in the split column stand for, such as holdout=test"
    table.add_argument("--split-map", metavar="WORD=SPLIT,...", help=words)
    shares = "deal out whole videos to train, valid and test, stratified by label, instead of reading a column"
    table.add_argument("--split", metavar="80/10/10", help=shares)
    table.add_argument(
        "--valid-fraction", type=float, metavar="SHARE", help="share of train to move to valid, by whole videos"
    )
    table.add_argument("--seed", type=int, default=1, metavar="N", help="seed for --split and --valid-fraction")
    table.add_argument(
        "--arrays",
        type=place,
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE.npz:ARRAY=FEATURE",
        help="features keyed by the file's `id` array; FEATURE is visual, face or audio; may be repeated",
    )
    table.add_argument("--allow-missing-arrays", action="store_true", help="accept clips that an array file lacks")
    _add_dtype(table)
    _add_common(table, bad_rows="error", source="the file's name")
    table.set_defaults(call=_table)


def _add_mmsa(formats: Commands) -> None:
    mmsa = formats.add_parser("mmsa", help="a pickled feature file from MMSA; no code in it is executed")
    mmsa.add_argument("--file", type=path, required=True, metavar="FILE", help="the .pkl file, aligned or unaligned")
    mmsa.add_argument("--label-key", metavar="KEY", default="regression_labels", help="key of the labels")
    _add_label_range(mmsa)
    mmsa.add_argument(
        "--features", nargs="*", metavar="NAME", default=["vision", "audio"], help="vision, audio or (default:) both"
    )
    mmsa.add_argument("--vision-as", choices=("visual", "face"), default="visual", help="feature to store vision as")
    _add_framing(mmsa)
    _add_common(mmsa, bad_rows="drop", source="the file's name")
    mmsa.set_defaults(call=_mmsa)


def _add_cmu_sdk(formats: Commands) -> None:
    sdk = formats.add_parser("cmu-sdk", help="computational sequences (.csd) from the CMU-MultimodalSDK")
    sdk.add_argument(
        "--labels",
        type=path,
        required=True,
        metavar="FILE",
        help="the labels; interval k of a video is the clip VIDEO_k",
    )
    sdk.add_argument(
        "--folds", type=path, required=True, metavar="FILE", help="JSON with the video ids of train, valid and test"
    )
    sdk.add_argument(
        "--words", type=path, metavar="FILE", help="the words; each belongs to the clip that contains its midpoint"
    )
    sdk.add_argument("--text-csv", type=path, metavar="FILE", help="a table of texts by clip id, instead of --words")
    _add_id_and_text_columns(sdk)
    for name in ("visual", "face", "audio"):
        sdk.add_argument(f"--{name}", type=path, metavar="FILE", help=f"the sequence to store as {name}")
    sdk.add_argument(
        "--label-number", type=int, default=0, metavar="N", help="column of the label, from 0 (default: 0)"
    )
    _add_label_range(sdk)
    _add_framing(sdk)
    _add_common(sdk, bad_rows="drop", source="the label file's name")
    sdk.set_defaults(call=_cmu_sdk)


def _add_vegas(formats: Commands) -> None:
    vegas = formats.add_parser("vegas", help="audio and visual vectors with class labels (vegas_feature_norm.h5)")
    vegas.add_argument("--file", type=path, required=True, metavar="FILE", help="the .h5 file")
    vegas.add_argument("--classes", type=int, default=10, metavar="N", help="number of classes")
    vegas.add_argument("--class-names", nargs="+", default=[], metavar="NAME", help="in the order of the class indices")
    valid = "share of each class of train to use as valid, 0 for none"
    vegas.add_argument("--valid-fraction", type=float, default=0.1, metavar="SHARE", help=valid)
    vegas.add_argument("--seed", type=int, default=1, metavar="N", help="seed for --valid-fraction")
    _add_non_finite(vegas)
    _add_dtype(vegas)
    _add_common(vegas, bad_rows="drop", source="the file's name")
    vegas.set_defaults(call=_vegas)


def _add_id_and_text_columns(parser: argparse.ArgumentParser) -> None:
    joined = "id column of the table; several are joined with _ (default: id)"
    parser.add_argument("--id-column", nargs="+", default=["id"], metavar="COLUMN", help=joined)
    parser.add_argument("--text-column", default="text", metavar="COLUMN", help="text column of the table")
    parser.add_argument("--fallback-text-column", metavar="COLUMN", help="column to read if the text column is blank")


def _add_label_range(parser: argparse.ArgumentParser, default: str = "-3 3") -> None:
    span = f"lowest and highest label (default: {default})"
    parser.add_argument("--label-range", type=float, nargs=2, metavar=("LOW", "HIGH"), help=span)
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="LABEL",
        help="label that separates negative from positive (default: the middle of the range)",
    )


def _add_dtype(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16", help="stored type of features")


def _add_non_finite(parser: argparse.ArgumentParser) -> None:
    fates = "on NaN or infinity: replace it by 0, drop the clip, or fail"
    parser.add_argument("--non-finite", choices=("zero", "drop", "error"), default="zero", help=fates)


def _add_framing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--frames", type=int, default=8, metavar="N", help="number of equal segments per sequence")
    pool = "reduce a segment to its mean or to its middle row"
    parser.add_argument("--pool", choices=("mean", "sample"), default="mean", help=pool)
    _add_non_finite(parser)
    _add_dtype(parser)


def _add_common(parser: argparse.ArgumentParser, *, bad_rows: str, source: str) -> None:
    parser.add_argument("--out", type=place, required=True, metavar="URI", help="folder or s3:// prefix to write")
    bad = "on a row that is not a valid clip: fail, or drop and count it"
    parser.add_argument("--bad-rows", choices=("error", "drop"), default=bad_rows, help=bad)
    encoder = "Hugging Face name or folder of an encoder: report how many texts --max-tokens would truncate"
    parser.add_argument("--tokenizer", metavar="NAME", help=encoder)
    parser.add_argument(
        "--max-tokens", type=int, metavar="N", help="data.max_tokens of the later run (default: its default)"
    )
    parser.add_argument("--source", metavar="NAME", help=f"name of the source (default: {source})")
    parser.add_argument("--json", action="store_true", help="print the counts as one JSON object")
    add_overwrite(parser)


def _ingest(
    options: argparse.Namespace,
    reader: Callable[..., Any],
    files: Sequence[str],
    names: Sequence[str],
    **others: object,
) -> int:
    """Call a reader and print its counts.

    Args:
        options: the parsed command line.
        reader: converts one format.
        files: options passed by position, before `out`.
        names: options passed by keyword, besides those of every format.
        others: further keyword arguments.
    """
    if options.max_tokens is not None and options.max_tokens < 1:
        raise UserError(f"--max-tokens is {options.max_tokens}, expected at least 1.")
    tokenizer = None
    if options.tokenizer is not None:  # loaded before any data is read, so that a wrong name fails at once
        from vadv_dist.models.encoders import build_tokenizer

        tokenizer = build_tokenizer(options.tokenizer)
    with _local_files(options):  # replaces paths in the options, so read them inside
        given = {name: getattr(options, name) for name in (*names, "bad_rows", "source")}
        sources = [getattr(options, file) for file in files]
        summary = overwriting(
            options, options.out, foreign_to_dataset, lambda: reader(*sources, options.out, **given, **others)
        )
    counts = _token_counts(options.out, tokenizer, options.max_tokens)
    if options.json:
        cut = {} if tokenizer is None else {"texts_cut": {split: count.to_json() for split, count in counts.items()}}
        print(json_line({**asdict(summary), **cut}))
        return 0
    print(summary)
    for split, count in counts.items():
        if tokenizer is not None:
            print(f"  {split}: {count.sentence()}")
        elif count.cut:
            print(
                f"  {split}: {count.cut:,} of {count.texts:,} texts have more than {count.bound} words (longest: "
                f"{count.longest:,}), so data.max_tokens: {count.bound} truncates at least those; --tokenizer counts "
                "exactly"
            )
    return 0


def _token_counts(
    out: str, tokenizer: "PreTrainedTokenizerBase | None", max_tokens: int | None
) -> "dict[str, TokenCounts]":
    """Count the texts of each split that `data.max_tokens` truncates; without a tokenizer, count words."""
    from vadv_dist.config import DataConfig
    from vadv_dist.data.dataset import Dataset
    from vadv_dist.inference.token_counts import count_tokens, count_words

    dataset, bound = Dataset.open(out), DataConfig.max_tokens if max_tokens is None else max_tokens
    return {
        split: count_words(dataset.column(split, "num_words"), bound)
        if tokenizer is None
        else count_tokens(tokenizer, dataset.column(split, "text"), bound)
        for split in dataset.manifest.splits
    }


@contextlib.contextmanager
def _local_files(options: argparse.Namespace) -> Iterator[None]:
    """Replace s3:// URIs in the options by local copies, which exist until the context ends."""
    from vadv_dist.storage import local_copy, location

    with contextlib.ExitStack() as copies:

        def fetch(name: str) -> Path:
            place = location(name)
            try:
                return copies.enter_context(local_copy(place))
            except FileNotFoundError:
                raise UserError(f"{place} does not exist. Give an existing file.") from None

        for name, value in vars(options).items():
            if isinstance(value, Path):
                setattr(options, name, fetch(str(value)))
            elif name == "arrays":
                parts = [item.rpartition(":") for item in value]
                value[:] = [f"{fetch(file)}:{array}" if file else f"{colon}{array}" for file, colon, array in parts]
        yield


def _framing(options: argparse.Namespace) -> Any:
    from vadv_dist.data.readers.sequences import Framing

    return Framing(getattr(options, "frames", 1), getattr(options, "pool", "mean"), options.non_finite, options.dtype)


def _labels(options: argparse.Namespace) -> dict[str, object]:
    given = {} if options.label_range is None else {"label_range": tuple(options.label_range)}
    return {**given, "threshold": options.threshold}


def _table(options: argparse.Namespace) -> int:
    from vadv_dist.data.readers.labels import parse_pairs
    from vadv_dist.data.readers.table import ingest_table

    columns = ("id_column", "split_column", "text_column", "fallback_text_column", "label_column", "video_column")
    splits = ("split", "valid_fraction", "seed")
    arrays = ("arrays", "allow_missing_arrays", "dtype")
    names = ["delimiter", "encoding", *columns, *splits, *arrays]
    words = {
        name: parse_pairs(text, f"--{name.replace('_', '-')}")
        for name in ("label_map", "split_map")
        if (text := getattr(options, name)) is not None
    }
    classes = () if options.classes is None else tuple(options.classes.split(","))
    return _ingest(options, ingest_table, ["csv"], names, classes=classes, **words, **_labels(options))


def _mmsa(options: argparse.Namespace) -> int:
    from vadv_dist.data.readers.mmsa import ingest_mmsa

    names = ("label_key", "vision_as", "features")
    return _ingest(options, ingest_mmsa, ["file"], names, framing=_framing(options), **_labels(options))


def _cmu_sdk(options: argparse.Namespace) -> int:
    from vadv_dist.data.readers.clip_rows import TextColumns
    from vadv_dist.data.readers.cmu_sdk import ingest_cmu_sdk

    return _ingest(
        options,
        ingest_cmu_sdk,
        ["labels", "folds"],
        ["words", "text_csv", "visual", "face", "audio", "label_number"],
        text_columns=TextColumns(tuple(options.id_column), options.text_column, options.fallback_text_column),
        framing=_framing(options),
        **_labels(options),
    )


def _vegas(options: argparse.Namespace) -> int:
    from vadv_dist.data.readers.vegas import ingest_vegas

    names = ("class_names", "valid_fraction", "seed")
    return _ingest(options, ingest_vegas, ["file"], names, num_classes=options.classes, framing=_framing(options))
