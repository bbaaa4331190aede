"""How many labels the intervals of `vadv predict --interval` contain, on the test split of a run.

    python benchmarks/interval_coverage.py runs/mosi-minilm [--levels 0.8 0.9] [--split test]

The run was evaluated on the split; its texts are predicted again with the code of the command. All intervals of a run
have one width, so the table by label shows where errors are larger than that.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vadv_dist.evaluation.error_groups import label_bins
from vadv_dist.evaluation.reliability import mean_interval
from vadv_dist.inference import predict_file
from vadv_dist.inference.predicted_files import HIGH_COLUMN, LOW_COLUMN
from vadv_dist.runs.records import Evaluation


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--levels", type=float, nargs="+", default=[0.8, 0.9])
    parser.add_argument("--split", default="test")
    args = parser.parse_args()
    scored = pq.read_table(args.run / f"predictions-{args.split}.parquet", columns=["text", "label"])
    scale = Evaluation.read(args.run / f"evaluation-{args.split}.json").labels
    if scale is None:
        parser.error(f"{args.run} predicts classes, which have no intervals")
    label = scored["label"].to_numpy()
    groups = label_bins(label, scale.low, scale.high)
    inside = {}
    print("| level | labels inside | mean width |\n|---|---|---|")
    for level in args.levels:
        low, high = intervals(args.run, scored, level)
        inside[level] = (low <= label) & (label <= high)
        print(f"| {level:g} | {shown(inside[level])} | {np.mean(high - low):.2f} |")
    print(f"\n| label | clips | {' | '.join(f'inside at {level:g}' for level in args.levels)} |")
    print(f"|---|---|{'---|' * len(args.levels)}")
    for number, name in enumerate(groups.names):
        mine = groups.index == number
        print(f"| {name} | {mine.sum()} | {' | '.join(shown(found[mine]) for found in inside.values())} |")
    return 0


def intervals(run: Path, scored: pa.Table, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of the interval of each text, [R]."""
    with tempfile.TemporaryDirectory() as folder:
        texts, written = Path(folder) / "texts.parquet", Path(folder) / "scored.parquet"
        pq.write_table(scored, texts)
        predict_file(run, texts, written, interval=level)
        found = pq.read_table(written)
        return found[LOW_COLUMN].to_numpy(), found[HIGH_COLUMN].to_numpy()


def shown(inside: np.ndarray) -> str:
    """A share with its 95 % interval."""
    mean, low, high = mean_interval(inside)
    return f"{mean:.1%} ({low:.1%} to {high:.1%})"


if __name__ == "__main__":
    sys.exit(main())
