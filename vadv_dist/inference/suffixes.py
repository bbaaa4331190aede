"""What the suffix of a file says about its format, and messages about it."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from vadv_dist.errors import UserError
from vadv_dist.storage import Location

T = TypeVar("T")


def kind_by_suffix(path: Location, kinds: Mapping[str, T]) -> T:
    """Determine the format of a file from its suffix, without opening it.

    Raises:
        UserError: another suffix, or no such file.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        raise UserError(f"{path} is a folder. Give a {either(kinds)} file, such as one of those in it.")
    if suffix not in kinds:
        raise UserError(f"{path} {ending(path)}, expected {either(kinds)}.")
    if not path.is_file():
        raise UserError(f"{path} does not exist or is not a file. Give a {either(kinds)} file.")
    return kinds[suffix]


def ending(path: Location) -> str:
    """What a path ends in, as a part of a sentence."""
    return f"ends in {path.suffix!r}" if path.suffix else "has no suffix"


def either(suffixes: Iterable[str]) -> str:
    """Join alternatives: `.csv, .parquet or .npz`."""
    *first, last = suffixes
    return f"{', '.join(first)} or {last}" if first else last
