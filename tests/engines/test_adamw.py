"""Our AdamW against torch's own, with fp32 weights and with bf16 weights beside fp32 masters."""

from collections.abc import Iterable, Sequence

import pytest
import torch
from torch import nn

from vadv_dist.config import OptimizerConfig
from vadv_dist.engines.adamw import ClippedAdamW
from vadv_dist.formats.tensor_parts import HeldTensors
from vadv_dist.tasks.base import ParameterGroup

STEPS = 30


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 40), nn.Tanh(), nn.Linear(40, 8))


def groups(module: nn.Module) -> list[ParameterGroup]:
    found = dict(module.named_parameters())
    weights = [name for name in found if name.endswith("weight")]
    biases = [name for name in found if name.endswith("bias")]
    return [
        ParameterGroup("weights", weights, [found[n] for n in weights], lr=1e-2, weight_decay=0.1),
        ParameterGroup("biases", biases, [found[n] for n in biases], lr=3e-2, weight_decay=0.0),
    ]


def gradients(module: nn.Module, at: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Gradients of one step that do not depend on the weights, some larger than the clipping norm."""
    random = torch.Generator().manual_seed(at)
    size = 3.0 if at % 3 else 0.01
    return {
        name: (size * torch.randn(parameter.shape, generator=random)).to(dtype)
        for name, parameter in module.named_parameters()
    }


def reference(clip_norm: float | None) -> tuple[nn.Module, list[float], torch.optim.AdamW]:
    """The same steps with torch's AdamW, unfused, on fp32 weights with the gradients rounded to bf16."""
    module = model()
    own = [{"params": g.parameters, "lr": g.lr, "weight_decay": g.weight_decay} for g in groups(module)]
    adamw, norms = torch.optim.AdamW(own, betas=(0.9, 0.98), eps=1e-6, foreach=False), []
    for at in range(STEPS):
        for group, entry in zip(groups(module), adamw.param_groups, strict=True):
            entry["lr"] = group.lr * (at + 1) / STEPS
        given = gradients(module, at, torch.bfloat16)
        for name, parameter in module.named_parameters():
            parameter.grad = given[name].float()
        bound = float("inf") if clip_norm is None else clip_norm
        norms.append(float(nn.utils.clip_grad_norm_(module.parameters(), bound)))
        adamw.step()
    return module, norms, adamw


def ours(
    clip_norm: float | None = 1.0,
    *,
    rounded: Sequence[str],
    state: tuple | None = None,
    steps: range = range(STEPS),
    compiled: bool = False,
) -> tuple[nn.Module, list[float], ClippedAdamW]:
    """Some of the steps with our AdamW, from an earlier state if one is given."""
    module = model()
    config = OptimizerConfig(beta1=0.9, beta2=0.98, eps=1e-6, clip_norm=clip_norm)
    adamw, norms = ClippedAdamW(groups(module), config, rounded=rounded, compiled=compiled), []
    if state is not None:
        adamw.load(*map(HeldTensors, state), steps.start)
    for at in steps:
        adamw.set_lr((at + 1) / STEPS)
        given = gradients(module, at, torch.bfloat16)
        for name, parameter in module.named_parameters():
            parameter.grad = given[name].to(parameter.dtype)
        norms.append(float(adamw.step()))
    return module, norms, adamw


@pytest.mark.slow
def test_compiled_kernel_equals_the_default() -> None:
    rounded = ["0.weight", "2.bias"]
    _, norms, adamw = ours(rounded=rounded)
    module, compiled_norms, compiled = ours(rounded=rounded, compiled=True)
    assert compiled_norms == pytest.approx(norms, rel=1e-6)
    for own, other in ((adamw.masters(), compiled.masters()), (adamw.moments(), compiled.moments())):
        found = dict(other)
        for name, tensor in own:
            torch.testing.assert_close(found[name], tensor, rtol=2e-5, atol=1e-7)
    masters = dict(compiled.masters())
    assert all(torch.equal(p.detach(), masters[name].to(p.dtype)) for name, p in module.named_parameters())


def copied(tensors: Iterable[tuple[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in tensors}


@pytest.mark.parametrize("clip_norm", [None, 1.0])
@pytest.mark.parametrize("rounded", [[], ["0.weight", "0.bias", "2.weight"]])
def test_equals_torch_on_fp32_weights(clip_norm: float | None, rounded: list[str]) -> None:
    expected, expected_norms, reference_adamw = reference(clip_norm)
    module, norms, adamw = ours(clip_norm, rounded=rounded)
    assert norms == pytest.approx(expected_norms, rel=1e-5)
    masters, moments = dict(adamw.masters()), dict(adamw.moments())
    for name, parameter in expected.named_parameters():
        assert masters[name].dtype == torch.float32
        torch.testing.assert_close(masters[name], parameter.detach(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(moments[f"exp_avg/{name}"], reference_adamw.state[parameter]["exp_avg"])
        working = module.get_parameter(name)
        assert working.dtype == (torch.bfloat16 if name in rounded else torch.float32)
        assert torch.equal(working.detach(), masters[name].to(working.dtype))


def test_masters_keep_updates_smaller_than_the_spacing_of_bf16() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.ones_(module.weight)
    group = ParameterGroup("all", ["weight"], [module.weight], lr=1e-4, weight_decay=0.0)
    adamw = ClippedAdamW([group], OptimizerConfig(clip_norm=None), rounded=["weight"])
    for _ in range(100):
        module.weight.grad = torch.ones_like(module.weight)
        adamw.step()
    assert float(dict(adamw.masters())["weight"]) == pytest.approx(0.99, abs=1e-4)
    assert module.weight.item() == pytest.approx(0.99, abs=4e-3)
    assert module.weight.item() != 1.0


@pytest.mark.parametrize("rounded", [[], ["weight"]])
def test_norm_of_a_large_gradient_is_exact(rounded: list[str]) -> None:
    # Summed at once on a CPU, the squares of so many elements are 0.06 % off.
    module = nn.Linear(1 << 12, 1 << 12, bias=False)
    group = ParameterGroup("all", ["weight"], [module.weight], lr=1e-4, weight_decay=0.0)
    adamw = ClippedAdamW([group], OptimizerConfig(clip_norm=1.0), rounded=rounded)
    module.weight.grad = torch.randn(module.weight.shape, generator=torch.Generator().manual_seed(0)).to(
        module.weight.dtype
    )
    expected = sum(float(row.double().square().sum()) for row in module.weight.grad) ** 0.5
    assert float(adamw.step()) == pytest.approx(expected, rel=3e-5)


def test_restored_state_continues_bit_identically() -> None:
    rounded = ["0.weight", "2.bias"]
    module, norms, whole = ours(rounded=rounded)
    _, _, half = ours(rounded=rounded, steps=range(STEPS // 2))
    state = copied(half.masters()), copied(half.moments())
    again, more, rest = ours(rounded=rounded, state=state, steps=range(STEPS // 2, STEPS))
    assert more == norms[STEPS // 2 :]
    for own, other in ((whole.masters(), rest.masters()), (whole.moments(), rest.moments())):
        other = dict(other)
        assert all(torch.equal(tensor, other[name]) for name, tensor in own)
    assert all(torch.equal(p, again.get_parameter(name)) for name, p in module.named_parameters())
