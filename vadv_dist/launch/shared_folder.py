"""Check that the workers of a run share the driver's folder: the driver writes a mark that every rank looks for.

Otherwise, workers on a node that does not share the disk would write the whole run to their local disk. Their findings
are sent to the driver through the cluster, because the disk may not be shared.
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
_ADVICE = "Set run.storage to a place that all nodes share: s3://…, or an absolute path on a shared disk."


def leave_mark(folder: Location) -> str:
    """Write a mark to a folder, and return its name, which is new each time: network disks cache missing names."""
    name = f"driver-{secrets.token_hex(8)}"
    write_text(folder / name, f"{socket.gethostname()}\n")
    return name


def sees_mark(folder: Location, name: str, wait_s: float = _WAIT_S) -> bool:
    """Whether a mark exists; on a network disk it may appear seconds late."""
    deadline = time.monotonic() + wait_s
    while not (folder / name).is_file():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def require_shared_by_nodes(folder: Location) -> None:
    """Check that every node with CPUs shares a folder, before it is known which nodes will be used.

    Raises:
        UserError: a node does not.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    disk = on_disk(folder)
    if disk is None:  # a node that cannot reach an object store fails by itself
        return
    name = leave_mark(disk)
    mark = os.path.abspath(disk / name)  # each node resolves links itself
    look: Any = ray.remote(os.path.exists)
    asked = {}
    for node in ray.nodes():  # type: ignore[no-untyped-call]  # untyped in Ray
        if node["Alive"] and node["Resources"].get("CPU"):
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked[look.options(num_cpus=0, scheduling_strategy=there).remote(mark)] = node["NodeManagerHostname"]
    try:
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_NODES_S)
        blind = [asked[answer] for answer in answered if not ray.get(answer)]
    except ray.exceptions.RayError:  # a node was just lost, so its answer does not matter
        blind = []
    finally:
        (folder / name).unlink(missing_ok=True)
    if blind:
        raise UserError(
            f"{folder} is not shared by all nodes: a file that {socket.gethostname()} has just written there ({mark}) "
            f"is not visible on {', '.join(sorted(blind))}. Nothing was started. {_ADVICE}"
        )


def all_see_mark(folder: Location, name: str, distributed: Distributed) -> bool:
    """Whether every rank sees the driver's mark; rank 0 reports those that do not to the driver."""
    place = folder.resolve()
    try:
        blind = None if sees_mark(folder, name) else [socket.gethostname(), str(place)]
    except (VadvError, OSError) as error:  # other ranks wait for this one's answer
        blind = [socket.gethostname(), f"{place}: {error}"]
    found = distributed.gather(blind)
    if not any(found):
        return True
    if distributed.is_main:
        from ray.experimental.internal_kv import _internal_kv_put

        findings = [[rank, *where] for rank, where in enumerate(found) if where]
        _internal_kv_put(name.encode(), json.dumps(findings).encode(), overwrite=True, namespace=_NAMESPACE)
    return False


def require_shared(folder: Location, name: str) -> None:
    """Raise the ranks' findings in the driver.

    Raises:
        UserError: a rank does not see the folder.
    """
    from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get

    findings = _internal_kv_get(name.encode(), namespace=_NAMESPACE)
    if findings is None:
        return
    _internal_kv_del(name.encode(), namespace=_NAMESPACE)
    blind = "; ".join(f"rank {rank} on {host} ({place})" for rank, host, place in json.loads(findings))
    raise UserError(
        f"{folder} is not shared by all workers: a file that the driver on {socket.gethostname()} has just written "
        f"there is not visible to {blind}. Nothing was trained. {_ADVICE}"
    )
