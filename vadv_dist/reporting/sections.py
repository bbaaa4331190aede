"""The sections of the page."""

from collections.abc import Sequence
from pathlib import Path

from vadv_dist.evaluation import classification
from vadv_dist.evaluation.retrieval import NOTES
from vadv_dist.reporting.clip_tables import Strips
from vadv_dist.reporting.comparison import Comparison
from vadv_dist.reporting.curves import loss_pictures, optimizer_pictures, validation_pictures
from vadv_dist.reporting.error_sections import error_sections
from vadv_dist.reporting.facts import data_table, run_facts
from vadv_dist.reporting.figures import confusion_pictures, histogram_pictures, scatter_pictures, score_picture
from vadv_dist.reporting.markup import Markup, join, tag
from vadv_dist.reporting.page import Section, folded, grid
from vadv_dist.reporting.pictures import Picture
from vadv_dist.reporting.retrieval_sections import chance_row, score_rows
from vadv_dist.reporting.run_files import FloatArray, RunRecord, Scored
from vadv_dist.reporting.style import role_of
from vadv_dist.reporting.tables import facts_list, metrics_table
from vadv_dist.reporting.words import best_attainable, clips, student_of
from vadv_dist.runs.records import Evaluation
from vadv_dist.storage import read_json

# The folder in a run that contains evaluations on other data.
OTHER_DATA = "other-data"
_COUNTS = {2: "Two", 3: "Three", 4: "Four", 5: "Five", 6: "Six", 7: "Seven"}


def metrics_section(run: RunRecord, evaluation: Scored, comparisons: Sequence[Comparison]) -> Section:
    """Errors at a glance, then all metrics, of the run's outputs and of other runs' students."""
    task, metrics, size = evaluation.task, evaluation.document.metrics, len(evaluation.predictions)
    scores = score_rows(evaluation) if evaluation.retrieves else _output_rows(evaluation)
    rows = []
    for output in evaluation.outputs:
        count = metrics[output.name].get("clips", size)
        title = output.title if count == size else f"{output.title}, {clips(int(count or 0))}"
        rows.append((title, role_of(task, output), metrics[output.name]))
    for comparison in comparisons:
        other, theirs = comparison.other_than(evaluation)
        scores.insert(1, (student_of(other), "other", theirs.clip_scores))
        rows.insert(1, (student_of(other), "other", theirs.document.metrics[task.student.name]))
    best = {f"Best from {name}": value for name, value in _best_attainable(run).items()}
    notes: Sequence[str] = (classification.NOTES,) if evaluation.classifies else NOTES
    if evaluation.document.labels is not None:
        scale = evaluation.scale
        notes = (*scale.notes, *scale.in_words(scale.absent(evaluation.predictions.label)))
    conventions = tag("ul", *(tag("li", line) for line in notes), class_="notes")
    step = "" if evaluation.document.step is None else f" at step {evaluation.document.step}"
    computed = " The best possible scores are computed from the random model of the synthetic data." if best else ""
    chance = chance_row(evaluation) if evaluation.retrieves else {}
    picture = score_picture(scores, {**chance, **best}, task.score_metric)
    return Section(
        "metrics",
        "Metrics",
        f"On {clips(size, evaluation.split)}{step}. Bars are 95 % bootstrap intervals over clips.{computed}",
        join(grid([picture], "one"), metrics_table(rows, task.metrics), conventions),
        [picture],
    )


def sources_section(evaluation: Scored) -> Section | None:
    """All metrics by source; None for a single source."""
    task, parts = evaluation.task, []
    for name, source in evaluation.document.sources.items():
        rows = [(o.title, role_of(task, o), source.metrics[o.name]) for o in task.outputs if o.name in source.metrics]
        size = f" · {clips(source.rows, evaluation.split)}"
        parts.append(join(tag("p", tag("b", name), size, class_="about"), metrics_table(rows, task.metrics)))
    note = "The same metrics on the clips of one source alone."
    return Section("sources", "By source", note, join(*parts)) if len(parts) > 1 else None


