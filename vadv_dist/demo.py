"""The demo on synthetic data: train a student with and without its teacher, evaluate both, write table and report."""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from vadv_dist.config import AloneObjectiveConfig, Config, load_config
from vadv_dist.config.recipes import find_recipe
from vadv_dist.data.synth import make_dataset
from vadv_dist.evaluation.paired import Interval
from vadv_dist.launch.cluster import ray_session
from vadv_dist.launch.driver import train
from vadv_dist.reporting.comparison import compare_runs
from vadv_dist.reporting.report import write_report
from vadv_dist.reporting.terminal import comparison_table, notes
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.records import Evaluation
from vadv_dist.runtime.job_storage import with_lasting
from vadv_dist.runtime.terminal import console as terminal
from vadv_dist.storage import local_path, read_json
from vadv_dist.training.evaluate import evaluate_run

NUM_CLIPS = 2400


def run_demo(overrides: Sequence[str], console: Console) -> Path:
    """Generate the data if necessary, train twice, print the comparison, and return the report's path.

    Args:
        overrides: `--section.field=value` arguments applied to the recipe `demo`.
        console: shows progress; the table goes to standard output.
    """
    taught = with_lasting(load_config(find_recipe("demo").path, overrides), "run.storage")
    data = Path(taught.data.sources[0].uri)
    if not data.exists():
        console.print(f"generating {NUM_CLIPS} synthetic clips in {data}", highlight=False)
        make_dataset(data, num_clips=NUM_CLIPS, seed=1)
    alone = dataclasses.replace(
        taught,
        run=dataclasses.replace(taught.run, name=f"{taught.run.name}-alone"),
        objective=AloneObjectiveConfig(beta=taught.objective.beta),
    )
    before, after = (local_path(taught.run.storage) / config.run.name for config in (alone, taught))
    if all((folder / "result.json").is_file() for folder in (before, after)):
        console.print("both runs are complete; removing them to train again", highlight=False)
        _remove(before)
        _remove(after)
    with ray_session(taught.trainer):
        evaluations = [_train_and_evaluate(config, console) for config in (alone, taught)]
    gain = compare_runs(before, after).gain
    truth = read_json(data / "dataset.json")["truth"]
    out = terminal()
    out.print(comparison_table(evaluations[0], evaluations[1], gain, truth))
    for remarks in filter(None, map(notes, evaluations)):
        out.print(remarks)
    for sentence in (finding(gain), truth.get("human", "")):
        out.print(sentence, highlight=False)
    return Path(str(write_report(after, compare=[before])))


def finding(gain: Interval) -> str:
    """Say in words what the reduction of the student's MAE by its teacher shows."""
    if not gain.excludes_zero:
        found = "This shows no gain: the interval contains zero."
    elif gain.mean > 0:
        found = "On these clips the student is more accurate with its teacher."
    else:
        found = "On these clips the student is less accurate with its teacher."
    return f"{found} One seed each cannot tell a gain from chance; see docs/results.md."


def _remove(folder: Path) -> None:
    """Remove a run completely or not at all, because a partial run would be taken for a user's folder."""
    aside = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)
    shutil.rmtree(aside)


def _train_and_evaluate(config: Config, console: Console) -> Evaluation:
    what = "alone" if config.objective.kind == "none" else "with its teacher"
    console.print(Text(f"\ntraining the student {what}", style="bold"))
    train(config, console)
    return evaluate_run(RunFolder.of(config).root, "test")
