"""The report of a data set check, as data and in the terminal."""

from dataclasses import asdict, dataclass
from typing import Literal, get_args

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = get_args(Level)


@dataclass(frozen=True)
class Finding:
    """One problem.

    Attributes:
        level: an `error` makes the data set unusable; a `warning` is for the user to consider; a `note` is
            about what many good data sets have.
        file: path relative to the data set.
        row: first affected row of the file, counted from 0; None if the problem is not about rows.
        field: column or field of `dataset.json`; None if the problem is not about one.
        what: the problem.
        advice: what to do.
    """

    level: Level
    file: str
    row: int | None
    field: str | None
    what: str
    advice: str

    @property
    def where(self) -> str:
        """File, row and field as text."""
        row = "" if self.row is None else f" row {self.row}"
        return f"{self.file}{row}" + ("" if self.field is None else f", {self.field}")


@dataclass(frozen=True)
class CheckReport:
    """What was checked, and the findings."""

    uri: str
    shards: int
    rows: int
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> int:
        """Number of findings that make the data set unusable."""
        return sum(finding.level == "error" for finding in self.findings)

    @property
    def ok(self) -> bool:
        """Whether there are no errors; warnings do not count."""
        return self.errors == 0

    def to_json(self) -> dict[str, object]:
        """The report as plain containers, for `--json`."""
        return {**asdict(self), "errors": self.errors, "ok": self.ok}


def render_report(report: CheckReport, console: Console) -> None:
    """Print a report: one block per finding, errors first, and a summary line."""
    for finding in report.findings:
        render_finding(finding, console)
    warnings, notes = (sum(finding.level == level for finding in report.findings) for level in ("warning", "note"))
    looked = f"{report.rows:,} clips in {report.shards:,} shards of {report.uri}"
    noted = f", {counted(notes, 'note')}" if notes else ""
    if not (report.errors or warnings):
        console.print(Text.assemble(("✓", "green"), f" nothing wrong{noted}: {looked}"))
    else:
        mark = ("!", "yellow") if report.ok else ("✗", "red")
        counts = f"{counted(report.errors, 'error')} and {counted(warnings, 'warning')}{noted}"
        console.print(Text.assemble(mark, f" {counts}: {looked}"))


def render_finding(finding: Finding, console: Console) -> None:
    """Print one finding."""
    colour = {"error": "red", "warning": "yellow", "note": "cyan"}[finding.level]
    console.print(Text.assemble((finding.level, f"bold {colour}"), " ", (finding.where, "bold")))
    console.print(Padding(Text(finding.what), (0, 0, 0, 2)))
    console.print(Padding(Text(f"→ {finding.advice}", style="dim"), (0, 0, 0, 2)))


def counted(number: int, noun: str) -> str:
    """A number with its noun in singular or plural."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
