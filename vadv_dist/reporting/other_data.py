"""What the student scores on data that its run was not trained on, apart from the run's own evaluation."""

from collections.abc import Mapping
from pathlib import Path

from vadv_dist.reporting.markup import Markup, join, tag
from vadv_dist.reporting.page import Section
from vadv_dist.reporting.run_files import Record, RunRecord, metrics_of, scale_of
from vadv_dist.reporting.tables import metrics_table
from vadv_dist.reporting.words import READERS, clips
from vadv_dist.storage import Location, read_json

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
    documents = [read_json(path) for path in sorted(folder.glob("*.json"))] if folder.is_dir() else []
    parts = [_part(document, run.path) for document in documents if "student" in metrics_of(document)]
    if not parts:
        return None
    about = "The student on data sets that this run was not trained on, as vadv evaluate --data scored them."
    return Section("other-data", "On other data", about, join(*parts))


def _part(document: Record, run: Path) -> Markup:
    data = document.get("data")
    scored = data[0] if isinstance(data, list) and data and isinstance(data[0], Mapping) else {}
    rows, split = document.get("rows"), str(document.get("split"))
    size = f" · {clips(rows, split)}" if isinstance(rows, int) else ""
    fingerprint = str(scored.get("fingerprint", "?"))
    leaks = document.get("leaks")
    warnings = [str(leak["told"]) for leak in leaks if "told" in leak] if isinstance(leaks, list) else []
    warnings += [str(remark) for remark in document.get("remarks", [])]
    scale = scale_of(document, "An evaluation on other data", "vadv evaluate RUN --data URI")
    return join(
        tag("p", tag("b", str(scored.get("uri", "?"))), size, " · fingerprint ", tag("code", fingerprint[:16])),
        metrics_table([(READERS["student"], "student", metrics_of(document)["student"])], scale),
        tag("ul", *(tag("li", warning) for warning in warnings), class_="notes") if warnings else "",
    )
