"""The top of the page: what the student reads, and what the teacher gave it, in words."""

from collections.abc import Sequence

from vadv_dist.reporting.comparison import Comparison
from vadv_dist.reporting.curves import validation_points
from vadv_dist.reporting.markup import Markup, join, tag
from vadv_dist.reporting.run_files import RunRecord, Scored, evaluate_command, value
from vadv_dist.reporting.words import clips, score


def header(run: RunRecord, others: Sequence[RunRecord], comparisons: Sequence[Comparison]) -> Markup:
    """Headline, the sentences on what was gained, and what is missing yet."""
    encoder = run.section("student").get("encoder")
    kind = "trained beside its teacher" if run.has_teacher else "trained alone"
    over = tag("p", tag("b", run.name), f" · {encoder} {kind}" if encoder else f" · student {kind}", class_="over")
    evaluation = run.evaluation
    if evaluation is None:
        return join(over, _unevaluated(run, others))
    metric = evaluation.task.score_metric
    found = f"off by {evaluation.score_text}" if metric.unit == "label" else f"{metric.title} {evaluation.score_text}"
    parts = [over, tag("h1", f"From the words alone, {found}"), _lede(evaluation)]
    for comparison in comparisons:
        parts.append(tag("p", comparison.sentence, class_="lede"))
    if comparisons:
        parts.append(tag("p", _caveats(comparisons), class_="caveat"))
    parts += [tag("p", remark, class_="notice") for remark in evaluation.document.remarks]
    return join(*parts, _unended(run), _validation_only(run, evaluation))


def _lede(evaluation: Scored) -> Markup:
    """What the headline's number is of, and what the teacher's logits read."""
    task, metrics = evaluation.task, evaluation.document.metrics
    metric = task.score_metric
    unit = ", in label units" if metric.unit == "label" else ""
    told = f"{metric.title} of the student on {clips(len(evaluation.predictions), evaluation.split)}{unit}"
    teacher = [
        f"{score(value(metrics, task, output.name), percent=metric.percent)} for the {output.title.lower()}"
        for output in task.outputs[1:]
        if output.name in metrics
    ]
    rest = f", against {' and '.join(teacher)} of the teacher, which watches the clip." if teacher else "."
    return tag("p", told, rest, class_="lede")


def _caveats(comparisons: Sequence[Comparison]) -> Markup:
    parts = [*dict.fromkeys(comparison.caveat for comparison in comparisons)]
    for comparison in comparisons:
        if comparison.differing:
            names = ", ".join(comparison.differing)
            parts.append(f"{comparison.before.name} and {comparison.after.name} also differ in {names}.")
    return join(" ".join(parts))


def _unevaluated(run: RunRecord, others: Sequence[RunRecord]) -> Markup:
    metric = run.task.score_metric
    best = min((at for _, at in validation_points(run, run.task.student)), key=metric.cost, default=None)
    title = "Not evaluated yet"
    if best is not None:
        title += f"; validation {metric.title} {score(best, percent=metric.percent)}"
    command = tag("code", evaluate_command(run.uri, "test"))
    notice = tag("p", command, " gives metrics, figures of the predictions and the worst clips.", class_="notice")
    waiting = tag("p", "The other runs are compared once this one is evaluated.", class_="caveat") if others else ""
    return join(tag("h1", title), notice, waiting, _unended(run))


def _unended(run: RunRecord) -> Markup:
    if run.result is not None:
        return Markup()
    return tag("p", "This run has not ended, or was broken off: it has no result.json yet.", class_="notice")


def _validation_only(run: RunRecord, evaluation: Scored) -> Markup:
    if evaluation.split == "test":
        return Markup()
    why = "These are the validation clips, on which the checkpoint was chosen, so the numbers flatter it. "
    command = tag("code", evaluate_command(run.uri, "test"))
    return tag("p", why, command, " reads the test split.", class_="notice")
