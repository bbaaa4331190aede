"""Peak memory of a training process on a data set and on one ten times as large, with windows of the same bytes.

Both train one whole epoch in a process of their own: a narrow teacher beside the made data's small encoder, on
features of real shape, so that the data would show.
"""

import json
import resource
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from material import run_config, sentences, write_clips
from measure import Row, ratio_of_medians
from rich.console import Console

from vadv_dist.config import Config, TeacherConfig, config_from_dict, config_to_dict
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.synth.encoder import write_encoder
from vadv_dist.launch.driver import train

_CLIPS, _GROWTH = 3_000, 10
_SHARD_ROWS, _WINDOW_BYTES = 256, 8 << 20


def measure(quick: bool) -> list[Row]:
    """Run the benchmark."""
    texts = sentences()[1]
    peaks: dict[int, list[float]] = {1: [], _GROWTH: []}
    megabytes: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for growth in peaks:
            folder = Path(scratch) / str(growth)
            many = texts * (_CLIPS * growth // len(texts) + 1)
            write_clips(folder / "data", many[: _CLIPS * growth], features=True, shard_rows=_SHARD_ROWS)
            write_encoder(folder / "encoder")
            megabytes[growth] = sum(shard.bytes for shard in Dataset.open(folder / "data").split("train")) / 1e6
        for turn in range(1 if quick else 3):
            for growth, found in peaks.items():
                found.append(_peak_megabytes(_config(Path(scratch) / str(growth), f"run-{turn}")))
    return [
        Row(
            f"peak memory of a rank, data set of {megabytes[_GROWTH]:.0f} MB, windows of {_WINDOW_BYTES / 1e6:.0f} MB",
            f"data set of {megabytes[1]:.0f} MB",
            ratio_of_medians(peaks[_GROWTH], peaks[1]),
            1.2,
            "at most",
            f"{peaks[_GROWTH][0]:.0f} against {peaks[1][0]:.0f} MB",
        )
    ]


def _config(folder: Path, name: str) -> Config:
    config = run_config(folder, batch_size=64, teacher=True)
    return replace(
        config,
        run=replace(config.run, name=name),
        data=replace(config.data, window_bytes=_WINDOW_BYTES),
        teacher=TeacherConfig(width=32, hidden=32, heads=1, prompt_layers=1),
    )


def _peak_megabytes(config: Config) -> float:
    """Train in a process of its own and return its peak resident memory."""
    given = json.dumps(config_to_dict(config))
    done = subprocess.run([sys.executable, __file__], input=given, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    train(config_from_dict(json.load(sys.stdin)), Console(stderr=True, quiet=True))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
