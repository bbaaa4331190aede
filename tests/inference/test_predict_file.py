import csv
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_students import TEXTS, one_by_one

import vadv_dist.inference.tables as tables
from vadv_dist.cli import main
from vadv_dist.errors import UserError
from vadv_dist.inference.predict import predict_file
from vadv_dist.storage.objects import S3Path


def write_csv(path, rows, encoding="utf-8"):
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(tables, "CHUNK_ROWS", 4)


@pytest.mark.usefixtures("small_chunks")
def test_csv_cells_are_copied_unchanged(export, student, tokenizer, tmp_path):
    rows = [[f"00{n}", text, 'a "quoted", \n cell', "1.50"] for n, text in enumerate(TEXTS)]
    source = write_csv(tmp_path / "in.csv", [["id", "text", "note", "label"], *rows], encoding="utf-8-sig")
    count = predict_file(export, source, tmp_path / "out.csv")
    header, *written = read_csv(tmp_path / "out.csv")
    assert count == len(TEXTS)
    assert header == ["id", "text", "note", "label", "prediction"]
    assert [row[:-1] for row in written] == rows
    np.testing.assert_allclose([float(row[-1]) for row in written], one_by_one(student, tokenizer), atol=1e-5)


@pytest.mark.usefixtures("small_chunks")
def test_parquet_columns_keep_their_types(export, student, tokenizer, tmp_path):
    visual = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(len(TEXTS) * 6, dtype=np.float16).reshape(-1, 2, 3))
    table = pa.table(
        {
            "clip_id": pa.array([f"00{n}" for n in range(len(TEXTS))]).dictionary_encode(),
            "words": pa.array(TEXTS, pa.large_string()),
            "label": pa.array([None, *range(len(TEXTS) - 1)], pa.int8()),
            "visual": visual,
        }
    ).replace_schema_metadata({"origin": "here"})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=5)
    predict_file(export, tmp_path / "in.parquet", tmp_path / "out.parquet", text_column="words")
    written = pq.read_table(tmp_path / "out.parquet")
    assert written.schema.field("prediction").type == pa.float32()
    assert written.schema.metadata[b"origin"] == b"here"
    assert written.drop_columns("prediction").equals(pq.read_table(tmp_path / "in.parquet"))
    np.testing.assert_allclose(written["prediction"].to_numpy(), one_by_one(student, tokenizer), atol=1e-5)


def test_a_table_without_rows_gives_a_header(export, tmp_path):
    source = write_csv(tmp_path / "in.csv", [["id", "text"]])
    assert predict_file(export, source, tmp_path / "out.csv") == 0
    assert read_csv(tmp_path / "out.csv") == [["id", "text", "prediction"]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["id", "txt"], ["1", "fun"]], r"no column 'text' \(it has: id, txt\). Did you mean 'txt'\?"),
        ([["text", "prediction"], ["fun", "1"]], "already has a column 'prediction'"),
        ([["id", "text"], ["1", "fun"], ["2", " "]], "row 2 has an empty 'text'"),
        ([["id", "text"], ["1", "fun", "more"]], "row 1 has 3 cells, but the header has 2"),
        ([], "is empty"),
    ],
)
def test_invalid_csv_is_refused(export, tmp_path, rows, message):
    source = write_csv(tmp_path / "in.csv", rows)
    with pytest.raises(UserError, match=message):
        predict_file(export, source, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("in.csv", b"text\n\xff\xfe\n", "cannot be read as CSV in UTF-8"),
        ("in.csv", b'text\n"never closed\n', "cannot be read as CSV in UTF-8"),
        ("in.parquet", b"PAR1 but not really PAR1", "cannot be read as Parquet"),
        ("in.txt", b"fun", "ends in '.txt', expected .csv or .parquet"),
        ("in", b"fun", "has no suffix, expected .csv or .parquet"),
    ],
)
def test_file_of_another_format_is_refused(export, tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message):
        predict_file(export, tmp_path / name, tmp_path / f"out{(tmp_path / name).suffix}")


