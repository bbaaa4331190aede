"""A run on VEGAS next to the paper's numbers, and how the two differ."""

from collections import Counter

from vadv_dist.evaluation.published_vegas import TABLE_4, TABLE_8, TABLE_11, VEGAS_COLUMNS, VEGAS_ROWS, is_vegas
from vadv_dist.reporting.markup import Markup, join, tag
from vadv_dist.reporting.page import Section
from vadv_dist.reporting.run_files import RunRecord, Scored
from vadv_dist.reporting.tables import plain_table, score_cells
from vadv_dist.reporting.words import MISSING, whole


def vegas_section(run: RunRecord, evaluation: Scored) -> Section | None:
    """The run's mAP next to Tables 4, 8 and 11; None unless the evaluated clips are VEGAS' test split."""
    counts = Counter[str]()
    for source in run.result.data if run.result is not None else ():
        counts.update(source["rows"])
    if evaluation.split != "test" or not is_vegas(evaluation.predictions.source, counts):
        return None
    metrics = [evaluation.task.metric(key) for key in VEGAS_COLUMNS]
    name = f"This run, {run.config.student.title} {'with teacher' if run.config.has_teacher else 'alone'}"
    own = evaluation.document.metrics[evaluation.task.student.name]
    rows: list[tuple[str | None, list[str]]] = [("ours", [name, MISSING, *score_cells(own, metrics)])]
    for row in (*TABLE_4, *TABLE_8, *TABLE_11):
        rows.append((None, [row.model, f"Table {row.table}", *score_cells({**row.scores}, metrics)]))
    columns = ("Model", "Paper’s table", *(metric.heading for metric in metrics))
    notes = (tag("li", note) for note in _differences(run, counts))
    return Section(
        "paper",
        "Compared with the paper",
        "VEGAS, test split. The paper’s numbers are as printed in VideoAdviser (arXiv:2309.15494).",
        join(plain_table("Compared with the paper", columns, rows), tag("ul", *notes, class_="notes")),
    )


def _differences(run: RunRecord, rows: Counter[str]) -> list[Markup]:
    """Caveats of the comparison, a sentence or two each."""
    notes = [
        "The paper has no validation clips and does not say how its checkpoint was chosen; the published code of "
        "several methods for VEGAS keeps the checkpoint that is best on the test clips, which raises scores. This "
        "run’s was chosen on validation clips.",
    ]
    here = {"train": rows["train"] + rows["valid"], "test": rows["test"]}
    if rows["valid"]:
        notes.append(
            f"{whole(rows['valid'])} clips of train were used for validation, so the student was trained on "
            f"{whole(rows['train'])}."
        )
    if here != VEGAS_ROWS:
        ours, theirs = (" / ".join(whole(sizes[split]) for split in VEGAS_ROWS) for sizes in (here, VEGAS_ROWS))
        notes.append(f"The splits differ: {ours} clips (train with validation / test) here, {theirs} in the paper.")
    if run.config.has_teacher:
        notes.append("The teacher sees one visual vector per clip, the one that the student embeds.")
    notes.append("This run is one seed.")
    return [join(note) for note in notes]
