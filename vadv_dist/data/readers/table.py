"""Read a CSV table of clips, with feature arrays beside it, into a data set."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from vadv_dist.data.readers.arrays import (
    DTYPES,
    FeatureTable,
    load_features,
    parse_array_sources,
    select_features,
)
from vadv_dist.data.readers.csv_rows import Columns, CsvClip, read_csv
from vadv_dist.data.schema import SPLITS, Clip, LabelSpec
from vadv_dist.data.shards import DEFAULT_SHARD_ROWS, MANIFEST, Dataset, DatasetWriter
from vadv_dist.errors import UserError
from vadv_dist.storage import Location, local_path, location, require_absent, sha256_file


@dataclass(frozen=True)
class IngestSummary:
    """What was read and what was written.

    Attributes:
        uri: the data set.
        rows_read, rows_written: clips of the table and of the data set.
        splits: clips of each split.
        videos: videos of each split.
        features: shape of each feature per clip.
        missing: clips without a feature, by feature.
        fallback_texts: clips whose words come from the fallback column.
        cut_from_train: clips moved from train to valid.
        fingerprint: of the data set.
    """

    uri: str
    rows_read: int
    rows_written: int
    splits: dict[str, int]
    videos: dict[str, int]
    features: dict[str, list[int]]
    missing: dict[str, int]
    fallback_texts: int
    cut_from_train: int
    fingerprint: str

    def to_json(self) -> dict[str, object]:
        """The summary as plain containers, for `--json`."""
        return asdict(self)

    def __str__(self) -> str:
        clips = ", ".join(f"{rows:,} {split}" for split, rows in self.splits.items())
        lines = [f"wrote {self.uri}: {self.rows_written:,} of {self.rows_read:,} rows ({clips})"]
        if self.cut_from_train:
            lines.append(
                f"  {self.cut_from_train:,} clips of {self.videos['valid']} videos cut from train for validation"
            )
        if self.fallback_texts:
            lines.append(f"  {self.fallback_texts:,} texts from the fallback column")
        for name, shape in self.features.items():
            missing = f", missing in {self.missing[name]:,} clips" if self.missing[name] else ""
            lines.append(f"  {name} {shape}{missing}")
        return "\n".join(lines)


def ingest_table(
    csv: str | Path,
    out: str | Path,
    *,
    id_column: str = Columns.id_column,
    split_column: str = Columns.split_column,
    text_column: str = Columns.text_column,
    label_column: str = Columns.label_column,
    video_column: str = Columns.video_column,
    fallback_text_column: str | None = None,
    label_range: tuple[float, float] = (LabelSpec.low, LabelSpec.high),
    valid_fraction: float | None = None,
    arrays: Sequence[str] = (),
    allow_missing_arrays: bool = False,
    dtype: str = "float16",
    seed: int = 1,
    source: str | None = None,
    shard_rows: int = DEFAULT_SHARD_ROWS,
) -> IngestSummary:
    """Make a data set of a CSV file; nothing is left behind where it cannot.

    Args:
        csv: a UTF-8 file with a header line.
        out: the folder to make.
        id_column, split_column, text_column, label_column, video_column: names of columns. Without a `video_id` column
            a clip's video is its id up to the last `_`.
        fallback_text_column: where words are taken from in rows with an empty `text_column`.
        label_range: lowest and highest label.
        valid_fraction: share of train's clips to move to valid, by whole videos, where the file has no valid split.
        arrays: `FILE.npz:ARRAY=FEATURE`, rows keyed by the file's `id` array. `visual` takes [R, D], [R, T, D] or
            [R, T, N, D], `face` [R, E] or [R, T, E], `audio` [R, D] or [R, T, D].
        allow_missing_arrays: store a feature as missing where an id has no row, rather than refusing the clip.
        dtype: type that features are stored in, `float16` or `float32`.
        seed: decides which videos become the validation split.
        source: name that every clip carries; the CSV file's own unless given.
        shard_rows: rows of a shard at most.

    Raises:
        UserError: something in the files or the options is wrong; says where, and what to do.
    """
    path, root = local_path(csv), location(out)
    label = _label_spec(label_range)
    if dtype not in DTYPES:
        raise UserError(f"--dtype is {dtype!r}, expected one of {', '.join(DTYPES)}.")
    if valid_fraction is not None and not 0 < valid_fraction < 1:
        raise UserError(f"--valid-fraction is {valid_fraction:g}, expected a share between 0 and 1.")
    array_sources = parse_array_sources(arrays)
    require_absent(root, "a data set", "Give another folder, or remove this one.", manifest=MANIFEST)
    columns = Columns(id_column, split_column, text_column, label_column, video_column, fallback_text_column)

    rows = read_csv(path, columns, label)
    clips = rows if valid_fraction is None else cut_valid_split(rows, valid_fraction, seed, path)
    wanted = {clip.clip_id: clip.where for clip in clips}
    features = {
        item.feature: select_features(load_features(item), wanted, dtype, allow_missing_arrays)
        for item in array_sources
    }
    files = [path, *dict.fromkeys(item.path for item in array_sources)]
    options = {
        **asdict(columns),
        "label_range": list(label_range),
        "valid_fraction": valid_fraction,
        "arrays": {item.feature: f"{item.path.name}:{item.key}" for item in array_sources},
        "allow_missing_arrays": allow_missing_arrays,
        "dtype": dtype,
        "seed": seed,
    }
    writer = DatasetWriter(
        root,
        features={name: table.spec for name, table in features.items()},
        label=label,
        provenance={
            "made_by": "vadv ingest table",
            "files": [{"name": file.name, "bytes": file.stat().st_size, "sha256": sha256_file(file)} for file in files],
            "options": options,
        },
        shard_rows=shard_rows,
    )
    with writer:
        for clip in clips:
            writer.write(clip.split, _to_clip(clip, features, source or path.stem))
    return _summary(root, rows, clips, features)


def cut_valid_split(clips: Sequence[CsvClip], fraction: float, seed: int, path: Path) -> list[CsvClip]:
    """Move whole videos from train to valid until valid has about `fraction` of train's clips.

    Raises:
        UserError: there is a validation split already, or train has fewer than two videos.
    """
    if any(clip.split == "valid" for clip in clips):
        raise UserError(f"{path} has a validation split already. Leave out --valid-fraction.")
    clips_of_video = Counter(clip.video_id for clip in clips if clip.split == "train")
    if len(clips_of_video) < 2:
        raise UserError(
            f"{path} has {len(clips_of_video)} videos in train, so no whole video can be cut from it for validation. "
            "Leave out --valid-fraction, or give rows of more videos."
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


def _label_spec(label_range: tuple[float, float]) -> LabelSpec:
    low, high = label_range
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(f"--label-range is {low:g} {high:g}, expected two numbers, the lower one first.")
    return LabelSpec(float(low), float(high))


def _to_clip(clip: CsvClip, features: Mapping[str, FeatureTable], source: str) -> Clip:
    rows = {name: table.row_of.get(clip.clip_id) for name, table in features.items()}
    return Clip(
        clip_id=clip.clip_id,
        video_id=clip.video_id,
        text=clip.text,
        label=clip.label,
        source=source,
        features={name: None if row is None else features[name].values[row] for name, row in rows.items()},
    )


def _summary(
    root: Location, rows: Sequence[CsvClip], clips: Sequence[CsvClip], features: Mapping[str, FeatureTable]
) -> IngestSummary:
    manifest = Dataset.open(root).manifest
    splits = [split for split in SPLITS if split in manifest.splits]
    return IngestSummary(
        uri=str(root),
        rows_read=len(rows),
        rows_written=sum(manifest.rows(split) for split in splits),
        splits={split: manifest.rows(split) for split in splits},
        videos={split: len({clip.video_id for clip in clips if clip.split == split}) for split in splits},
        features={name: list(table.spec.shape) for name, table in features.items()},
        missing={name: len(clips) - len(table.row_of) for name, table in features.items()},
        fallback_texts=sum(clip.used_fallback for clip in clips),
        cut_from_train=sum(a.split != b.split for a, b in zip(rows, clips, strict=True)),
        fingerprint=manifest.fingerprint,
    )
