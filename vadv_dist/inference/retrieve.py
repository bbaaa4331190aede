"""Find the nearest clips of a gallery of the other modality with an exported retrieval student: exact search.

Shape letters: R rows, D width of a vector, E embedding width, Q queries, G gallery items, k items per query.
"""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from vadv_dist.errors import ExistsError, UserError
from vadv_dist.evaluation.nearest import Nearest
from vadv_dist.inference.manifest import resolve_student
from vadv_dist.inference.onnx_student import OnnxTowers
from vadv_dist.inference.retrieval_export import MODALITIES, RetrievalManifest, load_pair
from vadv_dist.inference.suffixes import either, ending
from vadv_dist.inference.vector_files import VectorFile, vector_file_kind
from vadv_dist.models.retrieval_towers import RetrievalTowers
from vadv_dist.storage import Location, atomic_file, local_copy, location

Modality = Literal["audio", "visual"]
FloatArray = npt.NDArray[np.float32]

_BATCH_ROWS = 4096
_OUTPUTS = (".csv", ".parquet", ".npz")


class PairStudent:
    """A loaded retrieval student, ready for any number of calls, on the CPU.

    Args:
        towers: the model.
        manifest: its facts.
    """

    def __init__(self, towers: RetrievalTowers | OnnxTowers, manifest: RetrievalManifest) -> None:
        self.towers, self.manifest = towers, manifest

    @classmethod
    def load(cls, folder: str | Location) -> "PairStudent":
        """Load an export or a run's student after verifying its files.

        Raises:
            UserError: as in `resolve_student` and `load_pair`.
        """
        with local_copy(resolve_student(folder)) as path:
            return cls(*load_pair(path))

    @torch.inference_mode()
    def embed(self, modality: str, vectors_RD: npt.NDArray[np.floating]) -> FloatArray:
        """Embed `audio` or `visual` vectors: [R, E], of length 1."""
        embed = self.towers.audio_embedding if modality == "audio" else self.towers.visual_embedding
        parts = [
            embed(torch.from_numpy(np.array(vectors_RD[start : start + _BATCH_ROWS], np.float32))).numpy()
            for start in range(0, len(vectors_RD), _BATCH_ROWS)
        ]
        return np.concatenate([np.empty((0, self.manifest.widths["embedding"]), np.float32), *parts])


