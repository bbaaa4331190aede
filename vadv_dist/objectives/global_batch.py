"""Losses over all rows of a step, whatever the number of ranks they are divided among.

Some objectives compare rows with each other. They see the micro-batches of all ranks as one: every rank computes the
same loss over the rows of all ranks, of which only its own carry a gradient. Engines sum gradients over ranks, so the
sum is the gradient of that loss. The backward pass has no collective, so the order of an engine's own collectives does
not matter.

A loss over gathered rows has no parameters: a rank projects its own rows first, and gathers the results. With gradient
accumulation, rows are compared within the micro-batches that are computed at the same time.

Shape letters: B rows of this rank, G rows of all ranks.
"""

import torch
import torch.distributed as dist
from torch import Tensor

from vadv_dist.objectives.outputs import Rows


class GlobalBatch:
    """The rows of all ranks' micro-batches, in the order of ranks.

    In one process, and on the meta device, these are the rows that are given, and nothing is communicated.

    Args:
        rows: this rank's, B; the number may differ between ranks.
        counted: true for the rows that count, [B]; by default those that have the teacher's inputs.

    Attributes:
        counted: [G], bool. Others are filler, or lack an input: their values mean nothing.
        label, row_id: [G], as in `Rows`.
        num_counted: number of rows that count, [], at least 1.
    """

    def __init__(self, rows: Rows, counted: Tensor | None = None) -> None:
        counted = rows.counted if counted is None else counted
        self._num_rows = rows.num_video_rows
        gathers = dist.is_available() and dist.is_initialized() and not rows.label.is_meta
        self._world_size = dist.get_world_size() if gathers else 1
        self._rank = dist.get_rank() if self._world_size > 1 else 0
        self._sizes = [len(rows.label)]
        if self._world_size > 1:
            mine = torch.tensor(self._sizes, device=rows.label.device)
            found = [torch.empty_like(mine) for _ in range(self._world_size)]
            dist.all_gather(found, mine)
            self._sizes = [int(size) for size in torch.cat(found).tolist()]
        self.counted = self.gather(counted)
        self.label = self.gather(rows.label)
        self.row_id = self.gather(rows.row_id)
        self.num_counted = self.counted.sum().clamp(min=1)

    def gather(self, values: Tensor) -> Tensor:
        """Values of all ranks' rows, [G, ...], of which this rank's, [B, ...], pass their gradient on."""
        if self._world_size == 1:
            return values
        # In equal blocks, which every backend gathers. Booleans are sent as numbers, which NCCL knows.
        plain = values.detach().to(torch.uint8 if values.dtype == torch.bool else values.dtype)
        block = plain.new_zeros(max(self._sizes), *plain.shape[1:])
        block[: len(plain)] = plain
        found = [torch.empty_like(block) for _ in range(self._world_size)]
        dist.all_gather(found, block)
        parts = [part[:size].to(values.dtype) for part, size in zip(found, self._sizes, strict=True)]
        parts[self._rank] = values
        return torch.cat(parts)

    def share(self, loss: Tensor) -> Tensor:
        """This rank's share of a mean over the rows that count.

        Args:
            loss: mean over the counted rows of this micro-batch, the same value on every rank, [].
        Returns:
            its share, [], so that shares of ranks and micro-batches add up to a mean over the step's rows. The gradient
            is that of the whole loss, because other ranks' rows carry none here.
        """
        part = loss * (self.num_counted / self._num_rows)
        return part if self._world_size == 1 else part - part.detach() * (1 - 1 / self._world_size)
