"""The base class of all sections, and checks of field values."""

from collections.abc import Mapping
from typing import Any, ClassVar

from vadv_dist.errors import UserError


class Section:
    """A section of a configuration: a frozen dataclass that rejects unknown fields."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}


def require(condition: bool, field_name: str, value: object, expected: str) -> None:
    """Check a field's value.

    Raises:
        UserError: the condition is false; names the field, its value, and what was expected.
    """
    if not condition:
        raise UserError(f"{field_name} is {value!r}, expected {expected}. Change it in the config file or override it.")


def require_at_least(section: str, fields: object, lows: Mapping[str, int], *, or_null: bool = False) -> None:
    """Check lower bounds of a section's fields.

    Args:
        section: name of the section.
        fields: the section.
        lows: lowest allowed value of each field.
        or_null: whether null is allowed too.

    Raises:
        UserError: a value is too low.
    """
    for name, low in lows.items():
        value = getattr(fields, name)
        expected = f"at least {low}, or null" if or_null else f"at least {low}"
        require(value >= low if value is not None else or_null, f"{section}.{name}", value, expected)
