"""What sections are made of: settings of the dataclasses, types of values with bounds, and rules between fields."""

import contextlib
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

# Of every section: the string below a field describes it.
SETTINGS = ConfigDict(extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


def _number(value: Any) -> Any:
    """Parse a number that YAML reads as text, such as `1e-6`."""
    with contextlib.suppress(ValueError):
        return float(value) if isinstance(value, str) else value
    return value


def _on_or_off(value: Any) -> Any:
    """Undo YAML, which reads `on` and `off` as true and false."""
    return ("off", "on")[value] if isinstance(value, bool) else value


NUMBER = BeforeValidator(_number)
Natural = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Number = Annotated[float, NUMBER]
Positive = Annotated[float, Field(gt=0), NUMBER]
NonNegative = Annotated[float, Field(ge=0), NUMBER]
Share = Annotated[float, Field(ge=0, le=1), NUMBER]
Rate = Annotated[float, Field(ge=0, lt=1), NUMBER]
Switch = Annotated[Literal["auto", "on", "off"], BeforeValidator(_on_or_off)]


def by_kind(default: str) -> BeforeValidator:
    """For a section with kinds: its kind may be left out, and a kind's name stands for the kind with its defaults."""

    def named(given: Any) -> Any:
        given = {"kind": given} if isinstance(given, str) else {} if given is None else given
        return {"kind": default, **given} if isinstance(given, dict) else given

    return BeforeValidator(named)


def require(condition: bool, field: str, value: object, expected: str) -> None:
    """Check a rule between fields in the `__post_init__` of a section.

    Raises:
        PydanticCustomError: the condition is false. pydantic reports it as an error of the section.
    """
    if not condition:
        facts = {"field": field, "value": repr(value), "expected": expected}
        raise PydanticCustomError("rule", "{field} is {value}, expected {expected}", facts)
