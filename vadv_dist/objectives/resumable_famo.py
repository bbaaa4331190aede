"""TorchJD's FAMO with a state that can be saved, which TorchJD does not provide."""

from typing import Any

import torch
from torchjd.scalarization import FAMO

from vadv_dist.objectives.weighting import adam_state, load_adam


class ResumableFamo(FAMO):
    """FAMO whose logits, Adam state and last losses can be read and set, in fp64.

    They are private in TorchJD: `tests/objectives/test_weighting.py` fails if a version stores them elsewhere.
    """

    @property
    def has_seen_losses(self) -> bool:
        """Whether `update` has previous losses to compare with."""
        return self._prev_losses is not None

    def plain_state(self) -> dict[str, Any]:
        """Return the state as plain numbers."""
        return {
            "logits": self._w.tolist(),
            "losses": None if self._prev_losses is None else self._prev_losses.tolist(),
            "adam": None if self._optimizer is None else adam_state(self._optimizer),
        }

    def load_plain_state(self, state: dict[str, Any]) -> None:
        """Restore the result of `plain_state`."""
        self._w.data.copy_(torch.tensor(state["logits"], dtype=torch.float64))
        if state["losses"] is not None:
            self._prev_losses = torch.tensor(state["losses"], dtype=torch.float64, device=self._w.device)
        if state["adam"] is not None:
            self._optimizer = torch.optim.Adam([self._w], lr=self.lr, weight_decay=self.weight_decay)
            load_adam(self._optimizer, state["adam"])
