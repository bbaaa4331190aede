"""Bodies of requests: parsed, and what is wrong with one in one sentence."""

import json
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vadv_dist.errors import did_you_mean

Body = TypeVar("Body", bound="RequestBody")


class BadRequestError(Exception):
    """A request that cannot be answered.

    Attributes:
        status: the HTTP status.
        text: what is wrong, where, and what was expected.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status, text)
        self.status, self.text = status, text


class NotFiniteError(Exception):
    """A result is NaN or infinity.

    Attributes:
        where: the item of the request.
    """

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.where = where


class RequestBody(BaseModel):
    """The body of a request; fields are exactly these, and of exactly these types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ErrorResponse(BaseModel):
    """The body of an answer with an error."""

    error: str = Field(description="what is wrong, where, and what was expected")


def read_body(content_type: str | None, body: bytes, kind: type[Body], example: str) -> Body:
    """Parse the body of a request.

    Args:
        content_type, body: the request's.
        kind: its fields.
        example: a body that is answered, as JSON.
    Raises:
        BadRequestError: it is not JSON, or has other fields.
    """
    media = (content_type or "nothing").partition(";")[0].strip().lower()
    if media != "application/json":
        raise BadRequestError(415, f"Content-Type is {media[:60]!r}, expected 'application/json'. Set this header.")
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _problem(error, kind, example) from None


def _problem(error: ValidationError, kind: type[BaseModel], example: str) -> BadRequestError:
    """The first problem of a body, in a sentence."""
    first = error.errors(include_url=False)[0]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).removeprefix(".")
    match first["type"]:
        case "json_invalid":
            return BadRequestError(400, f"The body is not JSON: {first['ctx']['error']}. Send for example {example}.")
        case "missing":
            return BadRequestError(422, f"The body has no field {where!r}. Send for example {example}.")
        case "extra_forbidden":
            near = did_you_mean(where, kind.model_fields)
            return BadRequestError(422, f"The body has an unknown field {where[:60]!r}.{near}")
    given = json.dumps(first["input"], ensure_ascii=False, default=str)
    shown = given if len(given) <= 60 else f"{given[:59]}…"
    expected = first["msg"].removeprefix("Input should be ").replace("a valid array", "a list")
    expected = expected.replace("a valid ", "a ")
    return BadRequestError(422, f"{where or 'The body'} is {shown}, expected {expected}. Send for example {example}.")
