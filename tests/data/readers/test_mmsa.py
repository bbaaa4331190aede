"""MMSA's pickles: values, dropped rows and error messages."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from foreign_files import AUDIO_WIDTH, SPLIT_ROWS, VISION_WIDTH, as_numpy_1, mmsa_content, write_mmsa

from vadv_dist.data.checks import check_dataset
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.readers.mmsa import ingest_mmsa
from vadv_dist.data.readers.sequences import Framing
from vadv_dist.errors import UserError

EXACT = Framing(dtype="float32")


def rows_of(out: Path, split: str) -> dict[str, Any]:
    dataset = Dataset.open(out)
    table = pq.read_table(dataset.shard_path(dataset.split(split)[0]))
    features = {
        n: table[n].combine_chunks().to_numpy_ndarray() for n in dataset.manifest.features if not table[n].null_count
    }
    return {**table.to_pydict(), **features}


def means(values_LD: np.ndarray, frames: int) -> np.ndarray:
    """Means of equal parts by definition: part i covers all rows that overlap [i L / T, (i + 1) L / T]."""
    length = len(values_LD)
    parts = [
        values_LD[[r for r in range(length) if (r + 1) * frames > i * length and r * frames < (i + 1) * length]]
        for i in range(frames)
    ]
    return np.stack([part.mean(axis=0) for part in parts])


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_rows_are_read_without_padding(tmp_path: Path, aligned: bool, protocol: int) -> None:
    content, full = mmsa_content(aligned), mmsa_content()
    path = write_mmsa(tmp_path / "m.pkl", content, protocol)
    if protocol % 2:
        path.write_bytes(as_numpy_1(path.read_bytes()))
    summary = ingest_mmsa(path, tmp_path / "out", framing=EXACT)
    assert summary.splits == SPLIT_ROWS
    assert summary.features == {"visual": [8, 1, VISION_WIDTH], "audio": [8, AUDIO_WIDTH]}
    assert (summary.rows_read, summary.rows_written, summary.dropped, summary.notes) == (10, 10, {}, {})
    for split, columns in full.items():
        rows = rows_of(tmp_path / "out", split)
        assert rows["clip_id"] == [name.replace("$_$", "_") for name in columns["id"]]
        assert rows["video_id"] == [name.partition("$_$")[0] for name in columns["id"]]
        assert rows["text"] == list(columns["raw_text"])
        np.testing.assert_array_equal(rows["label"], columns["regression_labels"])
        for i in range(SPLIT_ROWS[split]):
            seen = columns["vision"][i, : columns["vision_lengths"][i]]
            np.testing.assert_allclose(rows["visual"][i, :, 0], means(seen, 8), rtol=1e-6)
            heard = columns["audio"][i, : columns["audio_lengths"][i]]
            np.testing.assert_allclose(rows["audio"][i], means(heard, 8), rtol=1e-6)
    assert check_dataset(tmp_path / "out").ok


def test_provenance_records_framing_and_counts(tmp_path: Path) -> None:
    content = mmsa_content()
    content["train"]["raw_text"][1] = " "
    path = write_mmsa(tmp_path / "m.pkl", content)
    ingest_mmsa(path, tmp_path / "out", framing=Framing(4, "sample"))
    provenance = Dataset.open(tmp_path / "out").manifest.provenance
    assert provenance["options"]["frames"] == 4
    assert provenance["options"]["pool"] == "sample"
    assert provenance["options"]["padding"] == "vision_lengths, audio_lengths in the file"
    assert provenance["counts"]["dropped"] == {"no words": 1}
    assert provenance["counts"]["dropped_for_example"] == {"no words": ["train row 1"]}
    assert provenance["counts"]["rows_read"] == 10
    assert str(tmp_path) not in str(provenance)


def test_vision_can_become_face_and_features_can_be_left_out(tmp_path: Path) -> None:
    path = write_mmsa(tmp_path / "m.pkl")
    face = ingest_mmsa(path, tmp_path / "face", vision_as="face", features=["vision"])
    assert face.features == {"face": [8, VISION_WIDTH]}
    assert ingest_mmsa(path, tmp_path / "words", features=[]).features == {}


def test_ragged_object_arrays_read_like_padded_arrays(tmp_path: Path) -> None:
    padded = mmsa_content()
    ragged = mmsa_content()
    for columns in ragged.values():
        for name in ("vision", "audio"):
            lengths = columns.pop(f"{name}_lengths")
            values = np.empty(len(lengths), object)
            for i, length in enumerate(lengths):
                values[i] = columns[name][i, :length]
            columns[name] = values
    one = ingest_mmsa(write_mmsa(tmp_path / "p.pkl", padded), tmp_path / "p", source="m")
    other = ingest_mmsa(write_mmsa(tmp_path / "r.pkl", ragged), tmp_path / "r", source="m")
    assert one.fingerprint == other.fingerprint


def spoilt() -> dict[str, Any]:
    """Set two values of one clip and one of another to what COVAREP writes for silence."""
    content = mmsa_content()
    content["train"]["audio"][0, 0] = [-np.inf, np.nan]
    content["test"]["audio"][2, 0, 1] = np.inf
    return content


def test_non_finite_values_follow_the_policy_and_are_counted(tmp_path: Path) -> None:
    path = write_mmsa(tmp_path / "m.pkl", spoilt())
    zero = ingest_mmsa(path, tmp_path / "zero")
    assert zero.rows_written == 10
    assert zero.notes == {
        "NaN or infinite values of audio, replaced by 0": 3,
        "clips with such values of audio": 2,
    }
    drop = ingest_mmsa(path, tmp_path / "drop", framing=Framing(non_finite="drop"), bad_rows="error")
    assert (drop.rows_written, drop.dropped) == (8, {"NaN or infinity in audio": 2})
    with pytest.raises(UserError, match=r"m.pkl train row 0: audio has NaN or infinity 2 times"):
        ingest_mmsa(path, tmp_path / "error", framing=Framing(non_finite="error"))
    assert not (tmp_path / "error").exists()


def test_the_feature_is_missing_for_a_clip_without_a_sequence(tmp_path: Path) -> None:
    content = mmsa_content()
    content["train"]["vision_lengths"][2] = 0
    summary = ingest_mmsa(write_mmsa(tmp_path / "m.pkl", content), tmp_path / "out")
    assert summary.missing == {"visual": 1, "audio": 0}
    # Its rows were not zero, which is reported because it may be due to wrong lengths.
    assert summary.notes == {"clips with values of vision past its length, ignored": 1}


@pytest.mark.parametrize(
    ("column", "value", "reason", "message"),
    [
        ("regression_labels", np.nan, "label is not a number", "train row 1: the label is nan, expected a number in"),
        ("regression_labels", 3.5, "label out of range", "the label is 3.5, expected a number in [-3, 3]"),
        ("raw_text", "", "no words", "the text is empty (id 'vid_train0_1')"),
        ("raw_text", "\ud800", "text is not text", "the text contains an invalid character"),
        ("raw_text", None, "raw_text is not text", "raw_text is a NoneType, expected text"),
        ("id", "vid_train0$_$0", "duplicate id", "id 'vid_train0_0' is duplicated"),
        ("vision_lengths", 7, "vision_lengths is wrong", "vision_lengths is 7, but vision has 6 rows"),
        ("vision_lengths", -1, "vision_lengths is wrong", "vision_lengths is -1"),
    ],
)
def test_an_invalid_row_is_dropped_and_counted_or_refused(
    tmp_path: Path, column: str, value: Any, reason: str, message: str
) -> None:
    content = mmsa_content()
    content["train"][column] = list(content["train"][column])
    content["train"][column][1] = value
    path = write_mmsa(tmp_path / "m.pkl", content)
    summary = ingest_mmsa(path, tmp_path / "out")
    assert summary.dropped == {reason: 1}
    assert (summary.rows_read, summary.rows_written) == (10, 9)
    assert f"dropped 1: {reason}" in str(summary)
    with pytest.raises(UserError) as caught:
        ingest_mmsa(path, tmp_path / "refused", bad_rows="error")
    assert message in str(caught.value)
    assert not (tmp_path / "refused").exists()


@pytest.mark.parametrize("code", [0xD800, 0x110000, 0x7FFFFFFF])
def test_a_character_that_is_not_unicode_is_refused(tmp_path: Path, code: int) -> None:
    content = mmsa_content()
    content["train"]["raw_text"].view(np.uint32)[0] = code
    path = write_mmsa(tmp_path / "m.pkl", content)
    with pytest.raises(UserError, match="invalid character"):
        ingest_mmsa(path, tmp_path / "out", bad_rows="error")


def without(column: str) -> dict[str, Any]:
    content = mmsa_content()
    del content["valid"][column]
    return content


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ([1, 2], {}, "contains a list, expected a dictionary of train, valid and test"),
        ({"x": {}}, {}, "has none of train, valid and test (it has: x)"),
        ({"train": 3}, {}, "has a int as train"),
        ({**mmsa_content(), "dev": {}}, {}, "has a split twice"),
        (without("audio"), {}, "valid has no 'audio'"),
        (without("audio"), {}, "Leave it out with --features."),
        (without("regression_labels"), {}, "Choose another with --label-key."),
        (mmsa_content(), {"label_key": "regresion_labels"}, "Did you mean 'regression_labels'?"),
        (mmsa_content(), {"vision_as": "video"}, "--vision-as is 'video'"),
        (mmsa_content(), {"features": ["text"]}, "--features is 'text', expected one of vision, audio"),
        (mmsa_content(), {"label_range": (5, 6)}, "None of the 10 rows can become a clip: label out of range (10)"),
        (mmsa_content(), {"bad_rows": "keep"}, "--bad-rows is 'keep'"),
    ],
)
def test_invalid_files_and_options_are_refused(tmp_path: Path, content: Any, options: dict, message: str) -> None:
    path = write_mmsa(tmp_path / "m.pkl", content)
    with pytest.raises(UserError) as caught:
        ingest_mmsa(path, tmp_path / "out", **options)
    assert message in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["m.pkl"]


def test_columns_of_different_length_are_refused(tmp_path: Path) -> None:
    content = mmsa_content()
    content["train"]["audio"] = content["train"]["audio"][:-1]
    with pytest.raises(UserError, match="train audio has 4 rows, but there are 5 ids"):
        ingest_mmsa(write_mmsa(tmp_path / "m.pkl", content), tmp_path / "out")


def test_values_beyond_the_stored_type_are_refused(tmp_path: Path) -> None:
    content = mmsa_content()
    content["train"]["audio"][3] = 1e6
    path = write_mmsa(tmp_path / "m.pkl", content)
    with pytest.raises(UserError, match=r"train row 3: audio has 1e\+06, which exceeds .* float16.*--dtype float32"):
        ingest_mmsa(path, tmp_path / "out")
    ingest_mmsa(path, tmp_path / "out", framing=EXACT)


def test_missing_and_empty_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.pkl").touch()
    for name, message in (("gone.pkl", "does not exist"), ("empty.pkl", "is empty"), (".", "is a folder")):
        with pytest.raises(UserError, match=message):
            ingest_mmsa(tmp_path / name, tmp_path / "out")
