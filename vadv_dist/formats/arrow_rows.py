"""Rows of Parquet files, and of the folders that Hugging Face `datasets` writes with `save_to_disk`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

import pyarrow as pa

from vadv_dist.errors import UserError, first_line
from vadv_dist.formats.added_columns import Added, write_parquet
from vadv_dist.formats.arrow_stream import read_stream, stream_schema
from vadv_dist.formats.json_text import JsonError, parse_json
from vadv_dist.formats.parquet import BoundedParquet
from vadv_dist.formats.table_rows import Row, RowTable, row_of

_BATCH_ROWS, _COPIED_ROWS = 1024, 16384
SPLIT_COLUMN = "split"


def _is_single(kind: pa.DataType) -> bool:
    """Whether a column has one text, number or time per row."""
    if pa.types.is_dictionary(kind):
        return _is_single(kind.value_type)
    tests = ("string", "large_string", "boolean", "integer", "floating", "decimal", "date", "time", "timestamp", "null")
    return any(getattr(pa.types, f"is_{test}")(kind) for test in tests)


def _readable(schema: pa.Schema, where: object) -> tuple[str, ...]:
    """Columns with one value per row."""
    names = [field.name for field in schema if _is_single(field.type)]
    if not names:
        raise UserError(f"{where} has no column of texts or numbers (columns: {', '.join(schema.names) or 'none'}).")
    return tuple(names)


@contextmanager
def _damage(where: object, what: str) -> Iterator[None]:
    try:
        yield
    except MemoryError:  # Arrow's own is also an ArrowException and says nothing about the file
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{where} cannot be read as {what}: {first_line(error).rstrip('.')}. Write it again.") from None


def _rows_of(
    batch: pa.RecordBatch, columns: Sequence[str], first: int, prefix: str, names: Mapping[str, Sequence[str]]
) -> Iterator[Row]:
    for number, values in enumerate(batch.select(columns).to_pylist(), first):
        for name, classes in names.items():
            value = values.get(name)
            if isinstance(value, int) and 0 <= value < len(classes):
                values[name] = classes[value]
        yield row_of(f"{prefix}row {number}", values)


class ParquetRows(RowTable):
    """A Parquet file."""

    head = "columns"
    outputs = (".parquet",)

    def __init__(self, path: Path, where: object) -> None:
        self._path, self.where, self.files = path, where, (path,)
        with self._open() as file:
            self._schema = file.schema
        self.header = _readable(self._schema, where)
        self.read_as = "Parquet"

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        with self._open() as file:
            first = 1
            for batch in _guarded(file.batches(_BATCH_ROWS, columns), lambda: _damage(self.where, "Parquet")):
                yield from _rows_of(batch, columns, first, "", {})
                first += batch.num_rows

    @property
    def names(self) -> Sequence[str]:
        return list(self._schema.names)

    def texts(self, column: str, absent: Sequence[str] = ()) -> Iterator[str]:
        kind = self._schema.field(column).type
        value_kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(value_kind) or pa.types.is_large_string(value_kind)):
            raise UserError(f"{self.where}: column {column!r} has {kind}, expected strings.")
        return super().texts(column)

    def write_with(self, target: Path, added: Added, suffix: str) -> None:
        """See `RowTable.write_with`: columns keep their types."""
        with self._open() as file:
            batches = _guarded(file.batches(_COPIED_ROWS), lambda: _damage(self.where, "Parquet"))
            write_parquet(target, self._schema, batches, added)

    @contextmanager
    def _open(self) -> Iterator[BoundedParquet]:
        with pa.memory_map(str(self._path)) as source:
            with _damage(self.where, "Parquet"):
                file = BoundedParquet(source, self.where)
                file.schema.names  # noqa: B018  # decodes the names
            with file:
                yield file


def _guarded(batches: Iterator[pa.RecordBatch], guard: Callable[[], Any]) -> Iterator[pa.RecordBatch]:
    """Read and validate batches; only reading is inside the guard."""
    while True:
        with guard():
            batch = next(batches, None)
            if batch is not None:
                batch.validate(full=True)
        if batch is None:
            return
        yield batch


class SavedDataset(RowTable):
    """A folder of `Dataset.save_to_disk` or `DatasetDict.save_to_disk` (Hugging Face `datasets`).

    The splits of a `DatasetDict` become the column `split`, if there is no such column. Classes (`ClassLabel`) have
    their names.
    """

    head = "columns"

    def __init__(self, folder: Path, where: object) -> None:
        self.where = where
        dictionary = folder / "dataset_dict.json"
        parts = {"": folder}
        if dictionary.is_file():
            names = self._json(dictionary).get("splits")
            parts = {name: folder / self._plain(name, dictionary) for name in self._list(names, dictionary)}
        self._parts = {name: self._files_of(part) for name, part in parts.items()}
        self.files = tuple(path for paths in self._parts.values() for path in paths)
        if not self.files:
            raise UserError(f"{where} is a data set of Hugging Face without files. Save it again with save_to_disk.")
        schemas = []
        for path in self.files:
            with _damage(path, "an Arrow stream"):
                schemas.append(stream_schema(path))
        self.header = tuple(
            name for name in _readable(schemas[0], where) if all(name in schema.names for schema in schemas)
        )
        self._classes = self._class_names(next(iter(parts.values())) / "dataset_info.json")
        self._adds_split = dictionary.is_file() and SPLIT_COLUMN not in self.header
        if self._adds_split:
            self.header = (*self.header, SPLIT_COLUMN)
        self.read_as = f"a data set of Hugging Face with {len(self.files)} Arrow files"

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        stored = [name for name in columns if not (self._adds_split and name == SPLIT_COLUMN)]
        for split, paths in self._parts.items():
            for path in paths:
                first = 1
                prefix = f"{split}/{path.name} " if split else f"{path.name} "
                batches = _guarded(read_stream(path), lambda path=path: _damage(path, "an Arrow stream"))  # type: ignore[misc]  # mypy infers no type of a default
                for batch in batches:
                    for row in _rows_of(batch, stored, first, prefix, self._classes):
                        added = {SPLIT_COLUMN: split} if self._adds_split and SPLIT_COLUMN in columns else {}
                        yield Row(row.place, {**row.cells, **added}, row.fault, row.reason)
                    first += batch.num_rows

    def _files_of(self, part: Path) -> list[Path]:
        state = part / "state.json"
        if not state.is_file():
            raise UserError(f"{part} has no state.json, so it is no data set that save_to_disk wrote.")
        content = self._json(state)
        if content.get("_indices_files") or content.get("_indices_data_files"):
            raise UserError(f"{part} selects rows by a list of indices. Call flatten_indices() and save it again.")
        files = [file.get("filename") for file in self._list(content.get("_data_files"), state, dict)]
        return [part / self._plain(name, state) for name in files]

    def _class_names(self, info: Path) -> dict[str, list[str]]:
        features = self._json(info).get("features") if info.is_file() else None
        found = {}
        for name, feature in features.items() if isinstance(features, dict) else ():
            classes = feature.get("names") if isinstance(feature, dict) else None
            if isinstance(classes, list) and all(isinstance(one, str) for one in classes):
                found[name] = classes
        return found

    def _json(self, path: Path) -> dict[str, Any]:
        try:
            content = parse_json(path.read_bytes())
        except JsonError as error:
            raise UserError(f"{path} is not JSON: {error}. Save the data set again.") from None
        if not isinstance(content, dict):
            raise UserError(f"{path} is not a JSON object. Save the data set again.")
        return content

    def _list(self, value: object, path: Path, kind: type = str) -> list[Any]:
        if not isinstance(value, list) or not all(isinstance(one, kind) for one in value):
            raise UserError(f"{path} does not have the form that save_to_disk writes. Save the data set again.")
        return value

    def _plain(self, name: object, path: Path) -> str:
        """A name of a file or folder directly in the folder of `path`."""
        is_plain = isinstance(name, str) and PurePath(name).name == name and "\0" not in name
        if not is_plain or not (path.parent / str(name)).exists():
            raise UserError(f"{path} names {str(name)[:80]!r}, which is not in its folder. Save the data set again.")
        return str(name)
