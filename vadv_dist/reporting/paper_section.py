"""A run on CMU-MOSI beside the paper's numbers, and what makes the two differ."""

from collections.abc import Mapping, Sequence

from vadv_dist.evaluation.description import Metric
from vadv_dist.evaluation.published import (
    COLUMNS,
    CONVENTIONS,
    MOSI_ROWS,
    PAPER_ENCODER,
    TABLE_2,
    TABLE_7,
    is_mosi,
    is_mosi_name,
)
from vadv_dist.reporting.facts import rows_by_split
from vadv_dist.reporting.markup import Markup, join, tag
from vadv_dist.reporting.page import Section
from vadv_dist.reporting.run_files import RunRecord, Scored
from vadv_dist.reporting.tables import plain_table
from vadv_dist.reporting.words import score, whole
from vadv_dist.runs.records import Metrics


def paper_section(run: RunRecord, evaluation: Scored) -> Section | None:
    """The run's metrics beside Tables 2 and 7; None where the evaluated clips are not MOSI's test split."""
    scores = mosi_scores(run, evaluation)
    if evaluation.split != "test" or scores is None:
        return None
    name = "This run, with teacher" if run.has_teacher else "This run, student alone"
    metrics = [evaluation.task.metric(key) for key in COLUMNS]
    rows: list[tuple[str | None, list[str]]] = []
    for output in evaluation.task.outputs:
        if output.name in scores:
            who = name if output is evaluation.task.student else f"This run, {output.title.lower()}"
            rows.append(("ours", _cells(who, "–", scores[output.name], metrics)))
    rows += [(None, _cells(row.model, f"Table {row.table}", row.scores, metrics)) for row in (*TABLE_7, *TABLE_2)]
    columns = ("Model", "Paper’s table", *(metric.heading for metric in metrics))
    table = plain_table("Beside the paper", columns, rows)
    notes = tag("ul", *(tag("li", note) for note in differences(run)), class_="notes")
    return Section(
        "paper",
        "Beside the paper",
        "CMU-MOSI, test split. The paper’s numbers are as printed in VideoAdviser (arXiv:2309.15494).",
        join(table, notes),
    )


def mosi_scores(run: RunRecord, evaluation: Scored) -> Metrics | None:
    """Metrics on MOSI: of all clips where they are MOSI's, of one source where one of several is, else None."""
    from vadv_dist.evaluation.label_scale import LabelScale

    if evaluation.scale != LabelScale():  # MOSI's labels on another scale are not the paper's
        return None
    if is_mosi(evaluation.predictions.source, rows_by_split(run)):
        return evaluation.document.metrics
    sources = [source.metrics for name, source in evaluation.document.sources.items() if is_mosi_name(name)]
    return sources[0] if len(sources) == 1 and evaluation.task.student.name in sources[0] else None


def differences(run: RunRecord) -> list[Markup]:
    """What to keep in mind when comparing with the paper, one sentence or two each."""
    notes = []
    encoder = str(run.section("student").get("encoder"))
    if encoder.rstrip("/").rsplit("/", 1)[-1].casefold() == PAPER_ENCODER:
        notes.append(join("The student’s encoder is the one of the paper’s best student, ", tag("code", encoder), "."))
    else:
        told = "The paper’s best student is RoBERTa-Large; its Table 7 also has BERT and RoBERTa-Base."
        notes.append(join("The student’s encoder is ", tag("code", encoder), f". {told}"))
    if run.section("student").get("pretrained") is False:
        notes.append(join("It started from random weights, the paper’s from pretrained ones."))
    if run.section("student").get("freeze_encoder") is True:
        notes.append(join("Its encoder was frozen, as in the last ablation of Table 7."))
    if run.has_teacher:
        notes.append(
            join(
                "The paper’s teacher sees CLIP ViT-L/14 frames and 64 scored face crops per clip; "
                "compare that with the features of this run’s data set (",
                tag("code", "vadv data-info"),
                ").",
            )
        )
    rows = rows_by_split(run)
    if rows and rows != MOSI_ROWS:
        ours, theirs = (" / ".join(whole(r.get(s, 0)) for s in MOSI_ROWS) for r in (rows, MOSI_ROWS))
        notes.append(join(f"The splits differ: {ours} clips (train / valid / test) here, {theirs} in the paper."))
    notes.append(join(f"{CONVENTIONS} This run is one seed."))
    return notes


def _cells(name: str, table: str, scores: Mapping[str, float | None], metrics: Sequence[Metric]) -> list[str]:
    return [name, table, *(score(scores.get(metric.key), percent=metric.percent) for metric in metrics)]
