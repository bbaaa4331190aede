"""Reading a CSV table with arrays beside it: what comes out, and what each mistake is told."""

import csv
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from vadv_dist.data.readers.table import IngestSummary, ingest_table
from vadv_dist.data.shards import Dataset
from vadv_dist.errors import UserError
from vadv_dist.storage import sha256_file

MOSI = Path(__file__).parents[3] / "shared/data/cmu_mosi"
HEADER = ["id", "video_id", "split", "label", "text"]
ROWS = [
    ["a_1", "a", "train", "1.5", "it was good"],
    ["a_2", "a", "train", "-0.2", "it was, well, dull"],
    ["b_1", "b", "val", "-3", "awful"],
    ["c_1", "c", "TEST", "3.0", "superb"],
]
IDS = [row[0] for row in ROWS]


def write_csv(path: Path, rows: list[list[str]] = ROWS, header: list[str] = HEADER) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def changed(row: int, column: str, value: str) -> list[list[str]]:
    rows = [list(cells) for cells in ROWS]
    rows[row][HEADER.index(column)] = value
    return rows


def table_of(out: Path, split: str) -> dict[str, list]:
    dataset = Dataset.open(out)
    return pq.read_table(dataset.shard_path(dataset.split(split)[0])).to_pydict()


@pytest.fixture
def refuses(tmp_path: Path) -> Callable[..., None]:
    """Assert that a table is refused with a message, and that nothing is left where it should have been written."""

    def check(message: str, path: Path, **options: object) -> None:
        before = sorted(tmp_path.iterdir())
        with pytest.raises(UserError) as caught:
            ingest_table(path, tmp_path / "out", **options)  # type: ignore[arg-type]  # options vary by case
        assert message in str(caught.value)
        assert sorted(tmp_path.iterdir()) == before

    return check


def test_rows_arrive_in_their_splits(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "my clips.csv")
    summary = ingest_table(path, tmp_path / "out")
    assert summary == IngestSummary(
        uri=str(tmp_path / "out"),
        rows_read=4,
        rows_written=4,
        splits={"train": 2, "valid": 1, "test": 1},
        videos={"train": 1, "valid": 1, "test": 1},
        features={},
        missing={},
        fallback_texts=0,
        cut_from_train=0,
        fingerprint=Dataset.open(tmp_path / "out").manifest.fingerprint,
    )
    train = table_of(tmp_path / "out", "train")
    assert train["clip_id"] == ["a_1", "a_2"]
    assert train["text"] == ["it was good", "it was, well, dull"]
    assert train["label"] == pytest.approx([1.5, -0.2])
    assert train["num_words"] == [3, 4]
    assert train["source"] == ["my clips"] * 2


def test_provenance_names_files_and_options(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "clips.csv")
    np.savez(tmp_path / "f.npz", id=IDS, video=np.ones((4, 3), np.float32))
    ingest_table(path, tmp_path / "out", arrays=[f"{tmp_path}/f.npz:video=visual"], seed=7)
    provenance = Dataset.open(tmp_path / "out").manifest.provenance
    assert [(file["name"], file["sha256"]) for file in provenance["files"]] == [
        (name, sha256_file(tmp_path / name)) for name in ("clips.csv", "f.npz")
    ]
    assert provenance["options"]["arrays"] == {"visual": "f.npz:video"}
    assert provenance["options"]["seed"] == 7
    assert str(tmp_path) not in str(provenance)


def test_without_a_video_column_the_video_is_the_id_up_to_its_last_underscore(tmp_path: Path) -> None:
    rows = [["x_y_1", "train", "0", "hello"], ["plain", "train", "0", "hello"]]
    ingest_table(write_csv(tmp_path / "c.csv", rows, ["id", "split", "label", "text"]), tmp_path / "out")
    assert table_of(tmp_path / "out", "train")["video_id"] == ["x_y", "plain"]


