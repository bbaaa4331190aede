"""Classes of the labels: which one each reader saw in clips of each label."""

import math

from vadv_dist.evaluation.description import Output
from vadv_dist.reporting.markup import Markup, tag
from vadv_dist.reporting.run_files import Scored
from vadv_dist.reporting.tables import scrolling
from vadv_dist.reporting.words import score


def confusion_tables(evaluation: Scored) -> list[Markup]:
    """Clips by class, of the first two outputs."""
    shown = [output for output in evaluation.task.outputs if output.name in evaluation.document.metrics][:2]
    return [_confusion(evaluation, output) for output in shown]


def _confusion(evaluation: Scored, output: Output) -> Markup:
    """Clips by class: the label's by row, the prediction's by column, shaded by the share of the row."""
    metric, classes = evaluation.scale.classes
    predictions = evaluation.predictions
    pairs = zip(predictions.logits[output.name], predictions.label, strict=True)
    answered = [(logit, label) for logit, label in pairs if math.isfinite(logit)]
    if not answered:
        return Markup()
    counts = classes.confusion(*zip(*answered, strict=True))
    name = output.title
    body = []
    for row, label in enumerate(classes.names):
        total = int(counts[row].sum())
        cells = []
        for column, predicted in enumerate(classes.names):
            count = int(counts[row, column])
            cells.append(
                tag(
                    "td",
                    str(count) if count else tag("span", "0", class_="zero"),
                    class_="right" if row == column else None,
                    style=f"--share:{math.sqrt(count / total):.3f}" if count else None,
                    title=f"label {label}, {name.lower()} {predicted}: {count} of {total}",
                )
            )
        body.append(tag("tr", tag("th", label, scope="row"), *cells, tag("td", str(total), class_="quiet")))
    head = tag(
        "tr",
        tag("th", "label", scope="col", class_="axis-name"),
        *(tag("th", predicted, scope="col") for predicted in classes.names),
        tag("th", "clips", scope="col", class_="axis-name"),
    )
    right = evaluation.document.metrics[output.name].get(metric.key)
    note = "" if right is None else tag("span", f"{metric.title} {score(right, percent=True)}", class_="note")
    caption = tag("caption", tag("b", name), note)
    table = tag("table", caption, tag("thead", head), tag("tbody", *body), class_="confusion")
    return scrolling(f"Clips by class of label and of {name.lower()}", table)
