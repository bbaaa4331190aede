"""A run on CMU-MOSI next to the paper's numbers, and how the two differ."""

from collections import Counter

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
from vadv_dist.reporting.markup import Markup, join, tag
from vadv_dist.reporting.page import Section
from vadv_dist.reporting.run_files import RunRecord, Scored
from vadv_dist.reporting.tables import plain_table, score_cells
from vadv_dist.reporting.words import MISSING, whole
from vadv_dist.runs.records import Metrics


def paper_section(run: RunRecord, evaluation: Scored) -> Section | None:
    """The run's metrics next to Tables 2 and 7; None unless the evaluated clips are MOSI's test split."""
    counts = Counter[str]()
    for source in run.result.data if run.result is not None else ():
        counts.update(source["rows"])
    rows_by_split = {split: count for split, count in counts.items() if count}
    scores = _mosi_scores(evaluation, rows_by_split)
    if evaluation.split != "test" or scores is None:
        return None
    name = "This run, with teacher" if run.config.has_teacher else "This run, student alone"
    metrics = [evaluation.task.metric(key) for key in COLUMNS]
    rows: list[tuple[str | None, list[str]]] = []
    for output in evaluation.outputs:
        who = name if output is evaluation.task.student else f"This run, {output.title.lower()}"
        if output.name in scores:
            rows.append(("ours", [who, MISSING, *score_cells(scores[output.name], metrics)]))
    for row in (*TABLE_7, *TABLE_2):
        rows.append((None, [row.model, f"Table {row.table}", *score_cells({**row.scores}, metrics)]))
    columns = ("Model", "Paper’s table", *(metric.heading for metric in metrics))
    notes = (tag("li", note) for note in _differences(run, rows_by_split))
    return Section(
        "paper",
        "Compared with the paper",
        "CMU-MOSI, test split. The paper’s numbers are as printed in VideoAdviser (arXiv:2309.15494).",
        join(plain_table("Compared with the paper", columns, rows), tag("ul", *notes, class_="notes")),
    )


def _mosi_scores(evaluation: Scored, rows_by_split: dict[str, int]) -> Metrics | None:
    """Metrics on MOSI: of all clips if they are MOSI's, of one source if one of several is, else None."""
    from vadv_dist.evaluation.label_scale import LabelScale

    if evaluation.scale != LabelScale():  # MOSI's labels on another scale are not the paper's
        return None
    if is_mosi(evaluation.predictions.source, rows_by_split):
        return evaluation.document.metrics
    sources = [source.metrics for name, source in evaluation.document.sources.items() if is_mosi_name(name)]
    return sources[0] if len(sources) == 1 and evaluation.task.student.name in sources[0] else None


def _differences(run: RunRecord, rows_by_split: dict[str, int]) -> list[Markup]:
    """Caveats of the comparison with the paper, one or two sentences each."""
    student = run.config.text_student
    assert student is not None  # the paper's numbers are those of sentiment
    if student.encoder.rstrip("/").rsplit("/", 1)[-1].casefold() == PAPER_ENCODER:
        first = join("The student’s encoder is that of the paper’s best student, ", tag("code", student.encoder), ".")
    else:
        others = "The paper’s best student is RoBERTa-Large; its Table 7 also has BERT and RoBERTa-Base."
        first = join("The student’s encoder is ", tag("code", student.encoder), f". {others}")
    notes = [first]
    if not student.pretrained:
        notes.append(join("It was initialised at random; the paper’s was pretrained."))
    if student.freeze_encoder:
        notes.append(join("Its encoder was frozen, as in the last ablation of Table 7."))
    if run.config.has_teacher:
        features = "The paper’s teacher sees CLIP ViT-L/14 frames and 64 scored face crops per clip; "
        command = tag("code", "vadv data-info")
        notes.append(join(features, "compare that with the features of this run’s data set (", command, ")."))
    if rows_by_split and rows_by_split != MOSI_ROWS:
        ours, theirs = (" / ".join(whole(r.get(s, 0)) for s in MOSI_ROWS) for r in (rows_by_split, MOSI_ROWS))
        notes.append(join(f"The splits differ: {ours} clips (train / valid / test) here, {theirs} in the paper."))
    notes.append(join(f"{CONVENTIONS} This run is one seed."))
    return notes
