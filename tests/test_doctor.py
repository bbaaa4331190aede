"""`vadv doctor` finds problems of the model that a configuration names."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
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
