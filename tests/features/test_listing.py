"""Lists of clips: the CSV, MMSA's raw layout, and error messages."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from videos import write_list

from vadv_dist.config.extract_sections import ClipsConfig, ExtractConfig, FacesConfig, PromptsConfig
from vadv_dist.errors import UserError
from vadv_dist.features.listing import list_clips

HEADER = "clip_id,video_id,split,label,text,path,start_s,end_s"
GOOD = ("a_0", "a", "train", "1.5", "some words", "a.mp4", "", "")


def listed(tmp_path: Path, *rows: tuple[str, ...], header: str = HEADER):
    return list_clips(ClipsConfig(csv=str(write_list(tmp_path / "clips.csv", rows, header))))


def test_a_csv_lists_its_clips_in_order(tmp_path: Path) -> None:
    found = listed(tmp_path, GOOD, ("a_1", "a", "dev", "-3", "more", "sub/a.mp4", "1.5", "2"))
    assert found.source == "clips"
    assert [(c.clip_id, c.split, c.label, c.start_s, c.end_s) for c in found.clips] == [
        ("a_0", "train", 1.5, None, None),
        ("a_1", "valid", -3.0, 1.5, 2.0),
    ]
    assert found.location(found.clips[1]) == str(tmp_path / "sub" / "a.mp4")


def test_mmsa_raw_layout_lists_the_same_files(tmp_path: Path) -> None:
    (tmp_path / "MOSI" / "Raw").mkdir(parents=True)
    header = "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode"
    rows = [
        ("03bSnISJMiM", "11", "a lot of sad parts", "-2.4", "", "", "", "Negative", "test"),
        ("xy", "0001", "w", "1", "", "", "", "", "valid"),
    ]
    write_list(tmp_path / "MOSI" / "label.csv", rows, header)
    found = list_clips(ClipsConfig(mmsa=str(tmp_path / "MOSI")))
    assert found.source == "MOSI"
    assert [(c.clip_id, c.video_id, c.split, c.label) for c in found.clips] == [
        ("03bSnISJMiM_11", "03bSnISJMiM", "test", -2.4),
        ("xy_0001", "xy", "valid", 1.0),
    ]
    assert found.location(found.clips[0]) == str(tmp_path / "MOSI" / "Raw" / "03bSnISJMiM" / "11.mp4")


@pytest.mark.parametrize(
    ("start", "end", "fault"),
    [
        ("x", "", "start_s is 'x'"),
        ("-1", "2", "start_s is '-1'"),
        ("nan", "2", "start_s is 'nan'"),
        ("2", "1", "ends at 1 s but starts at 2 s"),
        ("", "0", "ends at 0 s but starts at 0 s"),
    ],
)
def test_invalid_times_reject_the_clip_but_not_the_list(tmp_path: Path, start: str, end: str, fault: str) -> None:
    [clip] = listed(tmp_path, (*GOOD[:6], start, end)).clips
    assert clip.fault is not None
    assert clip.fault.startswith("wrong times: ")
    assert fault in clip.fault


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([], HEADER, "has a header line but no rows"),
        ([GOOD, GOOD], HEADER, r"line 3: id 'a_0' is already in line 2"),
        ([("", *GOOD[1:])], HEADER, "line 2: clip_id is empty"),
        ([(*GOOD[:4], " ", *GOOD[5:])], HEADER, r"text is empty \(id 'a_0'\)"),
        ([(*GOOD[:2], "tran", *GOOD[3:])], HEADER, "split is 'tran'"),
        ([(*GOOD[:3], "4", *GOOD[4:])], HEADER, r"label is 4, expected a number in \[-3, 3\]"),
        ([GOOD[:5]], HEADER, "line 2 has 5 cells, but the header line has 8"),
        ([(*GOOD[:5], "gs://b/a.mp4", "", "")], HEADER, "line 2: the path is not a readable location: gs://b/a.mp4"),
        ([(*GOOD[:5], "s3://b/../a.mp4", "", "")], HEADER, "line 2: the path is not a readable location"),
        ([GOOD], HEADER.replace("path", "pth"), "has no column 'path'.*Did you mean 'pth'"),
    ],
)
def test_an_invalid_list_is_refused(tmp_path: Path, rows, header: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        listed(tmp_path, *rows, header=header)


def test_a_missing_list_or_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No clips are configured"):
        list_clips(ClipsConfig())
    with pytest.raises(UserError, match="does not exist"):
        list_clips(ClipsConfig(csv=str(tmp_path / "no.csv")))
    with pytest.raises(UserError, match="has no folder Raw"):
        list_clips(ClipsConfig(mmsa=str(tmp_path)))
    with pytest.raises(ValidationError, match=r"expected null, because clips\.csv is set too"):
        ClipsConfig(csv="a", mmsa="b")


def test_one_piece_of_video_with_two_texts_is_refused(tmp_path: Path) -> None:
    header = "clip_id,video_id,split,label,text,path,start,end"
    rows = [(f"a_{n}", "a", "train", "0", f"words {n}", "a.mp4", str(n), str(n + 1)) for n in range(2)]
    csv = write_list(tmp_path / "clips.csv", rows, header)
    with pytest.raises(UserError, match=r"'a_0' and 'a_1' .* both are the whole of a\.mp4\. .*start_s"):
        list_clips(ClipsConfig(csv=str(csv)))
    csv.write_text(csv.read_text().replace("start,end", "start_s,end_s"))
    assert [clip.names for clip in list_clips(ClipsConfig(csv=str(csv))).clips] == [("a_0", "a"), ("a_1", "a")]
    csv.write_text(csv.read_text().replace("a.mp4,0,1", "a.mp4,1,2"))
    with pytest.raises(UserError, match=r"both are 1 s to 2 s of a\.mp4\."):
        list_clips(ClipsConfig(csv=str(csv)))


def test_a_list_in_jsonl_without_ids_or_splits_but_with_classes(tmp_path: Path) -> None:
    rows = [{"file": f"v{n}/1.mp4", "words": "some words", "mood": "glad" if n % 2 else "sad"} for n in range(10)]
    path = tmp_path / "clips.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    config = ClipsConfig(
        csv=str(path),
        path_column="file",
        text_column="words",
        label_column="mood",
        classes=("sad", "happy"),
        label_map={"glad": "happy"},
        split="60/20/20",
    )
    found = list_clips(config)
    assert [clip.clip_id for clip in found.clips[:2]] == ["v0_1", "v1_1"]
    assert [clip.label for clip in found.clips[:2]] == [0.0, 1.0]
    assert found.label.classes == ("sad", "happy")
    assert sorted(clip.split for clip in found.clips) == ["test"] * 2 + ["train"] * 6 + ["valid"] * 2
    assert found.said[1] == (
        "there is no column of ids: ids were made from the column file (clips.id_column names one)"
    )


def test_messages_name_fields_of_the_configuration(tmp_path: Path) -> None:
    path = write_list(tmp_path / "clips.csv", [("a_0", "train", "glad", "words", "a.mp4")], "id,split,label,text,path")
    with pytest.raises(UserError, match=r"Did you mean 'id'\? Set the right one with clips\.id_column\."):
        list_clips(ClipsConfig(csv=str(path)))
    with pytest.raises(UserError, match=r"give their numbers with clips\.label_map"):
        list_clips(ClipsConfig(csv=str(path), id_column=("id",)))
    with pytest.raises(UserError, match=r"clips\.split is '9/1', expected percentages"):
        list_clips(ClipsConfig(csv=str(path), id_column=("id",), split="9/1"))


def test_prompts_are_those_of_the_label_classes() -> None:
    clips = ClipsConfig(classes=("sad", "neutral", "happy"))
    faces = FacesConfig(kind="none")
    assert ExtractConfig(clips=clips, faces=faces).prompt_classes == clips.classes
    words = PromptsConfig(classes=("a sad", "a calm", "a happy"))
    assert ExtractConfig(clips=clips, faces=faces, prompts=words).prompt_classes == words.classes
    with pytest.raises(ValidationError, match=r"a name for each of the 3 classes of clips\.classes"):
        ExtractConfig(clips=clips, faces=faces, prompts=PromptsConfig(classes=("bad", "good")))