def test_renamed_columns_and_another_label_range(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "c.csv", changed(0, "label", "9"), ["name", "film", "fold", "score", "words"])
    ingest_table(
        path,
        tmp_path / "out",
        id_column="name",
        video_column="film",
        split_column="fold",
        label_column="score",
        text_column="words",
        label_range=(-3, 10),
        source="films",
    )
    train = table_of(tmp_path / "out", "train")
    assert train["label"][0] == 9
    assert train["source"][0] == "films"
    assert Dataset.open(tmp_path / "out").manifest.label.high == 10


def test_fallback_column_gives_words_where_the_first_is_empty(tmp_path: Path) -> None:
    rows = [[*row, "RAW WORDS"] for row in changed(1, "text", "  ")]
    path = write_csv(tmp_path / "c.csv", rows, [*HEADER, "raw"])
    summary = ingest_table(path, tmp_path / "out", fallback_text_column="raw")
    assert summary.fallback_texts == 1
    assert table_of(tmp_path / "out", "train")["text"] == ["it was good", "RAW WORDS"]


@pytest.mark.parametrize(
    ("feature", "shape", "stored"),
    [
        ("visual", (4, 5), [1, 1, 5]),
        ("visual", (4, 3, 5), [3, 1, 5]),
        ("visual", (4, 3, 2, 5), [3, 2, 5]),
        ("face", (4, 8), [1, 8]),
        ("face", (4, 6, 8), [6, 8]),
        ("audio", (4, 7), [7]),
        ("audio", (4, 9, 7), [9, 7]),
    ],
)
def test_arrays_take_the_layout_of_their_feature(
    tmp_path: Path, feature: str, shape: tuple[int, ...], stored: list[int]
) -> None:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    np.savez(tmp_path / "f.npz", id=IDS[::-1], x=values[::-1])  # rows are found by id, not by position
    summary = ingest_table(write_csv(tmp_path / "c.csv"), tmp_path / "out", arrays=[f"{tmp_path}/f.npz:x={feature}"])
    assert summary.features == {feature: stored}
    dataset = Dataset.open(tmp_path / "out")
    column = pq.read_table(dataset.shard_path(dataset.split("test")[0]))[feature].combine_chunks()
    np.testing.assert_array_equal(column.to_numpy_ndarray()[0], values[3].reshape(stored).astype(np.float16))


def test_arrays_may_lack_rows_only_when_allowed(tmp_path: Path, refuses: Callable[..., None]) -> None:
    path = write_csv(tmp_path / "c.csv")
    np.savez(tmp_path / "f.npz", id=[IDS[0], *IDS[2:]], x=np.ones((3, 5), np.float32))
    arrays = [f"{tmp_path}/f.npz:x=visual"]
    refuses("line 3: id 'a_2' has no row in", path, arrays=arrays)
    summary = ingest_table(path, tmp_path / "out", arrays=arrays, allow_missing_arrays=True)
    assert summary.missing == {"visual": 1}
    assert Dataset.open(tmp_path / "out").split("train")[0].missing == {"visual": 1}


def test_float32_keeps_what_float16_cannot(tmp_path: Path, refuses: Callable[..., None]) -> None:
    path = write_csv(tmp_path / "c.csv")
    np.savez(tmp_path / "f.npz", id=IDS, x=np.array([[1.0], [1e5], [2.0], [3.0]], np.float32))
    arrays = [f"{tmp_path}/f.npz:x=audio"]
    refuses(
        "holds 100000 in the row of id 'a_2', more than float16 can (65504). Give --dtype float32.", path, arrays=arrays
    )
    summary = ingest_table(path, tmp_path / "out", arrays=arrays, dtype="float32")
    assert summary.features == {"audio": [1]}
    assert table_of(tmp_path / "out", "train")["audio"] == [[1.0], [1e5]]


def long_table(path: Path) -> Path:
    rows = [[f"v{v}_{c}", f"v{v}", "train", "0", "words"] for v in range(20) for c in range(5)]
    return write_csv(path, [*rows, ["t_1", "t", "test", "0", "words"]])


