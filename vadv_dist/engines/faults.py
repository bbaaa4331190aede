"""Faults of torch that have no class of their own: torch raises a plain `RuntimeError` for them."""

import sys

import torch

_CUDA_MEMORY = 2  # cudaErrorMemoryAllocation


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the memory of a GPU or of the machine ran out; the CPU allocator reports it in the text only."""
    if isinstance(error, torch.AcceleratorError):
        return getattr(error, "error_code", None) == _CUDA_MEMORY
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)
    )


def is_compile_failure(error: BaseException) -> bool:
    """Whether `torch.compile` failed."""
    dynamo = sys.modules.get("torch._dynamo.exc")  # importing it takes seconds
    return dynamo is not None and isinstance(error, dynamo.TorchDynamoException)


def is_lost_peer(error: BaseException) -> bool:
    """Whether the connection to another rank is lost; gloo reports it in the text only."""
    text = str(error) if isinstance(error, RuntimeError) else ""
    return "Connection closed by peer" in text or "Connection reset by peer" in text
