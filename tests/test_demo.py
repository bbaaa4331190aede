import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vadv_dist import demo
from vadv_dist.data.synth import GenerativeModel
from vadv_dist.data.synth.truth import truth_document
from vadv_dist.evaluation.paired import Interval


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        (Interval(0.02, -0.01, 0.05), "shows no gain"),
        (Interval(-0.01, -0.03, 0.01), "shows no gain"),
        (Interval(0.04, 0.01, 0.07), "more accurate with its teacher"),
        (Interval(-0.04, -0.07, -0.01), "less accurate with its teacher"),
    ],
)
def test_finding_follows_the_interval(gain: Interval, words: str) -> None:
    assert words in demo.finding(gain)
    assert "One seed" in demo.finding(gain)


def test_truth_states_how_a_human_would_score() -> None:
    assert "MAE 0.71 and A2 86.0%" in truth_document(GenerativeModel())["human"]
    assert "MAE 1.17" in truth_document(GenerativeModel(s_annot=1.5))["human"]


def test_the_job_starts_from_a_shell(tmp_path: Path) -> None:
    job = Path(__file__).parents[1] / "jobs" / "demo.py"
    done = subprocess.run([sys.executable, job, "--no.field=1"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("vadv: --no.field: unknown section 'no'")


def test_an_interrupted_removal_leaves_no_partial_run(tmp_path: Path, monkeypatch) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("run: {}")
    original = shutil.rmtree

    def cut(path: Path, **options: bool) -> None:
        if path.exists():
            raise KeyboardInterrupt
        original(path, **options)

    monkeypatch.setattr(demo.shutil, "rmtree", cut)
    with pytest.raises(KeyboardInterrupt):
        demo._remove(run)
    monkeypatch.undo()
    assert not run.exists()
    run.mkdir()
    demo._remove(run)
    assert list(tmp_path.iterdir()) == []
