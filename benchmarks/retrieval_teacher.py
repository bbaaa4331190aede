"""What a teacher adds to a retrieval student on made data, over seeds: step distillation onto audio, visual or both.

    OMP_NUM_THREADS=1 python benchmarks/retrieval_teacher.py run --out retrieval-teacher
    python benchmarks/retrieval_teacher.py table --out retrieval-teacher

Each seed makes its own data, with and without information in the single frames, and its own initial weights. The runs
are those of the recipe `demo-retrieval` (EICS, eight epochs); only what a row names differs. Both
kinds of data have the same labels and the same vectors for the student, so one student alone serves both. The
checkpoint is the best one on validation; the test split is opened for it alone. A run that is in the folder already is
not repeated. Intervals are Student's t over seeds (95 %); differences are paired by seed.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from vadv_dist.config import load_config
from vadv_dist.data.synth import make_retrieval_dataset
from vadv_dist.evaluation.seeds_and_clips import seeds_and_clips
from vadv_dist.launch.driver import train
from vadv_dist.storage import write_json
from vadv_dist.training.evaluate import evaluate_run

RECIPE = Path(__file__).parents[1] / "jobs" / "configs" / "demo-retrieval.yaml"
NUM_CLIPS = 2400
ALONE = "alone"
# What the teacher's knowledge is distilled onto (Table 8 of the paper); the last as the paper's equations have it.
ONTO = {
    "audio": ["--task.distil_onto=[audio]"],
    "visual": ["--task.distil_onto=[visual]"],
    "both": ["--task.distil_onto=[audio, visual]"],
    "both, which also trains the teacher": ["--objective.detach_targets=false"],
}
VIEWS = {"informative": True, "uninformative": False}


def main() -> None:
    """Train what is missing, or print the table of what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--out", type=Path, required=True, help="folder of results, one file per run")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(1, 6)))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.what == "table":
        print_table(options.out)
        return
    for seed in options.seeds:
        for view, informative in VIEWS.items():
            with tempfile.TemporaryDirectory() as scratch:
                data = Path(scratch) / "data"
                make_retrieval_dataset(data, num_clips=NUM_CLIPS, seed=seed, informative_video=informative)
                for onto in (ALONE, *ONTO):
                    path = result_path(options.out, view, onto, seed)
                    if not path.exists():
                        answer = measure(Path(scratch), data, onto, seed)
                        write_json(path, answer)
                        print(view, onto, seed, f"{answer['test']['map']:.4f} ({answer['seconds']:.0f} s)", flush=True)


def measure(scratch: Path, data: Path, onto: str, seed: int) -> dict[str, Any]:
    """Train EICS and score it on the test split."""
    began = time.perf_counter()
    name = f"{file_part(onto)}-{seed}"
    teacher = ["--objective.kind=none"] if onto == ALONE else ONTO[onto]
    places = [f"--run.name={name}", f"--run.storage={scratch}", f"--run.seed={seed}", "--trainer.use_gpu=false"]
    config = load_config(RECIPE, [*places, f"--data.sources=[{{uri: {data}}}]", *teacher])
    train(config, Console(stderr=True, quiet=True))
    metrics = evaluate_run(scratch / name, "test").metrics
    video = metrics.get("video", {}).get("accuracy")
    return {
        "onto": onto,
        "seed": seed,
        "test": metrics["student"],
        "video": video,
        "seconds": time.perf_counter() - began,
    }


def result_path(out: Path, view: str, onto: str, seed: int) -> Path:
    """File of a result; the student alone sees neither view."""
    return out / (f"{ALONE}-{seed}.json" if onto == ALONE else f"{view}-{file_part(onto)}-{seed}.json")


def file_part(onto: str) -> str:
    """A row's name in the names of files."""
    return onto.replace(",", "").replace(" ", "-")


def print_table(out: Path) -> None:
    """Print the student alone, then a row for each view and modality."""

    def read(view: str, onto: str) -> dict[int, dict[str, Any]]:
        paths = sorted(out.glob(result_path(out, view, onto, 0).name.replace("-0.", "-[0-9]*.")))
        return {one["seed"]: one for one in (json.loads(path.read_text()) for path in paths)}

    alone = {seed: one["test"]["map"] for seed, one in read("", ALONE).items()}
    print("| teacher's frames | distilled onto | seeds | mAP | a → v | v → a | minus alone | video logit's accuracy |")
    print("|---|---|---|---|---|---|---|---|")
    for view, onto in [("", ALONE), *((view, onto) for view in VIEWS for onto in ONTO)]:
        found = read(view, onto)
        if not found:
            continue
        mean = {
            key: statistics.mean(one["test"][key] for one in found.values()) for key in ("map", "map_a2v", "map_v2a")
        }
        paired = [one["test"]["map"] - alone[seed] for seed, one in found.items() if seed in alone]
        gain = ""
        if view and len(paired) > 1:
            interval = seeds_and_clips(paired)
            gain = f"{statistics.mean(paired):+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"
        knows = [one["video"] for one in found.values() if one["video"] is not None]
        accuracy = f"{100 * statistics.mean(knows):.1f} %" if knows else ""
        print(
            f"| {view} | {onto if view else 'no teacher'} | {len(found)} | {mean['map']:.3f} | {mean['map_a2v']:.3f} "
            f"| {mean['map_v2a']:.3f} | {gain} | {accuracy} |"
        )


if __name__ == "__main__":
    main()