def test_validation_is_cut_from_train_by_whole_videos_and_by_seed(tmp_path: Path) -> None:
    path = long_table(tmp_path / "c.csv")
    chosen = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        summary = ingest_table(path, tmp_path / name, valid_fraction=0.1, seed=seed)
        assert summary.splits == {"train": 90, "valid": 10, "test": 1}
        assert summary.cut_from_train == 10
        videos = {split: set(table_of(tmp_path / name, split)["video_id"]) for split in ("train", "valid")}
        assert not videos["train"] & videos["valid"]
        chosen.append(videos["valid"])
    assert chosen[0] == chosen[1] != chosen[2]


def test_no_validation_split_is_cut_unasked(tmp_path: Path) -> None:
    assert ingest_table(long_table(tmp_path / "c.csv"), tmp_path / "out").splits == {"train": 100, "test": 1}


def test_a_tiny_fraction_still_leaves_both_splits(tmp_path: Path) -> None:
    rows = [["a_1", "a", "train", "0", "x"], ["b_1", "b", "train", "0", "x"]]
    for fraction in (0.01, 0.99):
        out = tmp_path / f"{fraction}"
        summary = ingest_table(write_csv(tmp_path / "c.csv", rows), out, valid_fraction=fraction)
        assert summary.splits == {"train": 1, "valid": 1}


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (ROWS, {"text_column": "txt"}, "has no column 'txt' (columns: id, video_id, split, label, text). "),
        (ROWS, {"text_column": "txt"}, "Did you mean 'text'? Name the right one with --text-column."),
        (ROWS, {"video_column": "film"}, "has no column 'film'"),
        (ROWS, {"fallback_text_column": "raw"}, "has no column 'raw'"),
        (changed(1, "label", "good"), {}, "c.csv line 3: label is 'good', expected a number."),
        (changed(1, "label", "nan"), {}, "c.csv line 3: label is 'nan', expected a number."),
        (changed(2, "label", "3.2"), {}, "c.csv line 4: label is 3.2, expected a number in [-3, 3]."),
        (changed(0, "text", " "), {}, "c.csv line 2: text is empty (id 'a_1'). Fill it in"),
        (changed(0, "text", ""), {}, "--fallback-text-column"),
        (changed(0, "text", ""), {"fallback_text_column": "text"}, "text and text are both empty"),
        (changed(3, "id", "a_1"), {}, "c.csv line 5: id 'a_1' stands in line 2 already"),
        (changed(3, "id", ""), {}, "c.csv line 5: id is empty"),
        (changed(3, "split", "tset"), {}, "line 5: split is 'tset', expected one of train, valid, val, dev"),
        ([], {}, "has a header line, but not a single row"),
        ([["a_1", "a", "train"]], {}, "c.csv line 2 has 3 cells, the header line has 5"),
        (ROWS, {"label_range": (3, -3)}, "--label-range is 3 -3"),
        (ROWS, {"dtype": "int8"}, "--dtype is 'int8'"),
        (ROWS, {"valid_fraction": 1.0}, "--valid-fraction is 1, expected a share between 0 and 1"),
        (ROWS, {"valid_fraction": 0.1}, "has a validation split already"),
        (changed(2, "split", "test"), {"valid_fraction": 0.1}, "has 1 videos in train"),
        (ROWS, {"arrays": ["f.npz"]}, "--arrays f.npz cannot be read. Write it as FILE.npz:ARRAY=FEATURE"),
        (ROWS, {"arrays": ["f.npz:video"]}, "cannot be read"),
        (ROWS, {"arrays": ["f.npz:video=visul"]}, "unknown feature 'visul'"),
        (ROWS, {"arrays": ["f.npz:video=visul"]}, "Did you mean 'visual'?"),
        (ROWS, {"arrays": ["a.npz:a=face", "b.npz:b=face"]}, "--arrays gives 'face' 2 times"),
        (ROWS, {"arrays": ["nowhere.npz:video=visual"]}, "nowhere.npz does not exist"),
    ],
)
def test_each_mistake_in_the_table_or_options_gets_one_clear_message(
    tmp_path: Path, refuses: Callable[..., None], rows: list[list[str]], options: dict, message: str
) -> None:
    refuses(message, write_csv(tmp_path / "c.csv", rows), **options)


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
        "an id again": 1,
        "label is not a number": 1,
        "label out of range": 1,
        "no words": 1,
        "no known split": 1,
        "no id": 1,
        "another number of cells": 1,
    }
    assert table_of(tmp_path / "out", "train")["clip_id"] == ["a_1", "a_2", "d_6"]
    counts = Dataset.open(tmp_path / "out").manifest.provenance["counts"]
    assert counts["dropped_for_example"]["no words"] == ["line 9"]


