"""The state of an unfinished extraction: its configuration, and the groups that are done.

`<uri>.work/job.json` holds the configuration. `<uri>.work/<split>-00000.json` is written after the shard of that group
and marks the group as done; it lists its shard, its rejected clips, and what was read. `<uri>.work/transcripts.jsonl`
has the words that a speech recognition model found, clip by clip, also of groups that are not done. Shards are written
to their final path, `<uri>/<split>/00000.parquet`; the data set does not exist before its `dataset.json`, which is
written last. The state is next to the data set, also in an object store, so that another machine can resume.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from vadv_dist.config.load import differing_keys
from vadv_dist.data.dataset import MANIFEST
from vadv_dist.data.schema import SPLITS, Clip, FeatureSpec
from vadv_dist.data.shard_list import ShardInfo
from vadv_dist.data.shards import shard_name, write_shard
from vadv_dist.errors import UserError
from vadv_dist.features.listing import ListedClip
from vadv_dist.features.stages import ClipReport
from vadv_dist.storage import (
    Location,
    discard,
    etag,
    exclusive,
    file_size,
    location,
    read_json,
    require_absent,
    sha256_file,
    sweep,
    write_json,
)

_JOB, _LOCK, _TRANSCRIPTS = "job.json", ".lock", "transcripts.jsonl"
# Records that are read in parallel: each is a small file, or a request.
_RECORDS_AT_ONCE = 8


@dataclass(frozen=True)
class Group:
    """Clips of one split whose accepted ones form one shard.

    Attributes:
        clips: indices of the clips in the list, ascending.
    """

    split: str
    number: int
    clips: tuple[int, ...]

    @property
    def name(self) -> str:
        """Name of the group's record."""
        return f"{self.split}-{self.number:05d}"

    def batches(self, size: int) -> list[tuple[int, ...]]:
        """Clips that are encoded together: always the same, however often the work is interrupted."""
        return [self.clips[i : i + size] for i in range(0, len(self.clips), size)]


@dataclass(frozen=True)
class GroupRecord:
    """The result of a group; the clips' reports, a few kilobytes each, stay in its file.

    Attributes:
        shard: None if every clip was rejected.
        reasons: why each clip was rejected, None for accepted ones, in the list's order.
    """

    shard: ShardInfo | None
    reasons: tuple[str | None, ...]

    @property
    def rejected(self) -> int:
        """Number of rejected clips."""
        return sum(reason is not None for reason in self.reasons)


def cut_groups(clips: Sequence[ListedClip], rows: int) -> list[Group]:
    """Cut a list into groups of at most `rows` clips, split by split, in the list's order."""
    groups = []
    for split in SPLITS:
        mine = [number for number, clip in enumerate(clips) if clip.split == split]
        groups += [Group(split, n, tuple(mine[i : i + rows])) for n, i in enumerate(range(0, len(mine), rows))]
    return groups


