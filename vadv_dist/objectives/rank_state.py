"""State of an objective that differs between ranks, such as a memory bank of the rows that a rank has seen.

Parameters and ordinary buffers are alike on all ranks and are saved once. What a `RankState` holds is saved for every
rank, and is dealt out anew where a run goes on with another number of ranks.
"""

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor, nn


class RankState(nn.Module):
    """A module some of whose buffers are each rank's own.

    A subclass names them in `rank_buffers` and registers them with `persistent=False`: they are in no `state_dict`, and
    no engine makes them alike. It changes them in training mode with gradients enabled only: a step may be looked at
    before it is trained on.
    """

    rank_buffers: tuple[str, ...] = ()

    def reshard(self, states: Sequence[Mapping[str, Tensor]], rank: int, world_size: int) -> dict[str, Tensor]:
        """This rank's buffers, from those of all ranks of an earlier start.

        Args:
            states: buffers by name, in the order of the earlier ranks.
            rank, world_size: this rank among the present ones. Where the number of ranks is as it was,
                `states[rank]` must come back unchanged.
        """
        raise NotImplementedError


def rank_buffer_names(module: nn.Module) -> list[str]:
    """Full names of all buffers that are each rank's own."""
    return [f"{prefix}{name}" for prefix, part in _parts(module) for name in part.rank_buffers]


def rank_state(module: nn.Module) -> dict[str, Tensor]:
    """Copies of this rank's own buffers on the CPU, by full name."""
    return {
        f"{prefix}{name}": part.get_buffer(name).detach().to("cpu", copy=True).contiguous()
        for prefix, part in _parts(module)
        for name in part.rank_buffers
    }


def load_rank_state(module: nn.Module, states: Sequence[Mapping[str, Tensor]], rank: int, world_size: int) -> None:
    """Take over what `rank_state` gave on every rank of an earlier start."""
    if not states:
        return
    for prefix, part in _parts(module):
        before = [{name: state[f"{prefix}{name}"] for name in part.rank_buffers} for state in states]
        for name, value in part.reshard(before, rank, world_size).items():
            buffer = part.get_buffer(name)
            # Not copied into: the number of rows that a rank holds may differ from before.
            part.register_buffer(name, value.to(buffer.device, buffer.dtype, copy=True), persistent=False)


def _parts(module: nn.Module) -> Iterator[tuple[str, RankState]]:
    for name, part in module.named_modules():
        if isinstance(part, RankState):
            yield f"{name}." if name else "", part
