"""What a server offers, which depends on the task of its student: a path, its requests and its answers."""

from typing import Any, ClassVar, Protocol

from pydantic import BaseModel

from vadv_dist.serving.batcher import Answer


class Service(Protocol):
    """The path of a student's results.

    Attributes:
        name: of the student's run.
        path, summary: where it answers, and what.
        description: of the server.
        items: what a request holds, in the plural, as in names of metrics.
        request, response: the bodies.
        body: a body that is answered.
        example: the same as JSON, or what it looks like if it is long.
    """

    path: ClassVar[str]
    summary: ClassVar[str]
    description: ClassVar[str]
    items: ClassVar[str]
    request: ClassVar[type[BaseModel]]
    response: ClassVar[type[BaseModel]]

    @property
    def name(self) -> str:
        """Name of the student's run."""

    @property
    def body(self) -> dict[str, Any]:
        """A body that is answered."""

    @property
    def example(self) -> str:
        """The same as JSON, or what it looks like if it is long."""

    def to_json(self) -> dict[str, Any]:
        """What clients learn about the student, as plain containers."""

    def read(self, content_type: str | None, body: bytes) -> list[Any]:
        """Check a request, and return the items that the batches compute.

        Raises:
            BadRequestError: the request is malformed or too large.
        """

    def write(self, answer: Answer) -> str:
        """The body of an answer.

        Raises:
            NotFiniteError: a result is NaN or infinity.
        """