def test_several_columns_make_one_id(tmp_path: Path, refuses: Callable[..., None]) -> None:
    rows = [["v_1", "3", "train", "0", "a"], ["v", "1_3", "test", "0", "b"]]
    header = ["video_id", "clip_id", "mode", "label", "text"]
    options = {"id_column": ["video_id", "clip_id"], "split_column": "mode"}
    path = write_csv(tmp_path / "c.csv", rows, header)
    refuses("line 3: id 'v_1_3' stands in line 2 already", path, **options)
    write_csv(path, [rows[0], ["v", "", "test", "0", "b"]], header)
    refuses("line 3: video_id or clip_id is empty", path, **options)
    write_csv(path, [rows[0], ["v", "4", "test", "0", "b"]], header)
    refuses("has no column 'clip' (columns", path, id_column=["video_id", "clip"], split_column="mode")
    ingest_table(path, tmp_path / "out", **options)  # type: ignore[arg-type]  # options vary by case
    assert table_of(tmp_path / "out", "train")["clip_id"] == ["v_1_3"]
    assert table_of(tmp_path / "out", "train")["video_id"] == ["v_1"]


def test_duplicate_header_is_refused(tmp_path: Path, refuses: Callable[..., None]) -> None:
    path = write_csv(tmp_path / "c.csv", [[*row, "x"] for row in ROWS], [*HEADER, "text"])
    refuses("has 2 columns named 'text'", path)


def test_line_numbers_count_line_breaks_inside_cells(tmp_path: Path, refuses: Callable[..., None]) -> None:
    rows = changed(0, "text", "two\nlines")
    rows[1][3] = "x"
    refuses("c.csv line 4: label is 'x'", write_csv(tmp_path / "c.csv", rows))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty, expected a CSV file"),
        (b"PK\x03\x04\xff\xfe\x80", "is not a CSV file in UTF-8"),
        (b"a\x00b\n1\n", "its first line holds NUL bytes"),
        (b'id,video_id,split,label,text\na_1,a,train,0,"open\n', "is not CSV"),
    ],
)
def test_what_is_not_a_csv_is_refused(
    tmp_path: Path, refuses: Callable[..., None], content: bytes, message: str
) -> None:
    path = tmp_path / "c.csv"
    path.write_bytes(content)
    refuses(message, path)


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path, refuses: Callable[..., None]) -> None:
    refuses("nowhere.csv does not exist", tmp_path / "nowhere.csv")
    refuses("is a folder", tmp_path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"id": IDS, "y": np.ones((4, 2))}, "has no 'x' array (arrays: id, y)"),
        ({"x": np.ones((4, 2))}, "has no 'id' array, which names the clip of each row"),
        ({"id": IDS[:3], "x": np.ones((4, 2))}, "has 4 rows, but 'id' in that file has shape [3], expected [4]"),
        ({"id": ["a_1", "a_1", "b_1", "c_1"], "x": np.ones((4, 2))}, "has id 'a_1' more than once"),
        ({"id": ["w", "x", "y", "z"], "x": np.ones((4, 2))}, "id 'a_1' has no row in"),
        ({"id": IDS, "x": np.ones(4)}, "has shape [4], expected [R, D] or [R, T, D] or [R, T, N, D] for visual"),
        ({"id": IDS, "x": np.array(["a"] * 4)[:, None]}, "expected numbers"),
        ({"id": IDS, "x": np.array([[1.0], [np.nan], [1], [1]])}, "NaN or infinity in the row of id 'a_2'"),
        ({"id": IDS, "x": np.array([[1.0], [1], [-np.inf], [1]])}, "NaN or infinity in the row of id 'b_1'"),
        ({"id": IDS, "x": np.array([{}] * 4)}, "pickled objects, and nothing pickled is loaded"),
        ({"id": np.array(IDS, object), "x": np.ones((4, 2))}, "pickled objects, and nothing pickled is loaded"),
    ],
)
def test_each_mistake_in_arrays_gets_one_clear_message(
    tmp_path: Path, refuses: Callable[..., None], arrays: dict, message: str
) -> None:
    path = write_csv(tmp_path / "c.csv")
    np.savez(tmp_path / "f.npz", **arrays)
    refuses(message, path, arrays=[f"{tmp_path}/f.npz:x=visual"])


