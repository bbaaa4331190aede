"""A table of any format as rows of texts with their places in the file."""

import datetime
import decimal
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vadv_dist.errors import UserError
from vadv_dist.formats.added_columns import Added, write_delimited

# Signs between the cells of files that are written.
DELIMITERS = {".csv": ",", ".tsv": "\t"}


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
    """A table whose rows can be read several times, and copied with more columns.

    Attributes:
        where: its name, for messages.
        header: names of its columns that can be read.
        read_as: how it is read, as a part of a sentence.
        files: the files that it consists of.
        head: what precedes the rows, for the message about a table without any.
        is_plain: whether nothing had to be recognised: UTF-8, not compressed, with the usual sign between cells.
        outputs: suffixes of the files that `write_with` can write.
    """

    where: object
    header: tuple[str, ...]
    read_as: str
    files: tuple[Path, ...]
    head = "a header line"
    is_plain = True
    outputs: tuple[str, ...] = tuple(DELIMITERS)

    @abstractmethod
    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """Read the rows one by one.

        Args:
            columns: names of the columns to read, which are in the header.
        Raises:
            UserError: the file is damaged, with the place.
        """

    @property
    def names(self) -> Sequence[str]:
        """Names of all columns, also of those that cannot be read."""
        return self.header

    def texts(self, column: str, absent: Sequence[str] = ()) -> Iterator[str]:
        """Read a column of texts; one without a value is empty.

        Args:
            column: its name, which is in the header.
            absent: names that no row may have.
        Raises:
            UserError: the file is damaged, or a row has something else than a text, or an absent column.
        """
        for row in self.rows([column]):
            if row.fault:
                raise UserError(f"{self.where} {row.place} {row.fault}")
            yield row.cells[column]

    def write_with(self, target: Path, added: Added, suffix: str) -> None:
        """Write the whole table, with new columns as its last; NaN becomes a null or an empty cell.

        In text, values have enough digits to restore the same float32.

        Args:
            target: the file to write.
            added: the new columns.
            suffix: one of `outputs`, which says the format.
        """
        rows = ([row.cells[name] for name in self.header] for row in self.rows(self.header))
        write_delimited(target, self.header, rows, added, DELIMITERS[suffix])


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
