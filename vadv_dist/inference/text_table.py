"""A table with a column of texts to predict: read in pieces, and copied with columns added at the end."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from vadv_dist.errors import UserError, did_you_mean
from vadv_dist.formats.added_columns import Added
from vadv_dist.formats.table_rows import RowTable, TableFormat
from vadv_dist.formats.tabular import ANY_FORMAT, open_table
from vadv_dist.formats.text_lines import TextLines
from vadv_dist.inference.suffixes import kind_by_suffix
from vadv_dist.storage import Location

CHUNK_ROWS = 16384
# The option that names the file, and the sign between cells if the suffix says it.
_KINDS = {".csv": None, ".tsv": "\t", ".jsonl": None, ".parquet": None, ".txt": None}


def require_table(source: Location) -> None:
    """Check that a file is a table as far as its name says, without opening it; see `kind_by_suffix`."""
    kind_by_suffix(source, _KINDS)


class TextTable:
    """A table with a column of texts.

    Args:
        path: the file, on this machine.
        text_column: its column of texts; a .txt file has `text`.
        new_columns: the columns that `write_with` adds.
        given: delimiter and encoding of a text file.
    Raises:
        UserError: the file is unreadable, lacks the text column, or already has a new column.
    """

    def __init__(
        self, path: Path, text_column: str, new_columns: Sequence[str] = (), given: TableFormat = ANY_FORMAT
    ) -> None:
        suffix = path.suffix.lower()
        given = TableFormat(given.delimiter or _KINDS.get(suffix), given.encoding)
        self.table: RowTable = (
            TextLines(path, path, given) if suffix == ".txt" else open_table(path, given, option="--input")
        )
        self.path, self.text_column, self.new_columns = path, text_column, new_columns
        if text_column not in self.table.header:
            raise UserError(
                f"{path} has no column {text_column!r} (it has: {', '.join(self.table.header)})."
                f"{did_you_mean(text_column, self.table.header)} Set the column of the texts with --text-column."
            )
        for name in new_columns:
            if name in self.table.names:
                raise UserError(f"{path} already has a column {name!r}, the name of a column to be added. Rename it.")

    def texts(self) -> Iterator[list[str]]:
        """Read the texts in pieces of `CHUNK_ROWS`."""
        return self.strings(self.text_column)

    def strings(self, column: str) -> Iterator[list[str]]:
        """Read a column of texts in pieces of `CHUNK_ROWS`; a null is an empty text."""
        texts = self.table.texts(column, self.new_columns)
        while chunk := list(islice(texts, CHUNK_ROWS)):
            yield chunk

    def write_with(self, target: Path, added: Added, suffix: str) -> None:
        """See `RowTable.write_with`."""
        self.table.write_with(target, added, suffix)

    def check_texts(self, *, skip_empty: bool = False) -> tuple[int, int]:
        """Read all texts once; return the number of rows and of empty ones.

        Raises:
            UserError: a text is empty (with its row) and these are not skipped.
        """
        row = empty = 0
        for row, text in enumerate(self.table.texts(self.text_column, self.new_columns), 1):
            if text.strip():
                continue
            empty += 1
            if not skip_empty:
                raise UserError(
                    f"{self.path}: row {row} has an empty {self.text_column!r} (rows are counted from 1, without the "
                    "header). Add its words, remove the row, or leave such rows without a prediction (--skip-empty)."
                )
        return row, empty
