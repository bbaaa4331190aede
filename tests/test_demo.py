import shutil
from pathlib import Path

import pytest

from vadv_dist import demo


def test_a_removal_that_is_cut_off_leaves_no_half_of_a_run(tmp_path: Path, monkeypatch) -> None:
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
