"""`engine.kind: auto` on two CPU ranks, and the same run continued on one."""

from pathlib import Path

import pytest
from gloo_ranks import run_ranks

from vadv_dist.config import load_config
from vadv_dist.data.windows import LocalWindows
from vadv_dist.engines.distributed import Distributed
from vadv_dist.launch.worker import train_rank
from vadv_dist.runs.checkpoint import list_checkpoints
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.records import StartLine

pytestmark = [pytest.mark.deepspeed, pytest.mark.slow]


def test_ranks_agree_and_the_run_continues_on_another_engine(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        f"""
run: {{name: auto, storage: {tmp_path}, seed: 5}}
data: {{sources: [{{uri: {made}}}], batch_size: 40}}
teacher: {{width: 16, heads: 2, hidden: 16}}
student: {{encoder: {made / "encoder"}, pretrained: false, hidden: 32}}
trainer: {{use_gpu: false, epochs: 2, num_workers: 2}}
"""
    )
    run_ranks("auto_ranks.py", path, 1000)  # nothing fits rank 1, and both ranks build ZeRO-3
    config = load_config(path)
    folder = RunFolder.of(config)
    assert list_checkpoints(folder.checkpoints)
    assert train_rank(config, Distributed(), LocalWindows).stopped == "epochs"
    two, one = (line.notes for line in folder.metrics_log().lines() if isinstance(line, StartLine))
    assert two[0].startswith("warning: engine deepspeed ZeRO-3, which needs the least memory, about ")
    assert two[0].endswith("that does not fit 0.0 MiB")
    assert one[0] == "engine: torch, because there is one device"
    assert all(notes[1].startswith("precision: fp32, because ") for notes in (two, one))
    result = folder.result()
    assert result is not None
    assert result.engine == "torch"
    assert folder.config().engine.kind == "auto"