def other_data_section(run: RunRecord) -> Section | None:
    """A table for each evaluation on other data; None if there are none.

    Raises:
        UserError: one of the files is damaged.
    """
    parts = []
    for document in map(Evaluation.read, sorted((run.path / OTHER_DATA).glob("*.json"))):
        task, data = document.task, document.data[0]
        rows = [(task.student.title, role_of(task, task.student), document.metrics[task.student.name])]
        warnings = [*(str(leak["told"]) for leak in document.leaks), *document.remarks]
        size = f" · {clips(document.rows, document.split)} · fingerprint "
        parts += [
            tag("p", tag("b", str(data["uri"])), size, tag("code", str(data["fingerprint"])[:16])),
            metrics_table(rows, task.metrics),
            tag("ul", *(tag("li", warning) for warning in warnings), class_="notes") if warnings else "",
        ]
    note = "The student on data sets that it was not trained on (vadv evaluate --data)."
    return Section("other-data", "On other data", note, join(*parts)) if parts else None


def training_section(run: RunRecord) -> Section:
    """Validation scores and loss terms over time."""
    pictures = [*validation_pictures(run), *loss_pictures(run), *optimizer_pictures(run)]
    bold = " Bold: the mean of each epoch." if run.epochs else ""
    note = f"Each term of the objective before its weight. Thin: the mean since the previous logged line.{bold}"
    return _of_pictures("training", "Training", note, pictures)


def clip_sections(evaluation: Scored, comparisons: Sequence[Comparison], strips: Strips | None = None) -> list[Section]:
    """What was predicted, clip by clip, and errors (`error_sections`)."""
    others = [comparison.other_than(evaluation) for comparison in comparisons]
    classes, _, class_note = evaluation.scale.classes_of(evaluation.predictions.label)
    logits = [(student_of(other), theirs.predictions.values[evaluation.task.student.name]) for other, theirs in others]
    return [
        _of_pictures(
            "predictions",
            "Predictions and labels",
            "One point per clip; predictions on the dashed line are correct. Point at one to read the clip.",
            scatter_pictures(evaluation),
        ),
        _of_pictures(
            "distributions",
            "Distribution of logits",
            "The outline is the distribution of the labels; the outermost bars include all values beyond them. The "
            "paper’s Figure 5 shows the same.",
            histogram_pictures(evaluation, logits),
        ),
        _of_pictures(
            "classes",
            f"{_COUNTS[len(classes.names)]} classes",
            "Clips by class of the label (row) and of the prediction (column). Shades are shares of a row; outlined "
            f"cells are correct. {class_note}",
            confusion_pictures(evaluation),
            "wide",
        ),
        *error_sections(evaluation, strips),
    ]


def facts_section(run: RunRecord) -> Section:
    """What the run was, in enough detail to repeat it."""
    from vadv_dist.config import config_to_yaml

    parts = [facts_list(run_facts(run))]
    if run.result is not None:
        versions = ", ".join(tag("code", f"{name} {version}") for name, version in run.result.versions.items())
        parts += [data_table(run.result.data), tag("p", "Versions: ", Markup(versions), ".", class_="about")]
    config = folded("Resolved configuration", tag("pre", config_to_yaml(run.config), tabindex=0))
    return Section("run", "Run", "", join(*parts, config))


def _of_pictures(anchor: str, title: str, note: str, pictures: Sequence[Picture], class_: str = "") -> Section:
    return Section(anchor, title, note, grid(pictures, class_), pictures)


def _output_rows(evaluation: Scored) -> list[tuple[str, str, FloatArray]]:
    """Title, role and the score on each clip of each output."""
    return [(o.title, role_of(evaluation.task, o), evaluation.output_scores(o)) for o in evaluation.outputs]


def _best_attainable(run: RunRecord) -> dict[str, float]:
    """Best possible score by input on the run's data set, if it is synthetic and still at its location.

    Raises:
        UserError: the data set's document is damaged.
    """
    data = run.result.data if run.result is not None else []
    if len(data) != 1 or not (path := Path(data[0]["place"]) / "dataset.json").is_file():
        return {}
    document = read_json(path)
    is_same = document.get("fingerprint") == data[0]["fingerprint"]
    return best_attainable(document.get("truth") or {}, run.task.score) if is_same else {}
