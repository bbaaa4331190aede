"""What the teacher gives the student on made data, paired over seeds: where video helps, and where it says nothing new.

    python benchmarks/teacher_gain.py --seeds 8

Each seed makes both data sets, and trains the student of jobs/configs/demo.yaml on each of them twice: alone, and
beside its teacher. Both share data, order, initial weights and schedule. Printed is a Markdown table of test MAE and,
over seeds, the mean paired difference with its 95 % interval (Student's t).
"""

import argparse
import dataclasses
import math
import statistics
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from vadv_dist.config import Config, SourceConfig, load_config
from vadv_dist.data.synth import make_dataset
from vadv_dist.training.evaluate import evaluate_run
from vadv_dist.training.launch import train

RECIPE = Path(__file__).parents[1] / "jobs" / "configs" / "demo.yaml"
# Two-sided 97.5 % quantiles of Student's t for 1 to 30 degrees of freedom.
T_QUANTILES = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


def main() -> None:
    """Run the comparison and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8, help="at least 5 (default: %(default)s)")
    parser.add_argument("--num-clips", type=int, default=None, help="clips of each data set (default: as `make run`)")
    parser.add_argument("--only", choices=("informative", "uninformative"))
    options, overrides = parser.parse_known_args()
    base = load_config(RECIPE, overrides)
    num_clips = options.num_clips or 2400
    for kind in ("informative", "uninformative"):
        if options.only in (None, kind):
            rows = [compare(base, kind == "informative", num_clips, seed) for seed in range(1, options.seeds + 1)]
            print_table(kind, rows)


def compare(base: Config, informative: bool, num_clips: int, seed: int) -> tuple[float, float, float]:
    """Test MAE of the student alone, of the student beside its teacher, and of the teacher's video logit."""
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        make_dataset(data, num_clips=num_clips, seed=seed, informative_video=informative)
        answers = {}
        for objective in ("none", "step"):
            config = dataclasses.replace(
                base,
                run=dataclasses.replace(base.run, name=objective, storage=scratch, seed=seed),
                data=dataclasses.replace(base.data, sources=[SourceConfig(str(data))]),
                student=dataclasses.replace(base.student, encoder=str(data / "encoder")),
                objective=dataclasses.replace(base.objective, kind=objective),
                trainer=dataclasses.replace(base.trainer, num_workers=0),
                engine=dataclasses.replace(base.engine, kind="torch"),
            )
            train(config, Console(stderr=True, quiet=True))
            answers[objective] = evaluate_run(Path(scratch) / objective, "test")
        row = answers["none"]["student"]["mae"], answers["step"]["student"]["mae"], answers["step"]["video"]["mae"]
        print(f"seed {seed}: alone {row[0]:.4f}, beside the teacher {row[1]:.4f}, video {row[2]:.4f}", file=sys.stderr)
        return row


def print_table(kind: str, rows: list[tuple[float, float, float]]) -> None:
    """Print one data set's rows and the paired difference."""
    print(f"\n{kind} video\n\n| seed | student alone | student beside teacher | difference | video logit |")
    print("|---|---|---|---|---|")
    for seed, (alone, beside, video) in enumerate(rows, 1):
        print(f"| {seed} | {alone:.4f} | {beside:.4f} | {alone - beside:+.4f} | {video:.4f} |")
    gains = [alone - beside for alone, beside, _ in rows]
    mean = statistics.mean(gains)
    half = T_QUANTILES[len(gains) - 2] * statistics.stdev(gains) / math.sqrt(len(gains))
    verdict = "a gain" if mean > half else "a loss" if mean < -half else "no gain shown"
    interval = f"95 % interval {mean - half:+.4f} to {mean + half:+.4f}"
    print(f"\ngain in test MAE {mean:+.4f}, {interval}: {verdict}", flush=True)


if __name__ == "__main__":
    main()
