"""Keep two processes from writing to one run."""

from contextlib import AbstractContextManager

from vadv_dist.storage import Location, exclusive


def run_lock(root: Location, name: str, *, wait_s: float = 0.0) -> AbstractContextManager[None]:
    """Hold the lock `name` of a run; it ends with the process, however that ends.

    Args:
        root: the run's folder.
        name: name of the file or object.
        wait_s: how long to wait for another holder to let go.
    Raises:
        UserError: another process has it.
        MachineError: the storage cannot lock.
    """
    taken = f"{root} is being trained by another process. Wait for it, or give another --run.name."
    return exclusive(root, name, taken=taken, wait_s=wait_s)
