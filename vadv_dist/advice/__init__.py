"""Advice before a run: what a teacher can add, from probes on frozen features."""

from vadv_dist.advice.advise import TEACHER_FEATURES, advise
from vadv_dist.advice.result import Advice, Probe

__all__ = ["TEACHER_FEATURES", "Advice", "Probe", "advise"]
