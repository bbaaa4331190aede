"""Read CSV files with lines of bounded length, and numbers as spreadsheets write them."""

import csv
import math
import re
from collections.abc import Iterator
from typing import TextIO

from vadv_dist.errors import UserError

MAX_LINE = 4 << 20
# Python's `float` also accepts 1_000, nan, infinity and digits of other scripts.
_NUMBER = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*", re.ASCII)
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+\s*", re.ASCII)


def bounded_lines(file: TextIO, where: object) -> Iterator[str]:
    """Yield the lines of a text file, for `csv.reader`.

    Raises:
        UserError: a line has more than `MAX_LINE` characters or contains NUL.
    """
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise UserError(
                f"{where} line {number} has more than {MAX_LINE:,} characters, so it is not a CSV file of clips. "
                "Look for missing line breaks."
            )
        if "\0" in line:
            line_name = "its first line" if number == 1 else f"line {number}"
            raise UserError(f"{where} is not a CSV file: {line_name} contains NUL bytes. Save it as CSV in UTF-8.")
        yield line


def csv_lines(file: TextIO, where: object, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a CSV file, the header first, each with its line (the last one if it spans several).

    Raises:
        UserError: it is not a CSV file in the encoding in which it was opened, with the line.
    """
    reader = csv.reader(bounded_lines(file, where), strict=True, delimiter=delimiter)
    try:
        for cells in reader:
            yield reader.line_num, cells
    except UnicodeDecodeError as error:
        name = "UTF-8" if error.encoding == "utf-8" else error.encoding
        raise UserError(
            f"{where} is not a CSV file in {name} ({error.reason} at byte {error.start}). Convert it to UTF-8."
        ) from None
    except csv.Error as error:
        raise UserError(
            f"{where} line {reader.line_num} is not valid CSV: {error}. Look for an unclosed quote there or before."
        ) from None


def number_of(cell: str) -> float:
    """The number in a cell; NaN if it is not a number."""
    return float(cell) if _NUMBER.fullmatch(cell) else math.nan


def decimal_comma(cell: str) -> str:
    """A hint for a cell such as `2,5`; empty for others."""
    return " Write its decimal comma as a point." if _DECIMAL_COMMA.fullmatch(cell) else ""
