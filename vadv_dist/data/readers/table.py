"""Read a table of clips, optionally with feature arrays, into a data set."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vadv_dist.data.readers.arrays import load_features, parse_array_sources, require_agreement, select_features
from vadv_dist.data.readers.clip_rows import ClipTable, Columns
from vadv_dist.data.readers.ingestion import BadRowError, IngestSummary, ingesting, new_dataset
from vadv_dist.data.readers.labels import LabelReader, label_spec, range_of_words
from vadv_dist.data.readers.sequences import DTYPES, require_one_of
from vadv_dist.data.readers.splits import split_rule
from vadv_dist.data.schema import Clip, LabelSpec
from vadv_dist.data.video_ids import RULE
from vadv_dist.errors import UserError
from vadv_dist.formats.table_rows import TableFormat
from vadv_dist.formats.tabular import open_table
from vadv_dist.storage import local_path


def ingest_table(
    csv: str | Path,
    out: str | Path,
    *,
    delimiter: str | None = None,
    encoding: str | None = None,
    id_column: str | Sequence[str] = Columns.id_column,
    split_column: str = Columns.split_column,
    text_column: str = Columns.text_column,
    label_column: str = Columns.label_column,
    video_column: str = Columns.video_column,
    fallback_text_column: str | None = None,
    label_range: tuple[float, float] | None = None,
    threshold: float | None = None,
    label_map: Mapping[str, object] | None = None,
    classes: Sequence[str] = (),
    split_map: Mapping[str, str] | None = None,
    split: str | None = None,
    valid_fraction: float | None = None,
    arrays: Sequence[str] = (),
    allow_missing_arrays: bool = False,
    dtype: str = "float16",
    bad_rows: str = "error",
    seed: int = 1,
    source: str | None = None,
) -> IngestSummary:
    """Create a data set from a table; on an error nothing is left behind.

    Args:
        csv: a CSV file with a header line (any delimiter, encoding and usual compression), a Parquet, JSONL or Excel
            file, or a folder that Hugging Face `datasets` saved.
        out: the folder to create.
        delimiter, encoding: of a CSV file; None recognises them.
        id_column, split_column, text_column, label_column, video_column: names of columns. Without a `video_id` column
            a clip's video is its id without the number at its end (`video_ids.video_of`). Several id columns are joined
            by `_` to one id; all but the last then name the video. Without any column of ids, ids are made from a
            column of files or from row numbers.
        fallback_text_column: source of the text for rows with an empty `text_column`.
        label_range: lowest and highest label; None means those of `label_map`, or -3 and 3 without one.
        threshold: label that separates negative from positive; None means the middle of the range.
        label_map: what words in the label column stand for: numbers, or names of classes.
        classes: names of the classes in order, if the labels are classes: cells are names, or numbers from 0.
        split_map: what words in the split column stand for: train, valid or test.
        split: shares of train, valid and test, such as `80/10/10`, by which whole videos are dealt out, stratified by
            label, instead of reading the split column.
        valid_fraction: share of train's clips to move to valid, in whole videos, if the file has no valid split.
        arrays: `FILE.npz:ARRAY=FEATURE`, with rows keyed by the file's `id` array. `visual` can be [R, D], [R, T, D] or
            [R, T, N, D], `face` [R, E] or [R, T, E], `audio` [R, D] or [R, T, D].
        allow_missing_arrays: store a feature as missing if an id has no row, instead of refusing the clip.
        dtype: stored type of features, `float16` or `float32`.
        bad_rows: `error` stops at a row that cannot become a clip, `drop` drops and counts it.
        seed: determines which videos go to which split.
        source: source name of all clips; by default that of the file.

    Raises:
        UserError: a file or an option is invalid.
    """
    path, root = local_path(csv), new_dataset(out)
    of_words = range_of_words(label_map) if label_range is None and not classes else None
    label = label_spec(label_range or of_words or (LabelSpec.low, LabelSpec.high), threshold, classes)
    require_one_of("--dtype", dtype, DTYPES)
    rule = split_rule(split_map, split, valid_fraction, seed)
    array_sources = parse_array_sources(arrays)
    ids = (id_column,) if isinstance(id_column, str) else tuple(id_column)
    columns = Columns(ids, text_column, fallback_text_column, split_column, label_column, video_column)
    labels = LabelReader(label, label_map)
    table = open_table(path, TableFormat(delimiter, encoding))
    reader = ClipTable(table, path, columns, labels, rule)
    if reader.makes_ids and array_sources:
        raise UserError(f"{path} has no column of ids, which --arrays need. Set it with --id-column.")

    # The file is read twice, so that texts need not be kept while splits are decided.
    bad: list[BadRowError] = []
    rows = [replace(row, text="") for row in reader.rows(bad.append if bad_rows == "drop" else None)]
    clips = rule.apply(rows, label, path)
    wanted = {clip.clip_id: clip.where for clip in clips}
    features = {}
    for item in array_sources:
        loaded = load_features(item, dtype, (label_column, video_column))
        require_agreement(loaded, label_column, {clip.clip_id: clip.label for clip in clips})
        require_agreement(loaded, video_column, {c.clip_id: c.video_id for c in clips if not c.video_guessed})
        features[item.feature] = select_features(loaded, wanted, allow_missing_arrays)
    with ingesting(
        root,
        made_by="vadv ingest table",
        files=[*table.files, *dict.fromkeys(item.path for item in array_sources)],
        options={
            **reader.used_columns,
            "read_as": table.read_as,
            "label_map": dict(label_map or {}),
            "split_map": dict(split_map or {}),
            "split": split,
            "valid_fraction": valid_fraction,
            "arrays": {item.feature: f"{item.path.name}:{item.key}" for item in array_sources},
            "allow_missing_arrays": allow_missing_arrays,
            "dtype": dtype,
            "seed": seed,
        },
        features={name: feature.spec for name, feature in features.items()},
        label=label,
        bad_rows=bad_rows,
    ) as ingestion:
        for dropped in bad:
            ingestion.drop(dropped)
        again = reader.rows(None if bad_rows == "error" else lambda _: None)
        for clip in clips:
            row = next(again, None)
            if row is None or row.clip_id != clip.clip_id:
                raise UserError(f"{path} was changed while it was being read. Run the same command again.")
            values = {name: feature.row(clip.clip_id) for name, feature in features.items()}
            written = Clip(clip.clip_id, clip.video_id, row.text, row.label, source or path.stem, values)
            ingestion.add(clip.split, written, row.where)
        guessed = [clip for clip in clips if clip.video_guessed]
        alone = sum(clip.video_id == clip.clip_id for clip in guessed)
        ingestion.note(f"clips whose video is {RULE}", len(guessed) - alone)
        ingestion.note("clips whose id names no video, each a separate video", alone)
        ingestion.fallback_texts = sum(clip.used_fallback for clip in clips)
        if valid_fraction is not None:
            ingestion.cut_from_train = sum(a.split != b.split for a, b in zip(rows, clips, strict=True))
        spans = f"the label range [{label.low:g}, {label.high:g}] is that of --label-map (--label-range sets another)"
        ingestion.said = (*reader.said, *([spans] if of_words else []), *labels.said(), *rule.said())
    return ingestion.summary()
