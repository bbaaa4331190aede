"""Settings of a process that computes on GPUs."""

from collections.abc import Iterator

import pytest
import torch

from vadv_dist.cuda import prepare_cuda


def settings() -> tuple[str, bool]:
    return torch.get_float32_matmul_precision(), torch.backends.cuda.cudnn_sdp_enabled()


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    precision, cudnn = settings()
    torch.backends.cuda.enable_cudnn_sdp(True)
    yield
    torch.set_float32_matmul_precision(precision)
    torch.backends.cuda.enable_cudnn_sdp(cudnn)


def test_matrix_products_are_set_and_cudnn_attention_is_left_out() -> None:
    for precision in ("high", "highest"):
        prepare_cuda(torch.device("cuda", 0), precision)
        assert settings() == (precision, False)
    assert torch.backends.cuda.flash_sdp_enabled()
    assert torch.backends.cuda.mem_efficient_sdp_enabled()


def test_predictions_take_fp32_products_whatever_was_set_before() -> None:
    torch.set_float32_matmul_precision("high")
    prepare_cuda(torch.device("cuda", 0))
    assert settings() == ("highest", False)


def test_nothing_changes_for_a_cpu() -> None:
    before = settings()
    prepare_cuda(torch.device("cpu"), "high")
    assert settings() == before
