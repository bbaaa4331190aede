import csv
import gzip
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_students import TEXTS, one_by_one

import vadv_dist.formats.arrow_rows as arrow_rows
import vadv_dist.inference.predict as predict
import vadv_dist.inference.text_predictor as text_predictor
import vadv_dist.inference.text_table as text_table
from vadv_dist.cli import main
from vadv_dist.errors import UserError
from vadv_dist.formats.delimited import DelimitedTable
from vadv_dist.inference.partial_predictions import PartialPredictions
from vadv_dist.inference.predicted_files import predict_file
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
    monkeypatch.setattr(text_table, "CHUNK_ROWS", 4)
    monkeypatch.setattr(arrow_rows, "_COPIED_ROWS", 4)


@pytest.mark.usefixtures("small_chunks")
def test_csv_cells_are_copied_unchanged(export, student, tokenizer, tmp_path):
    rows = [[f"00{n}", text, 'a "quoted", \n cell', "1.50"] for n, text in enumerate(TEXTS)]
    source = write_csv(tmp_path / "in.csv", [["id", "text", "note", "label"], *rows], encoding="utf-8-sig")
    count = predict_file(export, source, tmp_path / "out.csv").rows
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
    assert predict_file(export, source, tmp_path / "out.csv").rows == 0
    assert read_csv(tmp_path / "out.csv") == [["id", "text", "prediction"]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["id", "txt"], ["1", "fun"]], r"no column 'text' \(it has: id, txt\). Did you mean 'txt'\?"),
        ([["text", "prediction"], ["fun", "1"]], "already has a column 'prediction'"),
        ([["id", "text"], ["1", "fun"], ["2", " "]], "row 2 has an empty 'text'"),
        ([["id", "text"], ["1", "fun", "more"]], "line 2 has 3 cells, but the header line has 2"),
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
        ("in.csv", b"text\n\xff\x01\n", "is not text in UTF-8, and its encoding cannot be recognised"),
        ("in.csv", b'text\n"never closed\n', "line 2 is not valid CSV"),
        ("in.parquet", b"PAR1 but not really PAR1", "cannot be read as Parquet"),
        ("in.doc", b"fun", r"ends in '.doc', expected .csv, .tsv, .jsonl, .parquet or .txt"),
        ("in", b"fun", r"has no suffix, expected .csv, .tsv, .jsonl, .parquet or .txt"),
        ("in.txt", b"fun\n\xff\x01", "is not text in UTF-8"),
        ("in.jsonl", b'{"text": "fun"}\n{"text": 3}', "line 2: 'text' is 3, expected a string"),
        ("in.jsonl", b'{"text": "fun"}\n["text"]', "line 2 is not a JSON object"),
        ("in.jsonl", b'{"text": "fun"}\n{"text": "f', "line 2 is not JSON"),
        ("in.jsonl", b'{"text": "fun"}\n{"text": "a", "prediction": 1}', "already has a column 'prediction'"),
        ("in.jsonl", b'{"text": "fun"}\n{"words": "a"}', "row 2 has an empty 'text'"),
        ("in.jsonl", b"", "has no rows"),
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
    with pytest.raises(UserError, match="already exists and is not overwritten"):
        predict_file(export, source, other)
    assert read_csv(other) == [["kept"]]
    with pytest.raises(UserError, match=r"ends in '\.parquet', but for the input .*in\.csv it has to end in \.csv"):
        predict_file(export, source, tmp_path / "out.parquet")
    with pytest.raises(UserError, match="does not exist"):
        predict_file(export, tmp_path / "none.csv", tmp_path / "out.csv")


def test_output_appears_completely_or_not_at_all(export, tmp_path, monkeypatch):
    source = write_csv(tmp_path / "in.csv", [["text"], *([text] for text in TEXTS)])

    def fail_after_a_row(table, path, columns, suffix):
        path.write_text("text,prediction\nfun,0.5\n")
        raise RuntimeError("interrupted")

    monkeypatch.setattr(DelimitedTable, "write_with", fail_after_a_row)
    with pytest.raises(RuntimeError, match="interrupted"):
        predict_file(export, source, tmp_path / "out.csv")
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


def test_a_table_in_a_store_is_read_and_written_there(export, student, tokenizer, tmp_path, s3, monkeypatch):
    place = S3Path.parse(f"{s3}/predictions")
    source = write_csv(tmp_path / "in.csv", [["text"], *([text] for text in TEXTS)])
    (place / "in.csv").upload(source)
    (place / "bad.csv").write_bytes(b"text\n \n")

    def fail_after_a_row(table, path, columns, suffix):
        path.write_text("text,prediction\nfun,0.5\n")
        raise RuntimeError("interrupted")

    with monkeypatch.context() as patch:
        patch.setattr(DelimitedTable, "write_with", fail_after_a_row)
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


def test_lines_of_text_become_a_table_or_lines_of_predictions(export, student, tokenizer, tmp_path):
    source = tmp_path / "in.txt"
    source.write_text("\n".join(text.replace("\n", " ") for text in TEXTS), encoding="utf-8")
    texts = source.read_text(encoding="utf-8").split("\n")
    expected = one_by_one(student, tokenizer)
    for suffix in (".txt", ".csv", ".tsv", ".jsonl", ".parquet"):
        assert predict_file(export, source, tmp_path / f"out{suffix}").rows == len(TEXTS)
    plain = [float(line) for line in (tmp_path / "out.txt").read_text().splitlines()]
    np.testing.assert_allclose(plain, expected, atol=1e-5)
    objects = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    parquet = pq.read_table(tmp_path / "out.parquet").to_pylist()
    header, *rows = read_csv(tmp_path / "out.csv")
    assert header == ["text", "prediction"]
    assert [row[0] for row in rows] == [one["text"] for one in objects] == [one["text"] for one in parquet] == texts
    assert [float(row[1]) for row in rows] == plain == [one["prediction"] for one in objects]
    assert np.float32(plain).tolist() == [one["prediction"] for one in parquet]
    assert (tmp_path / "out.tsv").read_text(encoding="utf-8").splitlines()[1].split("\t")[0] == texts[0]


