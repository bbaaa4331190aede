"""How this process computes on GPUs: the same in training, evaluation and prediction."""

import torch


def prepare_cuda(device: torch.device, matmul_precision: str = "highest") -> None:
    """Set how this process computes, before its first operation on a device; nothing changes for a CPU.

    Args:
        device: the device.
        matmul_precision: precision of fp32 matrix products, as in `torch.set_float32_matmul_precision`.
    """
    if device.type != "cuda":
        return
    torch.set_float32_matmul_precision(matmul_precision)
    # cuDNN's attention builds a plan for each new shape: 45 ms of host time per step of a run whose text lengths
    # vary (H100, torch 2.11). Without it, torch takes its flash or memory-efficient kernel.
    torch.backends.cuda.enable_cudnn_sdp(False)


def has_bf16() -> bool:
    """Whether this machine's GPU computes in bf16: older ones emulate it, slower than they compute in fp32."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
