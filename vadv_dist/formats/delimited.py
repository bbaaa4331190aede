"""CSV files with any sign between cells, in any encoding, compressed or not."""

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TextIO

from vadv_dist.errors import UserError
from vadv_dist.formats.added_columns import Added, write_delimited
from vadv_dist.formats.compressed import compression_of, open_decompressed
from vadv_dist.formats.csv_lines import csv_lines
from vadv_dist.formats.encodings import detect_encoding, require_encoding
from vadv_dist.formats.table_rows import DELIMITERS, Row, RowTable, TableFormat

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_NAMED = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "bar": "|", "pipe": "|"}
_SAMPLE = 256 << 10
_SAMPLE_ROWS = 100


class TextFile:
    """A text file whose encoding is given or recognised.

    Args:
        path: the file.
        where: its name, for messages.
        encoding: its encoding; None recognises it.
    Raises:
        UserError: the encoding is unknown.
    """

    def __init__(self, path: Path, where: object, encoding: str | None) -> None:
        self._path, self._where = path, where
        self.compression = compression_of(path)
        if encoding is None:
            with open_decompressed(path, where) as file:
                encoding = detect_encoding(file)
            if encoding is None:
                raise UserError(
                    f"{where} is not text in UTF-8, and its encoding cannot be recognised. If it is a table of text, "
                    "name its encoding with --encoding (in a configuration, encoding), such as cp1252 or big5."
                )
        else:
            require_encoding(encoding)
        self.encoding = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding

    @contextmanager
    def open(self) -> Iterator[TextIO]:
        """Open it from its start."""
        binary = open_decompressed(self._path, self._where)
        with io.TextIOWrapper(binary, encoding=self.encoding, newline="") as text:
            yield text

    @property
    def is_plain(self) -> bool:
        """Whether it is UTF-8 and not compressed."""
        return self.encoding == "utf-8-sig" and not self.compression

    @property
    def name(self) -> str:
        """The encoding, as messages name it."""
        return {"utf-8-sig": "UTF-8", "utf-8": "UTF-8"}.get(self.encoding, self.encoding)

    @property
    def described(self) -> str:
        """Encoding and compression, as a part of a sentence."""
        return f" in {self.name}" + (f", compressed with {self.compression}" if self.compression else "")


class DelimitedTable(RowTable):
    """A CSV file with a header line.

    Args:
        path: the file.
        where: its name, for messages.
        given: what is known about it.
    Raises:
        UserError: it is empty, or not a CSV file.
    """

    def __init__(self, path: Path, where: object, given: TableFormat) -> None:
        self.where, self.outputs = where, (".tsv" if path.suffix.lower() == ".tsv" else ".csv",)
        self._text = TextFile(path, where, given.encoding)
        self.files = (path,)
        if given.delimiter is None:
            with self._text.open() as file:
                self._delimiter = self._recognise(file)
        else:
            self._delimiter = _NAMED.get(given.delimiter.lower(), given.delimiter)
            if len(self._delimiter) != 1 or self._delimiter in '"\r\n':
                raise UserError(
                    f"the delimiter is {given.delimiter!r}, expected one sign such as ';', or the word tab."
                )
        with self._text.open() as file:
            _, header = next(csv_lines(file, where, self._delimiter), (1, []))
        if not header:
            raise UserError(f"{where} is empty, expected a CSV file with a header line.")
        self.header = tuple(header)
        usual = DELIMITERS[self.outputs[0]]
        self.is_plain = self._text.is_plain and self._delimiter == usual
        self._sign = _DELIMITERS.get(self._delimiter, repr(self._delimiter))
        self.read_as = f"CSV with {self._sign} between cells{self._text.described}"

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        positions = [(name, self.header.index(name)) for name in columns]
        for number, cells in self._cells():
            place = f"line {number}"
            if len(cells) != len(self.header):
                counts = f"has {len(cells)} cells, but the header line has {len(self.header)}."
                advice = f"Quote cells that contain {self._sign} or line breaks."
                yield Row(place, {}, f"{counts} {advice}", "wrong number of cells")
            else:
                yield Row(place, {name: cells[position] for name, position in positions})

    def write_with(self, target: Path, added: Added, suffix: str) -> None:
        """See `RowTable.write_with`: cells as they are, with the same sign between them, in UTF-8."""
        write_delimited(target, self.header, (cells for _, cells in self._cells()), added, self._delimiter)

    def _cells(self) -> Iterator[tuple[int, list[str]]]:
        """Line and cells of each row that is not empty."""
        with self._text.open() as file:
            lines = csv_lines(file, self.where, self._delimiter)
            next(lines)
            yield from ((number, cells) for number, cells in lines if cells)

    def _recognise(self, file: TextIO) -> str:
        """The sign that cuts most of the first rows into as many cells as the header, at least two."""
        try:
            sample = file.read(_SAMPLE)
        except UnicodeDecodeError:
            return ","  # reading the rows reports where
        is_cut = len(sample) == _SAMPLE
        best, found = (0.0, 0), ","
        for delimiter in _DELIMITERS:
            try:
                rows = list(islice(csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter), _SAMPLE_ROWS))
            except csv.Error:
                continue
            if is_cut and 1 < len(rows) < _SAMPLE_ROWS:
                rows.pop()
            header = len(rows[0]) if rows else 0
            whole = [row for row in rows if row]
            score = (sum(len(row) == header for row in whole) / max(1, len(whole)), header)
            if header > 1 and score > best:
                best, found = score, delimiter
        return found
