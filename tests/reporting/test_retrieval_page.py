"""The page of a retrieval run, from files as `vadv train` and `vadv evaluate` write them."""

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_report_page import Page

from vadv_dist.config import config_from_dict, config_to_yaml
from vadv_dist.errors import UserError
from vadv_dist.evaluation import retrieval
from vadv_dist.evaluation.published_vegas import TABLE_4, VEGAS_ROWS, is_vegas
from vadv_dist.objectives.retrieval import VIDEO
from vadv_dist.reporting.comparison import compare_records
from vadv_dist.reporting.report import report_page
from vadv_dist.reporting.retrieval_examples import examples
from vadv_dist.reporting.retrieval_figures import by_chance, confusion_of_first, curve_pictures
from vadv_dist.reporting.run_files import read_run
from vadv_dist.runs.records import EpochLine, Evaluation, StartLine, StepLine, finite
from vadv_dist.students.eics import Eics
from vadv_dist.tasks.retrieval import accuracy, describe

CLASSES = ("baby <cry>", "drum", "rain")
DATA = {"uri": "data/sounds", "fingerprint": "ab" * 32}


def write_run(folder, pair, label, *, teacher=True, source="sounds", classes=CLASSES):
    """A run's folder; `pair` [R, 2, E] are the student's embeddings of the test clips."""
    folder.mkdir()
    raw = {
        "run": {"name": folder.name},
        "task": {"kind": "retrieval"},
        "student": {"kind": "eics"},
        "objective": {"kind": "step" if teacher else "none"},
    }
    (folder / "config.yaml").write_text(config_to_yaml(config_from_dict(raw)), encoding="utf-8")
    terms = (*Eics.described, *([VIDEO] if teacher else []))
    task = describe(terms, video=teacher, classes=classes)
    scores = {"student": {"map": 0.4, "map_a2v": 0.3, "map_v2a": 0.5}, "video": {"accuracy": 0.8}}
    validation = {output.name: scores[output.name] for output in task.outputs}
    rates = {
        "lr": 0.1,
        "grad_norm": 1.0,
        "samples_per_s": 10.0,
        "tokens_per_s": None,
        "data_wait_s": 0.0,
        "line_s": 1.0,
    }
    values = {"explicit": 0.5, "total": 1.5}
    lines = [
        StartLine(step=0, epoch=0, steps=2, epochs=2, workers=0, task=task),
        StepLine(step=1, epoch=0, terms=values, **rates),
        EpochLine(step=1, epoch=0, validation=validation, train=values, best=False, seconds=1.0),
        EpochLine(step=2, epoch=1, validation=validation, train=values, best=True, seconds=2.0),
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line.to_json()) + "\n" for line in lines))
    count = len(label)
    columns = {
        "clip_id": [f"clip{i:02d}" for i in range(count)],
        "source": [source] * count,
        "text": [""] * count,
        "label": pa.array(label, pa.float32()),
        "embeddings": pa.FixedSizeListArray.from_arrays(pa.array(pair.astype(np.float32).reshape(-1)), pair[0].size),
    }
    metrics = {"student": {**retrieval.score(pair, label), "accuracy": 0.75}}
    if teacher:
        logit = np.eye(len(classes), dtype=np.float32)[label.astype(int)]
        columns["video_logit"] = pa.FixedSizeListArray.from_arrays(pa.array(logit.reshape(-1)), len(classes))
        metrics["video"] = {"accuracy": accuracy(logit, label)}
    pq.write_table(pa.table(columns), folder / "predictions-test.parquet")
    document = Evaluation(
        run=folder.name, split="test", step=2, rows=count, dropped=0, data=[DATA], texts_cut={}, task=task,
        labels=None, absent={}, metrics=finite(metrics), remarks=[], sources={},
    )  # fmt: skip
    (folder / "evaluation-test.json").write_text(json.dumps(document.to_json()), encoding="utf-8")
    return folder


def embeddings(noise, count=30, seed=0):
    """Embeddings [R, 2, 3] near their class's axis, and labels [R]."""
    rng = np.random.default_rng(seed)
    label = np.arange(count) % 3
    return np.eye(3)[label][:, None].repeat(2, axis=1) + rng.normal(0, noise, (count, 2, 3)), label.astype(float)


def test_page_has_the_sections_of_retrieval_and_escapes_names(tmp_path):
    run = read_run(write_run(tmp_path / "taught", *embeddings(0.5)))
    page = Page(report_page(run).html)
    assert page.headings == [
        "Metrics",
        "Training",
        "Precision",
        "Classes among the first 10",
        "Example retrievals",
        "Run",
    ]
    # Scores; two validations, explicit, total, rate and norm; two curves and classes; two matrices.
    assert len(page.all("svg")) == 1 + 6 + 3 + 2
    assert "names the right class of 100.0% by its video logit" in page.text
    assert "words" not in page.text.casefold()
    assert "baby <cry>" in page.text
    assert "<cry>" not in page.source


def test_outputs_with_other_metrics_get_a_row_per_metric_and_no_dashes(tmp_path):
    page = report_page(read_run(write_run(tmp_path / "taught", *embeddings(0.5)))).html
    table = page[page.index('aria-label="Metrics"') :]
    table = table[: table.index("</table>")]
    assert table.count("<tr") == 1 + 7
    assert "–" not in table
    assert "100.0%" in table


