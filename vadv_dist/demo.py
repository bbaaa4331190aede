"""The main job on made data: a student alone, the same student beside its teacher, evaluation, table and report."""

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from vadv_dist.config import Config, load_config
from vadv_dist.data.synth import make_dataset
from vadv_dist.evaluation.label_scale import LabelScale
from vadv_dist.evaluation.paired import Interval
from vadv_dist.launch.cluster import ray_session
from vadv_dist.launch.driver import train
from vadv_dist.recipes import find_recipe
from vadv_dist.reporting.comparison import compare_runs
from vadv_dist.reporting.report import write_report
from vadv_dist.reporting.terminal import comparison_table, notes
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runtime.job_storage import with_lasting
from vadv_dist.runtime.terminal import console as terminal
from vadv_dist.storage import local_path, read_json
from vadv_dist.training.evaluate import evaluate_run

NUM_CLIPS = 2400


def run_demo(overrides: Sequence[str], console: Console) -> Path:
    """Make the data where it is missing, train twice, print what was found, and return the report's path.

    Args:
        overrides: `--section.field=value` on top of the recipe `demo`.
        console: where progress is shown; the table goes to standard output.
    """
    taught = with_lasting(load_config(find_recipe("demo").path, overrides), "run.storage")
    data = Path(taught.data.sources[0].uri)
    if not data.exists():
        console.print(f"making {NUM_CLIPS} clips in {data}, whose truth is known", highlight=False)
        make_dataset(data, num_clips=NUM_CLIPS, seed=1)
    alone = dataclasses.replace(
        taught,
        run=dataclasses.replace(taught.run, name=f"{taught.run.name}-alone"),
        objective=dataclasses.replace(taught.objective, kind="none"),
    )
    before, after = (local_path(taught.run.storage) / config.run.name for config in (alone, taught))
    if all((folder / "result.json").is_file() for folder in (before, after)):
        console.print("both runs are complete: removing them to train afresh", highlight=False)
        _remove(before)
        _remove(after)
    with ray_session(taught.trainer):
        evaluations = [_train_and_evaluate(config, console) for config in (alone, taught)]
    gain = compare_runs(before, after).gain
    truth = read_json(data / "dataset.json")["truth"]
    scale = LabelScale.from_json(evaluations[1]["labels"])
    first, second = (document["student"] for document in evaluations)
    out = terminal()
    out.print(comparison_table(first, second, scale=scale, gain=gain, truth=truth))
    for document in evaluations:
        if told := notes(document):
            out.print(told)
    for sentence in (finding(gain), hardness(truth)):
        out.print(sentence, highlight=False)
    return Path(str(write_report(after, compare=[before])))


def finding(gain: Interval) -> str:
    """What one pair of runs shows, in words.

    Args:
        gain: how much less the taught student errs, with its interval over the test clips.
    """
    if not gain.excludes_zero:
        found = "No gain is shown: the interval holds zero."
    elif gain.mean > 0:
        found = "On these clips the student erred less beside its teacher."
    else:
        found = "On these clips the student erred more beside its teacher."
    return f"{found} It is one seed of each, which cannot tell a gain from luck; docs/results.md has more."


def hardness(truth: Mapping[str, Any]) -> str:
    """How well a human would read the made data, in words; empty for data that does not state it."""
    annotator = truth.get("annotator")
    if not annotator:
        return ""
    return (
        f"One more annotator would read these labels at MAE {annotator['mae']:.2f} and A2 {annotator['a2_has0']:.1%}; "
        "a human reads CMU-MOSI at 0.71 and 85.7%."
    )


def _remove(folder: Path) -> None:
    """Remove a run whole or not at all: half of one would be taken for a folder of the user's."""
    aside = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)
    shutil.rmtree(aside)


def _train_and_evaluate(config: Config, console: Console) -> dict[str, Any]:
    what = "alone" if config.objective.kind == "none" else "beside its teacher"
    console.print(Text(f"\nthe student {what}", style="bold"))
    train(config, console)
    return evaluate_run(RunFolder.of(config).root, "test")
