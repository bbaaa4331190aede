"""A shipped study runs at the small scale."""

from pathlib import Path

import pytest

from vadv_dist.cli import main
from vadv_dist.storage import location, read_json


@pytest.mark.parametrize("where", ["disk", pytest.param("store", marks=pytest.mark.slow)])
def test_a_shipped_study_runs_on_made_data(where: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    storage = tmp_path if where == "disk" else f"{request.getfixturevalue('s3')}/small"
    options = ["--scale", "small", "--no-ray", "--seeds", "1", f"--run.storage={storage}", "--trainer.max_steps=2"]
    assert main(["study", "table2", *options]) == 0
    root = location(f"{storage}/table2-small")
    found = read_json(root / "study.json")
    assert [variant["name"] for variant in found["variants"]] == ["student alone", "VideoAdviser"]
    for variant in found["variants"]:
        assert [run["state"] for run in variant["runs"]] == ["complete"]
        assert variant["cells"]["test"]["mae"]["mean"] > 0
        assert not variant["published"]  # synthetic data have no published values
    assert main(["report", str(root)]) == 0
    assert read_json(root / "study.json") == found
    assert main(["watch", str(root), "--once"]) == 0