class WorkFolder:
    """The work on one data set.

    Args:
        uri: the data set.
        job: the settings that determine its bytes (configuration, list, encoders), as plain containers.
    Raises:
        UserError: the location is a whole bucket.
    """

    def __init__(self, uri: str | Location, job: Mapping[str, Any]) -> None:
        self.root = location(uri)
        if not self.root.name:
            raise UserError(f"output.uri is {self.root}, expected a location inside the bucket.")
        self.folder: Location = self.root.with_name(f"{self.root.name}.work")
        self._job = dict(job)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from the same work; the lock ends with the process.

        Raises:
            UserError: another process has it, or another job's work or something else is in the way.
            MachineError: the storage cannot lock files.
        """
        self._require_room()
        taken = f"{self.root} is being extracted by another process. Wait for it, or set another output.uri."
        with exclusive(self.folder, _LOCK, taken=taken):
            self._require_room()  # again: the previous holder of the lock may have completed a data set
            self._claim()
            yield

    def _require_room(self) -> None:
        if self.is_left():
            return
        advice = "Set another output.uri, or remove this one."
        require_absent(self.root, "a data set", advice, manifest=MANIFEST)
        if self.folder.exists() and any(p.name != _LOCK for p in self.folder.iterdir()):
            raise UserError(f"{self.folder} exists but has no work of vadv extract. Set another output.uri.")

    def _claim(self) -> None:
        path = self.folder / _JOB
        if not path.is_file():
            write_json(path, self._job)
            return
        differing = differing_keys(read_json(path), self._job)
        records = [p for p in self.folder.iterdir() if p.suffix == ".json" and p.name != _JOB]
        if differing and all(read_json(record)["shard"] is None for record in records):
            # Start again: the other configuration produced nothing, for example because it found no clip.
            for file in [*records, *(shard for split in SPLITS for shard in (self.root / split).glob("*.parquet"))]:
                file.unlink()
            self.transcripts.unlink(missing_ok=True)
            write_json(path, self._job)
        elif differing:
            raise UserError(
                f"{self.folder} has work with another configuration, whose shards would not fit. It differs in "
                f"{'; '.join(differing[:5])}{' and more' if len(differing) > 5 else ''}. Restore that configuration, "
                f"set another output.uri, or remove {self.root} and {self.folder}."
            )
        for folder in (self.folder, self.root):  # safe, because the lock is held
            sweep(folder)

    @property
    def transcripts(self) -> Location:
        """The file of transcribed words, clip by clip."""
        return self.folder / _TRANSCRIPTS

    def is_left(self) -> bool:
        """Whether there is unfinished work, or remains of it."""
        return (self.folder / _JOB).is_file()

    def done(self, groups: Sequence[Group]) -> dict[str, GroupRecord]:
        """Records of the finished groups whose shards are unchanged."""
        names = {path.name for path in self.folder.iterdir()}
        written = [group for group in groups if f"{group.name}.json" in names]
        with ThreadPoolExecutor(_RECORDS_AT_ONCE) as pool:
            records = pool.map(self._record, written)
            return {group.name: record for group, record in zip(written, records, strict=True) if record is not None}

    def _record(self, group: Group) -> GroupRecord | None:
        raw = read_json(self.folder / f"{group.name}.json")
        shard = None if raw["shard"] is None else ShardInfo(**raw["shard"])
        if shard is not None and not _is_as_written(self.root / shard.path, shard, raw.get("etag")):
            return None
        return GroupRecord(shard, tuple(report["reason"] for report in raw["reports"]))

    def forget(self, group: Group) -> None:
        """Mark a group as not done."""
        (self.folder / f"{group.name}.json").unlink(missing_ok=True)

    def commit(
        self, group: Group, clips: list[Clip], reports: list[ClipReport], features: Mapping[str, FeatureSpec]
    ) -> GroupRecord:
        """Write a group's shard and then its record.

        Args:
            group: the group.
            clips: the accepted ones, in the list's order.
            reports: reports of all its clips.
            features: features of the data set.
        """
        shard = tag = None
        if clips:
            shard = write_shard(self.root, shard_name(group.split, group.number), clips, features)
            tag = etag(self.root / shard.path)
        document = {
            "etag": tag,
            "shard": None if shard is None else asdict(shard),
            "reports": [asdict(report) for report in reports],
        }
        write_json(self.folder / f"{group.name}.json", document)
        return GroupRecord(shard, tuple(report.reason for report in reports))

    def reports(self, group: Group) -> list[ClipReport]:
        """Reports of the clips of a finished group, in the list's order."""
        return [ClipReport(**report) for report in read_json(self.folder / f"{group.name}.json")["reports"]]

    def remove(self) -> None:
        """Remove the work once the data set is complete; in an object store the lock is left to its holder."""
        discard(self.folder, last=_JOB, held=_LOCK)


def _is_as_written(path: Location, shard: ShardInfo, tag: str | None) -> bool:
    """Whether a shard is unchanged; an object with the same ETag is not read again."""
    if tag is not None and etag(path) == tag:
        return True
    try:
        return file_size(path) == shard.bytes and sha256_file(path) == shard.sha256
    except FileNotFoundError:
        return False
