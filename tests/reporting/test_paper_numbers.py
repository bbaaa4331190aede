import json
from pathlib import Path

import pytest

from vadv_dist.evaluation.published import COLUMNS, MOSI_ROWS, TABLE_2, TABLE_7, is_mosi
from vadv_dist.evaluation.published_vegas import TABLE_4, TABLE_8, TABLE_11, VEGAS_COLUMNS

TABLES = Path(__file__).parents[3] / "shared" / "paper_tables.json"


@pytest.mark.parametrize(
    ("sources", "rows", "expected"),
    [
        (["cmu-mosi"], {}, True),
        (["CMU_MOSI", "mosi-extra"], {"train": 5}, True),
        (["cmu_mosei"], {}, False),
        (["cmu_mosei", "cmu_mosi"], {}, False),
        (["segments.csv"], {"train": 1284, "valid": 229, "test": 686}, True),
        (["segments.csv"], {"train": 1284, "valid": 229, "test": 685}, False),
        (["made"], {}, False),
    ],
)
def test_mosi_is_recognised_by_its_name_or_its_sizes(sources, rows, expected):
    assert is_mosi(sources, rows) is expected


@pytest.mark.real_data
def test_numbers_are_those_of_the_papers_tables():
    if not TABLES.is_file():
        pytest.skip("the paper's tables are not here")
    tables = json.loads(TABLES.read_text())

    def rows_of(number, prefix=""):
        table = tables[number]
        for row in table["rows"]:
            values = dict(zip(table["columns"], row, strict=True))
            yield tuple(values.get(f"{prefix}{name}") for name in ("mae", "corr", "a7", "a2", "f1"))

    def ours(rows):
        found = ([row.scores.get(key) for key in COLUMNS] for row in rows)
        return sorted(str((*row[:2], *(x and round(100 * x, 4) for x in row[2:]))) for row in found)

    assert ours(TABLE_2) == sorted(map(str, rows_of("2", "mosi_")))
    assert ours(TABLE_7) == sorted(map(str, rows_of("7")))
    for number, rows in (("4", TABLE_4), ("8", TABLE_8), ("11", TABLE_11)):
        printed = {tuple(row[1:]) for row in tables[number]["rows"]}
        assert {tuple(row.scores[key] for key in VEGAS_COLUMNS) for row in rows} <= printed
    assert [row.model for row in TABLE_4] == [row[0] for row in tables["4"]["rows"]]
    assert list(MOSI_ROWS.values()) == tables["1"]["rows"][0][1:4]
