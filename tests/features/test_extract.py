"""A whole extraction: its output, rejected clips, and resuming after a kill."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from lists import HEADER, YUNET, bad_list, contents, quiet
from safetensors.numpy import load_file
from stopping_child import EXTRACTED_SHARD, signal_stopped, start_until
from videos import write_list, write_video

from vadv_dist.config.extract_sections import FacesConfig
from vadv_dist.config.load import config_to_yaml
from vadv_dist.data.checks import check_dataset
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.reading import ShardReader
from vadv_dist.errors import UserError
from vadv_dist.features import stages
from vadv_dist.features.clip_files import open_clip
from vadv_dist.features.encoders import ImageEncoder, image_preprocessing
from vadv_dist.features.extract import extract
from vadv_dist.features.frames import Video, to_image
from vadv_dist.features.work import WorkFolder
from vadv_dist.storage import read_json, sha256_file


def test_features_match_the_clips_frames(configure, clips_csv: Path, clip_folder: Path, tmp_path: Path) -> None:
    summary = extract(configure(clips_csv), quiet())
    assert summary.splits == {"train": 7, "valid": 3}
    assert summary.rejected == {}
    assert check_dataset(tmp_path / "out").findings[0].what.startswith("There is no test split")
    assert not (tmp_path / "out.work").exists()
    dataset = Dataset.open(tmp_path / "out")
    assert [shard.rows for shard in dataset.manifest.splits["train"]] == [3, 3, 1]
    table = ShardReader(dataset, ("visual",)).read(dataset.manifest.splits["train"][1])
    assert table.column("clip_id").to_pylist() == ["v3_0", "v4_0", "v5_0"]
    with open_clip(str(clips_csv.parent / "v4.mp4")) as file, Video(file) as video:
        frames = [to_image(frame) for _, frame in video.frames(video.span(None, None).middles(4))]
    prepared = image_preprocessing(str(clip_folder), "image.encoder")
    expected = ImageEncoder(str(clip_folder), "pooled").encode(np.stack([prepared.resized(image) for image in frames]))
    stored = table.column("visual").combine_chunks().to_numpy_ndarray()[1]
    np.testing.assert_allclose(stored.astype(np.float32), expected, atol=2e-3)


def test_provenance_records_encoders_files_and_sources(
    configure, clips_csv: Path, clip_folder: Path, tmp_path: Path
) -> None:
    extract(configure(clips_csv), quiet())
    manifest = Dataset.open(tmp_path / "out").manifest
    made = manifest.provenance
    assert made["made_by"] == "vadv extract"
    assert made["files"][0]["sha256"] == sha256_file(clips_csv)
    encoder = made["encoders"]["image"]
    assert encoder["kind"] == "clip"
    assert sha256_file(clip_folder / "model.safetensors") in {entry["sha256"] for entry in encoder["files"]}
    assert encoder["preprocessing"]["height"] == 32
    assert made["options"]["frames"] == {"visual": 4, "face": 8, "face_side": 640}
    assert manifest.records == {
        name: sha256_file(tmp_path / "out" / name) for name in ("sources.parquet", "rejected.parquet")
    }
    sources = pq.read_table(tmp_path / "out" / "sources.parquet").to_pylist()
    assert [row["clip_id"] for row in sources] == [f"v{n}_0" for n in range(10)]
    assert sources[3]["sha256"] == sha256_file(clips_csv.parent / "v3.mp4")
    prompts = tmp_path / "out" / "prompts.safetensors"
    assert manifest.prompts_sha256 == sha256_file(prompts)
    assert load_file(prompts)["prompts"].shape == (2, 24)


def test_patches_are_stored_if_configured(configure, clips_csv: Path, tmp_path: Path) -> None:
    summary = extract(configure(clips_csv, tokens="patches"), quiet())
    assert summary.features == {"visual": [4, 16, 32]}
    assert check_dataset(tmp_path / "out").ok


def test_bad_clips_do_not_stop_the_job_and_are_listed_with_a_reason(configure, tmp_path: Path) -> None:
    config = configure(bad_list(tmp_path / "clips"), max_rejected=0.5)
    summary = extract(config, quiet())
    assert summary.clips_written == 8
    assert summary.rejected == {
        "wrong times": 3,
        "missing file": 1,
        "empty file": 1,
        "unreadable": 1,
        "no video stream": 1,
    }
    assert "7 rejected, listed in rejected.parquet" in str(summary)
    rows = pq.read_table(tmp_path / "out" / "rejected.parquet").to_pylist()
    assert [(row["clip_id"], row["reason"].split(":")[0]) for row in rows] == [
        ("b0_0", "missing file"),
        ("b1_0", "empty file"),
        ("b2_0", "unreadable"),
        ("b3_0", "no video stream"),
        ("b4_0", "wrong times"),
        ("b5_0", "wrong times"),
        ("b6_0", "wrong times"),
    ]
    assert check_dataset(tmp_path / "out").ok
    stored = [
        row
        for path in sorted((tmp_path / "out" / "train").iterdir())
        for row in pq.read_table(path)["clip_id"].to_pylist()
    ]
    assert stored == [f"g{n}_0" for n in range(8)]


def test_too_many_bad_clips_are_an_error_that_keeps_the_good_ones(configure, tmp_path: Path) -> None:
    csv = bad_list(tmp_path / "clips")
    with pytest.raises(
        UserError, match=r"7 of 15 clips .* \(46\.7%, output\.max_rejected is 1\.0%\).*max_rejected=0\.47"
    ):
        extract(configure(csv), quiet())
    assert not (tmp_path / "out" / "dataset.json").exists()
    assert (tmp_path / "out.work" / "rejected.parquet").is_file()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "train").iterdir()}
    assert len(kept) >= 3
    shutil.move(tmp_path / "clips" / "g1.mp4", tmp_path / "clips" / "away.mp4")  # no clip is read again
    summary = extract(configure(csv, max_rejected=0.47), quiet())
    assert summary.clips_written == 8
    assert kept == {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "train").iterdir()}
    assert not (tmp_path / "out.work").exists()


def test_fixed_clips_are_read_again_on_request(configure, tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    write_video(folder / "a.mp4", frames=6)
    csv = write_list(
        folder / "clips.csv",
        [("a_0", "a", "train", "1", "words", "a.mp4"), ("b_0", "b", "train", "1", "words", "b.mp4")],
        HEADER,
    )
    with pytest.raises(UserError, match="--retry-rejected"):
        extract(configure(csv), quiet())
    write_video(folder / "b.mp4", frames=6)
    with pytest.raises(UserError, match="1 of 2 clips"):
        extract(configure(csv), quiet())
    assert extract(configure(csv), quiet(), retry_rejected=True).clips_written == 2


def test_a_changed_configuration_does_not_mix_with_existing_work(configure, tmp_path: Path) -> None:
    csv = bad_list(tmp_path / "clips")
    with pytest.raises(UserError):
        extract(configure(csv), quiet())
    with pytest.raises(
        UserError, match=r"has work with another configuration.*config\.image\.tokens: 'pooled' there, 'patches' now"
    ):
        extract(configure(csv, tokens="patches"), quiet())
    csv.write_text(csv.read_text().replace("fine words", "other words"))
    with pytest.raises(UserError, match=r"list\.sha256"):
        extract(configure(csv, max_rejected=0.9), quiet())


def test_a_job_without_any_clip_does_not_block_a_corrected_one(configure, tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    row = ("a_0", "a", "train", "1", "words", "a.mp4")
    csv = write_list(folder / "clips.csv", [row], HEADER)
    with pytest.raises(UserError, match="All 1 clips"):
        extract(configure(csv), quiet())
    write_video(folder / "videos" / "a.mp4", frames=6)
    write_list(csv, [(*row[:5], "videos/a.mp4")], HEADER)
    assert extract(configure(csv, tokens="patches"), quiet()).clips_written == 1


def test_a_complete_data_set_is_kept_and_another_job_is_refused(configure, clips_csv: Path, tmp_path: Path) -> None:
    first = extract(configure(clips_csv), quiet())
    before = contents(tmp_path / "out")
    assert extract(configure(clips_csv), quiet()) == first
    assert contents(tmp_path / "out") == before
    with pytest.raises(UserError, match="already exists with another list or configuration"):
        extract(configure(clips_csv, tokens="patches"), quiet())


def test_work_and_data_sets_from_another_reader_version_are_refused(configure, clips_csv: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="7 of 15 clips"):
        extract(configure(bad_list(tmp_path / "clips"), tmp_path / "begun"), quiet())
    job = tmp_path / "begun.work" / "job.json"
    job.write_text(json.dumps({key: value for key, value in json.loads(job.read_text()).items() if key != "reader"}))
    with pytest.raises(UserError, match=r"has work with another configuration.*reader: None there, 2 now"):
        extract(configure(tmp_path / "clips" / "clips.csv", tmp_path / "begun", max_rejected=0.5), quiet())
    extract(configure(clips_csv), quiet())
    manifest = read_json(tmp_path / "out" / "dataset.json")
    del manifest["provenance"]["reader"]
    (tmp_path / "out" / "dataset.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"version 1 of the video reader; this is version 2"):
        extract(configure(clips_csv), quiet())


@pytest.mark.parametrize("is_complete", [True, False], ids=["complete", "half done"])
def test_an_equal_list_with_other_clips_is_refused(configure, tmp_path: Path, monkeypatch, is_complete: bool) -> None:
    for name, first_seed in (("here", 0), ("there", 10)):
        (tmp_path / name).mkdir()
        rows = []
        for n in range(6):
            write_video(tmp_path / name / f"v{n}.mp4", frames=6, seed=first_seed + n)
            rows.append((f"v{n}_0", f"v{n}", "train", "1", "fine words", f"v{n}.mp4"))
        write_list(tmp_path / name / "clips.csv", rows, HEADER)
    config = configure(Path("clips.csv"))
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(WorkFolder, "remove", lambda work: None)
    first = extract(config, quiet())
    if not is_complete:  # as if killed before the end
        (tmp_path / "out" / "dataset.json").unlink()
        (tmp_path / "out.work" / "train-00001.json").unlink()
    monkeypatch.chdir(tmp_path / "there")
    with pytest.raises(UserError, match=r"started with other clips: v0_0 had SHA-256 .*, but v0.mp4 now has"):
        extract(config, quiet())
    monkeypatch.chdir(tmp_path / "here")
    assert extract(config, quiet()) == first


def test_an_existing_folder_is_refused(configure, clips_csv: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter.txt").write_text("mine")
    with pytest.raises(UserError, match="already exists, and a data set is not overwritten"):
        extract(configure(clips_csv), quiet())
    assert (tmp_path / "out" / "letter.txt").read_text() == "mine"
    assert not (tmp_path / "out.work").exists()


def run_cli(config: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "vadv_dist.cli", "extract", "--config", str(config), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.long
@pytest.mark.slow
def test_resume_after_kill_gives_the_same_bytes(configure, clip_folder: Path, tmp_path: Path) -> None:
    csv = bad_list(tmp_path / "clips", good=40)
    whole = configure(csv, tmp_path / "whole", max_rejected=0.5)
    extract(whole, quiet())
    config = tmp_path / "killed.yaml"
    config.write_text(config_to_yaml(configure(csv, tmp_path / "killed", max_rejected=0.5)))
    command = ["extract", "--config", str(config)]
    for wanted in (2, 7):
        shards = tmp_path / "killed.work" / "train-*.json"
        signal_stopped(start_until(EXTRACTED_SHARD, shards, command, count=wanted), signal.SIGKILL)
        assert not (tmp_path / "killed" / "dataset.json").exists()
    (tmp_path / "killed" / "train" / ".00009.parquet.partial-1").write_bytes(b"half")
    damaged = sorted((tmp_path / "killed" / "train").glob("0*.parquet"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    process = run_cli(config, "--json")
    out, said = process.communicate(timeout=900)
    assert process.returncode == 0, said
    assert "resuming: " in said
    assert json.loads(out)["clips_written"] == 40
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


@pytest.mark.slow
def test_sigterm_leaves_complete_shards_and_the_job_can_be_resumed(
    configure, clip_folder: Path, tmp_path: Path
) -> None:
    config = tmp_path / "stopped.yaml"
    csv = bad_list(tmp_path / "clips", good=24)
    config.write_text(config_to_yaml(configure(csv, tmp_path / "stopped", max_rejected=0.5)))
    command = ["extract", "--config", str(config)]
    process = start_until(EXTRACTED_SHARD, tmp_path / "stopped.work" / "train-*.json", command)
    _, said = signal_stopped(process, signal.SIGTERM)
    assert process.returncode == 143, said
    assert said.endswith("stopped by SIGTERM. Completed work is saved; run the same command again to resume.\n")
    assert not list(tmp_path.rglob(".*.partial-*"))
    process = run_cli(config, "--json")
    out, said = process.communicate(timeout=900)
    assert process.returncode == 0, said
    assert "resuming: " in said
    assert json.loads(out)["clips_written"] == 24


@pytest.mark.slow
@pytest.mark.ray
def test_ray_gives_the_bytes_of_one_process_also_after_a_kill(
    configure, clips_csv: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")
    extract(configure(clips_csv, tmp_path / "plain"), quiet())
    config = tmp_path / "ray.yaml"
    config.write_text(config_to_yaml(configure(clips_csv, tmp_path / "ray", num_workers=1)))
    shards = tmp_path / "ray.work" / "train-*.json"
    signal_stopped(start_until(EXTRACTED_SHARD, shards, ["extract", "--config", str(config)]), signal.SIGKILL)
    process = run_cli(config)
    _, said = process.communicate(timeout=900)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert contents(tmp_path / "ray") == contents(tmp_path / "plain")


@pytest.mark.real_data
def test_faces_are_scored_and_null_for_clips_without_a_face(
    configure, real_data: Path, classifier_folder: Path, tmp_path: Path
) -> None:
    samples = real_data / "video_samples"
    rows = [
        ("person_0", "person", "train", "1", "a person", str(samples / "pyfeat" / "single_face.mp4")),
        ("cartoon_0", "cartoon", "train", "-1", "a cartoon", str(samples / "pyfeat" / "no_face.mp4")),
        ("grid_0", "grid", "train", "0", "bin blue", str(samples / "grid" / "bbaf2n.mpg")),
    ]
    csv = write_list(tmp_path / "clips.csv", rows, HEADER)
    faces = FacesConfig(kind="yunet", path=str(real_data / YUNET))
    summary = extract(configure(csv, expression=classifier_folder, faces=faces), quiet())
    assert summary.without_face == 1
    assert "face [8, 8], null in 1 clips without a face" in str(summary)
    dataset = Dataset.open(tmp_path / "out")
    [shard] = dataset.manifest.splits["train"]
    assert shard.missing == {"face": 1}
    table = ShardReader(dataset, ("face",)).read(shard)
    assert table.column("face").is_null().to_pylist() == [False, True, False]
    scores = table.column("face").drop_null().combine_chunks().to_numpy_ndarray().astype(np.float32)
    np.testing.assert_allclose(scores.sum(axis=-1), 1, atol=3e-3)
    assert np.abs(scores[0] - scores[1]).max() > 1e-3


def test_features_of_another_clip_stop_the_job(configure, clips_csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = stages.ClipReader.read

    def swapped(self: stages.ClipReader, number: int, clips: stages.Located) -> stages.ClipBatch:
        return original(self, number, clips[::-1])

    monkeypatch.setattr(stages.ClipReader, "read", swapped)
    with pytest.raises(RuntimeError, match=r"train-00000: got the features of v1_0 instead of those of v0_0"):
        extract(configure(clips_csv), quiet())
