"""Write and read a data set: Parquet shards beside a `dataset.json` that is written last.

Layout (docs/architecture.md, "A data set on storage"): `<uri>/<split>/00000.parquet …`, `<uri>/dataset.json`, and
`<uri>/prompts.safetensors` where the data set has prompt embeddings.
"""

import datetime
import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vadv_dist import __version__
from vadv_dist.data import manifest_fields as fields
from vadv_dist.data.schema import (
    FEATURE_AXES,
    FEATURE_LAYOUT,
    SCHEMA_VERSION,
    SPLITS,
    Array,
    Clip,
    FeatureSpec,
    LabelSpec,
    count_words,
)
from vadv_dist.errors import UserError
from vadv_dist.storage import (
    Location,
    atomic_directory,
    atomic_file,
    location,
    read_json,
    require_absent,
    sha256_bytes,
    sha256_file,
    write_json,
)

MANIFEST = "dataset.json"
DEFAULT_SHARD_ROWS = 1024
DEFAULT_SHARD_BYTES = 64 << 20
PROMPTS_NAME = "prompts.safetensors"
# Half a point each on the scale of MOSI, -3 to 3.
LABEL_BINS = 12


@dataclass(frozen=True)
class ShardInfo:
    """One shard as `dataset.json` declares it.

    `missing` counts rows by the exact set of features that they lack, as `{"face": 3, "face+visual": 1}`.
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
    """What `dataset.json` says."""

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
        """SHA-256 over all shards' hashes, and the prompts' where it is known: equal for sets of the same bytes."""
        digest = hashlib.sha256()
        for split in sorted(self.splits):
            for shard in self.splits[split]:
                digest.update(f"{split} {shard.rows} {shard.sha256}\n".encode())
        if self.prompts_sha256 is not None:
            digest.update(f"prompts {self.num_classes_prompts} {self.prompts_sha256}\n".encode())
        return digest.hexdigest()

    @property
    def records(self) -> dict[str, str]:
        """SHA-256 of each file beside the shards that provenance names under `records`, by its plain name."""
        found = self.provenance.get("records", [])
        return {
            str(entry["name"]): str(entry["sha256"])
            for entry in (found if isinstance(found, list) else [])
            if isinstance(entry, dict) and {"name", "sha256"} <= entry.keys() and "/" not in str(entry["name"])
        }

    def rows(self, split: str) -> int:
        """Number of rows of a split (0 where the data set has no such split)."""
        return sum(shard.rows for shard in self.splits.get(split, []))


@dataclass(frozen=True)
class Dataset:
    """A data set on storage: where it is and what its manifest says."""

    root: Location
    manifest: DatasetManifest

    @classmethod
    def open(cls, uri: str | Location) -> "Dataset":
        """Read a data set's manifest; no shard is opened.

        Raises:
            UserError: nothing there, not a data set, or one of another schema version.
        """
        root = location(uri)
        path = root / MANIFEST
        if not path.is_file():
            what = "has no dataset.json" if root.is_dir() else "does not exist"
            raise UserError(
                f"{root} {what}, so it is not a data set (dataset.json is written last, when a data set is "
                "complete). Give the folder that `vadv synth` or `vadv ingest` wrote, or run it again."
            )
        try:
            raw = read_json(path)
        except (ValueError, RecursionError) as error:  # numbers of thousands of digits, brackets nested thousandfold
            raise UserError(f"{path} cannot be read as JSON: {error}.") from None
        return cls(root, parse_manifest(raw, path))

    @property
    def prompts_path(self) -> Location:
        """Where frozen prompt embeddings are, if the data set has any."""
        return self.root / PROMPTS_NAME

    def read_prompts(self) -> Array | None:
        """Prompt embeddings [C, D], verified where their hash is declared; None where there are none.

        Raises:
            UserError: the file is gone, was changed, or does not hold what `dataset.json` declares.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        path, manifest = self.prompts_path, self.manifest
        if not manifest.num_classes_prompts and not path.is_file():
            return None
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise UserError(
                f"{path} is gone, but dataset.json declares {manifest.num_classes_prompts} prompts. Restore it, or "
                "make the data set again."
            ) from None
        if manifest.prompts_sha256 is not None and sha256_bytes(content) != manifest.prompts_sha256:
            raise UserError(
                f"{path} has SHA-256 {sha256_bytes(content)[:12]}…, dataset.json declares "
                f"{manifest.prompts_sha256[:12]}…: it was changed after the data set was written. Restore it, or make "
                "the data set again."
            )
        try:
            prompts: Array | None = load(content).get("prompts")
        except (SafetensorError, ValueError) as error:
            raise UserError(f"{path} is not a readable safetensors file ({error}). Make the data set again.") from None
        if prompts is None or prompts.ndim != 2:
            shape = None if prompts is None else list(prompts.shape)
            raise UserError(f"{path} holds prompts of shape {shape}, expected [C, D]. Make the data set again.")
        return prompts

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
        UserError: another schema version, or a field that is missing or malformed.
    """
    version = raw.get("schema_version")
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{path} has schema_version {fields.brief(version)}, this version reads {SCHEMA_VERSION}. "
            "Make the data set again with this version, or use the version that made it."
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
        raise UserError(f"{path} is malformed ({type(error).__name__}: {error}). Make the data set again.") from None


def _parse_shard(raw: Any) -> ShardInfo:
    entry = fields.mapping(raw, "shard")
    path = fields.text(entry["path"], "path")
    if Path(path).is_absolute() or ".." in Path(path).parts or "\0" in path:
        raise ValueError(f"shard path {path!r} leaves the data set")
    return ShardInfo(
        path,
        fields.count(entry["rows"], "rows"),
        fields.count(entry["bytes"], "bytes"),
        fields.text(entry["sha256"], "sha256"),
        fields.counts(entry.get("missing", {}), "missing"),
    )


class DatasetWriter:
    """Write clips into shards; the data set appears under its name when the `with` block ends without an error.

    Args:
        uri: the folder to make; must not exist, or be empty.
        features: shape and type of each feature that clips may carry.
        label: label range; a clip outside it is refused.
        provenance: where the clips come from (source files and hashes, parameters); version and time are added.
        shard_rows, shard_bytes: a shard is closed when it reaches either.
    """

    def __init__(
        self,
        uri: str | Location,
        *,
        features: Mapping[str, FeatureSpec],
        label: LabelSpec,
        provenance: Mapping[str, Any],
        shard_rows: int = DEFAULT_SHARD_ROWS,
        shard_bytes: int = DEFAULT_SHARD_BYTES,
    ) -> None:
        self.root = location(uri)
        require_absent(self.root, "a data set", "Give another folder, or remove this one.", manifest=MANIFEST)
        for name, spec in features.items():
            if name not in FEATURE_AXES:
                raise UserError(f"Unknown feature {name!r}; a data set may hold {', '.join(FEATURE_AXES)}.")
            if len(spec.shape) not in FEATURE_AXES[name]:
                raise UserError(
                    f"Feature {name!r} has shape {list(spec.shape)} per clip, expected {FEATURE_LAYOUT[name]}."
                )
            if math.prod(spec.shape) > fields.MAX_VALUES:
                raise UserError(f"Feature {name!r} has shape {list(spec.shape)} per clip: too many values. Give fewer.")
        self.features = dict(features)
        self.label = label
        self.provenance = dict(provenance)
        self.prompts: Array | None = None
        self.truth: dict[str, Any] | None = None
        per_row = sum(spec.bytes_per_row for spec in self.features.values())
        self.shard_rows = max(1, min(shard_rows, shard_bytes // per_row if per_row else shard_rows))
        self._pending: dict[str, list[Clip]] = {}
        self._shards: dict[str, list[ShardInfo]] = {}
        self._labels: dict[str, list[float]] = {}
        self._words: dict[str, list[int]] = {}

    def __enter__(self) -> Self:
        self._scope = atomic_directory(self.root, manifest=MANIFEST)
        self._upload = self._scope.__enter__()
        self._folder = self._upload.folder
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            try:
                self._finish()
            except BaseException as late:
                self._scope.__exit__(type(late), late, late.__traceback__)
                raise
        self._scope.__exit__(kind, error, trace)

    @property
    def folder(self) -> Path:
        """The folder being written (hidden until the end), for files that belong beside the shards."""
        return self._folder

    def write(self, split: str, clip: Clip) -> None:
        """Add one clip.

        Raises:
            UserError: an empty text, a label out of range, a feature of another shape or with NaN or infinity.
        """
        if split not in SPLITS:
            raise UserError(f"Clip {clip.clip_id!r} is in split {split!r}, expected one of {', '.join(SPLITS)}.")
        check_clip(clip, self.features, self.label)
        pending = self._pending.setdefault(split, [])
        pending.append(clip)
        self._labels.setdefault(split, []).append(clip.label)
        self._words.setdefault(split, []).append(count_words(clip.text))
        if len(pending) >= self.shard_rows:
            self._flush(split)

    def _flush(self, split: str) -> None:
        clips = self._pending.get(split, [])
        if not clips:
            return
        shards = self._shards.setdefault(split, [])
        shard = write_shard(self._folder, shard_name(split, len(shards)), clips, self.features)
        self._upload.send(shard.path)
        shards.append(shard)
        self._pending[split] = []

    def _finish(self) -> None:
        for split in SPLITS:
            self._flush(split)
        if not self._shards:
            raise UserError("There is not a single clip to write.")
        prompts_sha256 = None if self.prompts is None else write_prompts(self._folder / PROMPTS_NAME, self.prompts)
        manifest = DatasetManifest(
            splits=self._shards,
            features=self.features,
            label=self.label,
            statistics={
                s: statistics(self._labels[s], self._words[s], self.label) for s in SPLITS if s in self._shards
            },
            provenance=stamped(self.provenance),
            num_classes_prompts=0 if self.prompts is None else int(self.prompts.shape[0]),
            prompts_sha256=prompts_sha256,
            truth=self.truth,
        )
        write_json(self._folder / MANIFEST, manifest_json(manifest))


def shard_name(split: str, number: int) -> str:
    """Path of a shard inside its data set."""
    return f"{split}/{number:05d}.parquet"


def write_shard(folder: Location, name: str, clips: list[Clip], features: Mapping[str, FeatureSpec]) -> ShardInfo:
    """Write some clips as the shard `<folder>/<name>`, whole or not at all, and say what it holds."""
    path = folder / name
    with atomic_file(path) as partial:
        # Embeddings barely compress; uncompressed pages keep reading at the speed of the disk.
        pq.write_table(
            clips_to_table(clips, features, arrow_schema(features)),
            partial,
            compression="none",
            use_dictionary=["video_id", "source"],
            write_statistics=False,
        )
        size, digest = partial.stat().st_size, sha256_file(partial)
    missing: dict[str, int] = {}
    for clip in clips:
        lacking = "+".join(sorted(f for f in features if clip.features.get(f) is None))
        if lacking:
            missing[lacking] = missing.get(lacking, 0) + 1
    return ShardInfo(name, len(clips), size, digest, missing)


def write_prompts(path: Location, prompts: Array) -> str:
    """Write prompt embeddings [C, D], whole or not at all, and return the file's SHA-256."""
    from safetensors.numpy import save

    content = save({"prompts": np.ascontiguousarray(prompts)})
    with atomic_file(path) as partial:
        partial.write_bytes(content)
    return sha256_bytes(content)


