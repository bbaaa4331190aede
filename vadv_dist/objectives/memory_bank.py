"""The memory bank of CRD: an embedding of every training row by teacher and student, divided among ranks.

Shape letters: N training rows, S rows of this rank's share, G rows of all micro-batches of a step, E embedding width.
"""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vadv_dist.objectives.rank_state import RankState

_SHARES = ("teacher", "student")


class MemoryBank(RankState):
    """Embeddings of the rows whose `row_id` modulo the number of ranks is this rank.

    Every rank calls every method in the same order, with the same rows. It then gets the same values, whatever the
    number of ranks.

    Args:
        num_rows: N.
        width: E.
        seed: decides which rows are drawn.
        momentum: share of a stored embedding that an update keeps.

    Attributes:
        teacher, student: this rank's embeddings, [S + 1, E]; the last row is zeros, in place of other ranks' rows.
        scale: normalisation constants of scores against both, [2]; 0 until the first rows are seen.
        step: number of updates, [1].
    """

    rank_buffers = ("teacher", "student", "scale", "step")
    teacher: Tensor
    student: Tensor
    scale: Tensor
    step: Tensor

    def __init__(self, num_rows: int, *, width: int, seed: int, momentum: float) -> None:
        super().__init__()
        self.num_rows, self.momentum = num_rows, momentum
        self._seed = seed
        together = dist.is_available() and dist.is_initialized()
        self._rank, self._world_size = (dist.get_rank(), dist.get_world_size()) if together else (0, 1)
        bound = math.sqrt(3 / width)  # as in the published code: vectors of about norm 1
        for name in _SHARES:
            whole_NE = (2 * torch.rand(num_rows, width) - 1) * bound
            self.register_buffer(name, self._share(whole_NE), persistent=False)
        self.register_buffer("scale", torch.zeros(2), persistent=False)
        self.register_buffer("step", torch.zeros(1, dtype=torch.long), persistent=False)

    def draw(self, count: int) -> Tensor:
        """Draw rows uniformly and with replacement, [count]; each update draws others.

        A hash of seed, step and place, so that it needs no generator: ranks agree without a word, a resumed run draws
        what an uninterrupted one would, and a recorded step (CUDA graph) draws anew in each replay.
        """
        place = torch.arange(count, device=self.step.device) + self.step * count
        return (_hashed(place ^ _hashed(torch.full_like(place, self._seed))) >> 1).remainder(self.num_rows)

    def read(self, row_id: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings of rows by teacher and student, each [len(row_id), E], at least fp32; zeros for negative ids."""
        place = self._place(row_id)
        found = torch.stack([self.teacher[place], self.student[place]]).to(
            torch.promote_types(self.teacher.dtype, torch.float32)
        )
        if self._world_size > 1:
            dist.all_reduce(found)  # one rank has each row, the others zeros
        return found[0], found[1]

    def update(self, row_id: Tensor, counts_G: Tensor, teacher_GE: Tensor, student_GE: Tensor) -> None:
        """Move the stored embeddings of rows towards new ones, and count the step.

        A row that several places hold moves to the mean of its embeddings, so that their order does not matter.

        Args:
            row_id: ids, [G].
            counts_G: true for the rows to update, [G].
            teacher_GE, student_GE: new embeddings of norm 1.
        """
        same_GG = ((row_id[:, None] == row_id) & counts_G).to(teacher_GE.dtype)
        mean_GG = same_GG / same_GG.sum(dim=1, keepdim=True).clamp(min=1)
        place = self._place(torch.where(counts_G, row_id, -1))
        is_mine = (place < len(self.teacher) - 1)[:, None]
        for stored, new_GE in ((self.teacher, teacher_GE), (self.student, student_GE)):
            moved = self.momentum * stored[place] + (1 - self.momentum) * (mean_GG @ new_GE.detach())
            moved = nn.functional.normalize(moved, dim=-1)
            stored[place] = torch.where(is_mine, moved, 0.0).to(stored.dtype)
        self.step += 1

    def reshard(self, states: Sequence[Mapping[str, Tensor]], rank: int, world_size: int) -> dict[str, Tensor]:
        """See `RankState.reshard`."""
        self._rank, self._world_size = rank, world_size
        if len(states) == world_size:
            return dict(states[rank])
        resharded = {"scale": states[0]["scale"], "step": states[0]["step"]}
        for name in _SHARES:
            whole_NE = states[0][name].new_empty(self.num_rows, states[0][name].shape[1])
            for earlier, state in enumerate(states):
                whole_NE[earlier :: len(states)] = state[name][:-1]
            resharded[name] = self._share(whole_NE)
        return resharded

    def _share(self, whole_NE: Tensor) -> Tensor:
        """This rank's rows, and a row of zeros."""
        mine = whole_NE[self._rank :: self._world_size]
        return torch.cat([mine, mine.new_zeros(1, mine.shape[1])])

    def _place(self, row_id: Tensor) -> Tensor:
        """Where this rank holds rows; its row of zeros for the rows that it does not hold."""
        is_mine = (row_id >= 0) & (row_id.remainder(self._world_size) == self._rank)
        return torch.where(is_mine, row_id.div(self._world_size, rounding_mode="floor"), len(self.teacher) - 1)


def _hashed(values: Tensor) -> Tensor:
    """SplitMix64's output function (Steele et al. 2014) of int64 values, read as unsigned."""
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        values = (values ^ _shifted(values, shift)) * factor
    return values ^ _shifted(values, 31)


def _shifted(values: Tensor, bits: int) -> Tensor:
    """Shift right without copies of the sign bit."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)
