"""The state of the training loop: position, best checkpoints, and sums over the current epoch."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from vadv_dist.evaluation.calibration import Calibration
from vadv_dist.runs.records import Collapse, finite


@dataclass
class TrainState:
    """Everything in a checkpoint except weights and moments.

    Attributes:
        epoch, step_in_epoch: position of the next step.
        step: number of updates so far.
        best: (cost, step) of the best checkpoints, best first; a lower cost is a better score.
        best_metrics, best_epoch: validation metrics and epoch of the best one.
        best_by_source: the same by source, if there are several.
        bad_epochs: epochs since the score last improved.
        epoch_sums, epoch_counts: loss terms summed over the epoch so far, and the number of steps with each.
        weight_sums, weight_steps: weights of the terms summed likewise; empty if they are fixed.
        weighting: state of the weighting.
        calibration: the line from the best checkpoint's predictions to the labels; None if `student.calibrate` is off.
        guard: factor on the weights of the terms that distil, from the last validation; 0 before the first.
        collapse: set if the weights had collapsed in the last epoch.
        stopped: why training ended; None while it runs.
        seconds: wall time so far, over all attempts.
        checkpoint_blocked_s, checkpoint_write_s: seconds that training waited for checkpoints, and that threads wrote
            them, over all attempts; what an attempt continues from leaves its own out.
        data: fingerprints of the data sets; a position is only valid for these.
        num_lanes: lanes of the plan of every epoch; 1 in states from before there were lanes.
        precision: what the run computes in, `fp32` or `bf16`, which `trainer.precision: auto` keeps on any machine.
    """

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    best: list[tuple[float, int]] = field(default_factory=list)
    best_metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    best_by_source: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    best_epoch: int = -1
    bad_epochs: int = 0
    epoch_sums: dict[str, float] = field(default_factory=dict)
    epoch_counts: dict[str, int] = field(default_factory=dict)
    weight_sums: dict[str, float] = field(default_factory=dict)
    weight_steps: int = 0
    weighting: dict[str, Any] = field(default_factory=dict)
    guard: float = 0.0
    calibration: Calibration | None = None
    collapse: Collapse | None = None
    stopped: str | None = None
    seconds: float = 0.0
    checkpoint_blocked_s: float = 0.0
    checkpoint_write_s: float = 0.0
    data: list[str] = field(default_factory=list)
    num_lanes: int = 1
    precision: Literal["auto", "fp32", "bf16"] | None = None

    @property
    def best_steps(self) -> list[int]:
        """Steps of the best checkpoints, best first."""
        return [step for _, step in self.best]

    def to_json(self) -> dict[str, Any]:
        """Return plain containers with finite numbers."""
        return dict(finite(asdict(self)))

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> "TrainState":
        """Rebuild from the result of `to_json`, where NaN (a correlation with a constant) is null."""
        metrics = _numbers(raw["best_metrics"])
        by_source = {source: _numbers(values) for source, values in raw.get("best_by_source", {}).items()}
        best = [(float(cost), int(step)) for cost, step in raw["best"]]
        collapse = None if raw["collapse"] is None else Collapse(**raw["collapse"])
        line = raw.get("calibration")
        calibration = None if line is None else Calibration(**line)
        own = {"collapse": collapse, "calibration": calibration, "best": best}
        return cls(**{**raw, **own, "best_metrics": metrics, "best_by_source": by_source})

    def record(
        self,
        cost: float,
        metrics: dict[str, dict[str, float]],
        *,
        keep: int,
        by_source: dict[str, dict[str, dict[str, float]]] | None = None,
    ) -> bool:
        """Record an epoch's validation; return whether it is the best so far."""
        improved = not self.best or cost < self.best[0][0]
        self.best = sorted([*self.best, (cost, self.step)])[:keep]
        if improved:
            self.best_metrics, self.best_epoch, self.bad_epochs = metrics, self.epoch, 0
            self.best_by_source = by_source or {}
        else:
            self.bad_epochs += 1
        return improved

    def add_terms(self, sums: dict[str, float], counts: dict[str, int], weights: dict[str, float]) -> None:
        """Add terms, the number of steps with each, and their weights to the epoch's sums."""
        for own, more in ((self.epoch_sums, sums), (self.weight_sums, weights)):
            for name, value in more.items():
                own[name] = own.get(name, 0.0) + value
        for name, count in counts.items():
            self.epoch_counts[name] = self.epoch_counts.get(name, 0) + count
        self.weight_steps += max(counts.values(), default=0)

    def end_epoch(self) -> tuple[dict[str, float], dict[str, float]]:
        """Return the epoch's mean terms and their mean weights, and begin the next epoch."""
        means = {name: value / self.epoch_counts[name] for name, value in self.epoch_sums.items()}
        weights = {name: value / max(1, self.weight_steps) for name, value in self.weight_sums.items()}
        self.epoch, self.step_in_epoch = self.epoch + 1, 0
        self.epoch_sums, self.epoch_counts, self.weight_sums, self.weight_steps = {}, {}, {}, 0
        return means, weights


def _numbers(metrics: dict[str, dict[str, float | None]]) -> dict[str, dict[str, float]]:
    return {
        model: {name: float("nan") if value is None else value for name, value in values.items()}
        for model, values in metrics.items()
    }
