"""Extractions with clips and data set in an object store give the same bytes as on a disk."""

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from lists import HEADER, bad_list, contents, quiet
from PIL import Image
from rich.console import Console
from s3_server import FaultyProxy
from tiny_onnx import write_onnx
from videos import write_list, write_video

from vadv_dist.cli import main
from vadv_dist.config.extract_sections import ClipsConfig, ExtractConfig, FacesConfig
from vadv_dist.config.load import config_to_yaml
from vadv_dist.data.checks import check_dataset
from vadv_dist.data.dataset import Dataset
from vadv_dist.errors import UserError
from vadv_dist.features.extract import extract
from vadv_dist.storage import local_copy, locks, object_client
from vadv_dist.storage.objects import S3Path


@pytest.fixture
def place(s3: str, request: pytest.FixtureRequest) -> S3Path:
    """A separate prefix for each test."""
    return S3Path.parse(f"{s3}/{request.node.name}")


def upload(folder: Path, place: S3Path) -> S3Path:
    for path in folder.rglob("*"):
        if path.is_file():
            (place / str(path.relative_to(folder))).upload(path)
    return place


def moved(config: ExtractConfig, place: S3Path, name: str) -> ExtractConfig:
    """The same configuration with its list and data set in the store."""
    clips = dataclasses.replace(config.clips, csv=f"{place}/clips/clips.csv")
    return dataclasses.replace(config, clips=clips, output=dataclasses.replace(config.output, uri=f"{place}/{name}"))


def bytes_of(place: S3Path) -> dict[str, object]:
    with local_copy(place) as copy:
        return contents(copy)


def without_places(found: dict[str, object]) -> dict[str, object]:
    """Contents of a data set without the locations of its clips."""
    made = found["dataset.json"]["provenance"]
    return {**found, "dataset.json": {**found["dataset.json"], "provenance": {**made, "root": "", "options": ""}}}


