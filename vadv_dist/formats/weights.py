"""Weights are loaded only into a model that has the same tensors."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from vadv_dist.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn


def load_weights(module: "nn.Module", weights: "Mapping[str, Tensor]", where: object) -> None:
    """Load all weights of a module.

    Args:
        module: the model.
        weights: a value for each of its parameters and buffers.
        where: what they were read from, for messages.
    Raises:
        UserError: they are those of another model.
    """
    require_same_tensors(shapes_of(module.state_dict()), shapes_of(weights), where)
    module.load_state_dict(weights)


def shapes_of(tensors: "Mapping[str, Tensor]") -> dict[str, Sequence[int]]:
    """Shapes by name."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def require_same_tensors(model: Mapping[str, Sequence[int]], held: Mapping[str, Sequence[int]], where: object) -> None:
    """Compare the names and shapes of saved tensors with those of the model that is to load them.

    Args:
        model, held: shapes by name.
        where: what holds the tensors, for messages.
    Raises:
        UserError: they differ.
    """
    changed = [name for name in model if name in held and tuple(model[name]) != tuple(held[name])]
    lacking, unknown = [name for name in model if name not in held], [name for name in held if name not in model]
    if not (changed or lacking or unknown):
        return
    if changed:
        shapes = list(held[changed[0]]), list(model[changed[0]])
        what = f"{changed[0]} has shape {shapes[0]}, but {shapes[1]} in the model that its configuration describes"
    elif lacking:
        what = f"it lacks {lacking[0]}, which the model that its configuration describes has"
    else:
        what = f"it has {unknown[0]}, which the model that its configuration describes lacks"
    others = len(changed) + len(lacking) + len(unknown) - 1
    more = f" ({others} more tensors differ)" if others > 1 else " (one more tensor differs)" if others else ""
    raise UserError(
        f"{where} holds the weights of another model: {what}{more}. It was written by another version of vadv, or its "
        "configuration was changed. Use that version or restore the configuration; otherwise train again under another "
        "name (--run.name=…)."
    )
