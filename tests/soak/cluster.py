"""The Ray cluster of a soak: one for all rounds, of which only what a fault killed is started again."""

import contextlib
from collections.abc import Iterator

import psutil
from ray_nodes import Nodes, kill_node, start_nodes

# Seconds for which Ray waits for a head that is gone, in place of 60: this one does not come back.
_SETTINGS = {"RAY_gcs_rpc_server_reconnect_timeout_s": "5", "OMP_NUM_THREADS": "1"}


class RayCluster:
    """A head with one CPU, and a node with two, on which the workers of a training run."""

    def __init__(self) -> None:
        self._held = contextlib.ExitStack()
        self._nodes: Nodes

    def start(self) -> None:
        """Start both."""
        self._nodes = self._held.enter_context(start_nodes(head_cpus=1, others=1, settings=_SETTINGS))

    def close(self) -> None:
        """Kill what is left."""
        self._held.close()

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which a process finds it; they change with the head."""
        return self._nodes.cluster.environment

    def processes(self, title: str) -> list[psutil.Process]:
        """Workers of both nodes whose process title contains these words."""
        return self._nodes.processes(title)

    def kill_node(self) -> None:
        """Kill the node and all that runs on it."""
        kill_node(self._nodes.started.pop())

    def add_node(self) -> None:
        """Start a node in place of one that was killed."""
        self._nodes.add()

    def kill_head(self) -> None:
        """Kill the head and all that runs on it."""
        kill_node(self._nodes.cluster.head)


@contextlib.contextmanager
def ray_cluster(*, is_needed: bool) -> Iterator[RayCluster | None]:
    """The cluster for the duration of the block; None if no subject needs it."""
    if not is_needed:
        yield None
        return
    cluster = RayCluster()
    with contextlib.closing(cluster):
        cluster.start()
        yield cluster