def test_examples_are_the_median_of_their_class_with_their_nearest_items(tmp_path):
    pair, label = embeddings(0.6)
    scored = read_run(write_run(tmp_path / "taught", pair, label)).evaluation
    found = examples(scored, "a2v")
    pair = scored.predictions.values["student"]
    precision = retrieval.average_precision(pair[:, 0], pair[:, 1], label, label)
    unit = pair / np.linalg.norm(pair, axis=2, keepdims=True)
    assert [int(label[example.row]) for example in found] == [0, 1, 2]
    for example in found:
        mine = sorted(precision[label == label[example.row]])
        assert example.precision == mine[(len(mine) - 1) // 2]
        order = sorted(range(len(label)), key=lambda row, query=example.row: -float(unit[query, 0] @ unit[row, 1]))
        assert example.items == order[:10]
        assert example.own_rank == order.index(example.row) + 1


def test_a_clip_without_a_modality_is_neither_query_nor_item(tmp_path):
    pair, label = embeddings(0.2)
    pair[0, 1] = math.nan  # has no visual vector
    run = read_run(write_run(tmp_path / "taught", pair, label))
    assert all(0 not in example.items for example in examples(run.evaluation, "a2v"))
    assert all(example.row != 0 for example in examples(run.evaluation, "v2a"))
    assert math.isnan(run.evaluation.clip_scores[0])
    assert report_page(run).html
    assert compare_records(run, run, "test").num_clips == 29


def test_chance_is_the_exact_expectation_of_random_rankings(tmp_path):
    pair, label = embeddings(0.2, count=12)
    scored = read_run(write_run(tmp_path / "taught", pair, label)).evaluation
    rng = np.random.default_rng(1)
    drawn = [retrieval.score(rng.normal(size=(12, 2, 8)), label)["map"] for _ in range(3000)]
    assert by_chance(scored) == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / math.sqrt(3000))


def test_pictures_say_precision_at_ten_and_along_the_curve(tmp_path):
    pair, label = embeddings(0.0)
    scored = read_run(write_run(tmp_path / "perfect", pair, label)).evaluation
    assert "1.00 at recall 0.5" in curve_pictures(scored)[0].label
    assert [picture.note for picture in confusion_of_first(scored)] == ["precision at 10: 100 %"] * 2


def test_gain_is_that_of_mean_average_precision(tmp_path):
    (good, label), (bad, _) = embeddings(0.3), embeddings(1.5, seed=1)
    alone = read_run(write_run(tmp_path / "alone", bad, label, teacher=False))
    taught = read_run(write_run(tmp_path / "taught", good, label))
    comparison = compare_records(alone, taught, "test")
    assert comparison.score_before == pytest.approx(alone.evaluation.document.metrics["student"]["map"])
    assert comparison.gain.mean == pytest.approx(comparison.score_after - comparison.score_before)
    assert comparison.gain.low > 0
    assert "The student’s mAP is" in comparison.sentence
    assert "better" in comparison.sentence
    page = Page(report_page(taught, [alone]).html)
    assert "Student trained alone" in page.text


def test_damaged_embeddings_are_refused(tmp_path):
    pair, label = embeddings(0.3)
    pair[3, 0, 1] = math.nan
    folder = write_run(tmp_path / "nan", np.nan_to_num(pair), label)
    table = pq.read_table(folder / "predictions-test.parquet")
    values = pa.FixedSizeListArray.from_arrays(pa.array(pair.astype(np.float32).reshape(-1)), 6)
    at = table.column_names.index("embeddings")
    pq.write_table(table.set_column(at, "embeddings", values), folder / "predictions-test.parquet")
    with pytest.raises(UserError, match="1 embeddings that are not finite in part"):
        read_run(folder)
    pq.write_table(table.set_column(at, "embeddings", table["label"]), folder / "predictions-test.parquet")
    with pytest.raises(UserError, match="not one for each modality"):
        read_run(folder)


def test_vegas_is_shown_next_to_the_papers_table(tmp_path):
    page = Page(report_page(read_run(write_run(tmp_path / "run", *embeddings(0.5), source="vegas_feature_norm"))).html)
    assert "Compared with the paper" in page.headings
    assert all(row.model in page.text for row in TABLE_4)
    assert "best on the test clips" in page.text
    assert (
        "Compared with the paper"
        not in Page(report_page(read_run(write_run(tmp_path / "other", *embeddings(0.5)))).html).headings
    )


@pytest.mark.parametrize(
    ("sources", "rows", "expected"),
    [
        (["vegas_feature_norm"], {}, True),
        (["file"], {"train": 20234, "valid": 2248, "test": 5621}, True),
        (["file"], {"train": 20234, "valid": 2248, "test": 5620}, False),
        (["vegas", "ave"], {}, False),
    ],
)
def test_vegas_is_recognised_by_its_name_or_its_sizes(sources, rows, expected):
    assert is_vegas(sources, rows) is expected
    assert sum(VEGAS_ROWS.values()) == 28_103  # Table 1
