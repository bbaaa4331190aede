"""Unfinished work beside a data set that is being extracted: what is done, and for which configuration.

`<uri>.work/job.json` says what the work is for; `<uri>.work/<split>-00000.json` is written after the shard of that
group, and says that the group is done: its shard, its rejected clips, and what was read. Shards stand in their final
place, `<uri>/<split>/00000.parquet`; there is no data set before its `dataset.json`, which is written last.
"""

import fcntl
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vadv_dist.config.load import differing_keys
from vadv_dist.data.schema import SPLITS, Clip, FeatureSpec
from vadv_dist.data.shards import ShardInfo, shard_name, write_shard
from vadv_dist.errors import MachineError, UserError
from vadv_dist.features.listing import ListedClip
from vadv_dist.features.stages import ClipReport
from vadv_dist.storage import disk_faults, local_path, read_json, require_absent, sha256_file, write_json


@dataclass(frozen=True)
class Group:
    """Clips of one split whose accepted ones make one shard.

    Attributes:
        clips: numbers of the clips in the list, ascending.
    """

    split: str
    number: int
    clips: tuple[int, ...]

    @property
    def name(self) -> str:
        """Names the group's record."""
        return f"{self.split}-{self.number:05d}"

    def batches(self, size: int) -> list[tuple[int, ...]]:
        """Clips that are encoded together: the same ones however often the work is interrupted."""
        return [self.clips[i : i + size] for i in range(0, len(self.clips), size)]


@dataclass(frozen=True)
class GroupRecord:
    """What became of a group; the clips' reports, some kilobytes each, stay in its file.

    Attributes:
        shard: None where every clip was rejected.
        reasons: why each clip was rejected, None for accepted ones, in the list's order.
    """

    shard: ShardInfo | None
    reasons: tuple[str | None, ...]

    @property
    def rejected(self) -> int:
        """Clips that were rejected."""
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
        uri: of the data set.
        job: what decides its bytes: configuration, list, encoders. Plain containers.
    """

    def __init__(self, uri: str | Path, job: Mapping[str, Any]) -> None:
        self.root = local_path(uri)
        self.folder = self.root.with_name(f"{self.root.name}.work")
        self._job = dict(job)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep a second process from the same work; the lock ends with the process, however it ends.

        Raises:
            UserError: another process has it, or another job's work or something else is in the way.
            MachineError: the storage cannot lock files.
        """
        if not (self.folder / "job.json").is_file():
            require_absent(self.root, "a data set", "Give another output.uri, or remove this one.")
            if self.folder.exists() and any(p.name != ".lock" for p in self.folder.iterdir()):
                raise UserError(f"{self.folder} exists but holds no work of vadv extract. Give another output.uri.")
        with disk_faults(self.folder, "nothing was started."):
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / ".lock").open("w")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"{self.root} is being extracted by another process. Wait for it, or give another output.uri."
                ) from None
            except OSError as error:
                raise MachineError(
                    f"{file.name} cannot be locked ({error.strerror}), so a second process could do the same work. "
                    "Nothing was started. Give an output.uri on storage that knows file locks."
                ) from error
            self._claim()
            yield

    def _claim(self) -> None:
        path = self.folder / "job.json"
        if not path.is_file():
            write_json(path, self._job)
            return
        differing = differing_keys(read_json(path), self._job)
        if differing:
            raise UserError(
                f"{self.folder} holds work begun for another configuration; shards of two would not fit together. It "
                f"differs in {'; '.join(differing[:5])}{' and more' if len(differing) > 5 else ''}. Go back to it, "
                f"give another output.uri, or remove {self.root} and {self.folder}."
            )
        for left in [*self.folder.glob(".*.partial-*"), *self.root.rglob(".*.partial-*")]:
            left.unlink()  # of an attempt that was killed: the lock says that nobody writes it

    def done(self, groups: Sequence[Group]) -> dict[str, GroupRecord]:
        """Records of the groups that are done and whose shards are as they were written."""
        found = {}
        for group in groups:
            path = self.folder / f"{group.name}.json"
            if not path.is_file():
                continue
            raw = read_json(path)
            shard = None if raw["shard"] is None else ShardInfo(**raw["shard"])
            if shard is not None:
                file = self.root / shard.path
                if not file.is_file() or file.stat().st_size != shard.bytes or sha256_file(file) != shard.sha256:
                    continue
            found[group.name] = GroupRecord(shard, tuple(report["reason"] for report in raw["reports"]))
        return found

    def forget(self, group: Group) -> None:
        """Have a group done again."""
        (self.folder / f"{group.name}.json").unlink(missing_ok=True)

    def commit(
        self, group: Group, clips: list[Clip], reports: list[ClipReport], features: Mapping[str, FeatureSpec]
    ) -> GroupRecord:
        """Write a group's shard and then its record.

        Args:
            group: which.
            clips: the accepted ones, in the list's order.
            reports: of all its clips.
            features: what the data set declares.
        """
        shard = None
        if clips:
            shard = write_shard(self.root, shard_name(group.split, group.number), clips, features)
        document = {
            "shard": None if shard is None else asdict(shard),
            "reports": [asdict(report) for report in reports],
        }
        write_json(self.folder / f"{group.name}.json", document)
        return GroupRecord(shard, tuple(report.reason for report in reports))

    def reports(self, group: Group) -> list[ClipReport]:
        """What was read of each clip of a group that is done, in the list's order."""
        return [ClipReport(**report) for report in read_json(self.folder / f"{group.name}.json")["reports"]]

    def remove(self) -> None:
        """Remove the work folder, when the data set is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)
