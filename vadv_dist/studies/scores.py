"""Read what the runs of a study scored, and score outside predictions like a run."""

from collections.abc import Callable
from dataclasses import dataclass, field

from vadv_dist.config.study import folder_name
from vadv_dist.data.sources import Sources
from vadv_dist.errors import VadvError
from vadv_dist.reporting.clip_metrics import ClipMetrics
from vadv_dist.reporting.run_files import read_evaluation
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.records import Evaluation, Values, epoch_costs
from vadv_dist.storage import Location, local_copy, local_path, write_json
from vadv_dist.storage import find_json as find
from vadv_dist.studies.plan import StudyPlan, StudyRun
from vadv_dist.training.evaluate import evaluate_checkpoints, evaluate_run
from vadv_dist.training.outside_predictions import evaluate_predictions
from vadv_dist.tuning.events import Ended, Failed
from vadv_dist.tuning.jobs import outcome, strip


@dataclass
class RunScores:
    """One run, or one file of outside predictions, as far as it is known.

    Attributes:
        variant: its variant.
        seed: its seed; None for predictions that are not by seed.
        folder: where its evaluations are.
        state: `complete`, `failed`, `started`, `missing`, or `outside` for predictions made elsewhere.
        problem: why it failed or could not be evaluated; empty if neither.
        values: metrics by split.
        clips: evaluations by split.
        best_on_test: each metric of whichever kept checkpoint is best on the test split; empty unless asked for.
        checkpoints: number of these checkpoints.
        curve: validation score after each epoch.
    """

    variant: str
    seed: int | None
    folder: Location
    state: str
    problem: str = ""
    values: dict[str, Values] = field(default_factory=dict)
    clips: dict[str, ClipMetrics] = field(default_factory=dict)
    best_on_test: Values = field(default_factory=dict)
    checkpoints: int = 0
    curve: list[tuple[int, float]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The run in messages."""
        return self.variant if self.seed is None else f"{self.variant}, seed {self.seed}"


def evaluate_study(
    plan: StudyPlan, *, best_per_metric: bool, say: Callable[[str], None], keep_all: bool = False
) -> list[RunScores]:
    """Evaluate what is complete and not evaluated yet, and read all scores.

    A run that cannot be evaluated keeps the reason as its `problem`. An evaluated run keeps what the study's `keep`
    names, or everything with `keep_all`.
    """
    found = [_of_run(plan, run, best_per_metric=best_per_metric, say=say) for run in plan.runs]
    if plan.study.keep != "checkpoints" and not keep_all:
        for run in found:
            if run.state == "complete" and not run.problem:
                strip(RunFolder(run.folder), student=plan.study.keep == "records")
    return [*found, *_outside(plan)]


def _of_run(plan: StudyPlan, run: StudyRun, *, best_per_metric: bool, say: Callable[[str], None]) -> RunScores:
    folder, scores = run.folder, RunScores(run.variant, run.seed, run.folder.root, run.state)
    ended = outcome(folder)
    if isinstance(ended, Failed):
        scores.problem = f"{ended.kind}: {ended.message}"
    if not isinstance(ended, Ended):
        return scores
    metric = ended.result.task.score_metric
    scores.curve = [(line.epoch + 1, metric.cost(cost)) for line, cost in epoch_costs(folder.metrics_log().lines())]
    try:
        for split in plan.study.splits:
            if not _is_evaluated(folder, split, ended.result.best_step):
                say(f"evaluating {run.name} on the {split} split")
                evaluate_run(folder.root, split)
            _read(scores, split)
        if best_per_metric:
            scores.best_on_test, scores.checkpoints = _best_on_test(folder)
    except VadvError as error:
        scores.problem = f"not evaluated: {error}"
    return scores


def _is_evaluated(folder: RunFolder, split: str, step: int) -> bool:
    """Whether both files of an evaluation of the best checkpoint are there."""
    path = folder.root / f"evaluation-{split}.json"
    has_both = path.is_file() and (folder.root / f"predictions-{split}.parquet").is_file()
    return has_both and Evaluation.read(path).step == step


def _best_on_test(folder: RunFolder) -> tuple[Values, int]:
    """Each metric of the kept checkpoint that is best on the test split, and their number; scored once."""
    path = folder.root / "checkpoints-test.json"
    known = find(path)
    if known is None:
        known = {str(step): values for step, values in evaluate_checkpoints(folder.root, "test").items()}
        write_json(path, known)
    result = folder.result()
    assert result is not None
    best: Values = {}
    for metric in result.task.metrics:
        values = [value for each in known.values() if (value := each.get(metric.key)) is not None]
        if values:
            best[metric.key] = min(values, key=metric.cost)
    return best, len(known)


def _outside(plan: StudyPlan) -> list[RunScores]:
    """Predictions made elsewhere, scored on the clips of the first variant's data sets."""
    found = []
    for name, variant in plan.study.variants.items():
        if variant.predictions is None:
            continue
        by_seed = "{seed}" in variant.predictions
        for seed in plan.study.seeds if by_seed else (None,):
            file = variant.predictions.replace("{seed}", str(seed))
            place = f"{folder_name(name)}{'' if seed is None else f'-seed-{seed}'}"
            scores = RunScores(name, seed, plan.root / "outside" / place, "outside")
            try:
                sources = Sources.open(next(iter(plan.variants.values())))
                for split in plan.study.splits:
                    evaluate_predictions(local_path(file), sources, split, scores.folder, name=name)
                    _read(scores, split)
            except VadvError as error:
                scores.problem = str(error)
            found.append(scores)
    return found


def _read(scores: RunScores, split: str) -> None:
    names = (f"evaluation-{split}.json", f"predictions-{split}.parquet")
    with local_copy(scores.folder, names) as folder:
        evaluation = read_evaluation(folder, split, None)
    assert evaluation is not None
    scores.clips[split] = ClipMetrics(evaluation)
    scores.values[split] = evaluation.document.metrics[evaluation.task.student.name]
