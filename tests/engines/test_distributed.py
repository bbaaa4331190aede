"""Which device and type a process computes on; no GPU is needed."""

import pytest
import torch

from vadv_dist.config import TrainerConfig
from vadv_dist.engines.deepspeed_config import accumulate_of, micro_batch_size
from vadv_dist.engines.distributed import choose_device, choose_dtype
from vadv_dist.errors import UserError

GPU = torch.device("cuda", 0)


def pretend_gpu(monkeypatch, *, native_bf16: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: native_bf16 or including_emulation
    )


def test_auto_precision_uses_bf16_only_with_native_support(monkeypatch) -> None:
    pretend_gpu(monkeypatch, native_bf16=True)
    assert choose_dtype(TrainerConfig(), GPU) == torch.bfloat16
    pretend_gpu(monkeypatch, native_bf16=False)
    assert choose_dtype(TrainerConfig(), GPU) == torch.float32
    with pytest.raises(UserError, match="bf16, but this GPU does not support it"):
        choose_dtype(TrainerConfig(precision="bf16"), GPU)


def test_requesting_a_missing_gpu_is_a_user_error(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(UserError, match="no CUDA device is found"):
        choose_device(True)


def test_fewer_workers_take_more_micro_batches_that_are_not_larger() -> None:
    for batch_size, workers, accumulate in ((32, 8, 1), (33, 8, 2), (5, 4, 1)):
        micro = micro_batch_size(batch_size, workers, accumulate)
        for present in range(1, workers + 1):
            more = accumulate_of(batch_size, present, workers, accumulate)
            assert micro_batch_size(batch_size, present, more) <= micro
    assert [accumulate_of(32, present, 8, 1) for present in (1, 2, 4, 8)] == [8, 4, 2, 1]