def run_cli(config: ExtractConfig, path: Path, environment: dict[str, str]) -> subprocess.Popen:
    path.write_text(config_to_yaml(config))
    command = [sys.executable, "-m", "vadv_dist.cli", "extract", "--config", str(path), "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def test_an_object_store_gives_the_same_data_set_as_a_disk(configure, place: S3Path, tmp_path: Path, capsys) -> None:
    csv = bad_list(tmp_path / "clips")
    on_disk = configure(csv, max_rejected=0.5)
    first = extract(on_disk, quiet())
    upload(tmp_path / "clips", place / "clips")
    in_store = moved(on_disk, place, "out")
    second = extract(in_store, quiet())
    assert second.rejected == first.rejected
    assert second.fingerprint == first.fingerprint
    assert without_places(bytes_of(place / "out")) == without_places(contents(tmp_path / "out"))
    assert not (place / "out.work").exists()
    assert check_dataset(str(place / "out")).ok

    before = sorted((file.key, file.etag()) for file in (place / "out").files())
    assert extract(in_store, quiet()) == second  # complete: nothing to do
    assert sorted((file.key, file.etag()) for file in (place / "out").files()) == before
    with pytest.raises(UserError, match="already exists with another list or configuration"):
        extract(dataclasses.replace(in_store, clips=on_disk.clips, frames=configure(csv).frames), quiet())

    pictures = tmp_path / "pictures"
    assert main(["data-info", str(place / "out"), "--pictures", str(pictures), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pictures"] == [str(pictures / "train.png")]
    assert main(["data-info", str(tmp_path / "out"), "--pictures", str(tmp_path / "again")]) == 0
    assert (pictures / "train.png").read_bytes() == (tmp_path / "again" / "train.png").read_bytes()


def test_mmsa_layout_openface_and_an_onnx_file_are_read_from_a_store(configure, place: S3Path, tmp_path: Path) -> None:
    folder = tmp_path / "MOSI"
    rows = []
    for clip in ("1", "2"):
        write_video(folder / "Raw" / "vid" / f"{clip}.mp4", frames=25, seed=int(clip))
        rows.append(("vid", clip, "some words", "1", "train"))
    write_list(folder / "label.csv", rows, "video_id,clip_id,text,label,mode")
    lines = [f"{i / 25}, 0.98, 1, 10, 40, 5, 35" for i in range(25)]
    (folder / "openface").mkdir()
    (folder / "openface" / "vid_1.csv").write_text(
        "\n".join(["timestamp, confidence, success, x_0, x_1, y_0, y_1", *lines])
    )
    (folder / "openface" / "vid_2_aligned").mkdir()
    for number in range(1, 26):
        image = Image.new("RGB", (16, 16), (10 * number, 0, 0))
        image.save(folder / "openface" / "vid_2_aligned" / f"frame_det_00_{number:06d}.bmp")
    write_onnx(folder / "expression.onnx", np.arange(24).reshape(3, 8) / 24, 224)
    upload(folder, place / "MOSI")
    summaries = []
    for root, out in ((str(folder), tmp_path / "out"), (f"{place}/MOSI", place / "out")):
        faces = FacesConfig(kind="openface", path=f"{root}/openface")
        config = configure(tmp_path / "none", out, expression=f"{root}/expression.onnx", faces=faces)
        output = dataclasses.replace(config.output, uri=str(out))
        config = dataclasses.replace(config, clips=ClipsConfig(mmsa=root), output=output)
        summaries.append(extract(config, quiet()))
    assert summaries[0].without_face == 0
    assert without_places(bytes_of(place / "out")) == without_places(contents(tmp_path / "out"))


def test_denied_access_is_one_message_without_rejected_clips(
    configure, clips_csv: Path, place: S3Path, tmp_path: Path, capsys
) -> None:
    denied = S3Path.parse("s3://denied")
    denied._call("create_bucket", Bucket=denied.bucket)
    upload(clips_csv.parent, denied)
    refuse = {"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::denied/*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [refuse]})
    denied._call("put_bucket_policy", Bucket=denied.bucket, Policy=policy)
    rows = [(f"v{n}_0", f"v{n}", "train", "1", "words", f"s3://denied/v{n}.mp4") for n in range(3)]
    csv = write_list(tmp_path / "clips.csv", rows, HEADER)
    config = tmp_path / "extract.yaml"
    (place / "clips.csv").upload(csv)
    config.write_text(config_to_yaml(configure(csv, max_rejected=1.0)))
    out = [f"--clips.csv={place}/clips.csv", f"--output.uri={place}/out"]
    assert main(["extract", "--config", str(config), *out]) == 2
    [read, said] = capsys.readouterr().err.strip().splitlines()
    assert read == "read as CSV with commas between cells in UTF-8"
    assert said.startswith("vadv: reading s3://denied/v0.mp4: the object store refuses it")
    assert not (place / "out").exists()


@pytest.mark.slow
def test_resume_after_kill_gives_the_same_bytes(
    configure, clips_csv: Path, s3_port: int, place: S3Path, tmp_path: Path, monkeypatch
) -> None:
    upload(clips_csv.parent, place / "clips")
    whole, killed = (moved(configure(clips_csv), place, name) for name in ("whole", "killed"))
    extract(whole, quiet())
    with FaultyProxy(s3_port, share=0.0) as proxy:
        proxy.hold = "PUT /tests/" + (place / "killed.work/train-00002.json").key
        environment = {**os.environ, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.server_port}"}
        process = run_cli(killed, tmp_path / "killed.yaml", environment)
        assert proxy.held.wait(120), process.communicate()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        proxy.hold = None
    assert process.returncode == -signal.SIGKILL
    assert not (place / "killed/dataset.json").exists()
    with pytest.raises(UserError, match="is not a data set"):
        Dataset.open(str(place / "killed"))
    monkeypatch.setattr(locks, "LEASE_S", 1.5)
    first = place / "killed/train/00000.parquet"
    written = first._call("head_object", Bucket=first.bucket, Key=first.key)["LastModified"]
    (place / "killed/train/00001.parquet").write_bytes(b"damaged")
    said = io.StringIO()
    extract(killed, Console(file=said, width=200))
    assert "resuming: 1 of 4 shards are complete" in said.getvalue()
    assert first._call("head_object", Bucket=first.bucket, Key=first.key)["LastModified"] == written
    assert bytes_of(place / "killed") == bytes_of(place / "whole")
    assert not (place / "killed.work").exists()


@pytest.mark.slow
@pytest.mark.ray
def test_ray_with_a_faulty_network_gives_the_bytes_of_one_process(
    configure, cluster, clip_folder: Path, clips_csv: Path, s3_port: int, place: S3Path, monkeypatch, request
) -> None:
    import ray

    def relative(config: ExtractConfig) -> ExtractConfig:
        """Its encoder by a relative path, which the cluster's processes must not resolve in their own folder."""
        return dataclasses.replace(config, image=dataclasses.replace(config.image, encoder=clip_folder.name))

    request.addfinalizer(ray.shutdown)
    monkeypatch.chdir(clip_folder.parent)
    upload(clips_csv.parent, place / "clips")
    plain = moved(relative(configure(clips_csv)), place, "plain")
    extract(plain, quiet())
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE"):
        monkeypatch.setenv(name, cluster.environment[name])
    with FaultyProxy(s3_port, share=0.05) as proxy, monkeypatch.context() as patch:
        # The cluster's environment names the server itself, so requests to the proxy prove that settings were passed
        # on.
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.server_port}")
        object_client.forget_client()
        extract(moved(relative(configure(clips_csv, num_workers=1)), place, "ray"), quiet())
        for number in range(10):
            assert any(f"GET /tests/{place.key}/clips/v{number}.mp4" in asked for asked in proxy.asked)
        assert proxy.refused + proxy.cut > 0
    object_client.forget_client()
    assert bytes_of(place / "ray") == bytes_of(place / "plain")

    text = (place / "clips/clips.csv").read_text().replace(",v3.mp4", ",s3://no-such-bucket-here/v3.mp4")
    (place / "clips/clips.csv").write_bytes(text.encode())
    with pytest.raises(UserError) as caught:
        extract(moved(configure(clips_csv, num_workers=1), place, "refused"), quiet())
    assert str(caught.value) == (
        "reading s3://no-such-bucket-here/v3.mp4: there is no such bucket. Create it, or give another URI."
    )
    assert not (place / "refused/dataset.json").exists()
