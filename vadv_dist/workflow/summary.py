"""The report of a workflow: what the teacher adds over all seeds, the evidence, and where the student is."""

from collections.abc import Mapping
from typing import Any

from vadv_dist.evaluation.description import Metric
from vadv_dist.evaluation.paired import Interval
from vadv_dist.reporting.clip_metrics import ClipMetrics
from vadv_dist.reporting.markup import join, tag
from vadv_dist.reporting.page import Page, Section, document
from vadv_dist.reporting.run_files import read_evaluation
from vadv_dist.reporting.tables import plain_table
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.records import epoch_costs
from vadv_dist.storage import local_copy, read_json
from vadv_dist.studies.analysis import StudyResult, analyse
from vadv_dist.studies.page import score_sections
from vadv_dist.studies.scores import RunScores
from vadv_dist.studies.tables import interval_text, notes, number
from vadv_dist.workflow.run_stages import ALONE, TAUGHT, runs_of
from vadv_dist.workflow.stage import CARD, Finished, Work


def summary_page(name: str, work: Work) -> tuple[Page, dict[str, Any]]:
    """The page and its content as plain containers; the same inputs give the same bytes.

    Args:
        name: name of the workflow.
        work: the stage that reports; its inputs are all stages.
    """
    result = _scores(name, work)
    split, metric = result.splits[0], result.task.score_metric
    finding = _finding(result, split, metric)
    sections = [*score_sections(result), _data_section(work), _search_section(work), _student_section(work)]
    header = join(
        tag("p", tag("b", name), " · workflow", class_="over"),
        tag("h1", _headline(result, split, metric)),
        tag("p", finding, class_="lede"),
        tag("p", " ".join(notes(result)), class_="caveat"),
    )
    page = document(f"{name} · vadv workflow", header, [*sections, _stages_section(work)], "vadv workflow")
    return page, {"name": name, "finding": finding, "student": _student(work), **result.to_json()}


def _scores(name: str, work: Work) -> StudyResult:
    """The trainings as a study of one or two variants."""
    scores, seeds, task = [], [], None
    split = ""
    for trained, scored in runs_of(work).values():
        seed = int(trained.values["seed"])
        seeds.append(seed)
        split = str(scored.values["split"])
        files = (f"evaluation-{split}.json", f"predictions-{split}.parquet")
        with local_copy(scored.folder, files) as folder:
            evaluation = read_evaluation(folder, split, None)
        assert evaluation is not None  # the stage is complete
        task = evaluation.task
        metric, run = task.score_metric, RunFolder(trained.place("run"))
        scores.append(
            RunScores(
                str(trained.values["variant"]),
                seed,
                scored.folder,
                "complete",
                values={split: evaluation.document.metrics[task.student.name]},
                clips={split: ClipMetrics(evaluation)},
                curve=[(line.epoch + 1, metric.cost(cost)) for line, cost in epoch_costs(run.metrics_log().lines())],
            )
        )
    assert task is not None  # a workflow has a seed
    scores.sort(key=lambda run: (run.variant != ALONE, run.seed))
    seeds = sorted(set(seeds))
    metrics = tuple(metric for metric in task.metrics if any(metric.key in run.values[split] for run in scores))
    return StudyResult(
        title=name,
        about="",
        name=name,
        folder="",
        source="",
        config=None,
        overrides={},
        reference=scores[0].variant,
        seeds=tuple(seeds),
        splits=(split,),
        metrics=metrics,
        task=task,
        scores=scores,
        analysis=analyse(scores, metrics, splits=(split,), asked=len(seeds), published={}),
    )


def _headline(result: StudyResult, split: str, metric: Metric) -> str:
    variant = result.variants[-1]
    cell = result.analysis.cells[variant][split][metric.key]
    return f"{metric.title} {number(cell.mean, metric)} {variant}"