@dataclass(frozen=True)
class Retrieved:
    """The nearest items of some queries.

    Attributes:
        query_modality: modality of the queries; the gallery has the other one.
        query_id: id of each query, [Q].
        gallery_id: ids of its nearest items, nearest first, [Q, k].
        cosine: their cosines, [Q, k].
        num_items: number of items in the gallery.
    """

    query_modality: Modality
    query_id: list[str]
    gallery_id: list[list[str]]
    cosine: FloatArray
    num_items: int

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row per query and item, as in files."""
        for query, items, cosines in zip(self.query_id, self.gallery_id, self.cosine, strict=True):
            for rank, (item, cosine) in enumerate(zip(items, cosines, strict=True), 1):
                yield {"query_id": query, "rank": rank, "gallery_id": item, "cosine": float(cosine)}


def retrieve(
    folder: str | Location,
    query_path: str | Location,
    gallery_path: str | Location,
    *,
    k: int = 10,
    modality: Modality | None = None,
    id_column: str | None = None,
) -> Retrieved:
    """Find the k nearest items of the gallery for each query.

    The gallery is read in pieces, so that it may be larger than memory; its ids are kept. Items with equal cosines are
    in the order of the gallery.

    Args:
        folder: a run of retrieval, or its export.
        query_path, gallery_path: files of vectors (`vector_files`): .csv, .parquet or .npz.
        k: number of items of each query.
        modality: modality of the queries, `audio` or `visual`; None takes the only one for which the two files have
            vectors.
        id_column: name of the ids in both files; None takes `clip_id` or `id`.
    Raises:
        UserError: a file cannot be read, lacks a column, or has vectors of another width, values that are not finite
            or an id twice; k is larger than the gallery; or as in `PairStudent.load`.
    """
    query_place, gallery_place = location(query_path), location(gallery_path)
    if k < 1:
        raise UserError(f"--k is {k}, expected at least 1.")
    kinds = [vector_file_kind(place) for place in (query_place, gallery_place)]
    student = PairStudent.load(folder)
    with local_copy(query_place) as query_file, local_copy(gallery_place) as gallery_file:
        source = modality or _modality(kinds, query_file, gallery_file)
        target: Modality = "visual" if source == "audio" else "audio"
        queries = kinds[0](query_file, source, id_column)
        gallery = kinds[1](gallery_file, target, id_column)
        query_ids, query_embedding = _embedded(student, queries, source)
        _require_unique(query_ids, query_file)
        nearest = Nearest(query_embedding, k)
        gallery_ids: list[str] = []
        for ids, vectors in gallery.pieces(student.manifest.widths[target]):
            nearest.add(student.embed(target, vectors))
            gallery_ids += ids
        _require_unique(gallery_ids, gallery_file)
        if k > (count := len(gallery_ids)):
            raise UserError(f"--k is {k}, but {gallery_place} has {count} rows. Give --k {count} or less.")
    items, cosines = nearest.result()
    found = [[gallery_ids[item] for item in row] for row in items.tolist()]
    return Retrieved(source, query_ids, found, cosines.astype(np.float32), count)


def require_output(path: str | Location) -> Location:
    """Check where results are to be written.

    Raises:
        UserError: the file exists, or its suffix is unknown.
    """
    out = location(path)
    if out.suffix.lower() not in _OUTPUTS:
        raise UserError(f"--out {out} {ending(out)}, expected {either(_OUTPUTS)}.")
    if out.exists():
        raise ExistsError(f"{out} already exists and is not overwritten. Choose another file, or remove it.")
    return out


def is_retrieved(path: Path) -> bool:
    """Whether a file is one that `write_retrieved` wrote, by its columns or arrays."""
    try:
        columns = set(vector_file_kind(path).columns_of(path))
    except UserError:
        return False
    return columns - {"rank"} == {"query_id", "gallery_id", "cosine"}


def write_retrieved(found: Retrieved, out: Location) -> None:
    """Write results by the suffix of the file.

    A .csv or .parquet file has one row per query and item with `query_id`, `rank` from 1, `gallery_id` and `cosine`; an
    .npz file has the arrays `query_id` [Q], `gallery_id` [Q, k] and `cosine` [Q, k].
    """
    with atomic_file(out) as partial:
        suffix = out.suffix.lower()
        if suffix == ".npz":
            ids = np.array(found.query_id), np.array(found.gallery_id)
            with partial.open("wb") as file:
                np.savez(file, query_id=ids[0], gallery_id=ids[1], cosine=found.cosine)
        elif suffix == ".parquet":
            k = found.cosine.shape[1]
            columns = {
                "query_id": np.repeat(np.array(found.query_id, object), k),
                "rank": np.tile(np.arange(1, k + 1, dtype=np.int32), len(found.query_id)),
                "gallery_id": [item for items in found.gallery_id for item in items],
                "cosine": found.cosine.reshape(-1),
            }
            pq.write_table(pa.table(columns), partial)
        else:
            with partial.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, ("query_id", "rank", "gallery_id", "cosine"), lineterminator="\n")
                writer.writeheader()
                # As few digits as restore the same float32.
                writer.writerows({**row, "cosine": str(np.float32(row["cosine"]))} for row in found.rows())


def _modality(kinds: Sequence[type[VectorFile]], query: Path, gallery: Path) -> Modality:
    """The modality of the queries that the two files allow.

    Raises:
        UserError: they allow none or both.
    """
    fits: list[Modality] = []
    for source, target in (("audio", "visual"), ("visual", "audio")):
        if kinds[0].has(query, source) and kinds[1].has(gallery, target):
            fits.append("audio" if source == "audio" else "visual")
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise UserError(
            f"{query} and {gallery} both have audio and visual vectors. Give the modality of the queries: --from audio "
            "or --from visual."
        )
    found = []
    for kind, path in zip(kinds, (query, gallery), strict=True):
        names = [name for name in MODALITIES if kind.has(path, name)]
        found.append(f"{path} has {' and '.join(names) or 'no audio or visual'} vectors")
    raise UserError(
        f"{found[0]}, and {found[1]}. Expected queries of one modality and a gallery of the other, in a column 'audio' "
        "or 'visual' of lists (Parquet), an array (npz), or columns 'audio_0', 'audio_1', … (CSV)."
    )


def _embedded(student: PairStudent, file: VectorFile, modality: Modality) -> tuple[list[str], FloatArray]:
    ids: list[str] = []
    parts = []
    for names, vectors in file.pieces(student.manifest.widths[modality]):
        ids += names
        parts.append(student.embed(modality, vectors))
    return ids, np.concatenate(parts)


def _require_unique(ids: list[str], path: Path) -> None:
    """Check that no id is there twice.

    Raises:
        UserError: with the first such id.
    """
    if len(set(ids)) < len(ids):
        name, count = next((name, count) for name, count in Counter(ids).items() if count > 1)
        raise UserError(f"{path} has id {name[:60]!r} {count} times. Keep one row per clip.")
