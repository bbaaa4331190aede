"""`data-info`, as plain containers and in a terminal."""

import copy
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from vadv_dist.data.info import dataset_info
from vadv_dist.data.info_view import render_info
from vadv_dist.data.schema import Clip, FeatureSpec, LabelSpec
from vadv_dist.data.shards import DatasetWriter
from vadv_dist.data.synth import make_dataset, make_retrieval_dataset
from vadv_dist.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five clips: labels -3, -1, 0, 0.4 in train and 3 in test, the second without a face."""
    folder = tmp_path_factory.mktemp("info") / "small"
    writer = DatasetWriter(
        folder,
        features={"face": FeatureSpec((3, 2))},
        label=LabelSpec(),
        provenance={"made_by": "hand", "files": [{"name": "a.csv", "bytes": 2048, "sha256": "ab" * 32}]},
        shard_rows=3,
    )
    with writer:
        for i, label in enumerate((-3.0, -1.0, 0.0, 0.4, 3.0)):
            face = None if i == 1 else np.zeros((3, 2), np.float16)
            text = " ".join(["word"] * (i + 1))
            writer.write("test" if i == 4 else "train", Clip(f"a_{i}", "a", text, label, "hand", {"face": face}))
    return folder


def rendered(info: dict[str, Any], width: int = 80) -> list[str]:
    out = io.StringIO()
    render_info(info, Console(file=out, width=width))
    return out.getvalue().splitlines()


def test_counts_shapes_words_and_missing_features_match_the_clips(folder: Path) -> None:
    info = dataset_info(folder)
    assert info["rows"] == 5
    assert info["bytes"] == sum(path.stat().st_size for path in folder.rglob("*.parquet"))
    train = info["splits"]["train"]
    assert (train["rows"], train["shards"], train["missing"]) == (4, 2, {"face": 1})
    assert train["words"] == {"min": 1, "median": 2.5, "max": 4, "total": 10}
    assert train["label_mean"] == pytest.approx(-0.9)
    assert list(info["splits"]) == ["train", "test"]
    assert info["features"] == {"face": {"shape": [3, 2], "dtype": "float16", "bytes_per_clip": 12}}
    assert info["truth"] is None


def test_histogram_counts_every_clip_of_every_split_in_shared_bins(folder: Path) -> None:
    histogram = dataset_info(folder)["label"]["histogram"]
    assert histogram["edges"] == [-3 + i / 2 for i in range(13)]
    assert histogram["counts"] == [1, 0, 0, 0, 1, 0, 2, 0, 0, 0, 0, 1]


def test_few_different_labels_are_drawn_as_they_are(tmp_path: Path) -> None:
    counts = {"rows_read": 8, "rows_written": 6, "dropped": {"no words": 2}, "notes": {"clips of unknown video": 6}}
    counts["dropped_for_example"] = {"no words": ["line 3", "line 5"]}
    label, made = LabelSpec(1, 5), {"counts": counts}
    with DatasetWriter(tmp_path / "stars", features={}, label=label, provenance=made) as writer:
        for i, stars in enumerate((1, 1, 3, 3, 3, 4.5)):
            writer.write("test" if stars == 1 else "train", Clip(f"a_{i}", "a", "some words", stars, "hand", {}))
    info = dataset_info(tmp_path / "stars")
    assert info["label"]["values"] == [1, 3, 4.5]
    assert sum(info["label"]["histogram"]["counts"]) == 6
    lines = rendered(info)
    (first,) = (number for number, line in enumerate(lines) if line.split()[:2] == ["train", "test"])
    rows = [line.split() for line in lines[first + 1 : first + 4]]
    assert [(row[0], *row[-2:]) for row in rows] == [("1", "0", "2"), ("3", "3", "0"), ("4.5", "1", "0")]
    assert [row[1].count("█") for row in rows][1] > rows[0][1].count("█") > rows[2][1].count("█") > 0
    text = "\n".join(" ".join(line.split()) for line in lines)
    assert "counts 6 of 8 rows written\n2 dropped: no words (line 3, line 5)\n6 clips of unknown video" in text


def test_info_is_json(folder: Path) -> None:
    info = dataset_info(folder)
    assert json.loads(json.dumps(info, allow_nan=False)) == info


def test_a_missing_data_set_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        dataset_info(tmp_path / "nowhere")


def test_bar_lengths_match_the_counts(folder: Path) -> None:
    lines = rendered(dataset_info(folder))
    bars = {
        label: next(line for line in lines if label in line).count("█") for label in ("-3 to", "0 to 0.5", "0.5 to")
    }
    assert bars["0 to 0.5"] == 2 * bars["-3 to"] > 0
    assert bars["0.5 to"] == 0


def test_the_printed_output_has_every_part_and_fits_80_columns(folder: Path) -> None:
    lines = rendered(dataset_info(folder))
    text = "\n".join(lines)
    assert max(len(line.rstrip()) for line in lines) <= 80
    for part in (
        "5 clips",
        "Splits",
        "80%",
        "3 × 2",
        "1 (20.0%)",
        "Labels",
        "Provenance",
        "a.csv, 2.0 KiB, SHA-256 abab",
    ):
        assert part in text
    assert "Lowest possible mean absolute error" not in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_millions_of_clips_leave_room_for_bars(folder: Path, width: int) -> None:
    info = copy.deepcopy(dataset_info(folder))
    for split in info["splits"].values():
        split["label_histogram"]["counts"] = [3_456_789] * 12
    info["label"]["histogram"]["counts"] = [6_913_578] * 12
    lines = rendered(info, width)
    [line] = [line for line in lines if "-3 to -2.5" in line]
    assert line.count("3,456,789") == 2
    assert line.count("█") >= 15
    assert len(line.rstrip()) <= width


def test_synthetic_data_shows_its_truth(tmp_path: Path) -> None:
    make_dataset(tmp_path / "d", num_clips=24)
    info = dataset_info(tmp_path / "d")
    text = "\n".join(rendered(info))
    assert "Lowest possible mean absolute error" in text
    for entry in info["truth"]["best_mae"].values():
        assert f"{entry['mae']:.3f}" in text
    assert "prompts  2 classes" in text
    assert "num_clips=24" in text
    assert "Another annotator reaches MAE 0.71 and A2 86.0%" in " ".join(text.split())


def test_synthetic_retrieval_data_show_their_truth(tmp_path: Path) -> None:
    make_retrieval_dataset(tmp_path / "d", num_clips=200)
    info = dataset_info(tmp_path / "d")
    lines = rendered(info)
    assert max(len(line.rstrip()) for line in lines) <= 80
    start = lines.index("Highest possible mAP")
    assert lines[start + 1].split() == ["knowing", "mAP"]
    for line, (name, entry) in zip(lines[start + 2 :], info["truth"]["best_map"].items(), strict=False):
        assert entry["knowing"] in line, name
        assert f"{entry['map']:.3f}" in line
    assert "40% of the train labels are wrong" in " ".join(" ".join(lines).split())


def test_classes_are_named_and_counted_and_absent_ones_listed(tmp_path: Path) -> None:
    label = LabelSpec.of_classes(4, ("dog", "[bold]drum"))
    with DatasetWriter(tmp_path / "d", features={}, label=label, provenance={}) as writer:
        for i, (split, one) in enumerate((("train", 0), ("train", 0), ("train", 1), ("test", 0), ("test", 2))):
            writer.write(split, Clip(f"c{i}", f"c{i}", "", float(one), "hand"))
    lines = [line.rstrip() for line in rendered(dataset_info(tmp_path / "d"))]
    table = lines[lines.index("Splits") + 1 :]
    assert table[0].split() == ["clips", "share", "shards", "classes"]  # no words: the clips have none
    assert table[1].split() == ["train", "3", "60%", "1", "2"]
    assert table[2].split() == ["test", "2", "40%", "1", "2"]
    start = lines.index("4 classes")
    assert [line.split()[0] for line in lines[start + 2 : start + 4]] == ["dog", "[bold]drum"]
    assert lines[start + 4].split() == ["class", "2", lines[start + 4].split()[2], "0", "1"]
    assert lines[start + 5].split() == ["class", "3", "0", "0"]
    assert lines[start + 6 : start + 8] == [
        "  no clips in train: class 2, class 3",
        "  no clips in test: [bold]drum, class 3",
    ]


def test_many_classes_are_cut_and_say_so(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "d", features={}, label=LabelSpec.of_classes(200), provenance={}) as writer:
        for i in range(200):
            writer.write("train", Clip(f"c{i}", f"c{i}", "", float(i), "hand"))
    text = "\n".join(rendered(dataset_info(tmp_path / "d")))
    assert "class 49 " in text
    assert "class 50 " not in text
    assert "and 150 more classes (--json lists all)" in text


def test_a_text_only_data_set_says_so(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "d", features={}, label=LabelSpec(0, 10), provenance={}) as writer:
        writer.write("train", Clip("a_1", "a", "hello [bold]there", 7.0, "hand"))
    text = "\n".join(rendered(dataset_info(tmp_path / "d")))
    assert "words only" in text
    assert "6.66667 to 7.5" in text


def test_info_imports_neither_torch_nor_rich() -> None:
    code = "import sys, vadv_dist.data.info; sys.exit('torch' in sys.modules or 'rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
