"""Published results for CMU-MOSI, shown next to a run on the same data set.

Source: VideoAdviser (arXiv:2309.15494), Tables 1, 2 and 7. Percentages there are fractions here. The paper counts zero
as positive, which is the convention `has0` of `label_scale`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# Table 1: clips of the official split.
MOSI_ROWS = {"train": 1284, "valid": 229, "test": 686}

# The encoder of the paper's best student.
PAPER_ENCODER = "roberta-large"


@dataclass(frozen=True)
class PublishedRow:
    """One model's results on MOSI's test split: its table in the paper, and values by metric."""

    model: str
    table: int
    scores: Mapping[str, float]


# Columns of the tables, as metrics of `LabelScale()`.
COLUMNS = ("mae", "corr", "a7", "a2_has0", "f1_has0")


def _row(model: str, table: int, *values: float | None) -> PublishedRow:
    return PublishedRow(model, table, {k: v for k, v in zip(COLUMNS, values, strict=True) if v is not None})


TABLE_2 = (
    _row("MISA", 2, 0.804, 0.764, None, 0.808, 0.808),
    _row("VAE-AMDT", 2, 0.716, None, None, 0.843, 0.842),
    _row("MAG-BERT", 2, 0.712, 0.796, None, 0.842, 0.841),
    _row("Self-MM", 2, 0.713, 0.798, None, 0.840, 0.844),
    _row("MMIM", 2, 0.700, 0.800, 0.467, 0.841, 0.840),
    _row("UniMSE", 2, 0.691, 0.809, 0.487, 0.859, 0.853),
    _row("VideoAdviser", 2, 0.568, 0.872, 0.513, 0.877, 0.879),
    _row("Human", 2, 0.710, 0.820, None, 0.857, 0.875),
)

# Its "Student (RoBERTa-Large)" is "VideoAdviser" of Table 2.
TABLE_7 = (
    _row("BERT alone", 7, 0.753, None, None, 0.841, 0.836),
    _row("BERT with teacher", 7, 0.704, None, None, 0.847, 0.838),
    _row("RoBERTa-Base alone", 7, 0.719, None, None, 0.846, 0.843),
    _row("RoBERTa-Base with teacher", 7, 0.660, None, None, 0.854, 0.846),
    _row("RoBERTa-Large alone", 7, 0.660, None, None, 0.873, 0.873),
    _row("RoBERTa-Large with teacher", 7, 0.568, None, None, 0.877, 0.879),
    _row("RoBERTa-Large with teacher, encoder frozen", 7, 1.478, None, None, None, None),
    _row("Teacher (CLIP-based)", 7, None, None, None, 0.573, None),
)
# Sentences on the paper's conventions, for whoever shows these tables.
CONVENTIONS = "A2 and F1 count zero as positive (has0), the paper’s rule."


def is_mosi_name(source: str) -> bool:
    """Whether the name of a source is CMU-MOSI (and not CMU-MOSEI)."""
    name = source.casefold()
    return "mosi" in name and "mosei" not in name


def is_mosi(sources: Iterable[str], rows: Mapping[str, int]) -> bool:
    """Whether a data set is CMU-MOSI, judged by the names of all its sources or by the sizes of the official split.

    Args:
        sources: names of the sources of the evaluated clips.
        rows: number of clips by split.
    """
    names = set(sources)
    return (bool(names) and all(map(is_mosi_name, names))) or dict(rows) == MOSI_ROWS
