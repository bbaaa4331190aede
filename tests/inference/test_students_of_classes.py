"""Exports of students that predict classes: loaded by transformers and onnxruntime, and predicted with."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tiny_students import MAX_TOKENS, TEXTS, make_card, make_student, make_tokenizer
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from vadv_dist.cli import main
from vadv_dist.errors import UserError
from vadv_dist.inference.export import export_run, export_student, load_student
from vadv_dist.inference.predict import open_text_student
from vadv_dist.inference.predicted_files import predict_file

CLASSES = ("angry", "calm", "glad")


def probabilities(student) -> np.ndarray:
    """Of each text alone: no padding, no batching, no export."""
    tokenizer = make_tokenizer()
    found = []
    with torch.no_grad():
        for text in TEXTS:
            row = tokenizer(text, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
            found.append(student(row["input_ids"], row["attention_mask"]).softmax(-1)[0].numpy())
    return np.array(found)


@pytest.fixture
def student(tmp_path: Path):
    return make_student(tmp_path / "encoder", num_classes=3)


@pytest.fixture
def export(student, tmp_path: Path) -> Path:
    metrics = {"valid": {"accuracy": 0.75, "f1_macro": 0.5, "f1_weighted": 0.6}}
    card = make_card(classes=CLASSES, metrics=metrics)
    export_student(student, make_tokenizer(), tmp_path / "export", card=card)
    return tmp_path / "export"


@pytest.mark.parametrize(("kind", "pooling"), [("bert", "cls"), ("roberta", "cls"), ("bert", "mean")])
def test_pipelines_of_transformers_give_class_names(tmp_path: Path, kind: str, pooling: str) -> None:
    student = make_student(tmp_path / "encoder", kind, pooling=pooling, num_classes=3)
    card = make_card(classes=CLASSES)
    export_student(student, make_tokenizer(), tmp_path / "out", card=card)
    trust = {"trust_remote_code": True} if pooling == "mean" else {}
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out", **trust)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer, top_k=None, device="cpu")
    expected = probabilities(student)
    for text, row in zip(TEXTS, expected, strict=True):
        found = {entry["label"]: entry["score"] for entry in classify([text], truncation=True)[0]}
        assert found == pytest.approx(dict(zip(CLASSES, row, strict=True)), abs=1e-5)
    label = torch.tensor([2])
    row = tokenizer(TEXTS[0], return_tensors="pt")
    loss = model(row["input_ids"], row["attention_mask"], labels=label).loss
    assert float(loss.detach()) == pytest.approx(-np.log(expected[0, 2]), abs=1e-5)
    again, _, _ = load_student(tmp_path / "out")
    np.testing.assert_allclose(probabilities(again), expected, atol=1e-6)


def test_predictions_are_probabilities(export: Path, student) -> None:
    predictor = open_text_student(export, device="cpu")
    assert predictor.classes == CLASSES
    np.testing.assert_allclose(predictor.predict(TEXTS), probabilities(student), atol=1e-6)
    assert predictor.predict([]).shape == (0, 3)


def test_onnx_file_predicts_the_same_and_int8_says_what_changes(export: Path, student, tmp_path: Path) -> None:
    export_run(export, tmp_path / "onnx", format="onnx")
    found = open_text_student(tmp_path / "onnx")
    np.testing.assert_allclose(found.predict(TEXTS), probabilities(student), atol=1e-5)
    config = json.loads((tmp_path / "onnx" / "config.json").read_text())
    assert list(config["id2label"].values()) == list(CLASSES)
    summary = export_run(export, tmp_path / "int8", format="onnx", int8=True)
    assert summary.int8 is not None
    assert "int8 predicts another class than fp32 for " in summary.int8.sentence()
    assert "A softmax of a row gives the probabilities." in (tmp_path / "int8" / "README.md").read_text()


def test_sentence_transformers_is_refused_for_classes(export: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="predicts classes, but sentence-transformers returns an embedding"):
        export_run(export, tmp_path / "out", format="sentence-transformers")
    assert not (tmp_path / "out").exists()


def test_card_names_classes_and_metrics(export: Path) -> None:
    card = (export / "README.md").read_text()
    assert "as a probability of each class: angry, calm, glad." in card
    assert "| valid | 0.7500 | 0.5000 | 0.6000 |" in card
    assert "sentiment-classification" in card
    assert "mean absolute error" not in card


def test_tables_get_the_class_and_a_column_for_each_probability(export: Path, student, tmp_path: Path) -> None:
    rows = [*TEXTS[:2], "", *TEXTS[2:]]
    with (tmp_path / "in.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text", "n"], *([text, n] for n, text in enumerate(rows))])
    expected = probabilities(student)
    predict_file(export, tmp_path / "in.csv", tmp_path / "out.csv", skip_empty=True, device="cpu")
    with (tmp_path / "out.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == ["text", "n", "prediction", *(f"probability_{name}" for name in CLASSES)]
    assert [found[2]["prediction"], found[2]["probability_calm"]] == ["", ""]
    known = found[:2] + found[3:]
    assert [row["prediction"] for row in known] == [CLASSES[one] for one in expected.argmax(axis=1)]
    shares = [[float(row[f"probability_{name}"]) for name in CLASSES] for row in known]
    np.testing.assert_allclose(shares, expected, atol=1e-6)

    (tmp_path / "in.txt").write_text("\n".join(TEXTS) + "\n")
    for suffix in ("jsonl", "parquet"):
        predict_file(export, tmp_path / "in.txt", tmp_path / f"out.{suffix}", device="cpu")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    table = pq.read_table(tmp_path / "out.parquet").to_pylist()
    for one, line, row in zip(expected.argmax(axis=1), lines, table, strict=True):
        assert line["prediction"] == row["prediction"] == CLASSES[one]
        assert line["probability_glad"] == pytest.approx(row["probability_glad"])


def test_printed_predictions(export: Path, student, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(export), "--text", TEXTS[0], "--device", "cpu"]) == 0
    row = probabilities(student)[0]
    name = CLASSES[int(row.argmax())]
    assert capsys.readouterr().out == f"{name:5} {row.max():5.1%}  {TEXTS[0]}\n"
    assert main(["predict", str(export), "--text", TEXTS[0], "--json", "--device", "cpu"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["prediction"] == name
    assert found["probabilities"] == pytest.approx(dict(zip(CLASSES, row, strict=True)), abs=1e-6)


def test_an_interval_of_classes_is_refused(export: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(export), "--text", "fun", "--interval", "0.9"]) == 2
    assert "predicts classes (" in capsys.readouterr().err
