"""Which device and type a process computes on, and whether a cluster has room; no GPU is needed."""

import pytest
import torch

from vadv_dist.config import TrainerConfig
from vadv_dist.engines.deepspeed_config import accumulate_of, micro_batch_size
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


def test_fewer_workers_take_more_micro_batches_that_are_not_larger() -> None:
    for batch_size, workers, accumulate in ((32, 8, 1), (33, 8, 2), (5, 4, 1)):
        micro = micro_batch_size(batch_size, workers, accumulate)
        for present in range(1, workers + 1):
            more = accumulate_of(batch_size, present, workers, accumulate)
            assert micro_batch_size(batch_size, present, more) <= micro
    assert [accumulate_of(32, present, 8, 1) for present in (1, 2, 4, 8)] == [8, 4, 2, 1]


def test_least_number_of_workers_decides_whether_there_is_room() -> None:
    elastic = TrainerConfig(num_workers=(2, 8))
    assert (elastic.min_workers, elastic.workers) == (2, 8)
    require_room(elastic, 1, have_cpus=3, have_gpus=0)
    with pytest.raises(UserError, match="has 2 CPUs, but the workers need 2 × 1 CPU"):
        require_room(elastic, 1, have_cpus=2, have_gpus=0)
    with pytest.raises(ValueError, match=r"num_workers is \[4, 2\], expected \[least, most\]"):
        TrainerConfig(num_workers=(4, 2))
