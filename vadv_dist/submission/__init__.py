"""Jobs on a Ray cluster."""

from vadv_dist.submission.job import Submission, submit

__all__ = ["Submission", "submit"]