def stamped(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Provenance with this version and the time."""
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {**provenance, "vadv_version": __version__, "created": created}


def manifest_json(manifest: DatasetManifest) -> dict[str, Any]:
    """The document that `dataset.json` holds."""
    raw = asdict(manifest)
    raw["splits"] = {
        name: {"rows": manifest.rows(name), "shards": [asdict(shard) for shard in shards]}
        for name, shards in manifest.splits.items()
    }
    raw["missing"] = "null"
    raw["fingerprint"] = manifest.fingerprint
    return dict(sorted(raw.items(), key=lambda item: item[0] != "schema_version"))


def check_clip(clip: Clip, features: Mapping[str, FeatureSpec], label: LabelSpec) -> None:
    """Refuse a clip that a data set may not hold.

    Raises:
        UserError: says which clip, which field, what it holds and what was expected.
    """
    where = f"Clip {clip.clip_id!r}"
    if not clip.clip_id:
        raise UserError("A clip has an empty clip_id.")
    if not clip.text.strip() and not label.is_class:
        raise UserError(f"{where} has an empty text. Give its words, or leave the clip out.")
    if not label.holds(clip.label):
        raise UserError(
            f"{where} has label {clip.label:g}, expected {label}. Mend the label, or give the right --label-range."
        )
    for name, spec in features.items():
        values = clip.features.get(name)
        if values is None:
            continue
        if values.shape != spec.shape:
            raise UserError(
                f"{where} has {name} of shape {list(values.shape)}, the data set declares {list(spec.shape)}."
            )
        with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinite, and is refused as such
            stored = np.asarray(values, dtype=spec.dtype)
        if not np.isfinite(stored).all():
            raise UserError(
                f"{where} has NaN or infinity in {name} (as {spec.dtype}). Mend the features, or leave them out."
            )


def arrow_schema(features: Mapping[str, FeatureSpec]) -> pa.Schema:
    """Arrow schema of a shard: the meta columns, then one fixed-shape tensor column per feature."""
    fields = [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("label", pa.float32(), nullable=False),
        pa.field("num_words", pa.int32(), nullable=False),
    ]
    for name, spec in features.items():
        value_type = pa.from_numpy_dtype(np.dtype(spec.dtype))
        fields.append(pa.field(name, pa.fixed_shape_tensor(value_type, list(spec.shape))))
    return pa.schema(fields)


def clips_to_table(clips: list[Clip], features: Mapping[str, FeatureSpec], schema: pa.Schema) -> pa.Table:
    """Arrow table of some clips; a missing feature is null."""
    columns: list[pa.Array] = [
        pa.array([c.clip_id for c in clips], pa.string()),
        pa.array([c.video_id for c in clips], pa.string()),
        pa.array([c.source for c in clips], pa.string()),
        pa.array([c.text for c in clips], pa.string()),
        pa.array(np.array([c.label for c in clips], np.float32)),
        pa.array(np.array([count_words(c.text) for c in clips], np.int32)),
    ]
    for name, spec in features.items():
        zeros = np.zeros(spec.shape, spec.dtype)
        values = [c.features.get(name) for c in clips]
        stacked = np.stack([zeros if v is None else np.asarray(v, spec.dtype) for v in values])
        absent = np.array([v is None for v in values])
        tensor_type = schema.field(name).type
        storage = pa.FixedSizeListArray.from_arrays(
            pa.array(stacked.reshape(-1)),
            int(np.prod(spec.shape)),
            mask=pa.array(absent) if absent.any() else None,
        )
        columns.append(pa.ExtensionArray.from_storage(tensor_type, storage))
    return pa.Table.from_arrays(columns, schema=schema)


def statistics(labels: list[float], words: list[int], label: LabelSpec) -> dict[str, Any]:
    """Label and word statistics of a split, as `dataset.json` keeps them.

    Bins span the label range of every split; classes have a bin each.
    """
    y, w = np.asarray(labels, np.float64), np.asarray(words)
    span = (label.low - 0.5, label.high + 0.5) if label.is_class else (label.low, label.high)
    counts, bounds = np.histogram(y, bins=int(label.high) + 1 if label.is_class else LABEL_BINS, range=span)
    return {
        "rows": len(y),
        "label_mean": round(float(y.mean()), 6),
        "label_std": round(float(y.std()), 6),
        "label_histogram": {"edges": bounds.round(6).tolist(), "counts": counts.tolist()},
        "words": {
            "min": int(w.min()),
            "median": float(np.median(w)),
            "max": int(w.max()),
            "total": int(w.sum()),
        },
    }