def test_array_files_of_other_kinds_are_refused(tmp_path: Path, refuses: Callable[..., None]) -> None:
    path = write_csv(tmp_path / "c.csv")
    for name, content in (
        ("text.npz", b"hello"),
        ("pickle.npz", pickle.dumps({"id": IDS})),
        ("empty.npz", b""),
        ("cut.npz", b"PK\x03\x04cut"),
    ):
        (tmp_path / name).write_bytes(content)
        refuses("is not an .npz file", path, arrays=[f"{tmp_path}/{name}:x=visual"])
    np.save(tmp_path / "single.npy", np.ones(4))
    refuses("is not an .npz file", path, arrays=[f"{tmp_path}/single.npy:x=visual"])


def test_a_damaged_array_is_refused(tmp_path: Path, refuses: Callable[..., None]) -> None:
    np.savez_compressed(tmp_path / "f.npz", id=IDS, x=np.random.default_rng(0).normal(size=(4, 500)))
    damaged = bytearray((tmp_path / "f.npz").read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    (tmp_path / "f.npz").write_bytes(damaged)
    refuses("is not a readable .npz file", write_csv(tmp_path / "c.csv"), arrays=[f"{tmp_path}/f.npz:x=visual"])


def test_an_existing_data_set_is_not_written_over(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "c.csv")
    first = ingest_table(path, tmp_path / "out")
    with pytest.raises(UserError, match="exists already and a data set is never written over"):
        ingest_table(path, tmp_path / "out", source="other")
    assert Dataset.open(tmp_path / "out").manifest.fingerprint == first.fingerprint


def test_the_reader_imports_no_torch() -> None:
    code = "import sys, vadv_dist.data.readers.table; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def mosi(name: str) -> Path:
    path = MOSI / name
    if not path.is_file():
        pytest.skip(f"{name} is not here")
    return path


@pytest.mark.real_data
def test_mosi_words_under_the_official_split(tmp_path: Path) -> None:
    path = mosi("mosi_segments.csv")
    assert ingest_table(path, tmp_path / "text").splits == {"train": 1284, "valid": 229, "test": 686}
    with pytest.raises(UserError, match="text_mmsa_style is empty"):
        ingest_table(path, tmp_path / "cleaned", text_column="text_mmsa_style")
    summary = ingest_table(path, tmp_path / "cleaned", text_column="text_mmsa_style", fallback_text_column="text")
    assert summary.fallback_texts == 4
    assert summary.rows_written == 2199


@pytest.mark.real_data
def test_mosi_words_with_video_vectors_under_the_split_they_came_from(tmp_path: Path) -> None:
    path, features = mosi("mosi_segments.csv"), mosi("mosi_utterance_features.npz")
    options = {"split_column": "bclstm_split", "arrays": [f"{features}:video=visual"]}
    summary = ingest_table(path, tmp_path / "all", **options)
    assert summary.splits == {"train": 1447, "test": 752}
    assert summary.features == {"visual": [1, 1, 100]}
    cut = ingest_table(path, tmp_path / "cut", valid_fraction=0.1, **options)
    assert cut.splits["train"] + cut.splits["valid"] == 1447
    assert cut.splits["valid"] == pytest.approx(145, abs=30)
