"""A student of retrieval as a server's batches use it: any vectors of both modalities together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vadv_dist.inference.retrieve import PairStudent


@dataclass(frozen=True)
class Vector:
    """A vector of a clip; in batches it counts as one token.

    Attributes:
        modality: `audio` or `visual`.
        values: [D].
    """

    modality: str
    values: npt.NDArray[np.float32]
    num_tokens: int = 1
    is_truncated: bool = False


class VectorModel:
    """A student of retrieval on a CPU, called from one thread at a time.

    Args:
        student: the student.
    """

    def __init__(self, student: PairStudent) -> None:
        self._student = student

    def warm_up(self) -> None:
        """Compute once, because the first call allocates."""
        widths = self._student.manifest.widths
        self.predict([Vector(name, np.zeros(widths[name], np.float32)) for name in ("audio", "visual")])

    def read(self, vectors: Sequence[Vector]) -> list[Vector]:
        """Nothing is to be done before a batch."""
        return list(vectors)

    def predict(self, vectors: Sequence[Vector]) -> list[list[float]]:
        """Embeddings of length 1, R lists of E numbers."""
        results: list[list[float]] = [[] for _ in vectors]
        for name in {vector.modality for vector in vectors}:
            rows = [row for row, vector in enumerate(vectors) if vector.modality == name]
            embeddings = self._student.embed(name, np.stack([vectors[row].values for row in rows]))
            for row, embedding in zip(rows, embeddings.tolist(), strict=True):
                results[row] = embedding
        return results
