"""A shipped study runs at the small scale."""

import json
from pathlib import Path

from vadv_dist.cli import main


def test_a_shipped_study_runs_on_made_data(tmp_path: Path) -> None:
    options = ["--scale", "small", "--no-ray", "--seeds", "1", f"--run.storage={tmp_path}", "--trainer.max_steps=2"]
    assert main(["study", "table2", *options]) == 0
    found = json.loads((tmp_path / "table2-small" / "study.json").read_text())
    assert [variant["name"] for variant in found["variants"]] == ["student alone", "VideoAdviser"]
    for variant in found["variants"]:
        assert [run["state"] for run in variant["runs"]] == ["complete"]
        assert variant["cells"]["test"]["mae"]["mean"] > 0
        assert not variant["published"]  # synthetic data have no published values
