"""What runs forward, backward and update: plain torch, or DeepSpeed ZeRO."""

from vadv_dist.engines.build import build_engine
from vadv_dist.engines.distributed import Distributed
from vadv_dist.engines.protocol import Engine

__all__ = [
    "Distributed",
    "Engine",
    "build_engine",
]
