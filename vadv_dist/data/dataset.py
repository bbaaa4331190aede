"""A data set on storage: its `dataset.json` and the locations of its files.

Layout (docs/architecture.md, "A data set on storage"): `<uri>/<split>/00000.parquet …`, `<uri>/dataset.json`, and
`<uri>/prompts.safetensors` if the data set has prompt embeddings.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vadv_dist.data import manifest_fields as fields
from vadv_dist.data.schema import SCHEMA_VERSION, SPLITS, Array, Clip, FeatureSpec, LabelSpec
from vadv_dist.errors import UserError
from vadv_dist.storage import Location, file_size, location, read_json, sha256_bytes

MANIFEST = "dataset.json"
PROMPTS_NAME = "prompts.safetensors"
_MAX_PROMPTS_BYTES = 64 << 20  # 2 × 1024 values take 8 KiB


@dataclass(frozen=True)
class ShardInfo:
    """One shard as declared in `dataset.json`.

    `missing` counts rows by the exact set of features they lack, such as `{"face": 3, "face+visual": 1}`.
    """

    path: str
    rows: int
    bytes: int
    sha256: str
    missing: dict[str, int] = field(default_factory=dict)

    def rows_lacking(self, features: Iterable[str]) -> int:
        """Rows that lack at least one of `features`."""
        wanted = set(features)
        return sum(count for names, count in self.missing.items() if wanted & set(names.split("+")))


@dataclass(frozen=True)
class DatasetManifest:
    """The contents of `dataset.json`."""

    splits: dict[str, list[ShardInfo]]
    features: dict[str, FeatureSpec]
    label: LabelSpec
    statistics: dict[str, Any]
    provenance: dict[str, Any]
    num_classes_prompts: int = 0
    prompts_sha256: str | None = None
    truth: dict[str, Any] | None = None
    schema_version: int = SCHEMA_VERSION

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the hashes of all shards, and of the prompts if known: equal for data sets with equal bytes."""
        digest = hashlib.sha256()
        for split in sorted(self.splits):
            for shard in self.splits[split]:
                digest.update(f"{split} {shard.rows} {shard.sha256}\n".encode())
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

    def rows(self, split: str) -> int:
        """Number of rows of a split (0 if the data set has no such split)."""
        return sum(shard.rows for shard in self.splits.get(split, []))


