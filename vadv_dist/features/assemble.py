"""Finish an extraction: combine its groups into a data set, or report why it is not finished."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vadv_dist.config.extract_sections import ExtractConfig
from vadv_dist.data.dataset import PROMPTS_NAME, DatasetManifest, ShardInfo, manifest_json
from vadv_dist.data.schema import SPLITS, Array, FeatureSpec, LabelSpec, count_words
from vadv_dist.data.shards import stamped, statistics, write_prompts
from vadv_dist.errors import UserError
from vadv_dist.features.listing import ClipList
from vadv_dist.features.work import Group, GroupRecord, WorkFolder
from vadv_dist.formats.parquet import read_table
from vadv_dist.storage import Location, atomic_file, local_copy, sha256_file, write_json

REJECTED_NAME = "rejected.parquet"
SOURCES_NAME = "sources.parquet"
_MAX_EXAMPLES = 3

_REJECTED_SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("start_s", pa.float64()),
        pa.field("end_s", pa.float64()),
        pa.field("reason", pa.string(), nullable=False),
    ]
)
_SOURCES_SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("start_s", pa.float64(), nullable=False),
        pa.field("end_s", pa.float64(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("faces", pa.int32(), nullable=False),
        pa.field("boxes", pa.list_(pa.list_(pa.float32(), 4))),
        pa.field("no_face", pa.string()),
    ]
)


@dataclass(frozen=True)
class ExtractSummary:
    """Counts of an extraction.

    Attributes:
        uri: the data set.
        clips_listed, clips_written: clips of the list and of the data set.
        splits: clips written to each split.
        rejected: rejected clips by reason.
        without_face: clips written without a face; None if faces are not extracted.
        no_face: these clips by reason.
        features: shape of each feature.
        fingerprint: fingerprint of the data set.
    """

    uri: str
    clips_listed: int
    clips_written: int
    splits: dict[str, int]
    rejected: dict[str, int]
    without_face: int | None
    no_face: dict[str, int]
    features: dict[str, list[int]]
    fingerprint: str

    def to_json(self) -> dict[str, object]:
        """The summary as plain containers, for `--json`."""
        return asdict(self)

    def __str__(self) -> str:
        clips = ", ".join(f"{rows:,} {split}" for split, rows in self.splits.items())
        lines = [f"wrote {self.uri}: {self.clips_written:,} of {self.clips_listed:,} clips ({clips})"]
        if self.rejected:
            count = sum(self.rejected.values())
            lines.append(f"  {count:,} rejected, listed in {REJECTED_NAME}: {_reasons(self.rejected)}")
        for name, shape in self.features.items():
            missing = ""
            if name == "face" and self.without_face:
                missing = f", null in {self.without_face:,} clips without a face ({_reasons(self.no_face)})"
            lines.append(f"  {name} {shape}{missing}")
        return "\n".join(lines)


def finish(
    config: ExtractConfig,
    listed: ClipList,
    work: WorkFolder,
    groups: Sequence[Group],
    records: Mapping[str, GroupRecord],
    features: Mapping[str, FeatureSpec],
    prompts: Array | None,
    provenance: Mapping[str, Any],
) -> ExtractSummary:
    """Write the remaining files of the data set, `dataset.json` last.

    Raises:
        UserError: more clips were rejected than `output.max_rejected` allows, or all were. Shards and records are kept:
            with a larger fraction, the same command finishes at once.
    """
    rejected, reasons = _rejected_table(listed, groups, records)
    share = len(rejected) / len(listed.clips)
    if share > config.output.max_rejected or len(rejected) == len(listed.clips):
        _write_parquet(rejected, work.folder / REJECTED_NAME)
        raise UserError(_too_many(config, listed, work, rejected, reasons))
    left_out = _write_parquet(rejected, work.root / REJECTED_NAME)
    no_face, read = _write_sources(listed, groups, work, work.root / SOURCES_NAME)
    prompts_sha256 = None if prompts is None else write_prompts(work.root / PROMPTS_NAME, prompts)
    splits: dict[str, list[ShardInfo]] = {}
    labels: dict[str, list[float]] = {}
    words: dict[str, list[int]] = {}
    for group in groups:
        record = records[group.name]
        if record.shard is None:
            continue
        splits.setdefault(group.split, []).append(record.shard)
        for number, reason in zip(group.clips, record.reasons, strict=True):
            if reason is None:
                labels.setdefault(group.split, []).append(listed.clips[number].label)
                words.setdefault(group.split, []).append(count_words(listed.clips[number].text))
    label = LabelSpec(*config.clips.label_range, threshold=config.clips.threshold)
    counts = {"listed": len(listed.clips), "rejected": len(rejected), "without_face": sum(no_face.values())}
    manifest = DatasetManifest(
        splits={split: splits[split] for split in SPLITS if split in splits},
        features=dict(features),
        label=label,
        statistics={s: statistics(labels[s], words[s], label) for s in SPLITS if s in splits},
        provenance=stamped({**provenance, "clips": counts, "no_face": no_face, "records": [read, left_out]}),
        num_classes_prompts=0 if prompts is None else len(prompts),
        prompts_sha256=prompts_sha256,
    )
    write_json(work.root / "dataset.json", manifest_json(manifest))
    work.remove()
    return summary(work.root, manifest)


def summary(root: Location, manifest: DatasetManifest) -> ExtractSummary:
    """Summarise a finished extraction from its manifest and rejected clips."""
    with local_copy(root / REJECTED_NAME) as path:
        reasons = read_table(path, ["reason"]).column("reason").to_pylist()
    counts = manifest.provenance["clips"]
    splits = {split: manifest.rows(split) for split in SPLITS if split in manifest.splits}
    return ExtractSummary(
        uri=str(root),
        clips_listed=counts["listed"],
        clips_written=sum(splits.values()),
        splits=splits,
        rejected=dict(Counter(_kind(reason) for reason in reasons).most_common()),
        without_face=counts["without_face"] if "face" in manifest.features else None,
        no_face=manifest.provenance["no_face"] if "face" in manifest.features else {},
        features={name: list(spec.shape) for name, spec in manifest.features.items()},
        fingerprint=manifest.fingerprint,
    )


def _rejected_table(
    listed: ClipList, groups: Sequence[Group], records: Mapping[str, GroupRecord]
) -> tuple[pa.Table, dict[str, list[str]]]:
    rows: list[tuple[int, str]] = []
    reasons: dict[str, list[str]] = {}
    for group in groups:
        for number, reason in zip(group.clips, records[group.name].reasons, strict=True):
            if reason is not None:
                rows.append((number, reason))
                reasons.setdefault(_kind(reason), []).append(listed.clips[number].clip_id)
    names = ("clip_id", "video_id", "split", "path", "start_s", "end_s")
    clips = [(listed.clips[number], reason) for number, reason in sorted(rows)]
    table = [{**{name: getattr(clip, name) for name in names}, "reason": reason} for clip, reason in clips]
    return pa.Table.from_pylist(table, schema=_REJECTED_SCHEMA), reasons


def _write_sources(
    listed: ClipList, groups: Sequence[Group], work: WorkFolder, path: Location
) -> tuple[dict[str, int], dict[str, Any]]:
    """Write the details of each accepted clip, group by group.

    Returns:
        how many clips have no face, by reason, and the entry of the file in `dataset.json`.
    """
    names = ("bytes", "sha256", "start_s", "end_s", "width", "height", "faces", "boxes", "no_face")
    without_face: Counter[str] = Counter()
    with atomic_file(path) as partial:
        with pq.ParquetWriter(partial, _SOURCES_SCHEMA, compression="zstd") as writer:
            for group in groups:
                rows = []
                for number, report in zip(group.clips, work.reports(group), strict=True):
                    if report.reason is None:
                        clip = listed.clips[number]
                        if not report.has_face:
                            without_face[report.no_face or ""] += 1
                        row = {"clip_id": clip.clip_id, "split": clip.split, "path": clip.path}
                        rows.append({**row, **{name: getattr(report, name) for name in names}})
                if rows:
                    writer.write_table(pa.Table.from_pylist(rows, schema=_SOURCES_SCHEMA))
        return dict(without_face.most_common()), _entry(path.name, partial)


def _write_parquet(table: pa.Table, path: Location) -> dict[str, Any]:
    """Write a table and return its entry in `dataset.json`."""
    with atomic_file(path) as partial:
        pq.write_table(table, partial, compression="zstd")
        return _entry(path.name, partial)


def _entry(name: str, file: Path) -> dict[str, Any]:
    return {"name": name, "bytes": file.stat().st_size, "sha256": sha256_file(file)}


def _too_many(
    config: ExtractConfig, listed: ClipList, work: WorkFolder, rejected: pa.Table, reasons: dict[str, list[str]]
) -> str:
    count, total, allowed = len(rejected), len(listed.clips), config.output.max_rejected
    examples = "; ".join(
        f"{len(ids):,} × {kind} ({', '.join(ids[:_MAX_EXAMPLES])}{', …' if len(ids) > _MAX_EXAMPLES else ''})"
        for kind, ids in sorted(reasons.items(), key=lambda item: -len(item[1]))
    )
    if count == total:
        what = f"All {total:,} clips of {listed.file} were rejected: {examples}. There is nothing to write."
        advice = "Fix them and run the same command with --retry-rejected."
    else:
        what = (
            f"{count:,} of {total:,} clips of {listed.file} were rejected ({count / total:.1%}, output.max_rejected is "
            f"{allowed:.1%}): {examples}."
        )
        enough = _above(count / total)
        advice = (
            f"The {total - count:,} good ones are kept in {work.root} and {work.folder}: fix the others and run the "
            f"same command with --retry-rejected, or finish without them with --output.max_rejected={enough}."
        )
    return f"{what} {work.folder / REJECTED_NAME} lists them. {advice}"


def _above(share: float) -> float:
    """Round a fraction up to the next hundredth."""
    return min(1.0, int(share * 100 + 1) / 100)


def _kind(reason: str) -> str:
    return reason.split(":", 1)[0]


def _reasons(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