@pytest.mark.parametrize(
    ("column", "message"),
    [(pa.array(["fun", None]), "row 2 has an empty 'text'"), (pa.array([1, 2]), "has int64, expected strings")],
)
def test_invalid_parquet_texts_are_refused(export, tmp_path, column, message):
    pq.write_table(pa.table({"text": column}), tmp_path / "in.parquet")
    with pytest.raises(UserError, match=message):
        predict_file(export, tmp_path / "in.parquet", tmp_path / "out.parquet")


def test_existing_files_are_not_overwritten(export, tmp_path):
    source = write_csv(tmp_path / "in.csv", [["text"], ["fun"]])
    os.symlink(source, tmp_path / "link.csv")
    for same in (source, tmp_path / "link.csv", tmp_path / "." / "in.csv"):
        with pytest.raises(UserError, match="Input and output are both"):
            predict_file(export, source, same)
    other = write_csv(tmp_path / "other.csv", [["kept"]])
    with pytest.raises(UserError, match="already exists and is never overwritten"):
        predict_file(export, source, other)
    assert read_csv(other) == [["kept"]]
    with pytest.raises(UserError, match=r"ends in '\.parquet', but the input ends in '\.csv'"):
        predict_file(export, source, tmp_path / "out.parquet")
    with pytest.raises(UserError, match="does not exist"):
        predict_file(export, tmp_path / "none.csv", tmp_path / "out.csv")


def test_output_appears_completely_or_not_at_all(export, tmp_path, monkeypatch):
    source = write_csv(tmp_path / "in.csv", [["text"], *([text] for text in TEXTS)])

    def fail_after_a_row(table, path, values):
        path.write_text("text,prediction\nfun,0.5\n")
        raise RuntimeError("interrupted")

    monkeypatch.setattr(tables.CsvTable, "write_with", fail_after_a_row)
    with pytest.raises(RuntimeError, match="interrupted"):
        predict_file(export, source, tmp_path / "out.csv")
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


def test_a_table_in_a_store_is_read_and_written_there(export, student, tokenizer, tmp_path, s3, monkeypatch):
    place = S3Path.parse(f"{s3}/predictions")
    source = write_csv(tmp_path / "in.csv", [["text"], *([text] for text in TEXTS)])
    (place / "in.csv").upload(source)
    (place / "bad.csv").write_bytes(b"text\n \n")

    def fail_after_a_row(table, path, values):
        path.write_text("text,prediction\nfun,0.5\n")
        raise RuntimeError("interrupted")

    with monkeypatch.context() as patch:
        patch.setattr(tables.CsvTable, "write_with", fail_after_a_row)
        with pytest.raises(RuntimeError, match="interrupted"):
            predict_file(export, f"{place}/in.csv", f"{place}/out.csv")
    assert sorted(path.name for path in place.iterdir()) == ["bad.csv", "in.csv"]
    options = ["--input", f"{place}/in.csv", "--output", f"{place}/out.csv"]
    assert main(["predict", str(export), *options]) == 0
    predict_file(export, source, tmp_path / "out.csv")
    assert (place / "out.csv").read_bytes() == (tmp_path / "out.csv").read_bytes()
    for name, out, message in [
        ("in.csv", "in.csv", f"Input and output are both {place}/in.csv"),
        ("in.csv", "out.csv", f"{place}/out.csv already exists"),
        ("none.csv", "new.csv", f"{place}/none.csv does not exist"),
        ("bad.csv", "new.csv", f"{place}/bad.csv: row 1 has an empty 'text'"),
    ]:
        with pytest.raises(UserError, match=message):
            predict_file(export, place / name, place / out)
    with pytest.raises(UserError, match="no such bucket"):
        predict_file(export, place / "in.csv", "s3://no-such-bucket-here/out.csv")
