import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from tiny_students import MAX_TOKENS, TEXTS, make_card, make_student, one_by_one
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import vadv_dist.inference.export as export_module
from vadv_dist.errors import UserError
from vadv_dist.inference.export import export_run, export_student, load_student
from vadv_dist.inference.manifest import resolve_student

CUSTOM = {
    "mean": ({"pooling": "mean"}, "read the first token, but this student pools by mean"),
    "electra": ({"model_type": "electra"}, "no sequence classifier with a tanh head for 'electra'"),
    "wide": ({"hidden": 20}, "hidden width 20 exceeds the encoder's width 16"),
}

# A machine with only torch, transformers and the folder. Prints the scores of both ways to use it.
STRANGER = """
import sys
sys.modules["vadv_dist"] = None
import json, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
texts, answers = json.loads(sys.argv[1]), {}
for folder in sys.argv[2:]:
    trust = not folder.endswith("standard")
    try:
        AutoModelForSequenceClassification.from_pretrained(folder)
        refused = False
    except Exception:
        refused = True
    model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=trust)
    batch = AutoTokenizer.from_pretrained(folder)(texts, truncation=True, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**batch).logits[:, 0].tolist()
    classify = pipeline("text-classification", model=folder, trust_remote_code=trust, device="cpu")
    rows = classify(texts, truncation=True, batch_size=3)
    answers[folder] = {
        "logits": logits, "scores": [row["score"] for row in rows], "labels": [row["label"] for row in rows],
        "refused_without_trust": refused,
    }
print()  # end the line of a prompt, if any
print(json.dumps(answers))
"""


@pytest.mark.slow
def test_transformers_alone_gives_the_students_scores(tokenizer, tmp_path):
    kinds = {"standard": {}, "mean": {"pooling": "mean"}, "electra": {"model_type": "electra"}}
    expected = {}
    for name, options in kinds.items():
        student = make_student(tmp_path / "encoder" / name, **options)
        export_student(student, tokenizer, tmp_path / name, card=make_card())
        expected[str(tmp_path / name)] = one_by_one(student, tokenizer)
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", STRANGER, json.dumps(TEXTS), *expected],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    for folder, scores in expected.items():
        answer = answers[folder]
        assert max(scores) > 1 or min(scores) < 0, "a sigmoid over these scores must not go unnoticed"
        assert answer["logits"] == pytest.approx(scores, abs=1e-5)
        assert answer["scores"] == pytest.approx(scores, abs=1e-5)
        assert set(answer["labels"]) == {"sentiment"}
        # Without trust_remote_code, nothing may load a standard class with an untrained head instead.
        assert answer["refused_without_trust"] == (not folder.endswith("standard"))


@pytest.mark.parametrize(
    "model_type", ["bert", "roberta", "xlm-roberta", "camembert", "mpnet", "albert", "deberta", "deberta-v2"]
)
def test_standard_class_matches_the_student(model_type, tokenizer, tmp_path):
    student = make_student(tmp_path / "encoder", model_type)
    summary = export_student(student, tokenizer, tmp_path / "out", card=make_card())
    assert summary.custom_reason is None
    model, report = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert type(model).__name__ == summary.architecture
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    batch = tokenizer(TEXTS, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
    with torch.no_grad():
        logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, 0]
    assert logits.tolist() == pytest.approx(one_by_one(student, tokenizer), abs=1e-5)


@pytest.mark.parametrize("kind", CUSTOM)
def test_export_reports_why_no_standard_class_fits(kind, tokenizer, tmp_path):
    options, reason = CUSTOM[kind]
    student = make_student(tmp_path / "encoder", **options)
    summary = export_student(student, tokenizer, tmp_path / "out", card=make_card())
    assert reason in summary.custom_reason
    assert "trust_remote_code=True" in str(summary)
    card = (tmp_path / "out" / "README.md").read_text()
    assert reason in card
    assert 'model="path/to/this/folder", trust_remote_code=True' in card


@pytest.mark.parametrize("options", [{}, {"model_type": "roberta"}, *(options for options, _ in CUSTOM.values())])
def test_loaded_student_has_the_exported_weights(options, tokenizer, tmp_path):
    student = make_student(tmp_path / "encoder", **options)
    export_student(student, tokenizer, tmp_path / "out", card=make_card())
    loaded, _, max_tokens = load_student(tmp_path / "out")
    assert max_tokens == MAX_TOKENS
    assert not loaded.training
    assert loaded.pooling == student.pooling
    weights, expected = loaded.state_dict(), student.state_dict()
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(weights[name], value), name


def test_bf16_student_is_exported_in_fp32_and_not_modified(tokenizer, tmp_path):
    student = make_student(tmp_path / "encoder").bfloat16().train()
    export_student(student, tokenizer, tmp_path / "out", card=make_card())
    assert {t.dtype for t in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.float32}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float32"
    assert student.training
    assert student.dense.weight.dtype == torch.bfloat16
    assert student.encoder.config.num_labels == 2


