"""Whether the nodes of a cluster have room for a run's workers."""

from collections.abc import Mapping, Sequence

from vadv_dist.runtime.terminal import counted

Resources = Mapping[str, float]
# Ray counts ten-thousandths of a resource.
_ROUNDING = 1e-6


def count_fitting(nodes: Sequence[Resources], worker: Resources) -> int:
    """The number of workers for which the nodes have room; each worker must fit on one node.

    Args:
        nodes: the resources of each node.
        worker: those of each worker; one of them is not 0.
    """
    return sum(_on_node(node, worker) for node in nodes)


def lacking(
    nodes: Sequence[Resources], worker: Resources, workers: int, *, spare_cpus: int = 0, unit: str = "worker"
) -> str:
    """What the nodes lack for the workers, as the end of a sentence; empty if nothing.

    Args:
        nodes: the resources of each node.
        worker: those of each worker; at least `spare_cpus` CPUs.
        workers: the number of workers.
        spare_cpus: CPUs that one of the nodes must have besides, for reading data.
        unit: what a worker is called.
    """
    fitting = count_fitting(nodes, worker)
    resources = " and ".join(counted(amount, name) for name, amount in worker.items() if amount)
    text = f"room for {min(fitting, workers)} of {counted(workers, unit)} with {resources} each on one node"
    if fitting < workers:
        return text
    left = (node.get("CPU", 0.0) - _on_node(node, worker) * worker["CPU"] for node in nodes)
    if fitting == workers and max(left, default=0.0) < spare_cpus:
        return f"{text}, but not for reading data, which needs {counted(spare_cpus, 'CPU')} more"
    return ""


def _on_node(node: Resources, worker: Resources) -> int:
    return min(int(node.get(name, 0.0) / amount + _ROUNDING) for name, amount in worker.items() if amount)
