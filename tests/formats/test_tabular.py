"""Tables of all formats give the same rows, and damaged or hostile ones are refused."""

import bz2
import gzip
import io
import json
import lzma
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vadv_dist.errors import UserError
from vadv_dist.formats.encodings import detect_encoding
from vadv_dist.formats.table_rows import TableFormat
from vadv_dist.formats.tabular import open_table

HEADER = ["id", "label", "text", "split"]
ROWS = [
    ["a_1", "1.5", "it was good, very good", "train"],
    ["a_2", "-2", 'she said "no; never"', "train"],
    ["b_1", "0", "two\nlines", "test"],
]


def delimited(sign: str) -> str:
    def cell(text: str) -> str:
        return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in f'{sign}"\n') else text

    return "".join(sign.join(map(cell, row)) + "\n" for row in [HEADER, *ROWS])


def objects() -> list[dict]:
    return [{**dict(zip(HEADER, row, strict=True)), "label": float(row[1])} for row in ROWS]


def arrow() -> pa.Table:
    return pa.Table.from_pylist([{**row, "frames": [1, 2]} for row in objects()])


def save_dataset(folder: Path, table: pa.Table, compression: str | None = None, **state: object) -> None:
    """Write what `datasets.Dataset.save_to_disk` writes, as far as it is read."""
    folder.mkdir(parents=True)
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(folder / "data-00000-of-00001.arrow", table.schema, options=options) as writer:
        writer.write_table(table)
    files = [{"filename": "data-00000-of-00001.arrow"}]
    (folder / "state.json").write_text(json.dumps({"_data_files": files, "_split": "train", **state}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {}}))


def read(path: Path, **given: str) -> list[list[str]]:
    table = open_table(path, TableFormat(**given))
    rows = list(table.rows(HEADER))
    assert not any(row.fault for row in rows)
    return [[row.cells[name] for name in HEADER] for row in rows]


def refusal(path: Path, **given: str) -> str:
    with pytest.raises(UserError) as caught:
        list(open_table(path, TableFormat(**given)).rows(["text"]))
    return str(caught.value)


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_delimiter_and_encoding_are_recognised(tmp_path: Path, sign: str, encoding: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(delimited(sign).encode(encoding))
    assert read(path) == ROWS


@pytest.mark.parametrize(("suffix", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)])
def test_compressed_tables_are_read(tmp_path: Path, suffix: str, compress) -> None:
    (tmp_path / f"t.csv.{suffix}").write_bytes(compress(delimited(",").encode()))
    (tmp_path / "t.jsonl").write_bytes(compress("\n".join(map(json.dumps, objects())).encode()))
    assert read(tmp_path / f"t.csv.{suffix}") == ROWS
    assert [row[0] for row in read(tmp_path / "t.jsonl")] == ["a_1", "a_2", "b_1"]
    path = tmp_path / "cut"
    path.write_bytes(compress(delimited(",").encode() * 200)[:-30])
    assert "damaged" in refusal(path)


def test_zstd_is_read(tmp_path: Path) -> None:
    with pa.CompressedOutputStream(str(tmp_path / "t.csv.zst"), "zstd") as file:
        file.write(delimited(";").encode())
    assert read(tmp_path / "t.csv.zst") == ROWS
    assert (
        open_table(tmp_path / "t.csv.zst").read_as == "CSV with semicolons between cells in UTF-8, compressed with zstd"
    )


def test_other_formats_have_the_same_rows(tmp_path: Path) -> None:
    numbers = [[row[0], str(float(row[1])), *row[2:]] for row in ROWS]
    (tmp_path / "t.jsonl").write_text("\n\n".join(map(json.dumps, objects())))
    (tmp_path / "t.json").write_text(json.dumps(objects(), indent=1))
    pq.write_table(arrow(), tmp_path / "t.parquet")
    save_dataset(tmp_path / "saved", arrow())
    for name in ("t.jsonl", "t.json", "t.parquet", "saved"):
        assert read(tmp_path / name) == numbers, name
    assert "frames" not in open_table(tmp_path / "t.parquet").header


def test_the_splits_and_class_names_of_a_saved_dictionary_are_read(tmp_path: Path) -> None:
    table = pa.table({"text": ["good", "bad"], "label": pa.array([1, 0])})
    for split in ("train", "validation"):
        save_dataset(tmp_path / "saved" / split, table)
        info = {"features": {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}}
        (tmp_path / "saved" / split / "dataset_info.json").write_text(json.dumps(info))
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    rows = list(open_table(tmp_path / "saved").rows(["split", "label"]))
    assert [tuple(row.cells.values()) for row in rows] == [
        ("pos", "train"),
        ("neg", "train"),
        ("pos", "validation"),
        ("neg", "validation"),
    ]
    assert rows[3].place == "validation/data-00000-of-00001.arrow row 2"


