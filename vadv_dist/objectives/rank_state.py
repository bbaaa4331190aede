"""State of an objective that differs between ranks, such as a memory bank of the rows that a rank has seen.

Parameters and ordinary buffers are equal on all ranks and are saved once. The buffers of a `RankState` are saved for
every rank, and are redistributed when a run resumes with another number of ranks.
"""

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor, nn


class RankState(nn.Module):
    """A module with buffers that differ between ranks.

    A subclass lists them in `rank_buffers` and registers them with `persistent=False`: they are in no `state_dict`, and
    no engine synchronises them. It changes them only in training mode with gradients enabled, because a step may be
    evaluated before it is trained on.
    """

    rank_buffers: tuple[str, ...] = ()

    def reshard(self, states: Sequence[Mapping[str, Tensor]], rank: int, world_size: int) -> dict[str, Tensor]:
        """Compute this rank's buffers from those of all ranks of an earlier run.

        Args:
            states: buffers by name, in the order of the earlier ranks.
            rank, world_size: this rank and the current number of ranks. If the number of ranks is unchanged,
                `states[rank]` must be returned unchanged.
        """
        raise NotImplementedError


def rank_buffer_names(module: nn.Module) -> list[str]:
    """Full names of all per-rank buffers."""
    return [f"{prefix}{name}" for prefix, part in _parts(module) for name in part.rank_buffers]


def rank_state(module: nn.Module) -> dict[str, Tensor]:
    """Copies of this rank's buffers on the CPU, by full name."""
    return {
        f"{prefix}{name}": part.get_buffer(name).detach().to("cpu", copy=True).contiguous()
        for prefix, part in _parts(module)
        for name in part.rank_buffers
    }


def load_rank_state(module: nn.Module, states: Sequence[Mapping[str, Tensor]], rank: int, world_size: int) -> None:
    """Restore the results of `rank_state` from every rank of an earlier run."""
    if not states:
        return
    for prefix, part in _parts(module):
        before = [{name: state[f"{prefix}{name}"] for name in part.rank_buffers} for state in states]
        for name, value in part.reshard(before, rank, world_size).items():
            buffer = part.get_buffer(name)
            # Assigned, not copied into: the number of rows of a rank may have changed.
            part.register_buffer(name, value.to(buffer.device, buffer.dtype, copy=True), persistent=False)


def _parts(module: nn.Module) -> Iterator[tuple[str, RankState]]:
    for name, part in module.named_modules():
        if isinstance(part, RankState):
            yield f"{name}." if name else "", part
