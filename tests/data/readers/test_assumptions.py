"""A reader's assumptions about order, numbering, shape and notation are checked or reported."""

from pathlib import Path

import numpy as np
import pytest
from csv_files import HEADER, IDS, ROWS, changed, refusal, table_of, write_csv
from foreign_files import mmsa_content, sdk_files, write_csd, write_mmsa, write_vegas

from vadv_dist.data.readers.cmu_sdk import ingest_cmu_sdk
from vadv_dist.data.readers.mmsa import ingest_mmsa
from vadv_dist.data.readers.sequences import Framing, looks_transposed
from vadv_dist.data.readers.table import ingest_table
from vadv_dist.data.readers.vegas import ingest_vegas
from vadv_dist.errors import UserError
from vadv_dist.formats.csv_lines import MAX_LINE, number_of

LABELS = [float(row[3]) for row in ROWS]


# Tables and arrays


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (
            {"label": np.roll(LABELS, 1)},
            r"f.npz has label 3.0 for id 'a_1', but the table has 1.5 \(4 of 4 clips differ\)",
        ),
        ({"label": np.array([*LABELS[:3], -3.0])}, r"1 of 4 clips differ\)"),
        ({"video_id": np.array(["a", "b", "b", "c"])}, "f.npz has video_id b for id 'a_2', but the table has a"),
        ({"label": np.roll(LABELS, 1)[:, None].astype("f4")}, r"4 of 4 clips differ\)"),
    ],
)
def test_an_array_file_that_contradicts_the_table_is_refused(tmp_path: Path, facts: dict, message: str) -> None:
    np.savez(tmp_path / "f.npz", id=IDS, video=np.ones((4, 3), np.float32), **facts)
    with pytest.raises(UserError, match=message):
        ingest_table(write_csv(tmp_path / "c.csv"), tmp_path / "out", arrays=[f"{tmp_path}/f.npz:video=visual"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "facts",
    [
        {"label": np.array(LABELS, np.float32), "video_id": np.array([b"a", b"a", b"b", b"c"])},
        {"label": np.array(["pos", "neg", "neg", "pos"])},  # another kind of label
        {"label": np.zeros(7)},  # not per clip
        {"label": np.full(4, np.nan)},
    ],
)
def test_facts_that_agree_or_cannot_be_compared_are_accepted(tmp_path: Path, facts: dict) -> None:
    order = [2, 0, 3, 1]
    values = np.arange(4, dtype=np.float32)[:, None]
    moved = {name: array[order] if len(array) == 4 else array for name, array in facts.items()}
    np.savez(tmp_path / "f.npz", id=np.array(IDS)[order], video=values[order], **moved)
    ingest_table(write_csv(tmp_path / "c.csv"), tmp_path / "out", arrays=[f"{tmp_path}/f.npz:video=visual"])
    table = table_of(tmp_path / "out", "train")
    assert table["clip_id"] == ["a_1", "a_2"]


@pytest.mark.parametrize("cell", ["1_0", "nan", "inf", "١", "0x1", "1e", "", "--1", "1 2"])
def test_other_notations_are_not_numbers(cell: str) -> None:
    assert np.isnan(number_of(cell))


def test_plain_numbers() -> None:
    assert [number_of(cell) for cell in (" 1.50 ", "-3", "+.5", "2.", "1e-1", "1E2")] == [1.5, -3, 0.5, 2, 0.1, 100]


def test_utf_32_is_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "c.csv")
    path.write_bytes(path.read_text().encode("utf-32-le"))
    assert "is not a CSV file" in refusal(path, tmp_path)


def test_a_line_or_cell_of_megabytes_is_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "c.csv", changed(0, "text", "word " * MAX_LINE))
    assert "c.csv line 2 has more than 4,194,304 characters" in refusal(path, tmp_path)


def test_videos_in_two_splits_are_reported(tmp_path: Path) -> None:
    rows = [*ROWS, ["a_9", "a", "test", "1", "words"]]
    summary = ingest_table(write_csv(tmp_path / "c.csv", rows, HEADER), tmp_path / "out")
    assert "  1 videos in both train and test" in str(summary)


# MMSA