@dataclass(frozen=True)
class Dataset:
    """A data set on storage: its location and manifest."""

    root: Location
    manifest: DatasetManifest

    @classmethod
    def open(cls, uri: str | Location) -> "Dataset":
        """Read a data set's manifest without opening any shard.

        Raises:
            UserError: there is no data set, or it has another schema version.
        """
        root = location(uri)
        path = root / MANIFEST
        if not path.is_file():
            what = "has no dataset.json" if root.is_dir() else "is a file" if root.is_file() else "does not exist"
            raise UserError(
                f"{root} {what}, so it is not a data set (dataset.json is written last, when a data set is "
                "complete). Give the output folder of `vadv synth` or `vadv ingest`, or run the command again."
            )
        return cls(root, parse_manifest(read_json(path), path))

    @property
    def prompts_path(self) -> Location:
        """Path of the frozen prompt embeddings, if the data set has any."""
        return self.root / PROMPTS_NAME

    def read_prompts(self) -> Array | None:
        """Prompt embeddings [C, D], verified if their hash is declared; None if there are none.

        Raises:
            UserError: the file is missing or changed, or does not match `dataset.json`.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        path, manifest = self.prompts_path, self.manifest
        if not manifest.num_classes_prompts and not path.is_file():
            return None
        try:
            if file_size(path) > _MAX_PROMPTS_BYTES:
                raise UserError(f"{path} has more than {_MAX_PROMPTS_BYTES:,} bytes, so it is not a prompts file.")
            content = path.read_bytes()
        except FileNotFoundError:
            raise UserError(
                f"{path} is missing, but dataset.json declares {manifest.num_classes_prompts} prompts. Restore it, or "
                "recreate the data set."
            ) from None
        if manifest.prompts_sha256 is not None and sha256_bytes(content) != manifest.prompts_sha256:
            raise UserError(
                f"{path} has SHA-256 {sha256_bytes(content)[:12]}…, but dataset.json declares "
                f"{manifest.prompts_sha256[:12]}…: it was changed after the data set was written. Restore it, or "
                "recreate the data set."
            )
        try:
            prompts: Array | None = load(content).get("prompts")
        except (SafetensorError, ValueError) as error:
            raise UserError(f"{path} is not a readable safetensors file ({error}). Recreate the data set.") from None
        if prompts is None or prompts.ndim != 2:
            shape = None if prompts is None else list(prompts.shape)
            raise UserError(f"{path} has prompts of shape {shape}, expected [C, D]. Recreate the data set.")
        return prompts

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

    def shard_path(self, shard: ShardInfo) -> Location:
        """Path of one shard."""
        return self.root / shard.path

    def split(self, name: str) -> list[ShardInfo]:
        """Shards of a split.

        Raises:
            UserError: the data set has no such split.
        """
        shards = self.manifest.splits.get(name, [])
        if not shards:
            present = ", ".join(s for s in SPLITS if self.manifest.splits.get(s)) or "none"
            advice = " Cut one from train with `vadv ingest table … --valid-fraction 0.1`." if name == "valid" else ""
            raise UserError(f"{self.root} has no {name!r} split (it has: {present}).{advice}")
        return shards


def parse_manifest(raw: Mapping[str, Any], path: Location) -> DatasetManifest:
    """Build a manifest from the JSON of `dataset.json`.

    Raises:
        UserError: unsupported schema version, or a missing or malformed field.
    """
    version = raw.get("schema_version")
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{path} has schema_version {fields.brief(version)}, but this version reads {SCHEMA_VERSION}. "
            "Recreate the data set with this version, or use the version that created it."
        )
    try:
        splits = {
            name: [_parse_shard(entry) for entry in fields.items(fields.mapping(split, name)["shards"], "shards")]
            for name, split in fields.mapping(raw["splits"], "splits").items()
        }
        return DatasetManifest(
            splits=splits,
            features={
                name: fields.feature(spec, name) for name, spec in fields.mapping(raw["features"], "features").items()
            },
            label=fields.label(raw["label"]),
            statistics=fields.statistics(raw.get("statistics", {})),
            provenance=fields.mapping(raw.get("provenance", {}), "provenance"),
            num_classes_prompts=fields.count(raw.get("num_classes_prompts", 0), "num_classes_prompts"),
            prompts_sha256=None
            if raw.get("prompts_sha256") is None
            else fields.text(raw["prompts_sha256"], "prompts_sha256"),
            truth=fields.truth(raw.get("truth")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is malformed ({type(error).__name__}: {error}). Recreate the data set.") from None


def _parse_shard(raw: Any) -> ShardInfo:
    entry = fields.mapping(raw, "shard")
    path = fields.text(entry["path"], "path")
    if Path(path).is_absolute() or ".." in Path(path).parts or "\0" in path:
        raise ValueError(f"shard path {path!r} is outside the data set")
    rows, size = fields.count(entry["rows"], "rows"), fields.count(entry["bytes"], "bytes")
    if rows > size:
        raise ValueError(f"shard {path!r} declares {rows:,} rows in {size:,} bytes")
    return ShardInfo(
        path,
        rows,
        size,
        fields.text(entry["sha256"], "sha256"),
        fields.counts(entry.get("missing", {}), "missing"),
    )


def manifest_json(manifest: DatasetManifest) -> dict[str, Any]:
    """The JSON document of `dataset.json`."""
    raw = asdict(manifest)
    raw["splits"] = {
        name: {"rows": manifest.rows(name), "shards": [asdict(shard) for shard in shards]}
        for name, shards in manifest.splits.items()
    }
    raw["label"]["threshold"] = None if manifest.label.is_class else manifest.label.positive_from
    raw["missing"] = "null"
    raw["fingerprint"] = manifest.fingerprint
    return dict(sorted(raw.items(), key=lambda item: item[0] != "schema_version"))
