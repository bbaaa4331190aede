"""Tables in JSON: one object per line (JSONL), or an array of objects."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from vadv_dist.errors import UserError
from vadv_dist.formats.added_columns import Added, as_json, rows_of
from vadv_dist.formats.csv_lines import bounded_lines
from vadv_dist.formats.delimited import TextFile
from vadv_dist.formats.json_text import MAX_BYTES, JsonError, parse_json
from vadv_dist.formats.table_rows import Row, RowTable, TableFormat, row_of

# Objects may lack keys: the header has those of the first ones.
_HEADER_ROWS = 1000
_MAX_COLUMNS = 10_000


class JsonTable(RowTable):
    """A JSON file of rows.

    Args:
        path: the file.
        where: its name, for messages.
        given: what is known about it.
    Raises:
        UserError: it is empty, or its first rows are not objects.
    """

    head = "no text but blank lines"
    outputs = (".jsonl",)

    def __init__(self, path: Path, where: object, given: TableFormat) -> None:
        self.where, self.files = where, (path,)
        self._text = TextFile(path, where, given.encoding)
        self.is_plain = self._text.is_plain
        with self._opened() as file:
            self._is_array = file.read(1 << 12).lstrip().startswith("[")
        names: dict[str, None] = {}
        for _, values, _ in islice(self._objects(), _HEADER_ROWS):
            names.update(dict.fromkeys(values))
            if len(names) > _MAX_COLUMNS:
                raise UserError(f"{where} has more than {_MAX_COLUMNS:,} different keys, expected one per column.")
        if not names:
            raise UserError(f"{where} has no rows, expected a JSON object per line.")
        self.header = tuple(names)
        self.read_as = ("a JSON array" if self._is_array else "JSON lines") + self._text.described

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        for place, values, _ in self._objects():
            yield row_of(place, {name: values.get(name) for name in columns})

    def texts(self, column: str, absent: Sequence[str] = ()) -> Iterator[str]:
        for place, values, _ in self._objects():
            for name in absent:
                if name in values:
                    raise UserError(f"{self.where} {place} already has {name!r}, which would be added. Rename it.")
            value = values.get(column)
            if value is not None and not isinstance(value, str):
                raise UserError(f"{self.where} {place}: {column!r} is {json.dumps(value)[:60]}, expected a string.")
            yield value or ""

    def write_with(self, target: Path, added: Added, suffix: str) -> None:
        """See `RowTable.write_with`: objects as they are written, one per line, in UTF-8."""
        with target.open("w", encoding="utf-8", newline="") as file:
            for (_, object_, text), values in zip(self._objects(), rows_of(added), strict=True):
                new = json.dumps(dict(zip(added, map(as_json, values), strict=True)))
                file.write(f"{text.rstrip()[:-1]}{', ' if object_ else ''}{new[1:]}\n")

    @contextmanager
    def _opened(self) -> Iterator[TextIO]:
        try:
            with self._text.open() as file:
                yield file
        except UnicodeDecodeError as error:
            raise UserError(
                f"{self.where} is not text in {error.encoding} ({error.reason}). Convert it to UTF-8, or name its "
                "encoding with --encoding."
            ) from None

    def _objects(self) -> Iterator[tuple[str, dict[str, Any], str]]:
        """Place, object and text of each row."""
        with self._opened() as file:
            if self._is_array:
                values = enumerate(self._parsed(file.read(MAX_BYTES + 1), "it"), 1)
                named = ((f"row {n}", value, json.dumps(value, ensure_ascii=False)) for n, value in values)
            else:
                lines = ((f"line {n}", line) for n, line in enumerate(bounded_lines(file, self.where), 1))
                named = ((place, self._parsed(line, place), line) for place, line in lines if line.strip())
            for place, value, text in named:
                if not isinstance(value, dict):
                    raise UserError(
                        f"{self.where} {place} is not a JSON object such as "
                        '{"id": "a_1", "text": "it was good", "label": 1.5, "split": "train"}.'
                    )
                yield place, value, text

    def _parsed(self, text: str, place: str) -> Any:
        try:
            return parse_json(text)
        except JsonError as error:
            raise UserError(
                f"{self.where} {place} is not JSON: {error}. Fix it, or write one object per line."
            ) from None