def _finding(result: StudyResult, split: str, metric: Metric) -> str:
    """What the teacher adds, in a sentence."""
    if set(result.variants) != {ALONE, TAUGHT}:
        mean = number(result.analysis.cells[result.variants[-1]][split][metric.key].mean, metric)
        count = len(result.seeds)
        seeds = f", the mean of {count} seeds" if count > 1 else ""
        return f"The student’s {metric.title} on the {split} split is {mean}{seeds}. No other was trained."
    pair = result.analysis.pair(split, metric.key, TAUGHT, ALONE)
    if pair.difference is None or len(result.seeds) < 2:
        return "One seed cannot tell a gain from chance."
    return gain_sentence(pair.difference, metric, len(result.seeds))


def gain_sentence(difference: Interval, metric: Metric, seeds: int) -> str:
    """What the teacher adds.

    Args:
        difference: the metric of the student with its teacher minus that of the student alone.
        metric: the metric.
        seeds: over how many seeds.
    """
    change, interval = number(difference.mean, metric, signed=True), interval_text(difference, metric, signed=True)
    found = (
        f"the student’s {metric.title}{' (%)' if metric.percent else ''} changes by {change} with its teacher (95 % "
        f"interval {interval}, over {seeds} seeds and the clips)."
    )
    if difference.low <= 0 <= difference.high:
        return f"No gain is shown: {found}"
    is_better = (difference.mean < 0) == metric.lower_is_better
    return f"The student is {'better' if is_better else 'worse'}: {found}"


def _data_section(work: Work) -> Section:
    checks, advice = work.of_kind("check"), work.of_kind("advise")
    rows = []
    for name, data in work.of_kind("data").items():
        bare = name.removeprefix("data-")
        clips = ", ".join(f"{count:,} {split}" for split, count in data.values["rows"].items())
        warnings = checks[f"check-{bare}"].values["warnings"]
        said = advice[f"advise-{bare}"].values["verdict"] if f"advise-{bare}" in advice else "not asked"
        rows.append((None, (bare, clips, f"{warnings} warnings", said, data.values["fingerprint"][:16])))
    columns = ("Data set", "Clips", "Check", "A teacher", "Fingerprint")
    return Section(
        "data",
        "Data",
        "The fourth column is what vadv advise expects of a teacher.",
        plain_table("Data", columns, rows),
    )


def _search_section(work: Work) -> Section | None:
    if "tune" not in work.inputs:
        return None
    found = work.inputs["tune"].values
    rows = [
        (None, (field, f"{value:.4g}" if isinstance(value, float) else str(value)))
        for field, value in found["values"].items()
    ]
    content = join(tag("p", str(found["verdict"])), plain_table("Values", ("Field", "Value"), rows))
    return Section("search", "Search", "The values that every training uses.", content)


def _student(work: Work) -> dict[str, Any]:
    exported = work.inputs["export"]
    return {"of": exported.values["of"], "formats": exported.values["formats"]}


def _student_section(work: Work) -> Section:
    exported = work.inputs["export"]
    of = work.inputs[str(exported.values["of"])]
    rows = []
    for kind in exported.values["formats"]:
        files: Mapping[str, Any] = read_json(exported.folder / kind / "vadv_export.json")["files"]
        size = sum(entry["bytes"] for entry in files.values())
        rows.append((None, (kind, f"{size / 2**20:.1f} MiB", tag("code", _link(exported, kind)))))
    seed = of.values["seed"]
    note = f"The student of seed {seed}, which is the best on the validation split."
    return Section("student", "The exported student", note, plain_table("Exports", ("Format", "Size", "Folder"), rows))


def _stages_section(work: Work) -> Section:
    rows = [
        (None, (tag("a", name, href=_link(each, CARD)), tag("code", _link(each, ""))))
        for name, each in work.inputs.items()
    ]
    return Section("stages", "Stages", "Each has a page of its own.", plain_table("Stages", ("Stage", "Folder"), rows))


def _link(finished: Finished, name: str) -> str:
    """A path relative to the folder of the report."""
    folder = finished.folder
    return f"../../{folder.parent.name}/{folder.name}/{name}"
