"""How much of the weight of the terms that distil counts in each epoch: warm-up and guard."""

from dataclasses import dataclass

from vadv_dist.config.sections import Config


@dataclass(frozen=True)
class DistillationSchedule:
    """The factor on the weights of the terms that distil.

    Attributes:
        begin_epoch: first epoch in which it is not 0.
        ramp_epochs: epochs that it then takes to rise.
        is_guarded: whether what the teacher knows limits it, too.
    """

    begin_epoch: int = 0
    ramp_epochs: int = 0
    is_guarded: bool = False

    @classmethod
    def of(cls, config: Config) -> "DistillationSchedule":
        """The schedule of a configuration; constant if nothing is distilled."""
        objective = config.objective
        if objective.kind == "none":
            return cls()
        return cls(objective.begin_epoch, objective.ramp_epochs, config.is_guarded)

    @property
    def is_constant(self) -> bool:
        """Whether the factor is 1 in every epoch."""
        return self.begin_epoch == self.ramp_epochs == 0 and not self.is_guarded

    def factor(self, epoch: int, guard: float) -> float:
        """The factor in an epoch, from 0 to 1.

        Args:
            epoch: from 0.
            guard: what the teacher knows compared with the student, by the last validation; 0 before the first.
        """
        risen = (epoch - self.begin_epoch + 1) / (self.ramp_epochs + 1)
        return min(1.0, max(0.0, risen)) * (guard if self.is_guarded else 1.0)
