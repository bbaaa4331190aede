"""Rows of a CSV: columns, ids, texts and error messages."""

from pathlib import Path

import pytest
from csv_files import HEADER, ROWS, changed, refusal, table_of, write_csv

from vadv_dist.data.dataset import Dataset
from vadv_dist.data.readers.table import ingest_table


def test_without_a_video_column_the_video_is_inferred_from_the_id(tmp_path: Path) -> None:
    rows = [["x_y_1", "train", "0", "hello"], ["plain", "train", "0", "hello"]]
    ingest_table(write_csv(tmp_path / "c.csv", rows, ["id", "split", "label", "text"]), tmp_path / "out")
    assert table_of(tmp_path / "out", "train")["video_id"] == ["x_y", "plain"]


def test_the_fallback_column_is_used_if_the_text_is_empty(tmp_path: Path) -> None:
    rows = [[*row, "RAW WORDS"] for row in changed(1, "text", "  ")]
    path = write_csv(tmp_path / "c.csv", rows, [*HEADER, "raw"])
    summary = ingest_table(path, tmp_path / "out", fallback_text_column="raw")
    assert summary.fallback_texts == 1
    assert table_of(tmp_path / "out", "train")["text"] == ["it was good", "RAW WORDS"]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (ROWS, {"text_column": "txt"}, "has no column 'txt' (columns: id, video_id, split, label, text). "),
        (
            ROWS,
            {"text_column": "txt"},
            "Did you mean 'text'? Set the right one with --text-column (in a workflow file, text_column).",
        ),
        (ROWS, {"video_column": "film"}, "has no column 'film'"),
        (ROWS, {"fallback_text_column": "raw"}, "has no column 'raw'"),
        (changed(1, "label", "good"), {}, "c.csv line 3: label is 'good', expected a number."),
        (changed(1, "label", "nan"), {}, "c.csv line 3: label is 'nan', expected a number."),
        (changed(2, "label", "3.2"), {}, "c.csv line 4: label is 3.2, expected a number in [-3, 3]."),
        (changed(0, "text", " "), {}, "c.csv line 2: text is empty (id 'a_1'). Fill it in"),
        (changed(0, "text", ""), {}, "--fallback-text-column"),
        (changed(0, "text", ""), {"fallback_text_column": "text"}, "text and text are both empty"),
        (changed(3, "id", "a_1"), {}, "c.csv line 5: id 'a_1' is already in line 2"),
        (changed(3, "id", ""), {}, "c.csv line 5: id is empty"),
        (changed(3, "split", "tset"), {}, "line 5: split is 'tset', expected one of train, valid, val, dev"),
        ([], {}, "has a header line but no rows"),
        ([["a_1", "a", "train"]], {}, "c.csv line 2 has 3 cells, but the header line has 5"),
        (ROWS, {"label_range": (3, -3)}, "--label-range is 3 -3"),
        (ROWS, {"dtype": "int8"}, "--dtype is 'int8'"),
        (ROWS, {"valid_fraction": 1.0}, "--valid-fraction is 1, expected a fraction between 0 and 1"),
        (ROWS, {"valid_fraction": 0.1}, "already has a validation split"),
        (changed(2, "split", "test"), {"valid_fraction": 0.1}, "has 1 videos in train"),
        (ROWS, {"arrays": ["f.npz"]}, "--arrays f.npz cannot be parsed. Write it as FILE.npz:ARRAY=FEATURE"),
        (ROWS, {"arrays": ["f.npz:video"]}, "cannot be parsed"),
        (ROWS, {"arrays": ["f.npz:video=visul"]}, "unknown feature 'visul'"),
        (ROWS, {"arrays": ["f.npz:video=visul"]}, "Did you mean 'visual'?"),
        (ROWS, {"arrays": ["a.npz:a=face", "b.npz:b=face"]}, "--arrays has 'face' more than once"),
        (ROWS, {"arrays": ["nowhere.npz:video=visual"]}, "nowhere.npz does not exist"),
    ],
)
def test_invalid_tables_and_options_are_refused(
    tmp_path: Path, rows: list[list[str]], options: dict, message: str
) -> None:
    assert message in refusal(write_csv(tmp_path / "c.csv", rows), tmp_path, **options)


