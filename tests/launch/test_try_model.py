"""`vadv doctor` tries the model that a configuration names, and says what is wrong with it."""

from pathlib import Path

import pytest
import transformers

from vadv_dist.config import load_config
from vadv_dist.doctor import examine
from vadv_dist.errors import UserError
from vadv_dist.launch.model_check import try_model
from vadv_dist.models.pretrained import missing_files

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 2000}


@pytest.fixture
def causal(made: Path, tmp_path: Path) -> Path:
    """A GPT-2 without weights, with the tokenizer of the made data."""
    folder = tmp_path / "gpt2"
    transformers.AutoTokenizer.from_pretrained(made / "encoder").save_pretrained(folder)
    transformers.GPT2Config(**SIZES).save_pretrained(folder)
    return folder


def test_doctor_reports_an_encoder_incompatible_with_pooling(write_config, causal: Path, monkeypatch) -> None:
    monkeypatch.setattr("vadv_dist.doctor._engine", lambda config: iter(()))
    config = load_config(write_config(), [f"--student.encoder={causal}", "--student.pooling=cls"])
    found = {finding.what: finding for finding in examine(config)}["encoder"]
    assert found.level == "fault"
    assert "Set student.pooling: mean" in found.advice
    assert try_model(load_config(write_config(), [f"--student.encoder={causal}", "--student.pooling=mean"]))


def test_missing_weights_are_detected_next_to_a_config(causal: Path) -> None:
    assert missing_files(str(causal), weights=False) is None
    assert missing_files(str(causal), weights=True) == "its config is, its weights are not"


def test_encoder_is_not_tested_without_data(write_config, causal: Path, tmp_path: Path) -> None:
    config = load_config(write_config(uri=tmp_path / "nowhere"), [f"--student.encoder={causal}"])
    assert not try_model(config)


def test_config_errors_are_raised(write_config, causal: Path) -> None:
    with pytest.raises(UserError, match="reads at most 1024 tokens"):
        try_model(load_config(write_config(), [f"--student.encoder={causal}", "--data.max_tokens=1025"]))
