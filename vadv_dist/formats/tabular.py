"""The door to tables of all formats: CSV, Parquet, JSON, Excel, and saved data sets of Hugging Face."""

from pathlib import Path

from vadv_dist.errors import UserError, similar_file
from vadv_dist.formats.table_rows import RowTable, TableFormat

TABLE_KINDS = "CSV, Parquet, JSONL, Excel, or a folder that Hugging Face datasets saved"
ANY_FORMAT = TableFormat()
# Folders with one of these are data sets that Hugging Face `datasets` saved.
SAVED_DATASET = ("dataset_dict.json", "state.json")
_JSON = (".json", ".jsonl", ".ndjson")
_OTHER = {b"PAR1": "Parquet", b"PK\x03\x04": "Excel", b"\xd0\xcf\x11\xe0": "Excel (.xls)"}


def open_table(path: Path, given: TableFormat = ANY_FORMAT, *, where: object = None, option: str = "--csv") -> RowTable:
    """Open a table; its format is recognised by its content and name.

    Args:
        path: a file, or a folder of Hugging Face `datasets`.
        given: delimiter and encoding of a text file.
        where: its name in messages; None is the path.
        option: the option or field that names it.
    Raises:
        UserError: it does not exist, is none of these, or is damaged.
    """
    where = path if where is None else where
    if path.is_dir():
        if any((path / name).is_file() for name in SAVED_DATASET):
            from vadv_dist.formats.arrow_rows import SavedDataset

            return SavedDataset(path, where)
        raise UserError(
            f"{where} is a folder without dataset_dict.json or state.json, expected a table ({TABLE_KINDS}). Give the "
            f"file with {option}."
        )
    if not path.is_file():
        raise UserError(f"{where} does not exist.{similar_file(path)} Give an existing file with {option}.")
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(b"PAR1"):
        from vadv_dist.formats.arrow_rows import ParquetRows

        return ParquetRows(path, where)
    if head.startswith(b"PK\x03\x04"):
        from vadv_dist.formats.spreadsheet import SpreadsheetTable

        return SpreadsheetTable(path, where)
    if head.startswith(b"\xd0\xcf\x11\xe0"):
        raise UserError(f"{where} is in the old format of Excel (.xls). Save it as .xlsx or CSV.")
    if head.startswith(b"ARROW1"):
        raise UserError(f"{where} is an Arrow file. Save it as Parquet, or with save_to_disk and give the folder.")
    if _is_json(path, where):
        from vadv_dist.formats.json_rows import JsonTable

        return JsonTable(path, where, given)
    from vadv_dist.formats.delimited import DelimitedTable

    return DelimitedTable(path, where, given)


def _is_json(path: Path, where: object) -> bool:
    """Whether a text is JSON; what is inside a compressed file must be a text.

    Raises:
        UserError: a compressed file of another kind.
    """
    from vadv_dist.formats.compressed import open_decompressed

    with open_decompressed(path, where) as file:
        head = file.read(64)
    for magic, kind in _OTHER.items():
        if head.startswith(magic):
            raise UserError(f"{where} is a compressed file of {kind}. Decompress it first.")
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return any(suffix in _JSON for suffix in suffixes) or text.startswith((b'{"', b"[{"))
