"""VideoAdviser (arXiv:2309.15494): distil a video teacher into a text-only student, distributed."""

__version__ = "0.1.0"
