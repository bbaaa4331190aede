"""Finish an extraction: combine its groups into a data set, or report why it is not finished."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vadv_dist.data.dataset import PROMPTS_NAME, DatasetManifest, write_manifest
from vadv_dist.data.schema import SPLITS, count_words
from vadv_dist.data.shard_list import ShardInfo
from vadv_dist.data.shards import stamped, statistics, write_prompts
from vadv_dist.errors import UserError
from vadv_dist.features.clip_files import file_entry
from vadv_dist.features.listing import ListedClip
from vadv_dist.features.plan import Plan
from vadv_dist.features.work import GroupRecord, WorkFolder
from vadv_dist.formats.parquet import read_table
from vadv_dist.storage import Location, atomic_file, local_copy

REJECTED_NAME = "rejected.parquet"
SOURCES_NAME = "sources.parquet"
_MAX_EXAMPLES = 3


def _required(kind: pa.DataType, *names: str) -> list[pa.Field]:
    return [pa.field(name, kind, nullable=False) for name in names]


_REJECTED_SCHEMA = pa.schema(
    [
        *_required(pa.string(), "clip_id", "video_id", "split", "path"),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        *_required(pa.string(), "reason"),
    ]
)
_SOURCES_SCHEMA = pa.schema(
    [
        *_required(pa.string(), "clip_id", "split", "path"),
        *_required(pa.int64(), "bytes"),
        *_required(pa.string(), "sha256"),
        *_required(pa.float64(), "start_s", "end_s"),
        *_required(pa.int32(), "width", "height", "faces"),
        ("boxes", pa.list_(pa.list_(pa.float32(), 4))),
        ("no_face", pa.string()),
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


def assemble(plan: Plan, work: WorkFolder, records: Mapping[str, GroupRecord]) -> ExtractSummary:
    """Write the remaining files of the data set, `dataset.json` last.

    Raises:
        UserError: more clips were rejected than `output.max_rejected` allows, or all were. Shards and records are kept:
            with a larger fraction, the same command finishes at once.
    """
    config, clips = plan.config, plan.listed.clips
    splits: dict[str, list[ShardInfo]] = {}
    accepted: dict[str, list[ListedClip]] = {}
    numbered: list[tuple[int, str]] = []
    transcribed: dict[int, str] = {}
    for group in plan.groups:
        record = records[group.name]
        if config.clips.transcribe is not None:
            reports = zip(group.clips, work.reports(group), strict=True)
            transcribed |= {number: report.text for number, report in reports if report.text}
        if record.shard is not None:
            splits.setdefault(group.split, []).append(record.shard)
        for number, reason in zip(group.clips, record.reasons, strict=True):
            if reason is None:
                clip = clips[number]
                accepted.setdefault(group.split, []).append(replace(clip, text=transcribed.get(number, clip.text)))
            else:
                numbered.append((number, reason))
    rejected = [(clips[number], reason) for number, reason in sorted(numbered)]
    table = pa.Table.from_pylist([{**asdict(clip), "reason": reason} for clip, reason in rejected], _REJECTED_SCHEMA)
    if len(rejected) / len(clips) > config.output.max_rejected or len(rejected) == len(clips):
        _write_parquet(table, work.folder / REJECTED_NAME)
        raise UserError(_too_many(plan, work, rejected))
    left_out = _write_parquet(table, work.root / REJECTED_NAME)
    no_face, read = _write_sources(plan, work, work.root / SOURCES_NAME)
    prompts_sha256 = None if plan.prompts is None else write_prompts(work.root / PROMPTS_NAME, plan.prompts)
    label = plan.listed.label
    counts = {"listed": len(clips), "rejected": len(rejected), "without_face": sum(no_face.values())}
    manifest = DatasetManifest(
        splits=splits,
        features=plan.features,
        label=label,
        statistics={
            split: statistics([clip.label for clip in mine], [count_words(clip.text) for clip in mine], label)
            for split, mine in accepted.items()
        },
        provenance=stamped({**plan.provenance, "clips": counts, "no_face": no_face, "records": [read, left_out]}),
        num_classes_prompts=0 if plan.prompts is None else len(plan.prompts),
        prompts_sha256=prompts_sha256,
    )
    write_manifest(work.root, manifest)
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


def _write_sources(plan: Plan, work: WorkFolder, path: Location) -> tuple[dict[str, int], dict[str, Any]]:
    """Write the details of each accepted clip, group by group.

    Returns:
        how many clips have no face, by reason, and the entry of the file in `dataset.json`.
    """
    names = ("bytes", "sha256", "start_s", "end_s", "width", "height", "faces", "boxes", "no_face")
    without_face: Counter[str] = Counter()
    with atomic_file(path) as partial:
        with pq.ParquetWriter(partial, _SOURCES_SCHEMA, compression="zstd") as writer:
            for group in plan.groups:
                rows = []
                for number, report in zip(group.clips, work.reports(group), strict=True):
                    if report.reason is None:
                        clip = plan.listed.clips[number]
                        if not report.has_face:
                            without_face[report.no_face or ""] += 1
                        row = {"clip_id": clip.clip_id, "split": clip.split, "path": clip.path}
                        rows.append({**row, **{name: getattr(report, name) for name in names}})
                if rows:
                    writer.write_table(pa.Table.from_pylist(rows, schema=_SOURCES_SCHEMA))
        return dict(without_face.most_common()), {**file_entry(partial), "name": path.name}


def _write_parquet(table: pa.Table, path: Location) -> dict[str, Any]:
    """Write a table and return its entry in `dataset.json`."""
    with atomic_file(path) as partial:
        pq.write_table(table, partial, compression="zstd")
        return {**file_entry(partial), "name": path.name}


def _too_many(plan: Plan, work: WorkFolder, rejected: list[tuple[ListedClip, str]]) -> str:
    count, total, listed = len(rejected), len(plan.listed.clips), plan.listed.file
    by_kind: dict[str, list[str]] = {}
    for clip, reason in rejected:
        by_kind.setdefault(_kind(reason), []).append(clip.clip_id)
    examples = "; ".join(
        f"{len(ids):,} × {kind} ({', '.join(ids[:_MAX_EXAMPLES])}{', …' if len(ids) > _MAX_EXAMPLES else ''})"
        for kind, ids in sorted(by_kind.items(), key=lambda item: -len(item[1]))
    )
    if count == total:
        what = f"All {total:,} clips of {listed} were rejected: {examples}. There is nothing to write."
        advice = "Fix them and run the same command with --retry-rejected."
    else:
        what = (
            f"{count:,} of {total:,} clips of {listed} were rejected ({count / total:.1%}, output.max_rejected is "
            f"{plan.config.output.max_rejected:.1%}): {examples}."
        )
        enough = min(1.0, int(count / total * 100 + 1) / 100)  # rounded up
        advice = (
            f"The {total - count:,} good ones are kept in {work.root} and {work.folder}: fix the others and run the "
            f"same command with --retry-rejected, or finish without them with --output.max_rejected={enough}."
        )
    return f"{what} {work.folder / REJECTED_NAME} lists them. {advice}"


def _kind(reason: str) -> str:
    return reason.split(":", 1)[0]


def _reasons(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
