"""A data set on storage: `dataset.json` and the locations of its files; docs/architecture.md describes the layout."""

import hashlib
import math
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property
from itertools import pairwise
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, TypeAdapter, ValidationError

from vadv_dist.data.manifest_parts import MOST_LISTED, Part, read_parts, write_parts
from vadv_dist.data.schema import (
    MAX_VALUES,
    SCHEMA_VERSION,
    SPLITS,
    Clip,
    Count,
    FeatureSpec,
    LabelSpec,
    Number,
    Text,
)
from vadv_dist.data.shard_list import ShardInfo, ShardList
from vadv_dist.errors import UserError
from vadv_dist.storage import Location, location, read_json, write_json

T = TypeVar("T")

MANIFEST = "dataset.json"
PROMPTS_NAME = "prompts.safetensors"
# The version of a `dataset.json` whose shards are listed in parts, which earlier versions of this package do not read.
_PARTS_VERSION = 2


@dataclass(frozen=True)
class Histogram:
    """Number of labels in each bin; the bins are between neighbouring edges."""

    edges: list[Number]
    counts: list[Count]

    def __post_init__(self) -> None:
        rises = all(low < high for low, high in pairwise(self.edges))
        if len(self.edges) != len(self.counts) + 1 or not self.counts or not rises:
            raise ValueError(
                f"{len(self.edges)} edges for {len(self.counts)} counts, expected one more, in rising order"
            )


@dataclass(frozen=True)
class LabelCount:
    """Number of clips with a label."""

    value: Number
    count: Count


@dataclass(frozen=True)
class WordStatistics:
    """Words per text of a split, and in total."""

    min: Count | None = None
    median: Number | None = None
    max: Count | None = None
    total: Count | None = None


@dataclass(frozen=True)
class SplitStatistics:
    """Labels and words of a split, as far as `dataset.json` lists them.

    Attributes:
        label_values: each label in ascending order, if they are numbers and only a few differ; None otherwise.
    """

    rows: Count | None = None
    label_mean: Number | None = None
    label_std: Number | None = None
    label_min: Number | None = None
    label_median: Number | None = None
    label_max: Number | None = None
    label_histogram: Histogram | None = None
    label_values: list[LabelCount] | None = None
    words: WordStatistics | None = None


def _shards(split: Any) -> Any:
    if not isinstance(split, dict):
        raise ValueError("expected an object")
    return [] if "parts" in split else split.get("shards")


def _required(*names: str) -> BeforeValidator:
    """Fields that `dataset.json` must have although they have a default in code."""
    absent = dict.fromkeys(names)
    return BeforeValidator(lambda raw: {**absent, **raw} if isinstance(raw, dict) else raw)


def _check_feature(spec: FeatureSpec) -> FeatureSpec:
    if not spec.shape or not 0 < math.prod(spec.shape) <= MAX_VALUES:
        raise ValueError(f"shape is {list(spec.shape)}, expected positive numbers")
    return spec


def _check_label(label: LabelSpec) -> LabelSpec:
    if label.threshold is not None and label.low < label.high and not label.low < label.threshold < label.high:
        raise ValueError(f"the threshold {label.threshold:g} is not between {label.low:g} and {label.high:g}")
    return label


def _check_truth(truth: dict[str, Any]) -> dict[str, Any]:
    for key, entries in truth.items():
        metric = key.removeprefix("best_")
        if metric == key:
            continue
        for name, entry in entries.items() if isinstance(entries, dict) else [("", entries)]:
            value = entry.get(metric) if isinstance(entry, dict) else entry
            if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e300:
                raise ValueError(f"{key}.{name} is {reprlib.repr(value)[:80]}, expected a number")
    return truth


