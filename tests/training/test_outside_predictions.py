"""Predictions that another program made are scored as a run's own are, or refused with one message."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from sklearn.metrics import accuracy_score, f1_score

from vadv_dist.config import load_config
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.sources import Sources
from vadv_dist.data.synth import make_dataset, make_retrieval_dataset
from vadv_dist.errors import UserError
from vadv_dist.launch.driver import train
from vadv_dist.reporting.run_files import read_evaluation
from vadv_dist.runs.records import Evaluation
from vadv_dist.storage import read_json
from vadv_dist.training.evaluate import evaluate_run
from vadv_dist.training.outside_predictions import evaluate_predictions, score_predictions


def sources_of(*places: Path) -> Sources:
    return Sources([Dataset.open(place) for place in places], (), (None,) * len(places))


def write_csv(path: Path, rows, header: str = "clip_id,prediction") -> Path:
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("outside") / "data"
    make_dataset(place, num_clips=60, seed=3)
    return place


@pytest.fixture(scope="module")
def ids(data: Path) -> dict[str, list[str]]:
    return {split: list(Dataset.open(data).column(split, "clip_id")) for split in ("train", "valid", "test")}


def test_a_runs_own_predictions_get_its_own_scores(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        f"run: {{name: run, storage: {tmp_path}}}\n"
        f"data: {{sources: [{{uri: {data}}}], batch_size: 16}}\n"
        f"student: {{encoder: {data / 'encoder'}, pretrained: false, hidden: 32}}\n"
        "objective: {kind: none}\ntrainer: {max_steps: 2, use_gpu: false}\n"
    )
    train(load_config(tmp_path / "run.yaml"), Console(quiet=True))
    own = evaluate_run(tmp_path / "run", "test")
    table = pq.read_table(tmp_path / "run" / "predictions-test.parquet")
    order = np.random.default_rng(0).permutation(table.num_rows)
    rows = [(table["clip_id"][i], repr(table["text_logit"][i].as_py())) for i in order.tolist()]

    found = evaluate_predictions(
        write_csv(tmp_path / "own.csv", rows), sources_of(data), "test", tmp_path / "outside", name="other"
    )
    assert found.metrics["student"] == pytest.approx(
        {key: own.metrics["student"][key] for key in found.metrics["student"]}, abs=1e-6
    )
    assert set(found.metrics["student"]) >= {"mae", "corr", "a7", "a2_has0"}
    assert (found.rows, found.data, found.absent) == (own.rows, own.data, own.absent)
    written = Evaluation.from_json(read_json(tmp_path / "outside" / "evaluation-test.json"))
    assert written.metrics == found.metrics
    again = pq.read_table(tmp_path / "outside" / "predictions-test.parquet")
    for column in ("clip_id", "text", "label", "text_logit"):
        assert again.sort_by("clip_id")[column].to_pylist() == table.sort_by("clip_id")[column].to_pylist()


def test_one_file_holds_all_splits(data: Path, ids, tmp_path: Path) -> None:
    labels = {split: list(Dataset.open(data).column(split, "label")) for split in ids}
    rows = [(c, y + 0.5, split) for split in ids for c, y in zip(ids[split], labels[split], strict=True)]
    file = write_csv(tmp_path / "all.csv", rows, "clip_id,prediction,split")
    for split in ids:
        evaluation, scored = score_predictions(file, sources_of(data), split, name="shifted")
        assert evaluation.rows == len(ids[split])
        assert evaluation.metrics["student"]["mae"] == pytest.approx(0.5, abs=1e-6)
        assert [clip_id for _, clip_id in scored.names] == ids[split]


def refused(file: Path, data: Path, message: str, split: str = "test") -> None:
    with pytest.raises(UserError, match=message):
        score_predictions(file, sources_of(data), split, name="x")


def test_bad_files_are_refused_with_one_message(data: Path, ids, tmp_path: Path) -> None:
    test, good = ids["test"], [(clip_id, 0.5) for clip_id in ids["test"]]

    def file(rows, header="clip_id,prediction"):
        return write_csv(tmp_path / "bad.csv", rows, header)

    refused(tmp_path / "none.csv", data, "none.csv does not exist")
    refused(file(good, "clip_id,predicted"), data, r"no column 'prediction' \(columns: clip_id, predicted\)")
    refused(file([]), data, "has a header line but no rows")
    refused(file(good[1:]), data, rf"no prediction for 1 of the {len(test)} test clips \(the first is '{test[0]}'\)")
    refused(file([*good, good[0]]), data, rf"line {len(test) + 2}: clip '{test[0]}' is already in line 2")
    refused(file([*good, ("nobody", 1)]), data, rf"line {len(test) + 2}: the data set has no clip 'nobody'")
    for cell in ("nan", "inf", "", "much"):
        refused(file([(test[0], cell), *good[1:]]), data, rf"line 2: the prediction for '{test[0]}' is '{cell}'")
    refused(file([(test[0], "1", "2"), *good[1:]]), data, "line 2 has 3 cells, but the header line has 2")
    header = "clip_id,prediction,split"
    refused(file([(*row, "tests") for row in good], header), data, "line 2: split is 'tests'")
    refused(file([(*row, "valid") for row in good], header), data, rf"clip '{test[0]}' is in test, not in valid")
    refused(file(good), data, "Unknown split 'dev'", split="dev")


@pytest.fixture(scope="module")
def classes(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("outside-classes") / "data"
    make_dataset(place, num_clips=60, seed=3, num_classes=3)
    return place


def test_predicted_classes_are_scored(classes: Path, tmp_path: Path) -> None:
    """By name, by number, and with probabilities, as `vadv predict` writes them."""
    dataset = Dataset.open(classes)
    names, label = list(dataset.column("test", "clip_id")), [int(y) for y in dataset.column("test", "label")]
    rng = np.random.default_rng(0)
    probability = rng.dirichlet((1, 1, 1), len(label))
    predicted = probability.argmax(axis=1)
    words = dataset.manifest.label.classes
    by_name = write_csv(tmp_path / "names.csv", [(n, words[p].upper()) for n, p in zip(names, predicted, strict=True)])
    by_number = write_csv(tmp_path / "numbers.csv", zip(names, predicted, strict=True))
    header = ",".join(["clip_id", "prediction", *(f"probability_{word}" for word in words)])
    rows = [(n, words[p], *q) for n, p, q in zip(names, predicted, probability.tolist(), strict=True)]
    with_probabilities = write_csv(tmp_path / "probabilities.csv", rows, header)
    for file in (by_name, by_number, with_probabilities):
        found = evaluate_predictions(file, sources_of(classes), "test", tmp_path / file.stem, name="other")
        scores = found.metrics["student"]
        assert scores["accuracy"] == pytest.approx(accuracy_score(label, predicted))
        assert scores["f1_macro"] == pytest.approx(f1_score(label, predicted, average="macro"))
        written = read_evaluation(tmp_path / file.stem, "test", None)
        assert written is not None
        assert written.task.classes == words
    column = pq.read_table(tmp_path / "probabilities" / "predictions-test.parquet")["text_probabilities"].to_pylist()
    np.testing.assert_allclose(column, probability, atol=1e-6)


def test_bad_predictions_of_classes_are_refused(classes: Path, tmp_path: Path) -> None:
    names = list(Dataset.open(classes).column("test", "clip_id"))

    def bad(row, message, header="clip_id,prediction") -> None:
        good = (["neutral", "0", "1", "0"][: len(row)] for _ in names[1:])
        rows = [(n, *r) for n, r in zip(names, [row, *good], strict=True)]
        refused(write_csv(tmp_path / "bad.csv", rows, header), classes, message)

    bad(["netural"], "line 2: the prediction for .* is 'netural', expected one of .* Did you mean 'neutral'")
    bad(["3"], "or a number from 0 to 2")
    bad(["neutral", "0"], "no column 'probability_neutral'", "clip_id,prediction,probability_negative")
    header = "clip_id,prediction,probability_negative,probability_neutral,probability_positive"
    bad(["neutral", "0", "0.5", "0"], "has the probabilities 0, 0.5, 0, expected", header)
    bad(["neutral", "0", "0.4", "0.6"], "is 'neutral', but 'positive' has the highest", header)


def test_ambiguous_clips_and_clips_of_other_data_are_refused(data: Path, ids, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "p.csv", [(clip_id, 0.5) for clip_id in ids["test"]])
    with pytest.raises(UserError, match="and so has another source, so its prediction is ambiguous"):
        score_predictions(file, sources_of(data, data), "test", name="x")
    make_retrieval_dataset(tmp_path / "classes", num_clips=60, num_classes=3)
    refused(file, tmp_path / "classes", "line 2: the prediction for .* is '0.5', expected one of")
