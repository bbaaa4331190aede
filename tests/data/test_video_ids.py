"""Videos inferred from clip ids, and ids that are too ambiguous to cut a split."""

from pathlib import Path

import pytest

from vadv_dist.data.checks import check_dataset
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.readers.table import ingest_table
from vadv_dist.data.reading import ShardReader
from vadv_dist.data.video_ids import number_in, numbered_families, video_of
from vadv_dist.data.windows import to_window
from vadv_dist.errors import UserError

SIGNS = [
    "{v}[{c}]",
    "{v}_{c}",
    "{v}-{c}",
    "{v}#{c}",
    "{v}/{c}",
    "{v}$_${c}",
    "{v}.{c}",
    "{v}({c})",
    "{v}:{c}",
    "{v} {c}",
]
VIDEOS = ["vid00", "-3g5yACwYnA", "a_b", "x-1y", "Ünï", "[q]", "v"]


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("video", VIDEOS)
def test_a_number_at_the_end_belongs_to_the_clip(sign: str, video: str) -> None:
    for clip in ("0", "3", "03", "117"):
        assert video_of(sign.format(v=video, c=clip)) == video
        assert number_in(sign.format(v=video, c=clip), video) == int(clip)


@pytest.mark.parametrize(
    ("clip_id", "video"),
    [
        ("plain", "plain"),
        ("v_utterance", "v"),
        ("_1", "_1"),
        ("12", "12"),
        ("v_1.5", "v"),  # a time, not clip 5 of v_1
        ("bOL9jKpeJRs", "bOL9jKpeJRs"),
        ("v_١", "v"),  # digits of other scripts do not count, so the last _ does
    ],
)
def test_other_ids_are_split_at_their_last_underscore_or_kept(clip_id: str, video: str) -> None:
    assert video_of(clip_id) == video


def test_families_are_recognised_by_their_common_ending() -> None:
    families = numbered_families([f"vid{v:02}c{c}" for v in range(3) for c in range(2)])
    assert families == {f"vid0{v}c": [f"vid0{v}c0", f"vid0{v}c1"] for v in range(3)}
    assert numbered_families([f"v{v}[{c}].mp4" for v in "abc" for c in range(4)])
    assert numbered_families([f"{v}_{c}.25_{c + 1}.75" for v in ("ab", "cd") for c in range(4)])
    assert not numbered_families([str(n) for n in range(50)])
    assert not numbered_families([f"review{n}" for n in range(50)])
    assert not numbered_families([f"{n:x}f{n * 7919:x}" for n in range(1000, 1050)])
    assert not numbered_families(["anna", "bert", "carl"])


def table(path: Path, sign: str, videos: int = 8, clips: int = 10) -> Path:
    rows = [f"{sign.format(v=f'vid{v:02}', c=c)},train,{c % 3},words here" for v in range(videos) for c in range(clips)]
    path.write_text("\n".join(["id,split,label,text", *rows, ""]))
    return path


def videos_of(out: Path, split: str) -> set[str]:
    """Videos read from the ids, which start with `vidNN`."""
    dataset = Dataset.open(out)
    window = to_window([ShardReader(dataset).read(shard) for shard in dataset.split(split)], {})
    return {clip[:5] for clip in window.clip_id}


@pytest.mark.parametrize("sign", SIGNS)
def test_a_validation_split_moves_whole_videos_and_reports_the_rule(tmp_path: Path, sign: str) -> None:
    summary = ingest_table(table(tmp_path / "t.csv", sign), tmp_path / "out", valid_fraction=0.2)
    train, valid = videos_of(tmp_path / "out", "train"), videos_of(tmp_path / "out", "valid")
    assert not train & valid
    assert len(valid) == summary.videos["valid"] == 2
    assert "80 clips whose video is the id without the number at its end" in str(summary)


@pytest.mark.parametrize(
    "sign", ["{v}c{c}", "{v}clip{c}.mp4", "{v}[{c}].wav", "{v}<<{c}>>", "{v}_{c}_17_9", "{v}[{c}-9]"]
)
def test_unknown_numbering_requires_the_video_column(tmp_path: Path, sign: str) -> None:
    path = table(tmp_path / "t.csv", sign)
    with pytest.raises(UserError, match="--video-column"):
        ingest_table(path, tmp_path / "out", valid_fraction=0.2)
    assert not (tmp_path / "out").exists()


def test_clips_can_be_separate_videos(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", "{v}c{c}")
    assert ingest_table(path, tmp_path / "said", valid_fraction=0.2, video_column="id").splits["valid"] == 16
    path.write_text("\n".join(["id,split,label,text", *(f"{n},train,1,words" for n in range(50))]))
    summary = ingest_table(path, tmp_path / "plain", valid_fraction=0.2)
    assert summary.splits == {"train": 40, "valid": 10}
    assert "50 clips whose id names no video, each a separate video" in str(summary)


def test_a_single_video_is_refused_with_the_rule(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", "{v}_{c}", videos=1)
    with pytest.raises(UserError, match=r"has 1 videos in train.*clip is the id without.*--video-column"):
        ingest_table(path, tmp_path / "out", valid_fraction=0.2)


def test_all_but_the_last_id_column_name_the_video(tmp_path: Path) -> None:
    rows = [f"v{v},{c}_{c + 1},train,1,words" for v in range(5) for c in range(4)]
    (tmp_path / "t.csv").write_text("\n".join(["film,part,split,label,text", *rows]))
    ingest_table(tmp_path / "t.csv", tmp_path / "out", id_column=["film", "part"], valid_fraction=0.2)
    dataset = Dataset.open(tmp_path / "out")
    window = to_window([ShardReader(dataset).read(dataset.split("valid")[0])], {})
    assert len(set(window.video_id)) == 1
    assert window.clip_id == [f"{window.video_id[0]}_{c}_{c + 1}" for c in range(4)]


def test_data_check_warns_about_families_in_two_splits(tmp_path: Path) -> None:
    rows = [f"vid{v}c{c},{'test' if c == 3 else 'train'},1,words" for v in range(6) for c in range(4)]
    (tmp_path / "t.csv").write_text("\n".join(["id,split,label,text", *rows]))
    ingest_table(tmp_path / "t.csv", tmp_path / "out")
    [finding] = [f for f in check_dataset(tmp_path / "out").findings if f.field == "video_id"]
    assert "vid0c" in finding.what
    assert "both train and test" in finding.what