def test_rows_that_cannot_become_a_clip_are_dropped_on_request_and_counted(tmp_path: Path) -> None:
    rows = [
        *ROWS,
        ["a_1", "a", "train", "1", "again"],
        ["d_1", "d", "train", "good", "no label"],
        ["d_2", "d", "train", "4", "out of range"],
        ["d_3", "d", "train", "1", " "],
        ["d_4", "d", "tain", "1", "no split"],
        ["", "d", "train", "1", "no id"],
        ["d_5", "d", "train"],
        ["d_6", "d", "train", "1", "kept"],
    ]
    path = write_csv(tmp_path / "c.csv", rows)
    summary = ingest_table(path, tmp_path / "out", bad_rows="drop")
    assert (summary.rows_read, summary.rows_written) == (12, 5)
    assert summary.dropped == {
        "duplicate id": 1,
        "label is not a number": 1,
        "label out of range": 1,
        "no words": 1,
        "unknown split": 1,
        "no id": 1,
        "wrong number of cells": 1,
    }
    assert table_of(tmp_path / "out", "train")["clip_id"] == ["a_1", "a_2", "d_6"]
    counts = Dataset.open(tmp_path / "out").manifest.provenance["counts"]
    assert counts["dropped_for_example"]["no words"] == ["line 9"]


def test_several_columns_form_one_id(tmp_path: Path) -> None:
    rows = [["v_1", "3", "train", "0", "a"], ["v", "1_3", "test", "0", "b"]]
    header = ["video_id", "clip_id", "mode", "label", "text"]
    options = {"id_column": ["video_id", "clip_id"], "split_column": "mode"}
    path = write_csv(tmp_path / "c.csv", rows, header)
    assert "line 3: id 'v_1_3' is already in line 2" in refusal(path, tmp_path, **options)
    write_csv(path, [rows[0], ["v", "", "test", "0", "b"]], header)
    assert "line 3: video_id or clip_id is empty" in refusal(path, tmp_path, **options)
    write_csv(path, [rows[0], ["v", "4", "test", "0", "b"]], header)
    assert "has no column 'clip' (columns" in refusal(
        path, tmp_path, id_column=["video_id", "clip"], split_column="mode"
    )
    ingest_table(path, tmp_path / "out", **options)  # type: ignore[arg-type]  # options vary by case
    assert table_of(tmp_path / "out", "train")["clip_id"] == ["v_1_3"]
    assert table_of(tmp_path / "out", "train")["video_id"] == ["v_1"]


def test_duplicate_header_is_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "c.csv", [[*row, "x"] for row in ROWS], [*HEADER, "text"])
    assert "has 2 columns named 'text'" in refusal(path, tmp_path)


def test_line_numbers_count_line_breaks_inside_cells(tmp_path: Path) -> None:
    rows = changed(0, "text", "two\nlines")
    rows[1][3] = "x"
    assert "c.csv line 4: label is 'x'" in refusal(write_csv(tmp_path / "c.csv", rows), tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty, expected a CSV file"),
        (b"PK\x03\x04\xff\xfe\x80", "is not an Excel file (.xlsx) or is damaged"),
        (b"a\x00b\n1\n", "its first line contains NUL bytes"),
        (b'id,video_id,split,label,text\na_1,a,train,0,"open\n', "is not valid CSV"),
    ],
)
def test_a_file_that_is_not_a_csv_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "c.csv"
    path.write_bytes(content)
    assert message in refusal(path, tmp_path)


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "nowhere-else.csv").touch()
    said = refusal(tmp_path / "nowhere.csv", tmp_path)
    assert "nowhere.csv does not exist. Did you mean 'nowhere-else.csv'? Give an existing file with --csv." in said
    assert "is a folder" in refusal(tmp_path, tmp_path)


def test_a_missing_validation_split_is_reported(tmp_path: Path) -> None:
    rows = [row for row in ROWS if row[HEADER.index("split")] != "val"]
    assert "no validation split" in str(ingest_table(write_csv(tmp_path / "c.csv", rows), tmp_path / "out"))
    assert "no validation split" not in str(ingest_table(write_csv(tmp_path / "d.csv", ROWS), tmp_path / "whole"))
