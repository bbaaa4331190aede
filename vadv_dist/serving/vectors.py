"""`POST /embed`: embeddings of audio or visual vectors by a student of retrieval."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, Field, FiniteFloat

from vadv_dist.serving.batcher import Answer
from vadv_dist.serving.requests import BadRequestError, NotFiniteError, RequestBody, read_body
from vadv_dist.serving.settings import ServeSettings
from vadv_dist.serving.vector_model import Vector

_LARGEST = float(np.finfo(np.float32).max)


class EmbedRequest(RequestBody):
    """The body of a request."""

    modality: Literal["audio", "visual"] = Field(description="modality of the vectors")
    vectors: list[list[FiniteFloat]] = Field(description="vectors of one modality, each of the width in /model")


class EmbedResponse(BaseModel):
    """The body of an answer."""

    embeddings: list[list[float]] = Field(
        description="an embedding of each vector, of length 1; the dot product of two, of one modality or both, is "
        "their cosine"
    )
    model: dict[str, Any] = Field(description="the student: its name, and the widths of vectors and embeddings")


@dataclass(frozen=True)
class VectorService:
    """A student of retrieval; see `Service`.

    Attributes:
        name: name of its run.
        widths: of `audio` and `visual` vectors and of an `embedding`.
        settings: the server's limits.
    """

    path: ClassVar[str] = "/embed"
    summary: ClassVar[str] = "Embed audio or visual vectors of clips"
    description: ClassVar[str] = "Embeds audio and visual vectors of clips in one space, for retrieval by cosine."
    items: ClassVar[str] = "vectors"
    request: ClassVar[type[BaseModel]] = EmbedRequest
    response: ClassVar[type[BaseModel]] = EmbedResponse

    name: str
    widths: Mapping[str, int]
    settings: ServeSettings

    @classmethod
    def from_manifest(cls, raw: Mapping[str, Any], settings: ServeSettings) -> "VectorService":
        """Take the facts from a verified `vadv_export.json`."""
        return cls(str(raw["name"]), {name: int(width) for name, width in raw["widths"].items()}, settings)

    @property
    def example(self) -> str:
        """See `Service`."""
        body = json.dumps(self.body)
        return body if len(body) < 120 else '{"modality": "audio", "vectors": [[0.1, …]]}'

    @property
    def body(self) -> dict[str, Any]:
        """See `Service`."""
        return {"modality": "audio", "vectors": [[0.1] * self.widths["audio"]]}

    def to_json(self) -> dict[str, Any]:
        """See `Service`."""
        return {"name": self.name, "widths": dict(self.widths)}

    def read(self, content_type: str | None, body: bytes) -> list[Vector]:
        """See `Service`."""
        request = read_body(content_type, body, EmbedRequest, self.example)
        vectors, most, width = request.vectors, self.settings.max_texts, self.widths[request.modality]
        if not 1 <= len(vectors) <= most:
            raise BadRequestError(422, f"vectors has {len(vectors)} vectors, expected 1 to {most} in one request.")
        for place, vector in enumerate(vectors):
            if len(vector) != width:
                raise BadRequestError(
                    422,
                    f"vectors[{place}] has {len(vector)} numbers, but {request.modality} vectors of this student have "
                    f"{width}.",
                )
        values = np.array(vectors)
        if (large := np.argwhere(np.abs(values) > _LARGEST)).size:
            place, number = large[0].tolist()
            raise BadRequestError(
                422, f"vectors[{place}][{number}] is {values[place, number]:g}, which is no number of float32."
            )
        return [Vector(request.modality, row) for row in values.astype(np.float32)]

    def write(self, answer: Answer) -> str:
        """See `Service`."""
        embeddings = np.array(answer.results)
        if not np.isfinite(embeddings).all():
            raise NotFiniteError(f"vectors[{int(np.argwhere(~np.isfinite(embeddings))[0, 0])}]")
        return json.dumps({"embeddings": answer.results, "model": self.to_json()})
