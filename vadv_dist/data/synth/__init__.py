"""Synthetic data with known truth."""

from vadv_dist.data.synth.dataset import MIN_CLIPS, make_dataset
from vadv_dist.data.synth.model import GenerativeModel
from vadv_dist.data.synth.retrieval_dataset import make_retrieval_dataset
from vadv_dist.data.synth.retrieval_model import RetrievalModel

__all__ = ["MIN_CLIPS", "GenerativeModel", "RetrievalModel", "make_dataset", "make_retrieval_dataset"]
