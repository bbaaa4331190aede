"""Advice before a run: what a teacher can add, from probes on frozen features."""

from vadv_dist.advice.advise import advise
from vadv_dist.advice.result import Advice, Probe

__all__ = ["Advice", "Probe", "advise"]
