"""A run over several windows on two ranks: each reads half of the data, and the losses are those of one rank."""

import json
from pathlib import Path

import numpy as np
import pytest
from gloo_ranks import run_ranks

from vadv_dist.config import load_config
from vadv_dist.data.schema import Clip, FeatureSpec, LabelSpec
from vadv_dist.data.shards import DatasetWriter
from vadv_dist.data.windows import LocalWindows
from vadv_dist.engines.distributed import Distributed
from vadv_dist.launch.worker import train_rank
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.history import RunHistory
from vadv_dist.runs.records import StepLine
from vadv_dist.training.splits import Splits

pytestmark = pytest.mark.slow


def write(out: Path) -> Path:
    """32 train shards of 4 clips of 8 kB; every third clip lacks its face."""
    random = np.random.default_rng(0)
    specs = {"visual": FeatureSpec((8, 1, 512)), "face": FeatureSpec((8, 7))}
    with DatasetWriter(out, features=specs, label=LabelSpec(), provenance={}, shard_rows=4) as writer:
        for i in range(140):
            values = {"visual": random.normal(size=(8, 1, 512)), "face": random.random((8, 7)) if i % 3 else None}
            words = " ".join(random.choice(["good", "bad", "film"], random.integers(1, 12)))
            writer.write("train" if i < 128 else "valid", Clip(f"c{i}", f"v{i}", words, float(i % 7) - 3, "s", values))
    return out


def test_two_ranks_read_half_each_and_follow_the_losses_of_one(made: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "data")
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(
            f"""
run: {{name: {name}, storage: {tmp_path}, seed: 5}}
data: {{sources: [{{uri: {data}}}], batch_size: 16, window_bytes: 300000, missing: mask}}
teacher: {{width: 16, heads: 2, hidden: 16, prompting: video}}
student: {{encoder: {made / "encoder"}, pretrained: false, hidden: 32, dropout: 0, encoder_dropout: 0}}
engine: {{kind: torch}}
trainer: {{use_gpu: false, epochs: 2, precision: fp32}}
telemetry: {{log_every_steps: 1}}
"""
        )
    run_ranks("lane_ranks.py", tmp_path / "two.yaml", tmp_path / "read")
    config = load_config(tmp_path / "one.yaml")
    splits = Splits.open(config)
    plan = splits.train.plan(config.data, seed=5, epoch=0)
    assert plan.num_windows >= 4
    assert plan.num_lanes == 8
    RunFolder.of(config).claim(config)
    train_rank(config, Distributed(), LocalWindows)
    one, two = (
        [line for line in RunFolder(tmp_path / name).metrics_log().lines() if isinstance(line, StepLine)]
        for name in ("one", "two")
    )
    assert len(one) == len(two) == 2 * plan.num_steps
    for mine, other in zip(one, two, strict=True):
        assert other.terms == pytest.approx(mine.terms, rel=1e-5)
    total = int(splits.train.table.bytes.sum())
    reads = [json.loads(Path(f"{tmp_path}/read-{rank}").read_text()) for rank in range(2)]
    for read in reads:
        of_train = sum(size for path, size in read if path.startswith("train/"))
        assert of_train == pytest.approx(2 * total / 2, rel=0.02)  # two epochs, half of each
    # Rank 1 is slowed, and named; the steps themselves take equally long on both.
    history = RunHistory()
    for line in RunFolder(tmp_path / "two").metrics_log().lines():
        history(line)
    assert history.slowest_rank_overall is not None
    assert history.slowest_rank_overall.rank == 1
    computed_s = np.array([line.compute_s for line in two])
    fast_s, slow_s = computed_s.min(axis=0)  # others may load the CPUs
    assert slow_s > 0.15  # both passes count
    assert fast_s < slow_s - 0.05
    assert (computed_s.max(axis=1) < [line.line_s for line in two]).all()
    # The two processes are on one machine, which has read everything; reads after the last line are not counted.
    everything = sum(size for read in reads for _, size in read)
    [counted] = history.node_bytes
    assert 2 * total < counted <= everything
