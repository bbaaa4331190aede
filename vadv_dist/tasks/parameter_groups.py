"""Which learning rate and weight decay each parameter of teacher and student gets."""

import re
from collections.abc import Iterable, Sequence

from torch import nn

from vadv_dist.config.sections import OptimizerConfig
from vadv_dist.errors import UserError
from vadv_dist.tasks.base import ParameterGroup

_ENCODER = "student.encoder."
_LAYER = re.compile(r"\.(\d+)\.")


def parameter_groups(
    parameters: Iterable[tuple[str, nn.Parameter]], optimizer: OptimizerConfig, *, pretrained: bool
) -> list[ParameterGroup]:
    """Put each trained parameter into the group of its rate, with or without weight decay.

    Args:
        parameters: names and parameters of the joint model.
        optimizer: rates, `layer_decay` and weight decay.
        pretrained: whether the student's encoder has pretrained weights.
    Raises:
        UserError: there is a layer-wise decay, but the encoder's layers cannot be told.
    """
    members = [(name, parameter) for name, parameter in parameters if parameter.requires_grad]
    new_lr = optimizer.lr * optimizer.new_module_lr_factor
    depths: dict[str, int] = {}
    if optimizer.layer_decay < 1:
        depths = layer_depths([name for name, _ in members if name.startswith(_ENCODER)])
    groups: dict[str, tuple[float, list[tuple[str, nn.Parameter]]]] = {}
    for name, parameter in members:
        old = pretrained and name.startswith(_ENCODER)
        key, lr = ("pretrained", optimizer.lr) if old else ("new", new_lr)
        if depth := depths.get(name, 0):
            key, lr = f"{key}_{depth}_below_top", lr * optimizer.layer_decay**depth
        if parameter.ndim < 2:
            key += "_no_decay"
        groups.setdefault(key, (lr, []))[1].append((name, parameter))
    return [
        ParameterGroup(
            name=key,
            names=[name for name, _ in chosen],
            parameters=[parameter for _, parameter in chosen],
            lr=lr,
            weight_decay=0.0 if key.endswith("no_decay") else optimizer.weight_decay,
        )
        for key, (lr, chosen) in groups.items()
    ]


def layer_depths(names: Sequence[str]) -> dict[str, int]:
    """How many layers below the top each parameter of an encoder stands, by name; embeddings below all of them.

    A layer is known by the first number in a parameter's name. Without one, what stands before the layers counts as
    embeddings, and what stands behind them (a last norm) as top.

    Args:
        names: in the encoder's order.
    Raises:
        UserError: no name has a number.
    """
    numbers = {name: int(found[1]) for name in names if (found := _LAYER.search(name))}
    if names and not numbers:
        raise UserError(
            "optimizer.layer_decay is below 1, but the parameters of student.encoder bear no numbers of layers. "
            "Set optimizer.layer_decay: 1."
        )
    top = max(numbers.values(), default=0)
    first = next((place for place, name in enumerate(names) if name in numbers), 0)
    return {
        name: top - numbers[name] if name in numbers else top + 1 if place < first or "embedding" in name else 0
        for place, name in enumerate(names)
    }
