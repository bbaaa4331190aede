"""The sections of the page."""

from collections.abc import Sequence

from vadv_dist.evaluation.description import Output
from vadv_dist.reporting.comparison import Comparison
from vadv_dist.reporting.curves import loss_pictures, optimizer_pictures, validation_picture
from vadv_dist.reporting.facts import data_table, run_facts, versions
from vadv_dist.reporting.figures import (
    confusion_pictures,
    error_picture,
    error_row,
    histogram_pictures,
    scatter_pictures,
)
from vadv_dist.reporting.markup import join, tag
from vadv_dist.reporting.page import Section, folded, grid
from vadv_dist.reporting.run_files import RunRecord, Scored
from vadv_dist.reporting.style import role_of
from vadv_dist.reporting.tables import facts_list, metrics_table, worst_table
from vadv_dist.reporting.truth import best_attainable_of
from vadv_dist.reporting.words import SPLITS, clips

_COUNTS = {2: "Two", 5: "Five", 7: "Seven"}


def metrics_section(run: RunRecord, evaluation: Scored, comparisons: Sequence[Comparison]) -> Section:
    """Errors at a glance, then every metric; of the run's readers and of other runs' students."""
    predictions = evaluation.predictions
    task, metrics = evaluation.task, evaluation.document.metrics
    outputs = [output for output in task.outputs if output.name in metrics]
    errors = [error_row(output.title, role_of(task, output), predictions, output.name) for output in outputs]
    rows = [(_reader(output, evaluation), role_of(task, output), metrics[output.name]) for output in outputs]
    for comparison in comparisons:
        other, theirs = comparison.other_than(evaluation)
        name = _student_of(other)
        errors.insert(1, error_row(name, "other", theirs.predictions, task.student.name))
        rows.insert(1, (name, "other", theirs.document.metrics[task.student.name]))
    scale = evaluation.scale
    told = [*scale.notes, *scale.in_words(scale.absent(predictions.label))]
    conventions = tag("ul", *(tag("li", line) for line in told), class_="notes")
    best = best_attainable_of(run)
    computed = " The best is what this made data allows, computed from its random model." if best else ""
    size = clips(len(predictions), evaluation.split)
    step = f" at step {evaluation.document.step}" if evaluation.document.step is not None else ""
    picture = error_picture([row for row in errors if row], best, task.score_metric.heading)
    return Section(
        "metrics",
        "Metrics",
        f"On {size}{step}. Bars are 95 % bootstrap intervals over clips.{computed}",
        join(grid([picture], "one"), metrics_table(rows, task.metrics), conventions),
        [picture],
    )


def sources_section(evaluation: Scored) -> Section:
    """Every metric on each source's clips alone, a table per source."""
    task, parts = evaluation.task, []
    for name, source in evaluation.document.sources.items():
        size = f" · {clips(source.rows, evaluation.split)}"
        rows = [(o.title, role_of(task, o), source.metrics[o.name]) for o in task.outputs if o.name in source.metrics]
        parts.append(join(tag("p", tag("b", name), size, class_="about"), metrics_table(rows, task.metrics)))
    return Section("sources", "By source", "The same metrics on the clips of one source alone.", join(*parts))


def training_section(run: RunRecord) -> Section:
    """Validation and every loss term over time."""
    validation = validation_picture(run)
    pictures = ([validation] if validation else []) + loss_pictures(run) + optimizer_pictures(run)
    drawn = "Thin: the mean since the line logged before. " + ("Bold: the mean of each epoch." if run.epochs else "")
    return Section(
        "training",
        "Training",
        f"Each term of the objective before its weight. {drawn}",
        grid(pictures),
        pictures,
    )


def clip_sections(evaluation: Scored, comparisons: Sequence[Comparison]) -> list[Section]:
    """What was predicted, clip by clip."""
    predictions = evaluation.predictions
    others = [comparison.other_than(evaluation) for comparison in comparisons]
    logits = [(_student_of(other), theirs.predictions.logits[evaluation.task.student.name]) for other, theirs in others]
    split = SPLITS[evaluation.split]
    scatters, histograms = scatter_pictures(evaluation), histogram_pictures(evaluation, logits)
    classes = confusion_pictures(evaluation)
    return [
        Section(
            "predictions",
            "Predictions against labels",
            "One point per clip; on the dashed line the prediction is right. Point at one to read the clip.",
            grid(scatters),
            scatters,
        ),
        Section(
            "distributions",
            "Distribution of logits",
            "The outline is the labels’ own distribution; values beyond the outermost bars are counted in them. "
            "The paper’s Figure 5 shows the same.",
            grid(histograms),
            histograms,
        ),
        Section(
            "classes",
            f"{_COUNTS[len(evaluation.scale.classes[1].names)]} classes",
            "Clips by class of the label (row) and of the prediction (column). Shades are shares of a row; outlined "
            f"cells are right. {evaluation.scale.class_note}",
            grid(classes, "wide"),
            classes,
        ),
        Section(
            "worst",
            "Worst predictions",
            f"The {min(10, len(predictions))} {split} clips on which the student errs most.",
            worst_table(predictions, evaluation.scale, evaluation.task),
        ),
    ]


def facts_section(run: RunRecord) -> Section:
    """What the run was, enough to repeat it."""
    config = folded("Resolved configuration", tag("pre", run.config_text, tabindex=0))
    names = versions(run)
    made_with = tag("p", "Made with ", names, ".", class_="about") if names else ""
    return Section("run", "Run", "", join(facts_list(run_facts(run)), data_table(run), made_with, config))


def _reader(output: Output, evaluation: Scored) -> str:
    """An output's title, with its number of clips where that is not all of them."""
    count = evaluation.document.metrics[output.name].get("clips")
    return output.title + (
        f", {clips(int(count))}" if count is not None and count != len(evaluation.predictions) else ""
    )


def _student_of(run: RunRecord) -> str:
    return f"Student of {run.name}" if run.has_teacher else "Student trained alone"
