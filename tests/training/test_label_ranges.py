"""Labels on other scales than MOSI's: which scores are printed, and where, and what a run that learned nothing says."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from vadv_dist.cli import main
from vadv_dist.runs.metrics_log import MetricsLog
from vadv_dist.storage import read_json

WORDS = {-1: "awful", 0: "plain", 1: "superb"}


def write_table(path: Path, low: float, high: float, rows: int = 60) -> Path:
    """Clips with one word of three, labelled low, middle or high by it."""
    lines = ["id,video_id,split,label,text"]
    for i in range(rows):
        sign = i % 3 - 1
        label = (low + high) / 2 + sign * (high - low) / 2
        split = ("train", "train", "train", "valid", "test")[i // 3 % 5]
        lines.append(f"c{i},{split}{i},{split},{label:g},the film was {WORDS[sign]}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def train_on(write_config: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Ingest a table of labels in a range, train a student alone on it, and return its folder and what was said."""

    def train(low: float, high: float, *options: str, ingest: tuple[str, ...] = ()) -> tuple[Path, str]:
        table = write_table(tmp_path / "w.csv", low, high)
        data = tmp_path / "data"
        command = ["ingest", "table", "--csv", str(table), "--out", str(data)]
        assert main([*command, *(ingest or ("--label-range", str(low), str(high)))]) == 0
        capsys.readouterr()
        config = write_config("run", uri=data, extra="objective: {kind: none}")
        assert main(["train", "--config", str(config), *options]) == 0
        return tmp_path / "runs" / "run", capsys.readouterr().out

    return train


@pytest.mark.slow
@pytest.mark.parametrize(
    ("low", "high", "present", "absent"),
    [
        (-1, 1, {"a5", "a3", "a2_neg0", "f1_neg0"}, {"a7"}),
        (1, 5, {"a2_has0", "a2_non0", "f1_has0", "f1_non0"}, {"a7", "a5", "a3"}),
        (0, 100, {"a2_has0", "a2_non0", "f1_has0", "f1_non0"}, {"a7", "a5", "a3"}),
    ],
    ids=["sims", "stars", "percent"],
)
def test_only_metrics_that_the_range_defines_are_printed(
    train_on, capsys: pytest.CaptureFixture[str], tmp_path: Path, low: float, high: float, present: set, absent: set
) -> None:
    run, _ = train_on(low, high, "--trainer.epochs=1")
    assert main(["evaluate", str(run), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert present <= document["student"].keys()
    assert absent <= document["absent"].keys()
    assert not absent & document["student"].keys()
    assert document["labels"] == {"low": low, "high": high, "threshold": (low + high) / 2}
    assert document["student"]["clips"] == document["rows"] == 12

    assert main(["evaluate", str(run)]) == 0
    said = capsys.readouterr().out
    assert "No A7: defined for labels in [-3, 3]" in said
    assert "A7" not in said.partition("No A7")[0]

    lines = list(MetricsLog(run / "metrics.jsonl").lines())
    assert absent <= next(line for line in lines if line.kind == "start").absent.keys()
    scores = next(line for line in lines if line.kind == "epoch").validation["student"]
    assert present <= scores.keys()
    assert not absent & scores.keys()

    assert main(["export", str(run), "--out", str(tmp_path / "export")]) == 0
    card = (tmp_path / "export" / "README.md").read_text()
    assert "| A7" not in card
    assert "No A7: defined for labels in [-3, 3]" in card
    assert main(["report", str(run)]) == 0
    assert f"next: vadv export {run} --out {run.name}-student\n" in capsys.readouterr().err
    page = (run / "report.html").read_text()
    assert "Seven classes" not in page
    assert "No A7: defined for labels in [-3, 3]" in page


@pytest.mark.slow
def test_constant_student_is_reported(train_on, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    # A rate of 1e-9 leaves the weights where they are; the last layer starts small.
    run, said = train_on(-1, 1, "--trainer.epochs=1", "--optimizer.lr=1e-9", "--student.hidden=1")
    assert "The student predicts a constant" in said
    assert main(["evaluate", str(run), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["student"]["prediction_std"] < 0.01 * document["student"]["label_std"]
    assert "The student predicts a constant" in document["remarks"][0]
    assert main(["evaluate", str(run)]) == 0
    assert "The student predicts a constant" in capsys.readouterr().out
    assert main(["report", str(run)]) == 0
    assert "The student predicts a constant" in (run / "report.html").read_text()
    # The median of the training labels, 0, errs by 1 on two clips of three.
    assert document["student"]["constant_mae"] == pytest.approx(2 / 3)
    assert "The student predicts a constant" in read_json(run / "result.json")["remarks"][0]
