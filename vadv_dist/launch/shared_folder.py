"""Whether the workers of a run see the driver's folder: the driver leaves a mark in it, and every rank looks for that.

Without it, workers on a node that does not share the disk would train to the end into a folder of their own. What they
find reaches the driver through the cluster itself, since it is the disk that is in doubt.
"""

import json
import os
import secrets
import socket
import time
from typing import Any

from vadv_dist.engines.distributed import Distributed
from vadv_dist.errors import UserError, VadvError
from vadv_dist.storage import Location, on_disk, write_text

_NAMESPACE = b"vadv"
_WAIT_S, _POLL_S, _NODES_S = 10.0, 0.5, 60.0
_ADVICE = "Give a run.storage that every node sees: s3://…, or the absolute path of a shared disk."


def leave_mark(folder: Location) -> str:
    """Leave a mark in a folder, and return its name.

    The name is new each time: a network disk may remember for a while that a name was not there.
    """
    name = f"driver-{secrets.token_hex(8)}"
    write_text(folder / name, f"{socket.gethostname()}\n")
    return name


def sees_mark(folder: Location, name: str, wait_s: float = _WAIT_S) -> bool:
    """Whether a mark is there; a network disk may show it some seconds late."""
    deadline = time.monotonic() + wait_s
    while not (folder / name).is_file():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def require_shared_by_nodes(folder: Location) -> None:
    """Refuse a folder that not every node with CPUs sees, where it is not known yet which of them will work.

    Raises:
        UserError: a node does not see it.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    disk = on_disk(folder)
    if disk is None:  # a node that does not reach a store says so itself
        return
    name = leave_mark(disk)
    mark = os.path.abspath(disk / name)  # links are followed on each node
    look: Any = ray.remote(os.path.exists)
    asked = {}
    for node in ray.nodes():  # type: ignore[no-untyped-call]  # untyped in Ray
        if node["Alive"] and node["Resources"].get("CPU"):
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked[look.options(num_cpus=0, scheduling_strategy=there).remote(mark)] = node["NodeManagerHostname"]
    try:
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_NODES_S)
        blind = [asked[answer] for answer in answered if not ray.get(answer)]
    except ray.exceptions.RayError:  # a node was just lost: what it sees does not matter
        blind = []
    finally:
        (folder / name).unlink(missing_ok=True)
    if blind:
        raise UserError(
            f"{folder} is not shared by all nodes: what this process on {socket.gethostname()} has just written there "
            f"({mark}) is not seen on {', '.join(sorted(blind))}. Nothing was started. {_ADVICE}"
        )


def all_see_mark(folder: Location, name: str, distributed: Distributed) -> bool:
    """Whether every rank sees the driver's mark; rank 0 tells the driver which do not."""
    place = folder.resolve()
    try:
        blind = None if sees_mark(folder, name) else [socket.gethostname(), str(place)]
    except (VadvError, OSError) as error:  # other ranks wait for what this one has found
        blind = [socket.gethostname(), f"{place}: {error}"]
    found = distributed.gather(blind)
    if not any(found):
        return True
    if distributed.is_main:
        from ray.experimental.internal_kv import _internal_kv_put

        told = [[rank, *where] for rank, where in enumerate(found) if where]
        _internal_kv_put(name.encode(), json.dumps(told).encode(), overwrite=True, namespace=_NAMESPACE)
    return False


def require_shared(folder: Location, name: str) -> None:
    """Raise in the driver what the ranks have found.

    Raises:
        UserError: a rank does not see the folder.
    """
    from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get

    told = _internal_kv_get(name.encode(), namespace=_NAMESPACE)
    if told is None:
        return
    _internal_kv_del(name.encode(), namespace=_NAMESPACE)
    blind = "; ".join(f"rank {rank} on {host} ({place})" for rank, host, place in json.loads(told))
    raise UserError(
        f"{folder} is not shared by all workers: what the driver on {socket.gethostname()} has just written there is "
        f"not seen by {blind}. Nothing was trained. {_ADVICE}"
    )
