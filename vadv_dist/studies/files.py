"""Write the documents of a study into its folder."""

from matplotlib.figure import Figure

from vadv_dist.reporting.page import Page
from vadv_dist.reporting.words import SPLITS
from vadv_dist.storage import Location, atomic_file, write_json, write_text
from vadv_dist.studies.analysis import StudyResult
from vadv_dist.studies.page import study_page
from vadv_dist.studies.tables import PAIR_HEADINGS, heading, latex, markdown, mean_text, notes, pair_rows, table

_PAGE = (11.7, 8.3)  # A4 in inches, landscape
_LINES = 46  # of text on a page


def write_study_files(result: StudyResult, root: Location, *, with_pdf: bool) -> None:
    """Write study.html and its pictures, study.md, study.tex, study.pdf if wanted, and study.json last."""
    page = study_page(result)
    page.write(root / "study.html")
    write_text(root / "study.md", markdown(result))
    write_text(root / "study.tex", latex(result))
    if with_pdf:
        _write_pdf(result, page, root / "study.pdf")
    write_json(root / "study.json", result.to_json())


def _write_pdf(result: StudyResult, page: Page, path: Location) -> None:
    """Tables and pictures, by matplotlib, which needs no browser: one table or picture per page."""
    from matplotlib.backends.backend_pdf import PdfPages

    with atomic_file(path) as partial, PdfPages(partial, metadata={"CreationDate": None}) as pages:
        for lines in _text_pages(result):
            figure = Figure(figsize=_PAGE)
            figure.text(0.05, 0.95, "\n".join(lines), family="monospace", size=9, va="top", parse_math=False)
            pages.savefig(figure)
        for picture in page.pictures:
            picture.add_to(pages)


def _text_pages(result: StudyResult) -> list[list[str]]:
    """Lines of the pages with tables."""
    lines = [result.title, "", *_wrapped(result.about), "", *_wrapped(" ".join(notes(result))), ""]
    for split in result.splits:
        columns, rows = table(result, split, mean_text)
        lines += [f"{SPLITS[split].capitalize()} split", *_aligned([columns, *rows]), ""]
        for metric in result.metrics:
            if found := list(pair_rows(result, split, metric)):
                title = f"{heading(metric)}: difference from {result.reference}, {SPLITS[split]} split"
                lines += [title, *_aligned([list(PAIR_HEADINGS), *found]), ""]
    return [lines[start : start + _LINES] for start in range(0, len(lines), _LINES)]


def _wrapped(text: str) -> list[str]:
    from textwrap import wrap

    return wrap(text, 120)


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