def test_labels_that_contradict_their_annotations_are_refused(tmp_path: Path) -> None:
    content = mmsa_content()
    for columns in content.values():
        labels = columns["regression_labels"]
        columns["annotations"] = ["Positive" if v > 0 else "Negative" if v < 0 else "Neutral" for v in labels]
    ingest_mmsa(write_mmsa(tmp_path / "m.pkl", content), tmp_path / "right")
    content["train"]["regression_labels"] = content["train"]["regression_labels"][::-1].copy()
    with pytest.raises(UserError, match=r"train: in 4 of 4 rows regression_labels and annotations .*0: 3, 'Neg"):
        ingest_mmsa(write_mmsa(tmp_path / "m.pkl", content), tmp_path / "wrong")


def test_padding_at_the_front_is_detected(tmp_path: Path) -> None:
    back, front = mmsa_content(), mmsa_content()
    for columns in front.values():
        for row, length in enumerate(columns["vision_lengths"]):
            columns["vision"][row] = np.roll(columns["vision"][row], -length, axis=0)
    one = ingest_mmsa(write_mmsa(tmp_path / "b.pkl", back), tmp_path / "b", source="m", framing=Framing(4))
    other = ingest_mmsa(write_mmsa(tmp_path / "f.pkl", front), tmp_path / "f", source="m", framing=Framing(4))
    assert one.fingerprint == other.fingerprint
    [(what, count)] = other.notes.items()
    assert what == "clips padded at the front of vision"
    assert count == sum(n < 6 for columns in back.values() for n in columns["vision_lengths"])


def test_transposed_sequences_are_refused(tmp_path: Path) -> None:
    content = mmsa_content(aligned=True)
    for columns in content.values():
        columns["vision"] = np.ascontiguousarray(columns["vision"].transpose(0, 2, 1))
    with pytest.raises(UserError, match=r"vision has shape \[5, 3, 6\].*Transpose its last two axes"):
        ingest_mmsa(write_mmsa(tmp_path / "m.pkl", content), tmp_path / "out")


def test_data_that_only_resembles_a_transposition_is_read() -> None:
    generator = np.random.default_rng(0)
    dense = generator.uniform(1, 2, (9, 5, 7))
    assert not looks_transposed(dense)
    dead = dense.copy()
    dead[:, :, 6:] = 0  # a feature that is always 0
    assert not looks_transposed(dead)
    assert not looks_transposed(np.eye(7)[generator.integers(0, 7, (9, 1))])  # one class of seven
    assert not looks_transposed(np.maximum(generator.normal(size=(9, 3, 40)), 0))
    padded = dense.copy()
    for row in range(9):
        padded[row, :, 7 - row % 4 :] = 0
    assert looks_transposed(padded)


def test_a_duplicate_id_with_another_text_is_reported(tmp_path: Path) -> None:
    content = mmsa_content()
    content["test"]["id"][1] = content["train"]["id"][0]
    summary = ingest_mmsa(write_mmsa(tmp_path / "m.pkl", content), tmp_path / "out")
    assert summary.dropped == {"duplicate id": 1}
    assert summary.notes == {"duplicate ids with another text or label, of which the first is kept": 1}


# The CMU-MultimodalSDK and VEGAS


def test_a_sequence_outside_all_clips_is_refused(tmp_path: Path) -> None:
    files = sdk_files(tmp_path)
    late = {v: ([[20 + k, 21 + k] for k in range(4)], [[1.0, 2]] * 4) for v in ("a", "b_c", "d")}
    write_csd(files["visual"], "V", late)
    with pytest.raises(UserError, match="None of the 6 clips has a row of visual"):
        ingest_cmu_sdk(files["labels"], files["folds"], tmp_path / "out", words=files["words"], visual=files["visual"])
    assert not (tmp_path / "out").exists()


def test_class_names_need_a_known_first_class(tmp_path: Path) -> None:
    path = write_vegas(tmp_path / "v.h5", train=[1 + i % 9 for i in range(60)], test=range(1, 10))
    with pytest.raises(UserError, match="has classes from 1 to 9, so it is not clear"):
        ingest_vegas(path, tmp_path / "out", class_names=[f"n{i}" for i in range(10)])
    ingest_vegas(path, tmp_path / "out")
