"""Truncated texts, counted by hand: each word is a token here, plus two special tokens per text."""

import csv
import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from tiny_students import MAX_TOKENS, make_tokenizer

from vadv_dist.cli import main
from vadv_dist.data.readers.table import ingest_table
from vadv_dist.inference.predict import predict_texts
from vadv_dist.inference.token_counts import TokenCounts, count_tokens, count_words

# 3, 10, 11 and 14 tokens including special ones.
TEXTS = ["good", "the film was very good and i liked", "the film was very good and i liked it", "a " * 12]


def test_a_text_at_the_limit_is_not_truncated() -> None:
    assert count_tokens(make_tokenizer(), TEXTS, 10) == TokenCounts(texts=4, cut=2, longest=14, bound=10)
    assert count_tokens(make_tokenizer(), TEXTS, 14).cut == 0
    assert count_tokens(make_tokenizer(), [], 14) == TokenCounts(0, 0, 0, 14)
    assert count_words([1, 8, 9, 12], 8) == TokenCounts(4, 2, 12, 8)


def test_many_texts_are_counted_in_pieces(monkeypatch) -> None:
    monkeypatch.setattr("vadv_dist.inference.token_counts._CHUNK", 3)
    assert count_tokens(make_tokenizer(), TEXTS * 5, 10) == TokenCounts(texts=20, cut=10, longest=14, bound=10)


def test_sentence_has_count_and_fraction() -> None:
    assert (
        TokenCounts(400, 12, 131, 64).sentence()
        == "12 of 400 texts (3.0%) are truncated at 64 tokens; the longest has 131"
    )
    assert TokenCounts(8, 1, 82, 64).sentence("training texts").startswith("1 of 8 training texts (12.5%) is truncated")
    assert TokenCounts(9000, 1, 82, 64).sentence().startswith("1 of 9,000 texts (under 0.1%) is truncated")
    assert TokenCounts(4, 0, 9, 64).sentence() == "none of 4 texts is truncated at 64 tokens; the longest has 9"
    assert TokenCounts.from_json(json.loads(json.dumps(TokenCounts(8, 1, 82, 64).to_json()))) == TokenCounts(
        8, 1, 82, 64
    )


def test_prediction_reports_truncated_texts(export: Path) -> None:
    counts: list[TokenCounts] = []
    predict_texts(export, TEXTS, tell=counts.append)
    assert counts == [TokenCounts(texts=4, cut=2, longest=14, bound=MAX_TOKENS)]


def test_vadv_predict_warns_about_truncated_texts(export: Path, tmp_path: Path, capsys) -> None:
    assert main(["predict", str(export), "--text", TEXTS[0], "--text", TEXTS[3]]) == 0
    assert "warning: 1 of 2 texts (50.0%) is truncated at 10 tokens; the longest has 14" in capsys.readouterr().err
    assert main(["predict", str(export), "--text", TEXTS[1]]) == 0
    assert capsys.readouterr().err == ""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Twelve clips, four per split, with the texts above."""
    path = tmp_path / "words.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "video_id", "split", "label", "text"])
        for split in ("train", "valid", "test"):
            rows.writerows([f"{split}_{i}", split, split, i - 1.5, text] for i, text in enumerate(TEXTS))
    return path


def test_vadv_ingest_counts_tokens_with_a_tokenizer_or_else_words(
    table: Path, export: Path, tmp_path: Path, capsys
) -> None:
    command = ["ingest", "table", "--csv", str(table)]
    assert main([*command, "--out", str(tmp_path / "a"), "--tokenizer", str(export), "--max-tokens", "10"]) == 0
    assert "  train: 2 of 4 texts (50.0%) are truncated at 10 tokens; the longest has 14" in capsys.readouterr().out
    assert main([*command, "--out", str(tmp_path / "b"), "--max-tokens", "10"]) == 0
    assert "  valid: 1 of 4 texts have more than 10 words (longest: 12)" in capsys.readouterr().out
    assert main([*command, "--out", str(tmp_path / "c")]) == 0
    assert "words" not in capsys.readouterr().out.partition("\n")[2]
    assert (
        main([*command, "--out", str(tmp_path / "d"), "--tokenizer", str(export), "--max-tokens", "10", "--json"]) == 0
    )
    assert json.loads(capsys.readouterr().out)["texts_cut"]["test"]["cut"] == 2


def test_a_missing_tokenizer_is_reported_before_anything_is_written(table: Path, tmp_path: Path, capsys) -> None:
    command = ["ingest", "table", "--csv", str(table), "--out", str(tmp_path / "a")]
    assert main([*command, "--tokenizer", str(tmp_path / "nowhere")]) == 2
    assert not (tmp_path / "a").exists()


def test_training_reports_and_records_truncated_texts(table: Path, tmp_path: Path, write_config) -> None:
    from vadv_dist.config import load_config
    from vadv_dist.launch.driver import train
    from vadv_dist.training.evaluate import evaluate_run

    ingest_table(table, tmp_path / "data")
    config = load_config(
        write_config(uri=tmp_path / "data"),
        [
            "--objective.kind=none",
            "--data.max_tokens=10",
            "--trainer.epochs=1",
            f"--student.encoder={encoder(tmp_path)}",
        ],
    )
    console = Console(record=True, width=200, file=io.StringIO())
    result = train(config, console).to_json()
    said = console.export_text()
    assert "2 of 4 training texts (50.0%) are truncated at 10 tokens; the longest has 14" in said
    assert "2 of 4 validation texts (50.0%) are truncated at 10 tokens" in said
    assert result["texts_cut"]["valid"] == {"texts": 4, "cut": 2, "longest": 14, "bound": 10, "share": 0.5}
    assert evaluate_run(tmp_path / "runs" / "run", "test").to_json()["texts_cut"]["cut"] == 2


def encoder(tmp_path: Path) -> Path:
    """A tiny BERT without weights, with the tokenizer of `TEXTS`."""
    from transformers import BertConfig

    folder = tmp_path / "encoder"
    make_tokenizer().save_pretrained(folder)
    BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    ).save_pretrained(folder)
    return folder
