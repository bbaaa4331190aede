"""Write a data set: Parquet shards, then `dataset.json`, which makes it complete."""

import datetime
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vadv_dist import __version__
from vadv_dist.data.columns import arrow_schema
from vadv_dist.data.dataset import (
    MANIFEST,
    PROMPTS_NAME,
    DatasetManifest,
    Histogram,
    LabelCount,
    SplitStatistics,
    WordStatistics,
    write_manifest,
)
from vadv_dist.data.schema import (
    META_COLUMNS,
    SPLITS,
    Array,
    Clip,
    FeatureSpec,
    LabelSpec,
    count_words,
    feature_fault,
)
from vadv_dist.data.shard_list import ShardInfo
from vadv_dist.errors import UserError
from vadv_dist.storage import (
    Location,
    atomic_directory,
    atomic_file,
    location,
    require_absent,
    sha256_file,
)

DEFAULT_SHARD_ROWS = 1024
_SHARD_BYTES = 64 << 20
# Half a point each on MOSI's scale, -3 to 3.
LABEL_BINS = 12
_MAX_LABEL_VALUES = 10


class DatasetWriter:
    """Write clips into shards; the data set appears under its name when the `with` block ends without an error.

    Args:
        uri: the folder to create; must be empty or not exist.
        features: shape and type of each feature that clips may have.
        label: label range; a clip outside it is refused.
        provenance: where the clips come from (source files and hashes, parameters); version and time are added.
        shard_rows: a shard is closed at this many rows, or at 64 MiB of features.
    """

    def __init__(
        self,
        uri: str | Location,
        *,
        features: Mapping[str, FeatureSpec],
        label: LabelSpec,
        provenance: Mapping[str, Any],
        shard_rows: int = DEFAULT_SHARD_ROWS,
    ) -> None:
        self.root = location(uri)
        require_absent(self.root, "a data set", "Choose another folder, or remove this one.", manifest=MANIFEST)
        for name, spec in features.items():
            if (fault := feature_fault(name, spec)) is not None:
                raise UserError(fault)
        self.features = dict(features)
        self.label = label
        self.provenance = dict(provenance)
        self.prompts: Array | None = None
        self.truth: dict[str, Any] | None = None
        per_row = sum(spec.bytes_per_row for spec in self.features.values())
        self.shard_rows = max(1, min(shard_rows, _SHARD_BYTES // max(per_row, 1)))
        self._pending: dict[str, list[Clip]] = defaultdict(list)
        self._shards: dict[str, list[ShardInfo]] = defaultdict(list)
        self._labels: dict[str, list[float]] = defaultdict(list)
        self._words: dict[str, list[int]] = defaultdict(list)

    def __enter__(self) -> Self:
        self._scope = self._written()
        self._scope.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._scope.__exit__(*error)

    @contextmanager
    def _written(self) -> Iterator[None]:
        with atomic_directory(self.root, manifest=MANIFEST) as self._upload:
            yield
            self._finish()

    @property
    def folder(self) -> Path:
        """The folder being written (hidden until the end), for additional files."""
        return self._upload.folder

    def write(self, split: str, clip: Clip) -> None:
        """Add one clip.

        Raises:
            UserError: an empty text, a label out of range, or a feature with another shape, NaN or infinity.
        """
        if split not in SPLITS:
            raise UserError(f"Clip {clip.clip_id!r} is in split {split!r}, expected one of {', '.join(SPLITS)}.")
        check_clip(clip, self.features, self.label)
        self._pending[split].append(clip)
        self._labels[split].append(clip.label)
        self._words[split].append(count_words(clip.text))
        if len(self._pending[split]) >= self.shard_rows:
            self._flush(split)

    def _flush(self, split: str) -> None:
        name = shard_name(split, len(self._shards[split]))
        self._shards[split].append(write_shard(self.folder, name, self._pending.pop(split), self.features))
        self._upload.send(name)

    def _finish(self) -> None:
        for split in tuple(self._pending):
            self._flush(split)
        if not self._shards:
            raise UserError("There are no clips to write.")
        splits = [split for split in SPLITS if split in self._shards]
        prompts_sha256 = None if self.prompts is None else write_prompts(self.folder / PROMPTS_NAME, self.prompts)
        manifest = DatasetManifest(
            splits={split: self._shards[split] for split in splits},
            features=self.features,
            label=self.label,
            statistics={split: statistics(self._labels[split], self._words[split], self.label) for split in splits},
            provenance=stamped(self.provenance),
            num_classes_prompts=0 if self.prompts is None else len(self.prompts),
            prompts_sha256=prompts_sha256,
            truth=self.truth,
        )
        write_manifest(self.folder, manifest)


def shard_name(split: str, number: int) -> str:
    """Path of a shard inside its data set."""
    return f"{split}/{number:05d}.parquet"


def write_shard(folder: Location, name: str, clips: list[Clip], features: Mapping[str, FeatureSpec]) -> ShardInfo:
    """Write clips as the shard `<folder>/<name>`, completely or not at all, and return its description."""
    path = folder / name
    with atomic_file(path) as partial:
        # Embeddings barely compress; uncompressed pages can be read at disk speed.
        pq.write_table(
            clips_to_table(clips, features),
            partial,
            compression="none",
            use_dictionary=["video_id", "source"],
            write_statistics=False,
        )
        size, digest = partial.stat().st_size, sha256_file(partial)
    missing = Counter("+".join(sorted(f for f in features if clip.features.get(f) is None)) for clip in clips)
    del missing[""]
    return ShardInfo(name, len(clips), size, digest, dict(missing))


def write_prompts(path: Location, prompts: Array) -> str:
    """Write prompt embeddings [C, D], completely or not at all, and return the file's SHA-256."""
    from safetensors.numpy import save

    content = save({"prompts": np.ascontiguousarray(prompts)})  # `save_file` hides the system's error if a disk is full
    with atomic_file(path) as partial:
        partial.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def stamped(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Add this version and the time to the provenance."""
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {**provenance, "vadv_version": __version__, "created": created}


def check_clip(clip: Clip, features: Mapping[str, FeatureSpec], label: LabelSpec) -> None:
    """Refuse an invalid clip.

    Raises:
        UserError: with the clip, the field, its value and what was expected.
    """
    where = f"Clip {clip.clip_id!r}"
    if not clip.clip_id:
        raise UserError("A clip has an empty clip_id.")
    if not clip.text.strip() and not label.is_class:
        raise UserError(f"{where} has an empty text. Add its words, or leave the clip out.")
    if not label.holds(clip.label):
        raise UserError(
            f"{where} has label {clip.label:g}, expected {label}. Fix the label, or set the right --label-range."
        )
    for name, spec in features.items():
        values = clip.features.get(name)
        if values is None:
            continue
        if values.shape != spec.shape:
            raise UserError(
                f"{where} has {name} of shape {list(values.shape)}, but the data set declares {list(spec.shape)}."
            )
        with np.errstate(over="ignore"):  # values that overflow float16 become infinite and are refused below
            stored = np.asarray(values, dtype=spec.dtype)
        if not np.isfinite(stored).all():
            raise UserError(
                f"{where} has NaN or infinity in {name} (as {spec.dtype}). Fix the features, or leave them out."
            )


def clips_to_table(clips: list[Clip], features: Mapping[str, FeatureSpec]) -> pa.Table:
    """Arrow table of some clips; a missing feature is null."""
    schema = arrow_schema(features)
    columns: list[pa.Array] = [
        *(pa.array([getattr(c, name) for c in clips], pa.string()) for name in META_COLUMNS[:4]),
        pa.array([c.label for c in clips], pa.float32()),
        pa.array([count_words(c.text) for c in clips], pa.int32()),
    ]
    for name, spec in features.items():
        zeros = np.zeros(spec.shape, spec.dtype)
        values = [c.features.get(name) for c in clips]
        stacked = np.stack([zeros if v is None else np.asarray(v, spec.dtype) for v in values])
        absent = np.array([v is None for v in values])
        mask = pa.array(absent) if absent.any() else None
        storage = pa.FixedSizeListArray.from_arrays(pa.array(stacked.reshape(-1)), stacked[0].size, mask=mask)
        columns.append(pa.ExtensionArray.from_storage(schema.field(name).type, storage))
    return pa.Table.from_arrays(columns, schema=schema)


def statistics(labels: list[float], words: list[int], label: LabelSpec) -> SplitStatistics:
    """Statistics of a split; the histogram's bins span the label range, and each class has its own bin."""
    y, w = np.asarray(labels, np.float64), np.asarray(words)
    span = (label.low - 0.5, label.high + 0.5) if label.is_class else (label.low, label.high)
    counts, edges = np.histogram(y, bins=int(label.high) + 1 if label.is_class else LABEL_BINS, range=span)
    values, times = np.unique(y, return_counts=True)
    few = not label.is_class and len(values) <= _MAX_LABEL_VALUES
    return SplitStatistics(
        rows=len(y),
        label_mean=round(float(y.mean()), 6),
        label_std=round(float(y.std()), 6),
        label_min=float(y.min()),
        label_median=float(np.median(y)),
        label_max=float(y.max()),
        label_histogram=Histogram(edges.round(6).tolist(), counts.tolist()),
        label_values=[LabelCount(*each) for each in zip(values.tolist(), times.tolist(), strict=True)] if few else None,
        words=WordStatistics(int(w.min()), float(np.median(w)), int(w.max()), int(w.sum())),
    )
