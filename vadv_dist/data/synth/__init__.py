"""Synthetic data with known truth."""

from vadv_dist.data.synth.dataset import MIN_CLIPS, make_dataset
from vadv_dist.data.synth.model import GenerativeModel

__all__ = ["MIN_CLIPS", "GenerativeModel", "make_dataset"]