def test_objects_are_copied_as_they_are_written(export, tmp_path):
    lines = [
        '{"text": "fun",  "n": 1e3, "deep": {"a": [1, null]}}',
        '{"id": 12345678901234567890, "text": "dull"}  ',
        "",
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    predict_file(export, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    written = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [line.split(', "prediction": ')[0] for line in written] == [line.rstrip()[:-1] for line in lines[:2]]
    assert all(isinstance(json.loads(line)["prediction"], float) for line in written)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_empty_texts_can_be_skipped(export, tmp_path, suffix):
    texts = [" ", *TEXTS[:5], "", *TEXTS[5:], "\t"]
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    write_rows(source, texts)
    with pytest.raises(UserError, match=r"row 1 has an empty 'text'.*--skip-empty"):
        predict_file(export, source, target)
    done = predict_file(export, source, target, skip_empty=True)
    assert (done.rows, done.skipped) == (len(TEXTS) + 3, 3)
    whole, found = tmp_path / f"all{suffix}", read_rows(target)
    write_rows(whole, TEXTS)
    predict_file(export, whole, tmp_path / f"whole{suffix}")
    assert [found[row] for row in (0, 6, -1)] == [None] * 3
    given = [value for value in found if value is not None]
    np.testing.assert_allclose(given, read_rows(tmp_path / f"whole{suffix}"), atol=1e-5)


def write_rows(path, texts):
    if path.suffix == ".csv":
        write_csv(path, [["id", "text"], *([n, text] for n, text in enumerate(texts))])
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    else:
        pq.write_table(pa.table({"text": texts}), path)


def read_rows(path):
    if path.suffix == ".csv":
        return [float(row[-1]) if row[-1] else None for row in read_csv(path)[1:]]
    if path.suffix == ".jsonl":
        return [json.loads(line)["prediction"] for line in path.read_text().splitlines()]
    return pq.read_table(path)["prediction"].to_pylist()


@pytest.mark.parametrize("place", ["disk", "store"])
def test_a_stopped_command_resumes_with_the_same_bytes(export, tmp_path, s3, monkeypatch, place):
    monkeypatch.setattr(text_predictor, "CPU_CHUNK_ROWS", 3)
    monkeypatch.setattr(predict, "CPU_CHUNK_ROWS", 3)
    texts = [f"{text} {n}" for n in range(4) for text in TEXTS]
    source = write_csv(tmp_path / "in.csv", [["text"], *([text] for text in texts)])
    folder = tmp_path if place == "disk" else S3Path.parse(f"{s3}/resumed")
    predict_file(export, source, folder / "undisturbed.csv")
    seen = []

    def stop_in_the_middle(done, total):
        seen.append((done, total))
        if done >= len(texts) // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_file(export, source, folder / "out.csv", progress=stop_in_the_middle)
    assert not (folder / "out.csv").exists()
    other = predict_file(export, source, folder / "other.csv", batch_rows=1)
    assert other.resumed == 0
    done = predict_file(export, source, folder / "out.csv", progress=lambda *counts: seen.append(counts))
    assert 0 < done.resumed <= len(texts) // 2
    assert done.resumed % 3 == 0
    assert seen[-1] == (len(texts), len(texts))
    assert (folder / "out.csv").read_bytes() == (folder / "undisturbed.csv").read_bytes()
    assert [path.name for path in folder.iterdir() if "partial" in path.name] == []


def test_predictions_of_another_input_are_not_used(export, tmp_path):
    target = tmp_path / "out.csv"
    first = write_csv(tmp_path / "first.csv", [["text"], ["fun"], ["dull"]])
    partial = PartialPredictions(target, {"input": "first"})
    partial.add(np.zeros(2, np.float32))
    partial.save()
    assert PartialPredictions(target, {"input": "first"}).rows == 2
    assert PartialPredictions(target, {"input": "second"}).rows == 0
    assert predict_file(export, first, target).resumed == 0
    assert not [path.name for path in tmp_path.iterdir() if "partial" in path.name]


@pytest.mark.parametrize("packed", [False, True])
def test_csv_of_any_delimiter_encoding_and_compression_is_predicted(export, tmp_path, packed):
    rows = [["name", "text"], *([f"Müller {n}", text.replace("\n", " ")] for n, text in enumerate(TEXTS))]
    text = "\n".join(";".join(f'"{cell}"' for cell in row) for row in rows)
    source = tmp_path / "in.csv"
    source.write_bytes(gzip.compress(text.encode("cp1252", "replace")) if packed else text.encode("cp1252", "replace"))
    found = predict_file(export, source, tmp_path / "out.csv")
    assert found.read_as.startswith("CSV with semicolons between cells in cp1252")
    written = (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()
    assert written[0] == "name;text;prediction"
    assert written[1].startswith("Müller 0;")


def test_a_late_row_that_has_the_new_column_is_refused(export, tmp_path):
    lines = ['{"text": "fun"}'] * 1001
    (tmp_path / "in.jsonl").write_text("\n".join([*lines, '{"text": "fun", "prediction": 1}']))
    with pytest.raises(UserError, match="line 1002 already has 'prediction', which would be added"):
        predict_file(export, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
