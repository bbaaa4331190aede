"""Which device and type a process computes on, and whether a cluster has room; no GPU is needed."""

import pytest
import torch

from vadv_dist.config import TrainerConfig
from vadv_dist.engines.distributed import choose_device, choose_dtype
from vadv_dist.errors import UserError
from vadv_dist.launch.cluster import require_room

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


def test_workers_that_do_not_fit_the_cluster_are_rejected() -> None:
    require_room(TrainerConfig(num_workers=2, use_gpu=True), 4, have_cpus=9, have_gpus=2)
    require_room(TrainerConfig(num_workers=2, use_gpu="auto"), 4, have_cpus=9, have_gpus=0)
    with pytest.raises(UserError, match="has 8 CPUs, but the workers need 2 × 4 CPUs, and reading data needs one more"):
        require_room(TrainerConfig(num_workers=2), 4, have_cpus=8, have_gpus=0)
    with pytest.raises(UserError, match=r"has 1 GPU, but trainer\.num_workers is 2, and each worker needs one"):
        require_room(TrainerConfig(num_workers=2, use_gpu=True), 4, have_cpus=9, have_gpus=1)
