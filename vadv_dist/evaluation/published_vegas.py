"""Published results for VEGAS, shown next to a run on the same data set.

Source: VideoAdviser (arXiv:2309.15494), Tables 1, 4, 8 and 11.
"""

from collections.abc import Iterable, Mapping

from vadv_dist.evaluation.published import PublishedRow

# Table 1; the paper has no validation clips.
VEGAS_ROWS = {"train": 22482, "test": 5621}

# Columns of the tables, as metrics of `retrieval.METRICS`.
VEGAS_COLUMNS = ("map_a2v", "map_v2a", "map")


def _row(model: str, table: int, *values: float) -> PublishedRow:
    return PublishedRow(model, table, dict(zip(VEGAS_COLUMNS, values, strict=True)))


TABLE_4 = (
    _row("Random", 4, 0.110, 0.109, 0.109),
    _row("BiC-Net", 4, 0.680, 0.653, 0.667),
    _row("C-CCA", 4, 0.711, 0.704, 0.708),
    _row("C-DCCA", 4, 0.722, 0.716, 0.719),
    _row("DCIL", 4, 0.726, 0.722, 0.724),
    _row("DSCMR", 4, 0.732, 0.721, 0.727),
    _row("TNN-C-CCA", 4, 0.751, 0.738, 0.745),
    _row("CCTL", 4, 0.766, 0.765, 0.766),
    _row("EICS", 4, 0.797, 0.779, 0.788),
    _row("VideoAdviser", 4, 0.825, 0.819, 0.822),
)
# Its first and last rows are "EICS" and "VideoAdviser" of Table 4.
TABLE_8 = (
    _row("Distilled onto visual", 8, 0.794, 0.810, 0.802),
    _row("Distilled onto audio", 8, 0.791, 0.815, 0.803),
)
# Its last row is "VideoAdviser" of Table 4.
TABLE_11 = (
    _row("Distilled by KD", 11, 0.783, 0.612, 0.701),
    _row("Distilled by FitNet", 11, 0.803, 0.781, 0.792),
    _row("Distilled by PKT", 11, 0.824, 0.807, 0.816),
)


def is_vegas(sources: Iterable[str], rows: Mapping[str, int]) -> bool:
    """Whether a data set is VEGAS, judged by the names of all its sources or by the sizes of the splits.

    Args:
        sources: names of the sources of the evaluated clips.
        rows: number of clips by split; those of validation are cut from train.
    """
    names = set(sources)
    sizes = {"train": rows.get("train", 0) + rows.get("valid", 0), "test": rows.get("test", 0)}
    return (bool(names) and all("vegas" in name.casefold() for name in names)) or sizes == VEGAS_ROWS
