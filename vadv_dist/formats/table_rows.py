"""A table of any format as rows of texts with their places in the file."""

import datetime
import decimal
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TableFormat:
    """What a file does not say itself: signs between the cells of a CSV file, encoding. None recognises it."""

    delimiter: str | None = None
    encoding: str | None = None


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        place: where it is in the file, such as `line 3`.
        cells: texts of the wanted columns; an empty one has no value.
        fault: why the cells are not known; empty if they are.
        reason: the kind of fault.
    """

    place: str
    cells: Mapping[str, str]
    fault: str = ""
    reason: str = ""


class RowTable(ABC):
    """A table whose rows can be read several times.

    Attributes:
        header: names of its columns.
        read_as: how it is read, as a part of a sentence.
        files: the files that it consists of.
        head: what precedes the rows, for the message about a table without any.
    """

    header: tuple[str, ...]
    read_as: str
    files: tuple[Path, ...]
    head = "a header line"

    @abstractmethod
    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """Read the rows one by one.

        Args:
            columns: names of the columns to read, which are in the header.
        Raises:
            UserError: the file is damaged, with the place.
        """


def as_cell(value: object) -> str | None:
    """A value as the text of a cell; None if it is not a single value."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value != value:
        return ""  # pandas writes missing values as NaN
    if isinstance(value, str | int | float | decimal.Decimal | datetime.date | datetime.time):
        return str(value)
    return None


def row_of(place: str, values: Mapping[str, object]) -> Row:
    """A row of values, where a list or an object is a fault."""
    cells = {}
    for name, value in values.items():
        cell = as_cell(value)
        if cell is None:
            kind = "a list" if isinstance(value, list) else "an object" if isinstance(value, dict) else "bytes"
            return Row(place, {}, f"has {kind} in column {name!r}, expected a text or a number.", "no single value")
        cells[name] = cell
    return Row(place, cells)
