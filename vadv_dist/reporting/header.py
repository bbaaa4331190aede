"""The top of the page: what the student reads, and what the teacher gave it, in words."""

from collections.abc import Sequence

from vadv_dist.reporting.comparison import Comparison
from vadv_dist.reporting.curves import validation_points
from vadv_dist.reporting.markup import Markup, join, tag
from vadv_dist.reporting.run_files import Evaluation, RunRecord, evaluate_command
from vadv_dist.reporting.words import READERS, clips, score


def header(run: RunRecord, others: Sequence[RunRecord], comparisons: Sequence[Comparison]) -> Markup:
    """Headline, the sentences on what was gained, and what is missing yet."""
    from vadv_dist.evaluation.remarks import remarks

    encoder = run.section("student").get("encoder")
    kind = "trained beside its teacher" if run.has_teacher else "trained alone"
    over = tag("p", tag("b", run.name), f" · {encoder} {kind}" if encoder else f" · student {kind}", class_="over")
    evaluation = run.evaluation
    if evaluation is None:
        return join(over, _unevaluated(run, others))
    mae = score(evaluation.metrics["student"].get("mae"), percent=False)
    parts = [over, tag("h1", f"From the words alone, off by {mae}"), _lede(evaluation)]
    for comparison in comparisons:
        parts.append(tag("p", comparison.sentence, class_="lede"))
    if comparisons:
        parts.append(tag("p", _caveats(comparisons), class_="caveat"))
    parts += [tag("p", remark, class_="notice") for remark in remarks(evaluation.metrics)]
    return join(*parts, _unended(run), _validation_only(run, evaluation))


def _lede(evaluation: Evaluation) -> Markup:
    """What the headline's number is of, and what the teacher's logits read."""
    told = (
        f"Mean absolute error of the student on {clips(len(evaluation.predictions), evaluation.split)}, in label units"
    )
    teacher = [
        f"{score(evaluation.metrics[reader].get('mae'), percent=False)} for the {READERS[reader].lower()}"
        for reader in ("video", "prompt")
        if reader in evaluation.metrics
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
    points = validation_points(run, "student")
    best = min((mae for _, mae in points), default=None)
    title = f"Not evaluated yet; validation MAE {best:.3f}" if best is not None else "Not evaluated yet"
    command = tag("code", evaluate_command(run.uri, "test"))
    notice = tag("p", command, " gives metrics, figures of the predictions and the worst clips.", class_="notice")
    waiting = tag("p", "The other runs are compared once this one is evaluated.", class_="caveat") if others else ""
    return join(tag("h1", title), notice, waiting, _unended(run))


def _unended(run: RunRecord) -> Markup:
    if run.result is not None:
        return Markup()
    return tag("p", "This run has not ended, or was broken off: it has no result.json yet.", class_="notice")


def _validation_only(run: RunRecord, evaluation: Evaluation) -> Markup:
    if evaluation.split == "test":
        return Markup()
    why = "These are the validation clips, on which the checkpoint was chosen, so the numbers flatter it. "
    command = tag("code", evaluate_command(run.uri, "test"))
    return tag("p", why, command, " reads the test split.", class_="notice")
