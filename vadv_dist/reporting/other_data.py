"""What the student scores on data that its run was not trained on, apart from the run's own evaluation."""

from vadv_dist.reporting.markup import Markup, join, tag
from vadv_dist.reporting.page import Section
from vadv_dist.reporting.run_files import RunRecord
from vadv_dist.reporting.style import role_of
from vadv_dist.reporting.tables import metrics_table
from vadv_dist.reporting.words import clips
from vadv_dist.runs.records import Evaluation
from vadv_dist.storage import Location

FOLDER = "other-data"


def other_data_files(run: Location) -> list[str]:
    """Names, below a run, of the evaluations on other data."""
    return sorted(f"{FOLDER}/{path.name}" for path in (run / FOLDER).glob("*.json"))


def other_data_section(run: RunRecord) -> Section | None:
    """A table for each evaluation on other data; None where there are none.

    Raises:
        UserError: one of the files is damaged.
    """
    folder = run.path / FOLDER
    parts = [_part(Evaluation.read(path)) for path in sorted(folder.glob("*.json"))] if folder.is_dir() else []
    if not parts:
        return None
    about = "The student on data sets that this run was not trained on, as vadv evaluate --data scored them."
    return Section("other-data", "On other data", about, join(*parts))


def _part(document: Evaluation) -> Markup:
    scored, student = document.data[0], document.task.student
    size, fingerprint = f" · {clips(document.rows, document.split)}", str(scored["fingerprint"])
    warnings = [*(str(leak["told"]) for leak in document.leaks if "told" in leak), *document.remarks]
    rows = [(student.title, role_of(document.task, student), document.metrics[student.name])]
    return join(
        tag("p", tag("b", str(scored["uri"])), size, " · fingerprint ", tag("code", fingerprint[:16])),
        metrics_table(rows, document.task.metrics),
        tag("ul", *(tag("li", warning) for warning in warnings), class_="notes") if warnings else "",
    )
