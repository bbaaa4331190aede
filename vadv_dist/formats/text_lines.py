"""A text per line, as a table with the column `text`."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from vadv_dist.errors import UserError
from vadv_dist.formats.added_columns import (
    Added,
    as_json,
    as_text,
    batches_of,
    rows_of,
    write_delimited,
    write_parquet,
)
from vadv_dist.formats.csv_lines import bounded_lines
from vadv_dist.formats.delimited import TextFile
from vadv_dist.formats.table_rows import DELIMITERS, Row, RowTable, TableFormat

_COLUMN = "text"
_BATCH_ROWS = 16384


class TextLines(RowTable):
    """Lines of a text file; a copy with more columns may be a table of any format.

    Args:
        path: the file.
        where: its name, for messages.
        given: its encoding, if it is known.
    Raises:
        UserError: it is not text.
    """

    outputs = (".txt", ".csv", ".tsv", ".jsonl", ".parquet")

    def __init__(self, path: Path, where: object, given: TableFormat) -> None:
        self.where, self.files, self.header = where, (path,), (_COLUMN,)
        self._text = TextFile(path, where, given.encoding)
        self.is_plain = self._text.is_plain
        self.read_as = f"lines of text{self._text.described}"

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        for number, line in enumerate(self._lines(), 1):
            yield Row(f"line {number}", dict.fromkeys(columns, line))

    def write_with(self, target: Path, added: Added, suffix: str) -> None:
        if suffix == ".parquet":
            batches = batches_of(self._lines(), _COLUMN, _BATCH_ROWS)
            write_parquet(target, pa.schema([(_COLUMN, pa.string())]), batches, added)
        elif suffix in DELIMITERS:
            write_delimited(target, self.header, ([line] for line in self._lines()), added, DELIMITERS[suffix])
        else:
            with target.open("w", encoding="utf-8", newline="") as file:
                for line, values in zip(self._lines(), rows_of(added), strict=True):
                    if suffix == ".txt":
                        file.write("\t".join(map(as_text, values)) + "\n")
                    else:
                        found = {_COLUMN: line} | dict(zip(added, map(as_json, values), strict=True))
                        file.write(json.dumps(found, ensure_ascii=False) + "\n")

    def _lines(self) -> Iterator[str]:
        try:
            with self._text.open() as file:
                for line in bounded_lines(file, self.where):
                    yield line.rstrip("\r\n")
        except UnicodeDecodeError as error:
            name = self._text.name
            raise UserError(
                f"{self.where} is not text in {name} ({error.reason} at byte {error.start}). Convert it to UTF-8, or "
                "name its encoding with --encoding."
            ) from None
