"""Tables with a row per line: plain texts, and JSON objects."""

import csv
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vadv_dist.errors import UserError
from vadv_dist.formats.csv_lines import bounded_lines
from vadv_dist.formats.json_text import JsonError, parse_json
from vadv_dist.inference.tables import (
    CHUNK_ROWS,
    Columns,
    CsvTable,
    ParquetTable,
    Table,
    TsvTable,
    arrow_type,
    as_text,
    kind_by_suffix,
)
from vadv_dist.storage import Location


class TextLines(Table):
    """A text per line, in UTF-8, as the column `text`; what is written may also be a table."""

    outputs = (".txt", ".csv", ".tsv", ".jsonl", ".parquet")

    def columns(self) -> list[str]:
        return ["text"]

    def strings(self, column: str) -> Iterator[list[str]]:
        lines = _lines(self.path)
        while chunk := [text for _, text in itertools.islice(lines, CHUNK_ROWS)]:
            yield chunk

    def write_with(self, path: Path, columns: Columns, suffix: str) -> None:
        if suffix == ".parquet":
            self._write_parquet(path, columns)
            return
        cells = zip(*columns.values(), strict=True)
        with path.open("w", encoding="utf-8", newline="") as file:
            if suffix == ".txt":
                file.writelines("\t".join(map(as_text, values)) + "\n" for values in cells)
            elif suffix == ".jsonl":
                for (_, text), values in zip(_lines(self.path), cells, strict=True):
                    found = {"text": text, **{name: _plain(v) for name, v in zip(columns, values, strict=True)}}
                    file.write(json.dumps(found, ensure_ascii=False) + "\n")
            else:
                delimiter = CsvTable.delimiter if suffix == ".csv" else TsvTable.delimiter
                writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
                writer.writerow(["text", *columns])
                rows = zip(_lines(self.path), cells, strict=True)
                writer.writerows([text, *map(as_text, values)] for (_, text), values in rows)

    def _write_parquet(self, path: Path, columns: Columns) -> None:
        fields = [("text", pa.string()), *((name, arrow_type(values)) for name, values in columns.items())]
        done = 0
        with pq.ParquetWriter(path, pa.schema(fields)) as writer:
            for texts in self.strings("text"):
                end = done + len(texts)
                added = [pa.array(values[done:end], from_pandas=True) for values in columns.values()]
                writer.write_batch(pa.record_batch([pa.array(texts, pa.string()), *added], schema=pa.schema(fields)))
                done = end


class JsonLines(Table):
    """A JSON object per line, in UTF-8; objects are copied as they are written."""

    outputs = (".jsonl",)

    def columns(self) -> list[str]:
        first = next(self._rows(), None)
        if first is None:
            raise UserError(f"{self.path} is empty. Each of its lines must be a JSON object.")
        return list(first[1])

    def strings(self, column: str) -> Iterator[list[str]]:
        rows = self._rows()
        while chunk := [self._string(number, row, column) for number, row, _ in itertools.islice(rows, CHUNK_ROWS)]:
            yield chunk

    def write_with(self, path: Path, columns: Columns, suffix: str) -> None:
        cells = zip(*columns.values(), strict=True)
        with path.open("w", encoding="utf-8", newline="") as file:
            for (_, row, line), values in zip(self._rows(), cells, strict=True):
                added = json.dumps({name: _plain(value) for name, value in zip(columns, values, strict=True)})
                file.write(f"{line.rstrip()[:-1]}{', ' if row else ''}{added[1:]}\n")

    def _string(self, number: int, row: dict[str, Any], column: str) -> str:
        for name in self.new_columns:
            if name in row:
                raise UserError(f"{self.path} line {number} already has {name!r}, which would be added. Rename it.")
        value = row.get(column, "")
        if value is not None and not isinstance(value, str):
            raise UserError(f"{self.path} line {number}: {column!r} is {json.dumps(value)[:60]}, expected a string.")
        return value or ""

    def _rows(self) -> Iterator[tuple[int, dict[str, Any], str]]:
        """Number, object and text of each line that is not blank."""
        for number, line in _lines(self.path):
            if not line.strip():
                continue
            try:
                row = parse_json(line)
            except JsonError as error:
                raise UserError(
                    f"{self.path} line {number} is not JSON: {error}. Each line must be an object."
                ) from None
            if not isinstance(row, dict):
                raise UserError(f'{self.path} line {number} is not a JSON object, such as {{"text": "…"}}.')
            yield number, row, line


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of each line."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(bounded_lines(file, path), 1):
                yield number, line.rstrip("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8 ({error.reason} at byte {error.start}). Convert it.") from None


def _plain(value: Any) -> float | str | None:
    """The value as the shortest decimal number that gives the same float32, or as a string."""
    text = as_text(value)
    if isinstance(value, str):
        return text
    return float(text) if text else None


_KINDS: dict[str, type[Table]] = {
    ".csv": CsvTable,
    ".tsv": TsvTable,
    ".jsonl": JsonLines,
    ".parquet": ParquetTable,
    ".txt": TextLines,
}


def table_kind(path: Location) -> type[Table]:
    """Determine the format of a table; see `kind_by_suffix`."""
    return kind_by_suffix(path, _KINDS)
