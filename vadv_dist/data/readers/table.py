"""Read a CSV table of clips, optionally with feature arrays, into a data set."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from vadv_dist.data.readers.arrays import load_features, parse_array_sources, require_agreement, select_features
from vadv_dist.data.readers.csv_rows import Columns, CsvClip, read_csv
from vadv_dist.data.readers.ingestion import BadRowError, IngestSummary, ingesting, label_spec, new_dataset
from vadv_dist.data.readers.sequences import DTYPES, require_one_of
from vadv_dist.data.schema import Clip, LabelSpec
from vadv_dist.data.video_ids import RULE, require_known_videos
from vadv_dist.errors import UserError
from vadv_dist.storage import local_path


def ingest_table(
    csv: str | Path,
    out: str | Path,
    *,
    id_column: str | Sequence[str] = Columns.id_column,
    split_column: str = Columns.split_column,
    text_column: str = Columns.text_column,
    label_column: str = Columns.label_column,
    video_column: str = Columns.video_column,
    fallback_text_column: str | None = None,
    label_range: tuple[float, float] = (LabelSpec.low, LabelSpec.high),
    threshold: float | None = None,
    valid_fraction: float | None = None,
    arrays: Sequence[str] = (),
    allow_missing_arrays: bool = False,
    dtype: str = "float16",
    bad_rows: str = "error",
    seed: int = 1,
    source: str | None = None,
) -> IngestSummary:
    """Create a data set from a CSV file; on an error nothing is left behind.

    Args:
        csv: a UTF-8 file with a header line.
        out: the folder to create.
        id_column, split_column, text_column, label_column, video_column: names of columns. Without a `video_id` column
            a clip's video is its id without the number at its end (`video_ids.video_of`). Several id columns are joined
            by `_` to one id; all but the last then name the video.
        fallback_text_column: source of the text for rows with an empty `text_column`.
        label_range: lowest and highest label.
        threshold: lowest positive label; None means the middle of the range.
        valid_fraction: share of train's clips to move to valid, in whole videos, if the file has no valid split.
        arrays: `FILE.npz:ARRAY=FEATURE`, with rows keyed by the file's `id` array. `visual` can be [R, D], [R, T, D] or
            [R, T, N, D], `face` [R, E] or [R, T, E], `audio` [R, D] or [R, T, D].
        allow_missing_arrays: store a feature as missing if an id has no row, instead of refusing the clip.
        dtype: stored type of features, `float16` or `float32`.
        bad_rows: `error` stops at a row that cannot become a clip, `drop` drops and counts it.
        seed: determines which videos become the validation split.
        source: source name of all clips; by default that of the CSV file.

    Raises:
        UserError: a file or an option is invalid.
    """
    path, root = local_path(csv), new_dataset(out)
    label = label_spec(label_range, threshold)
    require_one_of("--dtype", dtype, DTYPES)
    if valid_fraction is not None and not 0 < valid_fraction < 1:
        raise UserError(f"--valid-fraction is {valid_fraction:g}, expected a fraction between 0 and 1.")
    if seed < 0:
        raise UserError(f"--seed is {seed}, expected an integer from 0.")
    array_sources = parse_array_sources(arrays)
    ids = (id_column,) if isinstance(id_column, str) else tuple(id_column)
    columns = Columns(ids, text_column, fallback_text_column, split_column, label_column, video_column)

    # The file is read twice, so that texts need not be kept while splits are decided.
    bad: list[BadRowError] = []
    rows = [replace(row, text="") for row in read_csv(path, columns, label, bad.append if bad_rows == "drop" else None)]
    clips = rows if valid_fraction is None else cut_valid_split(rows, valid_fraction, seed, path)
    wanted = {clip.clip_id: clip.where for clip in clips}
    features = {}
    for item in array_sources:
        table = load_features(item, dtype, (label_column, video_column))
        require_agreement(table, label_column, {clip.clip_id: clip.label for clip in clips})
        require_agreement(table, video_column, {c.clip_id: c.video_id for c in clips if not c.video_guessed})
        features[item.feature] = select_features(table, wanted, allow_missing_arrays)
    with ingesting(
        root,
        made_by="vadv ingest table",
        files=[path, *dict.fromkeys(item.path for item in array_sources)],
        options={
            **asdict(columns),
            "id_column": ids[0] if len(ids) == 1 else list(ids),
            "valid_fraction": valid_fraction,
            "arrays": {item.feature: f"{item.path.name}:{item.key}" for item in array_sources},
            "allow_missing_arrays": allow_missing_arrays,
            "dtype": dtype,
            "seed": seed,
        },
        features={name: table.spec for name, table in features.items()},
        label=label,
        bad_rows=bad_rows,
    ) as ingestion:
        for dropped in bad:
            ingestion.drop(dropped)
        again = read_csv(path, columns, label, None if bad_rows == "error" else lambda _: None)
        for clip in clips:
            row = next(again, None)
            if row is None or row.clip_id != clip.clip_id:
                raise UserError(f"{path} was changed while it was being read. Run the same command again.")
            values = {name: table.row(clip.clip_id) for name, table in features.items()}
            written = Clip(clip.clip_id, clip.video_id, row.text, row.label, source or path.stem, values)
            ingestion.add(clip.split, written, row.where)
        guessed = [clip for clip in clips if clip.video_guessed]
        alone = sum(clip.video_id == clip.clip_id for clip in guessed)
        ingestion.note(f"clips whose video is {RULE}", len(guessed) - alone)
        ingestion.note("clips whose id names no video, each a separate video", alone)
        ingestion.fallback_texts = sum(clip.used_fallback for clip in clips)
        ingestion.cut_from_train = sum(a.split != b.split for a, b in zip(rows, clips, strict=True))
    return ingestion.summary()


def cut_valid_split(clips: Sequence[CsvClip], fraction: float, seed: int, path: Path) -> list[CsvClip]:
    """Move whole videos from train to valid until valid has about `fraction` of train's clips.

    Raises:
        UserError: there is already a validation split, train has fewer than two videos, or the videos are not clear.
    """
    if any(clip.split == "valid" for clip in clips):
        raise UserError(f"{path} already has a validation split. Leave out --valid-fraction.")
    train = [clip for clip in clips if clip.split == "train"]
    require_known_videos([(clip.clip_id, clip.video_id) for clip in train if clip.video_guessed], path)
    clips_of_video = Counter(clip.video_id for clip in train)
    if len(clips_of_video) < 2:
        rule = f"The video of a clip is {RULE}. " if any(clip.video_guessed for clip in train) else ""
        raise UserError(
            f"{path} has {len(clips_of_video)} videos in train, so no whole video can be moved to validation. {rule}"
            "Leave out --valid-fraction, set the column of videos with --video-column, or add rows of more videos."
        )
    wanted = fraction * clips_of_video.total()
    in_order = sorted(clips_of_video.items())
    moved: set[str] = set()
    taken = 0
    for index in np.random.default_rng(seed).permutation(len(clips_of_video)):
        video, count = in_order[index]
        nearer_without = abs(taken - wanted) <= abs(taken + count - wanted)
        if moved and (nearer_without or len(moved) + 1 == len(clips_of_video)):
            break
        moved.add(video)
        taken += count
    return [
        replace(clip, split="valid") if clip.split == "train" and clip.video_id in moved else clip for clip in clips
    ]
