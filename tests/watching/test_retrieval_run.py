"""A retrieval run as others see it: `--json` of the commands, Prometheus gauges, and a tracker."""

import json
from pathlib import Path

import pytest
from test_trackers import event_values

from vadv_dist.cli import main
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.records import EpochLine, StepLine
from vadv_dist.watching.gauges import RunGauges
from vadv_dist.watching.trackers import values_of

TERMS = {"explicit", "gap", "implicit", "video_class", "prompt_class", "prompt_to_video", "total"}
TERMS |= {"video_to_audio", "video_to_visual"}
MAPS = {f"{name}{way}" for name in ("map", "map_class") for way in ("", "_a2v", "_v2a")}


def test_commands_gauges_and_trackers_describe_a_retrieval_run(
    events: Path, write_retrieval_config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboardX")

    def answer(*arguments: object) -> dict:
        assert main([*map(str, arguments), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    config = write_retrieval_config()
    result = answer("train", "--config", config, "--trainer.epochs=1", "--telemetry.track=tensorboard")
    assert set(result["validation"]) == {*MAPS, "accuracy"}
    assert result["texts_cut"] == {}
    folder = RunFolder.open(tmp_path / "runs" / "run")
    lines = list(folder.metrics_log().lines())
    steps = [line for line in lines if isinstance(line, StepLine)]
    (epoch,) = (line for line in lines if isinstance(line, EpochLine))
    assert {*steps[-1].terms} == {*epoch.train} == TERMS

    gauges = RunGauges("run")
    for line in lines:
        gauges(line)
    found = {(sample.name, *sample.labels[3:]): sample.value for sample in gauges.samples()}
    assert {labels[0] for name, *labels in found if name == "vadv_loss"} == TERMS
    assert found["vadv_loss", "video_to_audio"] == steps[-1].terms["video_to_audio"]
    assert found["vadv_validation", "student", "map_a2v"] == epoch.validation["student"]["map_a2v"]
    assert found["vadv_validation", "prompt", "accuracy"] == epoch.validation["prompt"]["accuracy"]
    assert ("vadv_tokens_per_second",) not in found  # nothing reads texts

    (file,) = folder.root.rglob("events.out.tfevents.*")
    tracked = event_values(Path(file))
    assert {name for name, _ in tracked} == {name for line in (*steps, epoch) for name in values_of(line)}
    assert tracked["validation/student/map", epoch.step] == pytest.approx(epoch.validation["student"]["map"])

    evaluated = answer("evaluate", folder.root, "--split", "test")
    assert {output["name"] for output in evaluated["task"]["outputs"]} == {"student", "video", "prompt"}
    assert set(evaluated["student"]) == {*MAPS, "accuracy"}
    watched = answer("watch", folder.root)
    assert watched["validation"][-1]["models"]["student"]["map"] == epoch.validation["student"]["map"]
    assert watched["rates"]["tokens_per_s"] is None
    assert answer("data-info", events)["label"]["classes"] == ["dog", "drum", "rain"]