def test_hostile_saved_datasets_are_refused(tmp_path: Path) -> None:
    bomb = pa.table({"text": ["x" * 1000] * 10_000})
    save_dataset(tmp_path / "packed", bomb, compression="zstd")
    assert "its batches are compressed" in refusal(tmp_path / "packed")
    save_dataset(tmp_path / "outside", arrow(), _data_files=[{"filename": "../../etc/passwd"}])
    assert "not in its folder" in refusal(tmp_path / "outside")
    save_dataset(tmp_path / "selected", arrow(), _indices_files=[{"filename": "i.arrow"}])
    assert "flatten_indices()" in refusal(tmp_path / "selected")
    save_dataset(tmp_path / "many", pa.table({"text": pa.nulls(1 << 24)}))
    assert "declares 16,777,216 rows" in refusal(tmp_path / "many")
    save_dataset(tmp_path / "shared", pa.table({"text": pa.array(["x" * (5 << 20)]).dictionary_encode()}))
    assert "has texts of more than" in refusal(tmp_path / "shared")
    file = tmp_path / "damaged" / "data-00000-of-00001.arrow"
    save_dataset(tmp_path / "damaged", arrow())
    file.write_bytes(file.read_bytes()[:-100])
    assert "cannot be read as an Arrow stream" in refusal(tmp_path / "damaged")


def test_a_small_file_that_expands_a_hundredfold_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("vadv_dist.formats.compressed._FREE_BYTES", 1 << 20)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"text\n" + b"word word\n" * 300_000))
    assert "expands to more than 1,048,576 bytes" in refusal(tmp_path / "t.csv.gz")


SENTENCES = {
    "cp1252": "Das Gemälde gefällt mir nicht, aber die Straße ist schön. Déjà vu à Orléans.",
    "gb18030": "这部电影真的很好看，我非常喜欢它的故事和演员的表演，推荐给大家去看一看。",
    "shift_jis": "この映画はとても面白かったです。また見たいと思います。",
    "cp949": "이 영화는 정말 재미있었습니다. 다시 보고 싶다고 생각합니다. 배우들의 연기도 좋았습니다.",
    "cp1251": "Этот фильм мне очень понравился, хотя актёры играли неважно.",
    "koi8-r": "Этот фильм мне очень понравился, хотя актёры играли неважно.",
}


@pytest.mark.parametrize("encoding", SENTENCES)
def test_usual_encodings_are_recognised(encoding: str) -> None:
    text = "id,text\n" + "".join(f"a_{n},{SENTENCES[encoding]}\n" for n in range(5))
    found = detect_encoding(io.BytesIO(text.encode(encoding)))
    assert found == encoding
    assert text.encode(encoding).decode(found) == text


def test_one_damaged_byte_does_not_make_utf_8_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("id,text\na,schöne Grüße, naïve café\n".replace(", n", " n").encode() + b"b,x\xff\n")
    assert "is not a CSV file in UTF-8" in refusal(path)


def test_options_override_what_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("id~label~text~split\na~1~Grüße~train\n".encode("cp437"))
    assert read(path, delimiter="~", encoding="cp437") == [["a", "1", "Grüße", "train"]]
    assert "the encoding is 'utf8x', expected one that Python knows" in refusal(path, encoding="utf8x")
    assert "the encoding is 'hex'" in refusal(path, encoding="hex")
    assert "the delimiter is '::', expected one sign" in refusal(path, delimiter="::", encoding="cp437")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.jsonl", b'{"text": "a"}\n{"text": ', "t.jsonl line 2 is not JSON"),
        ("t.jsonl", b'{"text": "a"}\n[1]\n', "t.jsonl line 2 is not a JSON object"),
        ("t.jsonl", b"\n", "has no rows, expected a JSON object per line"),
        ("t.csv", b"\xd0\xcf\x11\xe0rest", "is in the old format of Excel (.xls). Save it as .xlsx or CSV."),
        ("t.csv", b"PAR1 and more", "cannot be read as Parquet"),
        ("t.parquet.gz", gzip.compress(b"PAR1 and more"), "is a compressed file of Parquet. Decompress it first."),
        ("t.csv", bytes(range(1, 256)), "its encoding cannot be recognised"),
    ],
)
def test_what_is_not_a_table_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert message in refusal(tmp_path / name)


def test_a_list_where_a_text_belongs_is_a_fault_of_its_row(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"text": "a"}\n{"text": ["b"]}\n{"other": 1}\n')
    rows = list(open_table(tmp_path / "t.jsonl").rows(["text"]))
    assert [row.fault for row in rows] == ["", "has a list in column 'text', expected a text or a number.", ""]
    assert rows[2].cells == {"text": ""}


def test_excel_is_read_or_its_extra_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "plain.xlsx", "w") as file:
        file.writestr("notes.txt", "no table")
    assert "is a zip file, expected a table" in refusal(tmp_path / "plain.xlsx")
    try:
        from openpyxl import Workbook
    except ImportError:
        with zipfile.ZipFile(tmp_path / "t.xlsx", "w") as file:
            file.writestr("[Content_Types].xml", "<Types/>")
        assert "pip install 'vadv-dist[excel]', or save the sheet as CSV" in refusal(tmp_path / "t.xlsx")
        return
    book = Workbook()
    for row in [HEADER, *([row[0], float(row[1]), *row[2:]] for row in ROWS)]:
        book.active.append(row)
    book.create_sheet("other")
    book.save(tmp_path / "t.xlsx")
    assert [row[2] for row in read(tmp_path / "t.xlsx")] == [row[2] for row in ROWS]
    assert open_table(tmp_path / "t.xlsx").read_as == "sheet 'Sheet' of an Excel file (the first of 2)"