def test_tokenizer_truncates_as_in_training_and_keeps_no_state(student, tokenizer, tmp_path):
    before = tokenizer.model_max_length
    tokenizer(TEXTS, padding=True, truncation=True, max_length=4)
    export_student(student, tokenizer, tmp_path / "out", card=make_card())
    saved = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert saved.model_max_length == MAX_TOKENS
    assert len(saved("film " * 50, truncation=True)["input_ids"]) == MAX_TOKENS
    raw = json.loads((tmp_path / "out" / "tokenizer.json").read_text())
    assert raw["truncation"] is None
    assert raw["padding"] is None
    assert tokenizer.model_max_length == before


def test_card_and_manifest_record_the_origin_of_the_student(export, tmp_path):
    card = (export / "README.md").read_text()
    for fact in ("tiny-bert", "f00d", "1284 train, 229 valid", "| valid | 0.8125 | – |", "kind: step", "10 tokens"):
        assert fact in card
    manifest = json.loads((export / "vadv_export.json").read_text())
    assert manifest["metrics"] == {"valid": {"mae": 0.8125, "corr": None}}
    assert manifest["data"][0]["fingerprint"] == "f00d"
    assert manifest["config"]["run"] == {"name": "tiny"}
    assert set(manifest["files"]) == {p.name for p in export.iterdir()} - {"vadv_export.json"}
    for path in export.iterdir():
        assert str(tmp_path.parent).encode() not in path.read_bytes(), f"{path.name} names a path of this machine"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "README.md"])
def test_one_flipped_bit_is_found_before_anything_is_loaded(export, name, monkeypatch):
    data = bytearray((export / name).read_bytes())
    data[len(data) // 2] ^= 1
    (export / name).write_bytes(data)
    monkeypatch.setattr("safetensors.torch.load_file", lambda *_: pytest.fail("weights were read"))
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", lambda *_, **__: pytest.fail("config was read"))
    with pytest.raises(UserError, match=f"{name} is damaged or was changed"):
        load_student(export)


def test_missing_file_is_named(export):
    (export / "tokenizer_config.json").unlink()
    with pytest.raises(UserError, match=r"tokenizer_config.json is missing"):
        load_student(export)


def test_unlisted_files_are_refused_unless_hidden(export):
    (export / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    load_student(export)
    (export / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"adapter_config\.json is not listed"):
        load_student(export)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99}, "format_version 99, but this version reads 1"),
        ({"files": {}}, "malformed .*does not list config.json, model.safetensors"),
        ({"pooling": "max"}, r"malformed \(pooling: Input should be 'cls' or 'mean'\)"),
        ({"metrics": {"valid": {"mae": "low"}}}, r"malformed \(metrics\.valid\.mae: "),
        ({"labels": {"low": 1, "high": 0, "threshold": 0}}, "malformed .*label range 1 to 0"),
        ({"files": {"../secret": {"sha256": "0"}, "config.json": {}, "model.safetensors": {}}}, "malformed"),
    ],
)
def test_invalid_manifest_is_refused(export, change, message):
    raw = json.loads((export / "vadv_export.json").read_text())
    (export / "vadv_export.json").write_text(json.dumps({**raw, **change}))
    with pytest.raises(UserError, match=message):
        load_student(export)


def test_folder_that_is_not_an_export_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"has no vadv_export\.json, so it is not an export"):
        load_student(tmp_path)


def test_export_appears_completely_or_not_at_all(student, tokenizer, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("interrupted")

    monkeypatch.setattr(export_module, "file_entries", fail)
    with pytest.raises(RuntimeError, match="interrupted"):
        export_student(student, tokenizer, tmp_path / "out", card=make_card())
    assert not [p for p in tmp_path.iterdir() if "out" in p.name]


def test_existing_folder_is_kept_unless_replaced(student, tokenizer, export):
    with pytest.raises(UserError, match="already exists"):
        export_student(student, tokenizer, export, card=make_card(name="second"))
    assert json.loads((export / "vadv_export.json").read_text())["name"] == "tiny"
    export_student(student, tokenizer, export, card=make_card(name="second"), replace=True)
    assert json.loads((export / "vadv_export.json").read_text())["name"] == "second"
    load_student(export)


def test_export_of_a_run_includes_evaluations_of_its_best_step(run_folder, student, tokenizer, tmp_path):
    summary = export_run(run_folder, tmp_path / "handed-over")
    manifest = json.loads((summary.folder / "vadv_export.json").read_text())
    assert manifest["metrics"] == {"valid": {"mae": 0.8125, "corr": None}, "test": {"mae": 0.75}}
    weights = load_student(summary.folder)[0].state_dict()
    assert all(torch.equal(weights[name], value) for name, value in student.state_dict().items())


def test_student_of_a_run_or_an_export_is_found(run_folder, export):
    assert resolve_student(run_folder) == run_folder / "student"
    assert resolve_student(str(export)) == export


def test_folders_without_a_student_are_refused(run_folder, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        resolve_student(tmp_path / "nowhere")
    (run_folder / "student" / "vadv_export.json").unlink()
    with pytest.raises(UserError, match="has no student yet"):
        resolve_student(run_folder)
    with pytest.raises(UserError, match="neither a run nor an export"):
        resolve_student(tmp_path)
