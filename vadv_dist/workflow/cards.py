"""The page of each stage: its facts and pictures, in one file that loads nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

from vadv_dist.advice.result import Advice, lines
from vadv_dist.data.check_report import Finding, counted
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.shared_videos import Check
from vadv_dist.inference.manifest import MANIFEST
from vadv_dist.reporting.markup import Markup, join, tag
from vadv_dist.reporting.page import Page, Section, document, grid
from vadv_dist.reporting.pictures import Picture
from vadv_dist.reporting.report import report_page
from vadv_dist.reporting.run_files import RUN_FILES, read_run
from vadv_dist.reporting.sections import training_section
from vadv_dist.reporting.style import PALETTE
from vadv_dist.reporting.tables import plain_table
from vadv_dist.storage import Location, local_copy, read_json

_COMMAND = "vadv workflow"
_SPLITS = ("valid", "test")


def data_card(dataset: Dataset, name: str) -> Page:
    """Rows, features and labels of a data set."""
    manifest = dataset.manifest
    rows = [(None, (split, f"{manifest.rows(split):,}")) for split in manifest.splits]
    features = [
        (None, (feature, " × ".join(map(str, spec.shape)), spec.dtype)) for feature, spec in manifest.features.items()
    ]
    label = manifest.label
    words = (
        f"{label.num_classes} classes"
        if label.is_class
        else f"numbers from {label.low:g} to {label.high:g}, negative below {label.positive_from:g}, positive above"
    )
    pictures = [picture for split in manifest.splits if (picture := _histogram(dataset, split)) is not None]
    parts = [
        plain_table("Clips", ("Split", "Clips"), rows),
        plain_table("Features", ("Feature", "Shape", "Type"), features) if features else Markup(""),
        tag("p", f"Labels: {words}. Fingerprint {manifest.fingerprint}."),
        grid(pictures),
    ]
    section = Section("data", "Contents", "", join(*parts), pictures)
    return _page(f"data set {name}", name, "A data set, as training reads it.", [section])


def check_card(check: Check, name: str) -> Page:
    """The findings of a data set check."""
    findings = [*(finding for report in check.reports for finding in report.findings), *check.between]
    checked = sum(report.rows for report in check.reports)
    lede = f"{checked:,} clips checked: hashes, schema, value ranges, duplicates, leaks between splits."
    rows = [(None, (f.level, join(f.where), f"{f.what} {f.advice}")) for f in findings]
    table = plain_table("Findings", ("Level", "Where", "What"), rows) if rows else tag("p", "No findings.")
    return _page(
        f"check of {name}", f"{name}: {_verdict(findings)}", lede, [Section("findings", "Findings", "", table)]
    )


def advice_card(advice: Advice | None, name: str) -> Page:
    """What a teacher can add."""
    if advice is None:
        lede = "Advice compares what words and video tell about labels, and these data do not have both."
        return _page(f"advice on {name}", f"{name}: not applicable", lede, [])
    said = tag("ul", *(tag("li", line.strip()) for line in lines(advice, name)[1:]), class_="notes")
    return _page(f"advice on {name}", f"A teacher: {advice.verdict}", "", [Section("why", "Why", "", said)])


def training_card(run: Location) -> Page:
    """Learning curves of a training."""
    with local_copy(run, RUN_FILES) as folder:
        record = read_run(folder, str(run))
        return _page(record.name, f"{record.name}: training", "", [training_section(record)])


def evaluation_card(run: Location, evaluations: Location) -> Page:
    """The report of a run, with evaluations from another folder."""
    names = [
        f"{kind}-{split}.{end}"
        for split in _SPLITS
        for kind, end in (("evaluation", "json"), ("predictions", "parquet"))
    ]
    with local_copy(run, RUN_FILES) as folder, local_copy(evaluations, names) as scored:
        return report_page(read_run(folder, str(run), evaluations=scored))


def tune_card(search: Location) -> Page:
    """The report of a search."""
    return Page((search / "tune-report.html").read_text(encoding="utf-8"), ())


def study_card(study: Location) -> Page:
    """The page of a study."""
    return Page((study / "study.html").read_text(encoding="utf-8"), ())


def export_card(folder: Location, formats: Sequence[str], of: str) -> Page:
    """Files and sizes of the exported student."""
    sections = []
    for kind in formats:
        files: Mapping[str, Any] = read_json(folder / kind / MANIFEST)["files"]
        rows = [(None, (name, f"{entry['bytes']:,}", entry["sha256"][:16])) for name, entry in files.items()]
        table = plain_table(kind, ("File", "Bytes", "SHA-256"), rows)
        sections.append(Section(kind, kind, "", table))
    lede = f"From {of}, the best of all seeds on the validation split."
    return _page("exported student", "The exported student", lede, sections)


def _page(title: str, headline: str, lede: str, sections: Sequence[Section]) -> Page:
    header = join(tag("h1", headline), tag("p", lede, class_="lede") if lede else "")
    return document(f"{title} · vadv workflow", header, sections, _COMMAND)


def _verdict(findings: Sequence[Finding]) -> str:
    errors, warnings = (sum(finding.level == level for finding in findings) for level in ("error", "warning"))
    if errors:
        return counted(errors, "error")
    return f"usable, {counted(warnings, 'warning')}" if warnings else "usable" if findings else "nothing found"


def _histogram(dataset: Dataset, split: str) -> Picture | None:
    """Labels of a split, from the manifest."""
    statistics, label = dataset.manifest.statistics.get(split), dataset.manifest.label
    found = None if statistics is None else statistics.label_histogram
    if found is None or label.is_class:
        return None
    edges, total = list(found.edges), sum(found.counts)
    shares = [100 * count / total for count in found.counts]
    picture = Picture(f"labels-{split}", f"Labels of {split}", (320, 170))
    picture.frame((edges[0], edges[-1]), (0.0, max(shares) * 1.05), x_label="share of clips (%) by label", ticks=(7, 4))
    for low, high, share in zip(edges[:-1], edges[1:], shares, strict=True):
        if share:
            [bar] = picture.axes.bar((low + high) / 2, share, 0.92 * (high - low), color=PALETTE["label"], alpha=0.8)
            picture.title(bar, [f"{low:g} to {high:g}: {share:.1f} %"])
    picture.label = f"Histogram of the labels of {split}."
    return picture
