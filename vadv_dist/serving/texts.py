"""`POST /predict`: the sentiment of texts."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, Field

from vadv_dist.evaluation.label_scale import LabelScale
from vadv_dist.inference.manifest import classes_of
from vadv_dist.inference.prediction_columns import PREDICTION_COLUMN, described_prediction
from vadv_dist.serving.batcher import Answer
from vadv_dist.serving.requests import BadRequestError, NotFiniteError, RequestBody, read_body
from vadv_dist.serving.settings import ServeSettings


class PredictRequest(RequestBody):
    """The body of a request."""

    texts: list[str] = Field(description="the texts, none of them empty")
    previous: list[list[str]] | None = Field(
        default=None,
        description="for a student with context: for each text, the utterances before it in its video, in the order "
        "in which they were said",
    )


class PredictResponse(BaseModel):
    """The body of an answer."""

    predictions: list[float] | list[str] = Field(
        description="the sentiment of each text, in the units of the training labels; of a student of classes, the "
        "name of the likeliest class"
    )
    probabilities: list[dict[str, float]] | None = Field(
        default=None, description="of a student of classes: the probability of each class by its name, for each text"
    )
    truncated: int = Field(description="number of texts with more tokens than the student reads")
    model: dict[str, Any] = Field(
        description="the student: its name, the range and threshold of labels, or its classes; its limits"
    )


@dataclass(frozen=True)
class TextService:
    """A student of texts; see `Service`.

    Attributes:
        name: name of its run.
        labels: range and threshold of its predictions' unit; None for classes, and for exports of older versions.
        classes: names of the classes that it predicts; empty if it predicts a number.
        max_tokens: texts are truncated to this many tokens.
        context, separator: maximum number of previous texts that it reads, and what separates them.
        settings: the server's limits.
    """

    path: ClassVar[str] = "/predict"
    summary: ClassVar[str] = "Predict the sentiment of texts"
    description: ClassVar[str] = "Predicts the sentiment of texts, in the units of the training labels."
    items: ClassVar[str] = "texts"
    request: ClassVar[type[BaseModel]] = PredictRequest
    response: ClassVar[type[BaseModel]] = PredictResponse
    body: ClassVar[dict[str, Any]] = {"texts": ["what a wonderful film"]}
    example: ClassVar[str] = json.dumps(body)

    name: str
    labels: LabelScale | None
    max_tokens: int
    context: int
    separator: str
    settings: ServeSettings
    classes: tuple[str, ...] = ()

    @classmethod
    def from_manifest(cls, raw: Mapping[str, Any], settings: ServeSettings) -> "TextService":
        """Take the facts from a verified `vadv_export.json`."""
        return cls(
            name=str(raw["name"]),
            labels=None if raw.get("labels") is None else LabelScale.from_json(raw["labels"]),
            max_tokens=int(raw["max_tokens"]),
            context=int(raw.get("context", 0)),
            separator=str(raw.get("separator", "")),
            settings=settings,
            classes=classes_of(raw),
        )

    def to_json(self) -> dict[str, Any]:
        """See `Service`."""
        labels = None if self.labels is None else self.labels.to_json()
        found = {"name": self.name, "labels": labels, "max_tokens": self.max_tokens, "context": self.context}
        return {**found, "classes": self.classes} if self.classes else found

    def read(self, content_type: str | None, body: bytes) -> list[str]:
        """What the student reads of each text; see `Service`."""
        request = read_body(content_type, body, PredictRequest, self.example)
        texts, previous, limits = request.texts, request.previous, self.settings
        if not 1 <= len(texts) <= limits.max_texts:
            raise BadRequestError(
                422, f"texts has {len(texts)} texts, expected 1 to {limits.max_texts} in one request."
            )
        named = [(f"texts[{place}]", text) for place, text in enumerate(texts)]
        for where, text in named:
            if not text.strip():
                raise BadRequestError(422, f"{where} is empty. Give at least one word.")
        if previous is not None:
            if not self.context:
                raise BadRequestError(422, "previous was given, but this student reads a text alone. Leave it out.")
            if len(previous) != len(texts):
                raise BadRequestError(
                    422, f"previous has {len(previous)} lists, expected one for each of the {len(texts)} texts."
                )
            named += [
                (f"previous[{place}][{number}]", text)
                for place, before in enumerate(previous)
                for number, text in enumerate(before)
            ]
        for where, text in named:
            if len(text) > limits.max_chars:
                raise BadRequestError(
                    422, f"{where} has {len(text):,} characters, expected at most {limits.max_chars:,}."
                )
        if previous is None:
            return texts
        return [self._joined(text, before) for text, before in zip(texts, previous, strict=True)]

    def write(self, answer: Answer) -> str:
        """See `Service`."""
        for place, prediction in enumerate(answer.results):
            if not np.isfinite(prediction).all():
                raise NotFiniteError(f"texts[{place}]")
        model = json.dumps(self.to_json())
        if self.classes:
            return self._classified(answer, model)
        numbers = ", ".join(map(repr, answer.results))
        return f'{{"predictions": [{numbers}], "truncated": {answer.num_truncated}, "model": {model}}}'

    def _classified(self, answer: Answer, model: str) -> str:
        """The likeliest class of each text, and the probability of each."""
        described = [described_prediction(values, self.classes) for values in answer.results]
        names = json.dumps([row[PREDICTION_COLUMN] for row in described])
        shares = json.dumps([row["probabilities"] for row in described])
        return (
            f'{{"predictions": {names}, "probabilities": {shares}, "truncated": {answer.num_truncated}, '
            f'"model": {model}}}'
        )

    def _joined(self, text: str, previous: list[str]) -> str:
        """The text, then those before it, the nearest first; at most `context` of them."""
        return self.separator.join([text, *previous[::-1][: self.context]])
