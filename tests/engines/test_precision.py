"""`trainer.precision: auto`; the GPU and the processors are made-up ones."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from vadv_dist.config import TrainerConfig
from vadv_dist.engines.precision import Precision, choose_precision, is_wide

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def model(width: int) -> nn.Module:
    """Two layers of a width, and a narrow head."""
    return nn.Sequential(nn.Linear(width, 2 * width), nn.Linear(2 * width, width), nn.Linear(width, 1))


def pretend_processor(monkeypatch: pytest.MonkeyPatch, *instructions: str) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(instructions, True))
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)


@pytest.mark.parametrize("instructions", ["amx_bf16", "avx512_bf16"])
def test_a_cpu_computes_a_wide_model_in_bf16_if_it_has_instructions(monkeypatch, instructions: str) -> None:
    pretend_processor(monkeypatch, instructions, "avx512_f")
    found = choose_precision(TrainerConfig(), model(256), CPU)
    assert found.kind == "bf16"
    assert instructions in found.sentence
    narrow = choose_precision(TrainerConfig(), model(128), CPU)
    assert narrow == Precision("fp32", "because most layers are narrower than 256, where bf16 is slower on a CPU")


def test_a_cpu_without_instructions_computes_in_fp32(monkeypatch) -> None:
    pretend_processor(monkeypatch, "avx2", "avx512_f")
    expected = Precision("fp32", "because this processor has no instructions for bf16")
    assert choose_precision(TrainerConfig(), model(256), CPU) == expected
    pretend_processor(monkeypatch, "amx_bf16")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert choose_precision(TrainerConfig(), model(256), CPU) == expected
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert choose_precision(TrainerConfig(), model(256), CPU) == expected


def test_what_is_configured_has_no_reason(monkeypatch) -> None:
    pretend_processor(monkeypatch, "amx_bf16")
    assert choose_precision(TrainerConfig(precision="fp32"), model(256), CPU) == Precision("fp32")
    assert choose_precision(TrainerConfig(precision="bf16"), model(8), CPU) == Precision("bf16")


@pytest.mark.parametrize("native", [True, False])
def test_a_gpu_computes_in_bf16_if_it_does_so_natively(monkeypatch, native: bool) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(name="Tesla T4"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native)
    sentence = choose_precision(TrainerConfig(), model(8), GPU).sentence
    assert sentence == (
        "bf16, in which Tesla T4 computes" if native else "fp32, because Tesla T4 does not compute in bf16"
    )


def test_width_is_that_of_most_weights() -> None:
    assert is_wide(nn.Sequential(nn.Linear(256, 256), nn.Linear(64, 900)))
    assert not is_wide(nn.Sequential(nn.Linear(256, 256), nn.Linear(64, 1100)))
    assert not is_wide(nn.Embedding(1000, 512))
