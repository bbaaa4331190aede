"""What all sections share, and how a value that no run can use is refused."""

from collections.abc import Mapping
from typing import Any, ClassVar

from vadv_dist.errors import UserError


class Section:
    """A section of a configuration: a frozen dataclass that refuses fields it does not have."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}


def require(condition: bool, field_name: str, value: object, expected: str) -> None:
    """Refuse a field's value where a condition does not hold.

    Raises:
        UserError: it does not; says the field, its value, and what is expected.
    """
    if not condition:
        raise UserError(f"{field_name} is {value!r}, expected {expected}. Change it in the config file or override it.")


def require_at_least(section: str, fields: object, lows: Mapping[str, int], *, or_null: bool = False) -> None:
    """Refuse numbers of a section below their lowest.

    Args:
        section: name of the section.
        fields: the section.
        lows: lowest value of each field.
        or_null: whether null will do.

    Raises:
        UserError: one is lower.
    """
    for name, low in lows.items():
        value = getattr(fields, name)
        expected = f"at least {low}, or null" if or_null else f"at least {low}"
        require(value >= low if value is not None else or_null, f"{section}.{name}", value, expected)
