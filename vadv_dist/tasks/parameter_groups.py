"""Learning rate and weight decay of each parameter of teacher and student."""

import re
from collections.abc import Container, Iterable, Mapping, Sequence

from torch import nn

from vadv_dist.config.sections import OptimizerConfig
from vadv_dist.errors import UserError
from vadv_dist.objectives.adversary import Adversary
from vadv_dist.tasks.base import ParameterGroup

_ENCODER = "student.encoder."
_LAYER = re.compile(r"\.(\d+)\.")


def parameter_groups(
    parameters: Iterable[tuple[str, nn.Parameter]],
    optimizer: OptimizerConfig,
    *,
    pretrained: bool,
    last_layers: Container[str] = (),
    label_unit: float = 1.0,
    own_rates: Mapping[str, float] | None = None,
) -> list[ParameterGroup]:
    """Group trained parameters by learning rate and weight decay.

    AdamW changes a weight by about its learning rate per step, whatever the scale of the loss. The weights of a last
    layer are in label units, so their rate is multiplied by the unit: training is then as fast on labels from 0 to 100
    as from -3 to 3. Their weight decay is divided by it, because AdamW multiplies it by the rate.

    Args:
        parameters: names and parameters of the joint model.
        optimizer: rates, `layer_decay` and weight decay.
        pretrained: whether the student's encoder has pretrained weights.
        last_layers: names of the parameters whose output is in label units.
        label_unit: a sixth of the label range; 1 for labels from -3 to 3.
        own_rates: learning rates of modules by name that have their own: adversaries.
    Raises:
        UserError: `layer_decay` is below 1, but the encoder's layers cannot be identified.
    """
    members = [(name, parameter) for name, parameter in parameters if parameter.requires_grad]
    new_lr = optimizer.lr * optimizer.new_module_lr_factor
    depths: dict[str, int] = {}
    if optimizer.layer_decay < 1:
        depths = layer_depths([name for name, _ in members if name.startswith(_ENCODER)])
    groups: dict[str, tuple[float, float, list[tuple[str, nn.Parameter]]]] = {}
    for name, parameter in members:
        old = pretrained and name.startswith(_ENCODER)
        key, lr = ("pretrained", optimizer.lr) if old else ("new", new_lr)
        if depth := depths.get(name, 0):
            key, lr = f"{key}_{depth}_below_top", lr * optimizer.layer_decay**depth
        for module, own_lr in (own_rates or {}).items():
            if name.startswith(f"{module}."):
                key, lr = "adversary", own_lr
        decay = optimizer.weight_decay
        if label_unit != 1 and name in last_layers:
            key, lr, decay = f"{key}_in_label_units", lr * label_unit, decay / label_unit
        if parameter.ndim < 2:
            key, decay = f"{key}_no_decay", 0.0
        groups.setdefault(key, (lr, decay, []))[2].append((name, parameter))
    return [
        ParameterGroup(
            name=key,
            names=[name for name, _ in chosen],
            parameters=[parameter for _, parameter in chosen],
            lr=lr,
            weight_decay=decay,
        )
        for key, (lr, decay, chosen) in groups.items()
    ]


def adversary_rates(step: nn.Module) -> dict[str, float]:
    """Learning rates of the adversaries among a model's modules, by their names."""
    return {name: module.lr for name, module in step.named_modules() if isinstance(module, Adversary)}


def layer_depths(names: Sequence[str]) -> dict[str, int]:
    """Depth of each encoder parameter below the top layer, by name; embeddings are below the lowest layer.

    A layer is identified by the first number in a parameter's name. Parameters without one count as embeddings if they
    precede the layers, and as top layer (a final norm) if they follow them.

    Args:
        names: parameter names in the encoder's order.
    Raises:
        UserError: no name has a number.
    """
    numbers = {name: int(found[1]) for name in names if (found := _LAYER.search(name))}
    if names and not numbers:
        raise UserError(
            "optimizer.layer_decay is below 1, but the parameter names of student.encoder have no layer numbers. "
            "Set optimizer.layer_decay: 1."
        )
    top = max(numbers.values(), default=0)
    first = next((place for place, name in enumerate(names) if name in numbers), 0)
    return {
        name: top - numbers[name] if name in numbers else top + 1 if place < first or "embedding" in name else 0
        for place, name in enumerate(names)
    }
