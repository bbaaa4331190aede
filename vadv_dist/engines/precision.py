"""`trainer.precision: auto`: whether a run computes in bf16 or in fp32."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from vadv_dist.config.trainer_sections import TrainerConfig
from vadv_dist.cuda import has_bf16
from vadv_dist.engines.torch_engine import rounded_parameters

# Instructions that multiply bf16, by torch's names. Without them a CPU's bf16 is slower than its fp32.
_INSTRUCTIONS = ("amx_bf16", "avx512_bf16")
# Width from which a step is faster in bf16: it took 1.2 times as long as in fp32 at 128, and 0.7 times at 384 and 1024
# (two cores of an AMD EPYC with avx512_bf16; docs/results.md).
_LEAST_WIDTH = 256


@dataclass(frozen=True)
class Precision:
    """What a run computes in.

    Attributes:
        kind: `fp32` or `bf16`.
        reason: why, as the end of a sentence; empty if the configuration says it.
    """

    kind: Literal["fp32", "bf16"]
    reason: str = ""

    @property
    def sentence(self) -> str:
        """Choice and reason."""
        return f"{self.kind}, {self.reason}"


def choose_precision(trainer: TrainerConfig, step: nn.Module, device: torch.device) -> Precision:
    """Return what a model computes in on a device: what is configured, or for `auto` what is faster.

    Args:
        trainer: its `precision`.
        step: the model, on any device.
        device: where it computes.
    """
    if trainer.precision != "auto":
        return Precision(trainer.precision)
    if device.type == "cuda":
        name = torch.cuda.get_device_properties(device).name
        if has_bf16():
            return Precision("bf16", f"in which {name} computes")
        return Precision("fp32", f"because {name} does not compute in bf16")
    instructions = _bf16_instructions()
    if not instructions:
        return Precision("fp32", "because this processor has no instructions for bf16")
    if not is_wide(step):
        return Precision("fp32", f"because most layers are narrower than {_LEAST_WIDTH}, where bf16 is slower on a CPU")
    return Precision("bf16", f"because this processor has {instructions} and computes wide layers faster in it")


def is_wide(step: nn.Module) -> bool:
    """Whether most weights of its linear layers are in layers at least `_LEAST_WIDTH` wide on both sides.

    Layers that compute in fp32 anyway do not count.
    """
    rounded = {id(parameter) for parameter in rounded_parameters(step).values()}
    linear = (module for module in step.modules() if isinstance(module, nn.Linear))
    shapes = [module.weight.shape for module in linear if id(module.weight) in rounded]
    wide = sum(shape.numel() for shape in shapes if min(shape) >= _LEAST_WIDTH)
    return 2 * wide > sum(shape.numel() for shape in shapes)


def _bf16_instructions() -> str | None:
    # Older versions of torch do not tell a processor's instructions.
    tell = getattr(torch.cpu, "get_capabilities", None)
    if tell is None or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]  # untyped in torch
        return None
    return next((name for name in _INSTRUCTIONS if tell().get(name)), None)