@dataclass(frozen=True)
class DatasetManifest:
    """The contents of `dataset.json`, and of its parts if it has any.

    Attributes:
        splits: the shards of each split; a `ShardList`, whatever sequence it is made of.
    """

    splits: Mapping[Text, Annotated[Sequence[ShardInfo], BeforeValidator(_shards)]]
    features: dict[Text, Annotated[FeatureSpec, _required("dtype"), AfterValidator(_check_feature)]]
    label: Annotated[LabelSpec, _required("low", "high", "kind"), AfterValidator(_check_label)]
    statistics: dict[str, SplitStatistics] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    num_classes_prompts: Count = 0
    prompts_sha256: Text | None = None
    truth: Annotated[dict[str, Any], AfterValidator(_check_truth)] | None = None
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        object.__setattr__(self, "splits", {name: ShardList.of(shards) for name, shards in self.splits.items()})

    def shards(self, split: str) -> ShardList:
        """Shards of a split; none if the data set has no such split."""
        return ShardList.of(self.splits.get(split, ()))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the hashes of all shards, and of the prompts if known: equal for data sets with equal bytes."""
        digest = hashlib.sha256()
        for split in sorted(self.splits):
            for rows, sha256 in self.shards(split).hashes():
                digest.update(f"{split} {rows} {sha256}\n".encode())
        if self.prompts_sha256 is not None:
            digest.update(f"prompts {self.num_classes_prompts} {self.prompts_sha256}\n".encode())
        return digest.hexdigest()

    @property
    def records(self) -> dict[str, str]:
        """SHA-256 by file name of the additional files that provenance lists under `records`."""
        found = self.provenance.get("records", [])
        return {
            str(entry["name"]): str(entry["sha256"])
            for entry in (found if isinstance(found, list) else [])
            if isinstance(entry, dict) and {"name", "sha256"} <= entry.keys() and "/" not in str(entry["name"])
        }

    @property
    def has_words(self) -> bool:
        """Whether clips have words, as far as `dataset.json` says; those of audio-visual retrieval have none."""
        counts = [each.words.total for each in self.statistics.values() if each.words is not None]
        return not counts or any(total is None or total > 0 for total in counts)

    def rows(self, split: str) -> int:
        """Number of rows of a split (0 if the data set has no such split)."""
        return int(self.shards(split).rows.sum())


@dataclass(frozen=True)
class Dataset:
    """A data set on storage: its location and manifest."""

    root: Location
    manifest: DatasetManifest

    @classmethod
    def open(cls, uri: str | Location) -> "Dataset":
        """Read a data set's manifest without opening any shard.

        Raises:
            UserError: there is no data set, it has another schema version, or a field is missing or malformed.
        """
        root = location(uri)
        path = root / MANIFEST
        if not path.is_file():
            advice = "Write one with `vadv ingest` or `vadv extract` (of your clips) or `vadv synth` (synthetic)."
            if root.is_file():
                raise UserError(f"{root} is a file, so it is not a data set, which is a folder. {advice}")
            if not root.is_dir():
                raise UserError(f"{root} does not exist, so it is not a data set. {advice}")
            raise UserError(
                f"{root} has no dataset.json, so it is not a data set, or not a complete one (it is written last). "
                f"{advice}"
            )
        raw = read_json(path)
        manifest = _parse(raw, path)
        splits = {name: _listed(raw["splits"][name], shards, path) for name, shards in manifest.splits.items()}
        return cls(root, replace(manifest, splits=splits))

    @property
    def prompts_path(self) -> Location:
        """Path of the frozen prompt embeddings, if the data set has any."""
        return self.root / PROMPTS_NAME

    def clips(self, split: str, features: Sequence[str] | None = None) -> Iterator[Clip]:
        """Read the clips of a split in order, one shard in memory at a time; each shard is verified first.

        Args:
            split: `train`, `valid` or `test`.
            features: those to read; None reads all.
        Raises:
            UserError: there is no such split or feature, or a shard is missing, damaged or changed.
        """
        from vadv_dist.data.reading import ShardReader, clips_of

        reader = ShardReader(self, tuple(self.manifest.features if features is None else features))
        for shard in self.split(split):
            yield from clips_of(reader.read(shard), reader.specs)

    def column(self, split: str, name: str) -> Iterator[Any]:
        """Values of one column of a split, in order; nothing else is read, and hashes are not verified.

        Args:
            split: `train`, `valid` or `test`; if there is none, it is empty.
            name: one of `META_COLUMNS`.
        Raises:
            UserError: a shard cannot be read.
        """
        from vadv_dist.data.reading import read_columns

        for shard in self.manifest.shards(split):
            yield from read_columns(self, shard, [name]).column(name).to_pylist()

    def shard_path(self, shard: ShardInfo) -> Location:
        """Path of one shard."""
        return self.root / shard.path

    def split(self, name: str) -> ShardList:
        """Shards of a split.

        Raises:
            UserError: the data set has no such split.
        """
        shards = self.manifest.shards(name)
        if not shards:
            present = ", ".join(s for s in SPLITS if self.manifest.splits.get(s)) or "none"
            advice = " Cut one from train with `vadv ingest table … --valid-fraction 0.1`." if name == "valid" else ""
            raise UserError(f"{self.root} has no {name!r} split (it has: {present}).{advice}")
        return shards


def _parse(raw: Mapping[str, Any], path: Location) -> DatasetManifest:
    version = raw.get("schema_version")
    if version not in (SCHEMA_VERSION, _PARTS_VERSION):
        raise UserError(
            f"{path} has schema_version {reprlib.repr(version)[:80]}, but this version reads {SCHEMA_VERSION} and "
            f"{_PARTS_VERSION}. Recreate the data set with this version, or use the version that created it."
        )
    return _validated(_adapter(), raw, path)


def _listed(raw: Mapping[str, Any], shards: Sequence[ShardInfo], path: Location) -> Sequence[ShardInfo]:
    """The shards of a split, from its parts if it has any."""
    if "parts" not in raw:
        return shards
    return read_parts(path.parent, _validated(TypeAdapter(list[Part]), raw["parts"], path))


def _validated(adapter: TypeAdapter[T], raw: object, path: Location) -> T:
    try:
        return adapter.validate_python(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(map(str, first["loc"]))[:80].encode(errors="backslashreplace").decode()
        if "error" not in first.get("ctx", {}):  # pydantic's own error, which does not show the value
            name = f"{name} is {reprlib.repr(first['input'])[:80]}"
        problem = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{path} is malformed: {name}: {problem}. Recreate the data set.") from None


@cache
def _adapter() -> TypeAdapter[DatasetManifest]:
    return TypeAdapter(DatasetManifest)


def write_manifest(root: Location, manifest: DatasetManifest) -> None:
    """Write `dataset.json`, which makes a data set complete, after its parts if there are many shards."""
    if sum(map(len, manifest.splits.values())) <= MOST_LISTED:
        write_json(root / MANIFEST, manifest_json(manifest))
        return
    raw = manifest_json(replace(manifest, splits={}, schema_version=_PARTS_VERSION))
    for name, shards in manifest.splits.items():
        parts = [asdict(part) for part in write_parts(root, name, shards)]
        raw["splits"][name] = {"rows": manifest.rows(name), "parts": parts}
    raw["fingerprint"] = manifest.fingerprint
    write_json(root / MANIFEST, raw)


def manifest_json(manifest: DatasetManifest) -> dict[str, Any]:
    """The JSON document of `dataset.json` that lists all shards."""
    raw = asdict(replace(manifest, splits={}))
    raw["splits"] = {
        name: {"rows": manifest.rows(name), "shards": [asdict(shard) for shard in shards]}
        for name, shards in manifest.splits.items()
    }
    raw["label"]["threshold"] = None if manifest.label.is_class else manifest.label.positive_from
    raw["missing"] = "null"
    raw["fingerprint"] = manifest.fingerprint
    return dict(sorted(raw.items(), key=lambda item: item[0] != "schema_version"))
