"""The seven classes: which one each reader saw in clips of each label."""

import math

from vadv_dist.reporting.markup import Markup, tag
from vadv_dist.reporting.run_files import Evaluation
from vadv_dist.reporting.tables import scrolling
from vadv_dist.reporting.words import READERS, score

_CLASSES = ("−3", "−2", "−1", "0", "+1", "+2", "+3")


def confusion_tables(evaluation: Evaluation) -> list[Markup]:
    """Clips by class, of the student and of the teacher's video logit where there is one."""
    readers = (reader for reader in ("student", "video") if reader in evaluation.metrics)
    return [_confusion(evaluation, reader) for reader in readers]


def _confusion(evaluation: Evaluation, reader: str) -> Markup:
    """Clips by class: the label's by row, the prediction's by column, shaded by the share of the row."""
    from vadv_dist.evaluation.metrics import confusion_7

    predictions = evaluation.predictions
    pairs = zip(predictions.logits[reader], predictions.label, strict=True)
    answered = [(logit, label) for logit, label in pairs if math.isfinite(logit)]
    if not answered:
        return Markup()
    counts = confusion_7(*zip(*answered, strict=True))
    name = READERS[reader]
    body = []
    for row, label in enumerate(_CLASSES):
        total = int(counts[row].sum())
        cells = []
        for column, predicted in enumerate(_CLASSES):
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
        *(tag("th", predicted, scope="col") for predicted in _CLASSES),
        tag("th", "clips", scope="col", class_="axis-name"),
    )
    a7 = score(evaluation.metrics[reader].get("a7"), percent=True)
    caption = tag("caption", tag("b", name), tag("span", f"A7 {a7}", class_="note"))
    table = tag("table", caption, tag("thead", head), tag("tbody", *body), class_="confusion")
    return scrolling(f"Clips by class of label and of {name.lower()}", table)
