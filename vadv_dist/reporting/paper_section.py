"""A run on CMU-MOSI beside the paper's numbers, and what makes the two differ."""

from vadv_dist.reporting.facts import rows_by_split
from vadv_dist.reporting.markup import Markup, join, tag
from vadv_dist.reporting.page import Section
from vadv_dist.reporting.paper import MOSI_ROWS, PAPER_ENCODER, TABLE_2, TABLE_7, PaperRow, is_mosi, is_mosi_name
from vadv_dist.reporting.run_files import Evaluation, Metrics, RunRecord
from vadv_dist.reporting.tables import plain_table
from vadv_dist.reporting.words import READERS, score, whole


def paper_section(run: RunRecord, evaluation: Evaluation) -> Section | None:
    """The run's metrics beside Tables 2 and 7; None where the evaluated clips are not MOSI's test split."""
    scores = mosi_scores(run, evaluation)
    if evaluation.split != "test" or scores is None:
        return None
    name = "This run, with teacher" if run.has_teacher else "This run, student alone"
    rows: list[tuple[str | None, list[str]]] = [("ours", _cells(name, "–", scores["student"]))]
    rows += [
        ("ours", _cells(f"This run, {READERS[reader].lower()}", "–", scores[reader]))
        for reader in scores
        if reader != "student"
    ]
    rows += [(None, _paper_cells(row)) for row in (*TABLE_7, *TABLE_2)]
    columns = ("Model", "Paper’s table", "MAE ↓", "Corr ↑", "A7 ↑", "A2 (has0) ↑", "F1 (has0) ↑")
    table = plain_table("Beside the paper", columns, rows)
    notes = tag("ul", *(tag("li", note) for note in differences(run)), class_="notes")
    return Section(
        "paper",
        "Beside the paper",
        "CMU-MOSI, test split. The paper’s numbers are as printed in VideoAdviser (arXiv:2309.15494).",
        join(table, notes),
    )


def mosi_scores(run: RunRecord, evaluation: Evaluation) -> dict[str, Metrics] | None:
    """Metrics on MOSI: of all clips where they are MOSI's, of one source where one of several is, else None."""
    from vadv_dist.evaluation.label_scale import LabelScale

    if evaluation.scale != LabelScale():  # MOSI's labels on another scale are not the paper's
        return None
    if is_mosi(evaluation.predictions.source, rows_by_split(run)):
        return evaluation.metrics
    sources = [readers for source, readers in evaluation.sources.items() if is_mosi_name(source)]
    return sources[0] if len(sources) == 1 and "student" in sources[0] else None


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
    notes.append(join("A2 and F1 count zero as positive (has0), the paper’s rule. This run is one seed."))
    return notes


def _cells(name: str, table: str, scores: Metrics) -> list[str]:
    shares = (score(scores.get(key), percent=True) for key in ("a7", "a2_has0", "f1_has0"))
    return [name, table, *(score(scores.get(key), percent=False) for key in ("mae", "corr")), *shares]


def _paper_cells(row: PaperRow) -> list[str]:
    scores: Metrics = {"mae": row.mae, "corr": row.corr, "a7": row.a7, "a2_has0": row.a2, "f1_has0": row.f1}
    return _cells(row.model, f"Table {row.table}", scores)
