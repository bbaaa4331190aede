"""ONNX files of text students, and what is said if they cannot be written."""

import importlib.util

import numpy as np
import pytest
import torch
from tiny_students import TEXTS, make_card, make_student, one_by_one
from torch import nn
from transformers import AutoTokenizer

from vadv_dist.errors import MachineError, UserError
from vadv_dist.inference.export import export_run, export_student
from vadv_dist.inference.onnx_file import run_onnx, write_onnx


@pytest.mark.parametrize("options", [{}, {"model_type": "electra", "pooling": "mean"}], ids=["bert", "electra"])
def test_onnx_gives_the_text_students_predictions(tokenizer, tmp_path, options):
    student = make_student(tmp_path / "encoder", **options)
    folder = tmp_path / "onnx"
    summary = export_student(student, tokenizer, folder, card=make_card(), format="onnx")
    assert str(summary).endswith("can be loaded by onnxruntime)")
    own = AutoTokenizer.from_pretrained(folder)
    tokens = own(TEXTS, truncation=True, padding=True, return_tensors="np")
    inputs = {name: tokens[name].astype(np.int64) for name in ("input_ids", "attention_mask")}
    found = run_onnx(folder / "model.onnx", inputs, "logits")
    assert found.shape == (len(TEXTS), 1)
    np.testing.assert_allclose(found[:, 0], one_by_one(student, tokenizer), atol=1e-5)
    assert "onnxruntime.InferenceSession" in (folder / "README.md").read_text()


def test_a_run_is_exported_as_onnx(run_folder, tmp_path):
    export_run(run_folder, tmp_path / "onnx", format="onnx")
    assert (tmp_path / "onnx" / "model.onnx").is_file()
    assert not (tmp_path / "onnx" / "model.safetensors").exists()
    assert "| test | 0.7500 |" in (tmp_path / "onnx" / "README.md").read_text()


def test_a_missing_package_is_named_before_anything_is_read(tmp_path, run_folder, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "vadv_dist.inference.onnx_file.find_spec", lambda name: None if name == "onnxscript" else find_spec(name)
    )
    with pytest.raises(UserError, match=r'pip install "vadv-dist\[onnx\]"'):
        export_run(run_folder, tmp_path / "onnx", format="onnx")
    assert not (tmp_path / "onnx").exists()


def test_a_file_that_computes_something_else_is_refused(tmp_path):
    class Unfaithful(nn.Module):
        def forward(self, values):
            return values + 1 if torch.compiler.is_exporting() else values

    with pytest.raises(MachineError, match="differs from the student by 1"):
        write_onnx(Unfaithful(), tmp_path / "model.onnx", {"values": torch.zeros(2, 3)}, ("rows",), "out")
