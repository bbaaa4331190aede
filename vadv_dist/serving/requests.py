"""What clients send to `POST /predict`, and what is wrong with it in one sentence."""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vadv_dist.errors import did_you_mean
from vadv_dist.serving.settings import ServeSettings, StudentFacts

_EXAMPLE = '{"texts": ["what a wonderful film"]}'


class BadRequestError(Exception):
    """A request that cannot be answered.

    Attributes:
        status: the HTTP status.
        text: what is wrong, where, and what was expected.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status, text)
        self.status, self.text = status, text


class PredictRequest(BaseModel):
    """The body of a request."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"examples": [json.loads(_EXAMPLE)]})

    texts: list[str] = Field(description="the texts, none of them empty")
    previous: list[list[str]] | None = Field(
        default=None,
        description="for a student with context: for each text, the utterances before it in its video, in the order "
        "in which they were said",
    )


class PredictResponse(BaseModel):
    """The body of an answer."""

    predictions: list[float] = Field(description="the sentiment of each text, in the units of the training labels")
    truncated: int = Field(description="number of texts with more tokens than the student reads")
    model: dict[str, Any] = Field(description="the student: its name, the range and threshold of labels, its limits")


class ErrorResponse(BaseModel):
    """The body of an answer with an error."""

    error: str = Field(description="what is wrong, where, and what was expected")


def texts_to_read(content_type: str | None, body: bytes, facts: StudentFacts, settings: ServeSettings) -> list[str]:
    """Check a request, and return what the student reads of each text.

    Args:
        content_type, body: the request's.
        facts: the student.
        settings: the server's limits.
    Raises:
        BadRequestError: the request is malformed or too large.
    """
    kind = (content_type or "nothing").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise BadRequestError(415, f"Content-Type is {kind[:60]!r}, expected 'application/json'. Set this header.")
    try:
        request = PredictRequest.model_validate_json(body)
    except ValidationError as error:
        raise _problem(error) from None
    texts, previous = request.texts, request.previous
    if not 1 <= len(texts) <= settings.max_texts:
        raise BadRequestError(422, f"texts has {len(texts)} texts, expected 1 to {settings.max_texts} in one request.")
    named = [(f"texts[{place}]", text) for place, text in enumerate(texts)]
    for where, text in named:
        if not text.strip():
            raise BadRequestError(422, f"{where} is empty. Give at least one word.")
    if previous is not None:
        if not facts.context:
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
        if len(text) > settings.max_chars:
            raise BadRequestError(
                422, f"{where} has {len(text):,} characters, expected at most {settings.max_chars:,}."
            )
    if previous is None:
        return texts
    return [facts.reading(text, before) for text, before in zip(texts, previous, strict=True)]


def _problem(error: ValidationError) -> BadRequestError:
    """The first problem of a body, in a sentence."""
    first = error.errors(include_url=False)[0]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).removeprefix(".")
    match first["type"]:
        case "json_invalid":
            return BadRequestError(400, f"The body is not JSON: {first['ctx']['error']}. Send for example {_EXAMPLE}.")
        case "missing":
            return BadRequestError(422, f"The body has no field {where!r}. Send for example {_EXAMPLE}.")
        case "extra_forbidden":
            near = did_you_mean(where, PredictRequest.model_fields)
            return BadRequestError(422, f"The body has an unknown field {where[:60]!r}.{near}")
    given = json.dumps(first["input"], ensure_ascii=False, default=str)
    shown = given if len(given) <= 60 else f"{given[:59]}…"
    expected = first["msg"].removeprefix("Input should be ")
    return BadRequestError(422, f"{where or 'The body'} is {shown}, expected {expected}. Send for example {_EXAMPLE}.")
