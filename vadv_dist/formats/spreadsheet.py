"""The first sheet of an Excel file (.xlsx), read row by row with openpyxl, which is an extra."""

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vadv_dist.errors import UserError, first_line, require_memory
from vadv_dist.formats.table_rows import Row, RowTable, row_of

# openpyxl keeps all but the sheets in memory: above all the table of texts.
_MAX_BYTES = 256 << 20
_MAX_SHEET_BYTES = 4 << 30
_MAX_COLUMNS = 10_000


class SpreadsheetTable(RowTable):
    """The first sheet of an Excel file, whose first row names the columns.

    Args:
        path: the file.
        where: its name, for messages.
    Raises:
        UserError: openpyxl is not installed, or the file is not an Excel file or too large.
    """

    head = "a first row"

    def __init__(self, path: Path, where: object) -> None:
        self._path, self.where, self.files = path, where, (path,)
        self._require_within()
        with self._sheet() as (names, rows):
            header = [str(name).strip() if name is not None else "" for name in next(rows, ())]
        while header and not header[-1]:
            header.pop()
        if not header:
            raise UserError(f"{where} has an empty first row in sheet {names[0]!r}, expected the names of the columns.")
        self.header = tuple(header)
        self.read_as = f"sheet {names[0]!r} of an Excel file" + (
            f" (the first of {len(names)})" if len(names) > 1 else ""
        )

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        positions = {name: self.header.index(name) for name in columns}
        with self._sheet() as (_, rows):
            next(rows, None)
            for number, values in enumerate(rows, 2):
                if any(value is not None for value in values):
                    cells = {name: values[at] if at < len(values) else None for name, at in positions.items()}
                    yield row_of(f"row {number}", cells)

    @contextmanager
    def _sheet(self) -> Iterator[tuple[list[str], Iterator[tuple[Any, ...]]]]:
        try:
            from openpyxl import load_workbook  # type: ignore[import-untyped]  # an extra
        except ImportError:
            raise UserError(
                f"{self.where} is an Excel file, and reading it needs openpyxl, which is not installed. Install it "
                "with pip install 'vadv-dist[excel]', or save the sheet as CSV (UTF-8) in Excel or LibreOffice."
            ) from None
        try:
            book = load_workbook(self._path, read_only=True, data_only=True)
        except Exception as error:  # openpyxl raises whatever a damaged file leads to
            require_memory()
            raise UserError(
                f"{self.where} cannot be read as an Excel file: {first_line(error)}. Save it again, or as CSV."
            ) from None
        try:
            names = [sheet.title for sheet in book.worksheets]
            if not names:
                raise UserError(f"{self.where} has no sheet with cells.")
            yield names, self._values(book.worksheets[0])
        finally:
            book.close()

    def _values(self, sheet: Any) -> Iterator[tuple[Any, ...]]:
        rows = sheet.iter_rows(values_only=True, max_col=min(sheet.max_column or _MAX_COLUMNS, _MAX_COLUMNS))
        while True:
            try:
                values = next(rows, None)
            except Exception as error:  # as above
                require_memory()
                raise UserError(
                    f"{self.where}: sheet {sheet.title!r} is damaged: {first_line(error)}. Save it again, or as CSV."
                ) from None
            if values is None:
                return
            yield values

    def _require_within(self) -> None:
        """Refuse a file whose parts, as it declares them, are too large for memory."""
        try:
            with zipfile.ZipFile(self._path) as parts:
                sizes = {part.filename: part.file_size for part in parts.infolist()}
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
            raise UserError(
                f"{self.where} is not an Excel file (.xlsx) or is damaged. Save it again, or as CSV."
            ) from None
        if "[Content_Types].xml" not in sizes:
            raise UserError(f"{self.where} is a zip file, expected a table. Unpack it and give the file inside.")
        kept = sum(size for name, size in sizes.items() if not name.startswith("xl/worksheets/"))
        if kept > _MAX_BYTES or sum(sizes.values()) > _MAX_SHEET_BYTES:
            raise UserError(
                f"{self.where} expands to {sum(sizes.values()):,} bytes, too many for Excel. Save it as CSV."
            )
