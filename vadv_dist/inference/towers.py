"""Turn any retrieval student into two towers: lists of tensor operations that need none of its code."""

import json
import operator
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from vadv_dist.models.retrieval_towers import INPUT, OPERATIONS, RetrievalTowers, Tower
from vadv_dist.runtime.garbage_collection import no_collection

_OPERATORS: dict[Callable[..., Any], str] = {
    operator.getitem: "getitem",
    operator.add: "size_add",
    operator.mul: "size_mul",
    operator.floordiv: "size_floordiv",
}


def towers_of(student: nn.Module, widths: Mapping[str, int]) -> RetrievalTowers:
    """Record what a student computes from the vectors of each modality.

    Args:
        student: takes audio [B, A] and visual vectors [B, V], and returns their embeddings first; no row and no
            modality affects another. In fp32 and eval mode, on the CPU.
        widths: A and V by `audio` and `visual`.
    Returns:
        the towers in eval mode, with copies of the weights.
    Raises:
        TypeError: the student uses an operation that is not one of `retrieval_towers.OPERATIONS`.
    """
    program = _program(student, widths)
    signature = program.graph_signature
    held = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    state = {**program.state_dict, **program.constants}
    (output,) = (node for node in program.graph.nodes if node.op == "output")
    weights: dict[str, Tensor] = {}
    towers: dict[str, Tower] = {}
    for place, name in enumerate(("audio", "visual")):
        result = output.args[0][place]
        used = _used_by(result)
        names: dict[Node, str] = {}
        steps: list[Any] = []
        for node in program.graph.nodes:
            if node not in used:
                continue
            if node.op == "placeholder":
                names[node] = held[node.name].replace(".", "_") if node.name in held else INPUT
                if node.name in held:
                    weights[names[node]] = state[held[node.name]].detach().clone().contiguous()
            elif node.target is torch.ops.aten.clone.default:  # dropout in eval mode
                names[node] = names[node.args[0]]
            else:
                names[node] = f"step_{len(steps)}"
                steps.append([names[node], _operation(node), _plain(node.args, names), _options(node)])
        towers[name] = {"steps": steps, "result": names[result]}
    return RetrievalTowers(**towers, weights=weights).eval()


def _program(student: nn.Module, widths: Mapping[str, int]) -> torch.export.ExportedProgram:
    """A student's operations, with numbers of rows that may vary."""
    # Different numbers, because one modality does not affect the other.
    example = torch.zeros(3, widths["audio"]), torch.zeros(5, widths["visual"])
    rows = {0: torch.export.Dim("audio_rows")}, {0: torch.export.Dim("visual_rows")}
    with torch.no_grad(), no_collection(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about its own code
        return torch.export.export(student, example, dynamic_shapes=rows).run_decompositions({})


def _used_by(result: Node) -> set[Node]:
    """The nodes that a node is computed from, and itself."""
    found, waiting = {result}, [result]
    while waiting:
        new = set(waiting.pop().all_input_nodes) - found
        found |= new
        waiting += new
    return found


def _operation(node: Node) -> str:
    name = _OPERATORS.get(node.target) if callable(node.target) else None
    name = name or str(node.target).removeprefix("aten.")
    if name not in OPERATIONS and name not in _OPERATORS.values():
        raise TypeError(f"A tower cannot hold the operation {name}. Add it to OPERATIONS if it is pure.")
    return name


def _options(node: Node) -> dict[str, Any]:
    for name, value in node.kwargs.items():
        if not isinstance(value, bool | int | float | str | None):
            raise TypeError(f"A tower cannot hold the option {name} of {node.target}.")
    return dict(node.kwargs)


def _plain(value: Any, names: Mapping[Node, str]) -> Any:
    """Arguments as JSON, in which a text is a name."""
    if isinstance(value, Node):
        return names[value]
    if isinstance(value, list | tuple):
        return [_plain(one, names) for one in value]
    if not isinstance(value, bool | int | float | None):
        raise TypeError(f"A tower cannot hold {value!r}.")
    return value


def config_text(towers: RetrievalTowers) -> str:
    """The contents of `config.json`, with one step per line."""
    parts = []
    for name, tower in towers.towers.items():
        steps = ",\n".join(f"        {json.dumps(step)}" for step in tower["steps"])
        parts.append(
            f'    "{name}": {{\n      "steps": [\n{steps}\n      ],\n      "result": "{tower["result"]}"\n    }}'
        )
    towers_text = ",\n".join(parts)
    return f'{{\n  "model_type": "vadv-retrieval-student",\n  "towers": {{\n{towers_text}\n  }}\n}}\n'
