"""`vadv doctor` finds problems of the model that a configuration names."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from rich.console import Console

from vadv_dist.config import load_config
from vadv_dist.doctor import Finding, examine, render
from vadv_dist.models.pretrained import missing_files

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 2000}


@pytest.fixture
def causal(made: Path, tmp_path: Path) -> Path:
    """A GPT-2 without weights, with the tokenizer of the made data."""
    folder = tmp_path / "gpt2"
    transformers.AutoTokenizer.from_pretrained(made / "encoder").save_pretrained(folder)
    transformers.GPT2Config(**SIZES).save_pretrained(folder)
    return folder


@pytest.fixture
def encoder_finding(write_config, causal: Path, monkeypatch) -> Callable[..., Finding]:
    """What doctor finds about the encoder."""
    monkeypatch.setattr("vadv_dist.doctor._engine", lambda config: iter(()))

    def find(*options: str, **others: object) -> Finding:
        config = load_config(write_config(**others), [f"--student.encoder={causal}", *options])
        return {finding.what: finding for finding in examine(config)}["encoder"]

    return find


def test_an_encoder_incompatible_with_its_pooling_is_a_fault(encoder_finding) -> None:
    found = encoder_finding("--student.pooling=cls")
    assert found.level == "fault"
    assert "Set student.pooling: mean" in found.advice
    found = encoder_finding("--student.pooling=mean")
    assert found.level == "ok"
    assert "every trained parameter gets a gradient" in found.found


def test_missing_weights_are_detected_next_to_a_config(causal: Path) -> None:
    assert missing_files(str(causal), weights=False) is None
    assert missing_files(str(causal), weights=True) == "its config is, its weights are not"


def test_encoder_is_not_tested_without_data(encoder_finding, tmp_path: Path) -> None:
    found = encoder_finding(uri=tmp_path / "nowhere")
    assert found.level == "ok"
    assert "it is tested once the data can be used" in found.found


def test_an_encoder_that_cannot_read_the_texts_is_a_fault(encoder_finding) -> None:
    found = encoder_finding("--data.max_tokens=1025")
    assert found.level == "fault"
    assert "reads at most 1024 tokens" in found.advice


def test_findings_are_printed_with_their_number() -> None:
    out = io.StringIO()
    render([Finding("ok", "python", "3.11"), Finding("fault", "GPU", "none", "Install it.")], Console(file=out))
    assert out.getvalue().splitlines()[-2:] == ["          → Install it.", "2 checks, 1 fault, 0 warnings"]


SMI = """#!/bin/sh
case "$1" in
--query-gpu*) echo 'GPU-5a1ec8f1-2f1d-7a2b-92f7-6a54b2d30c41, NVIDIA H100 80GB HBM3, DRIVER' ;;
esac
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize(
    ("driver", "cuda", "found", "advice"),
    [
        ("535.104.05", "13.0", "is built for CUDA 13.0, which needs driver 580 or later", "Update the driver"),
        ("580.65.06", "13.0", "but torch cannot use it (torch", "Check CUDA_VISIBLE_DEVICES"),
        ("580.65.06", None, "is a CPU build", "Install a CUDA build"),
    ],
)
def test_a_gpu_that_torch_cannot_use_is_explained(
    tmp_path: Path, monkeypatch, driver: str, cuda: str | None, found: str, advice: str
) -> None:
    (tmp_path / "nvidia-smi").write_text(SMI.replace("DRIVER", driver))
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(torch.version, "cuda", cuda)
    finding = next(f for f in examine() if f.what == "GPU")
    assert finding.level == "fault"
    assert finding.found.startswith(f"NVIDIA H100 80GB HBM3 with driver {driver}")
    assert found in finding.found
    assert finding.advice.startswith(advice)
