"""Metrics, their description, and intervals: plain numpy."""

from vadv_dist.evaluation.crossed import crossed_interval
from vadv_dist.evaluation.description import Metric, Output, TaskDescription, Term
from vadv_dist.evaluation.label_scale import LabelScale
from vadv_dist.evaluation.paired import Interval, paired_bootstrap
from vadv_dist.evaluation.significance import aso

__all__ = [
    "Interval",
    "LabelScale",
    "Metric",
    "Output",
    "TaskDescription",
    "Term",
    "aso",
    "crossed_interval",
    "paired_bootstrap",
]
