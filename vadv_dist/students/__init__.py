"""Students of audio-visual retrieval: encoders of both modalities with losses of their own, one file each."""

from vadv_dist.students.base import RetrievalStudent

__all__ = ["RetrievalStudent"]
