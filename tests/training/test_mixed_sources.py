"""A run over two sources: metrics by source, resuming in the middle of a mixed epoch, and reported leaks."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from rich.console import Console

from vadv_dist.cli import main
from vadv_dist.config import load_config
from vadv_dist.data.schema import Clip, LabelSpec
from vadv_dist.data.shards import DatasetWriter
from vadv_dist.launch.driver import train
from vadv_dist.launch.dry_run import describe, render
from vadv_dist.runs.checkpoint import list_checkpoints
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.metrics_log import MetricsLog
from vadv_dist.runs.records import Line
from vadv_dist.storage import read_json
from vadv_dist.training.evaluate import evaluate_run

QUIET = Console(quiet=True, stderr=True)
OPTIONS = (
    "--objective.kind=none",
    "--data.mixing=equal",
    "--data.window_bytes=65536",
    "--data.batch_size=8",
    "--trainer.checkpoint_every_steps=2",
    "--trainer.epochs=2",
)


def write(out: Path, clips: int, *, videos: str, long: int) -> Path:
    """Clips named alike in every data set; the words' length makes a shard of ten fill half a window or so."""
    random = np.random.default_rng(clips)
    with DatasetWriter(out, features={}, label=LabelSpec(), provenance={}, shard_rows=10) as writer:
        for i in range(clips):
            split = ("train", "train", "train", "valid", "test")[i % 5]
            good = bool(random.random() < 0.5)
            words = ("good " if good else "bad ") * int(random.integers(1, 9)) + "x" * long
            writer.write(split, Clip(f"c{i}", f"{videos}{i}", words, 2.0 if good else -2.0, "same"))
    return out


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("two")
    return write(folder / "small", 30, videos="s", long=4000), write(folder / "large", 150, videos="l", long=4000)


@pytest.fixture
def mixed_config(write_config, two):
    """Write a run's config over both sources."""

    def write_mixed(name: str, sources=None) -> Path:
        path = write_config(name)
        raw = yaml.safe_load(path.read_text())
        raw["data"]["sources"] = [{"uri": str(uri)} for uri in (sources or two)]
        path.write_text(yaml.safe_dump(raw))
        return path

    return write_mixed


def epochs(folder: RunFolder) -> list[dict]:
    return [line for line in map(json.loads, folder.metrics_path.read_text().splitlines()) if line["kind"] == "epoch"]


def test_metrics_by_source_are_in_log_result_and_evaluation(mixed_config, capsys) -> None:
    config = load_config(mixed_config("run"), OPTIONS)
    result = train(config, QUIET).to_json()
    folder = RunFolder.of(config)
    for line in epochs(folder):
        maes = {name: scores["student"]["mae"] for name, scores in line["sources"].items()}
        # 6 and 30 validation clips: the whole is their mean over clips.
        assert line["validation"]["student"]["mae"] == pytest.approx((6 * maes["small"] + 30 * maes["large"]) / 36)
    best = next(line for line in epochs(folder) if line["step"] == result["best_step"])
    assert result["validation_by_source"] == best["sources"]
    assert [data["name"] for data in result["data"]] == ["small", "large"]

    document = evaluate_run(folder.root, "test").to_json()
    assert {name: part["rows"] for name, part in document["sources"].items()} == {"small": 6, "large": 30}
    assert "leaks" not in document
    table = pq.read_table(folder.root / "predictions-test.parquet").to_pydict()
    for name, part in document["sources"].items():
        mine = [i for i, source in enumerate(table["source"]) if source == name]
        errors = [abs(table["text_logit"][i] - table["label"][i]) for i in mine]
        assert part["student"]["mae"] == pytest.approx(np.mean(errors), rel=1e-5)
    # Equal clip ids of two sources keep their own videos.
    assert all(video[0] == source[0] for source, video in zip(table["source"], table["video_id"], strict=True))

    assert main(["evaluate", str(folder.root), "--split", "test"]) == 0
    out = capsys.readouterr().out
    assert "small, 6 clips" in out
    assert "large, 30 clips" in out
    assert main(["report", str(folder.root)]) == 0
    assert "2, mixed: equal" in (folder.root / "report.html").read_text()


class CutOffError(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [3, 9, 14])
def test_interrupted_mixed_run_ends_with_the_same_weights(mixed_config, stop_at, monkeypatch) -> None:
    whole = load_config(mixed_config("whole"), OPTIONS)
    assert train(whole, QUIET).to_json()["steps"] > stop_at
    cut = load_config(mixed_config("cut"), OPTIONS)
    original = MetricsLog.append

    def stop(self: MetricsLog, line: Line) -> None:
        original(self, line)
        if line.step == stop_at:
            raise CutOffError

    with monkeypatch.context() as patched:
        patched.setattr(MetricsLog, "append", stop)
        with pytest.raises(CutOffError):
            train(cut, QUIET)
    train(cut, QUIET)
    a, b = (list_checkpoints(RunFolder.of(config).checkpoints)[-1].weights() for config in (whole, cut))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert [e["sources"] for e in epochs(RunFolder.of(whole))] == [e["sources"] for e in epochs(RunFolder.of(cut))]


def test_dry_run_reports_clips_per_epoch_of_each_source(mixed_config, capsys) -> None:
    facts = describe(load_config(mixed_config("run"), OPTIONS))
    told = [(source["name"], source["clips"], source["per_epoch"]) for source in facts["sources"]]
    assert told == [("small", 18, 54), ("large", 90, 54)]
    render(facts, Console(width=120))
    assert "small: 18 train; an epoch reads 54 (3 times each)" in capsys.readouterr().out


def test_evaluation_reports_videos_trained_on_in_another_source(mixed_config, tmp_path, capsys) -> None:
    one = write(tmp_path / "one", 30, videos="s", long=1)
    moved = tmp_path / "moved"
    with DatasetWriter(moved, features={}, label=LabelSpec(), provenance={}) as writer:
        for i, split in enumerate(("train", "valid", "test", "test")):
            writer.write(split, Clip(f"c{i}", ("m0", "m1", "s0", "s1")[i], "good words", 2.0, "same"))
    config = load_config(mixed_config("leaky", (one, moved)), (*OPTIONS, "--trainer.max_steps=2"))
    train(config, QUIET)
    run = RunFolder.of(config).root
    assert main(["evaluate", str(run), "--split", "test"]) == 0
    said = capsys.readouterr().err
    assert "2 videos of moved's test split (2 clips) also in one's train split: s0, s1." in said
    (leak,) = read_json(run / "evaluation-test.json")["leaks"]
    assert (leak["seen"], leak["judged"], leak["videos"]) == ("one", "moved", ["s0", "s1"])


def test_run_resumes_if_its_config_lacks_a_newer_field(write_config, tmp_path) -> None:
    config = load_config(write_config("run"), ("--trainer.max_steps=2", "--trainer.checkpoint_every_steps=1"))
    train(config, QUIET)
    folder = RunFolder.of(config)
    raw = yaml.safe_load(folder.config_path.read_text())
    del raw["data"]["temperature"], raw["data"]["sources"][0]["name"]
    folder.config_path.write_text(yaml.safe_dump(raw))
    assert folder.claim(config)
