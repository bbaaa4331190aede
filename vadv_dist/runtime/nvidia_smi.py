"""What `nvidia-smi` says of this machine's GPUs and of the processes on them.

It comes with the driver and works where torch cannot use the GPU.
"""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

_TIMEOUT_S = 20
_GPU_FIELDS = ("uuid", "name", "driver_version")
_PROCESS_FIELDS = ("gpu_uuid", "pid", "process_name", "used_gpu_memory")
# The oldest driver for each major version of CUDA (NVIDIA's "CUDA Compatibility", minor version compatibility).
_OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}
# A process that has only made its CUDA context uses less.
_CONTEXT_MIB = 1024


@dataclass(frozen=True)
class Gpu:
    """One GPU: its UUID (`GPU-…`), its name, and the version of the driver."""

    uuid: str
    name: str
    driver: str


@dataclass(frozen=True)
class GpuProcess:
    """A process with a CUDA context on a GPU; memory in MiB, None if the driver does not tell it."""

    uuid: str
    pid: int
    name: str
    memory_mib: int | None

    def __str__(self) -> str:
        used = "" if self.memory_mib is None else f", {self.memory_mib / 1024:.1f} GiB"
        return f"{self.name} (pid {self.pid}{used})"


@dataclass(frozen=True)
class GpuReport:
    """GPUs and their processes; `problem` is what nvidia-smi said if it failed, empty if it is not installed."""

    gpus: list[Gpu] = field(default_factory=list)
    processes: list[GpuProcess] = field(default_factory=list)
    problem: str = ""


def gpu_report() -> GpuReport:
    """Run nvidia-smi; the report is empty on a machine without it."""
    if shutil.which("nvidia-smi") is None:
        return GpuReport()
    try:
        gpus = parse_gpus(_query("--query-gpu", _GPU_FIELDS))
        return GpuReport(gpus, parse_processes(_query("--query-compute-apps", _PROCESS_FIELDS)))
    except subprocess.CalledProcessError as error:
        said = (error.stdout or error.stderr or "").strip().splitlines()
        return GpuReport(problem=said[0] if said else f"nvidia-smi ended with exit code {error.returncode}")
    except (OSError, subprocess.TimeoutExpired) as error:
        return GpuReport(problem=f"nvidia-smi did not answer ({type(error).__name__})")


def parse_gpus(text: str) -> list[Gpu]:
    """GPUs from `--query-gpu=uuid,name,driver_version --format=csv,noheader,nounits`."""
    return [Gpu(*cells) for cells in _rows(text) if len(cells) == len(_GPU_FIELDS)]


def parse_processes(text: str) -> list[GpuProcess]:
    """Processes from `--query-compute-apps=gpu_uuid,pid,process_name,used_gpu_memory --format=csv,noheader,nounits`.

    A field that the driver does not tell is `[N/A]` or `[Insufficient Permissions]`; a name may contain commas.
    """
    found = []
    for cells in _rows(text):
        with contextlib.suppress(ValueError, IndexError):
            memory = int(cells[-1]) if cells[-1].isdigit() else None
            found.append(GpuProcess(cells[0], int(cells[1]), ", ".join(cells[2:-1]), memory))
    return found


def others_on(uuid: str, processes: Sequence[GpuProcess], own_pid: int) -> list[GpuProcess]:
    """Processes on a GPU other than this one.

    In a container, process ids are those of the host. If no id is ours, one process that has not allocated anything
    yet may be this one, and is left out.

    Args:
        uuid: the GPU, with or without `GPU-` in front.
        processes: all processes on GPUs.
        own_pid: id of this process.
    """
    here = [process for process in processes if process.uuid.removeprefix("GPU-") == uuid.removeprefix("GPU-")]
    if any(process.pid == own_pid for process in here):
        return [process for process in here if process.pid != own_pid]
    own = next((process for process in here if (process.memory_mib or 0) < _CONTEXT_MIB), None)
    return [process for process in here if process is not own]


def oldest_driver(cuda: str) -> int | None:
    """Major version of the oldest driver for a CUDA version such as `13.0`; None if it is not known."""
    return _OLDEST_DRIVER.get(_major(cuda))


def is_too_old(driver: str, cuda: str) -> bool:
    """Whether a driver such as `535.104.05` is too old for a CUDA version."""
    oldest = oldest_driver(cuda)
    return oldest is not None and 0 < _major(driver) < oldest


def _major(version: str) -> int:
    first = version.partition(".")[0]
    return int(first) if first.isdigit() else 0


def _rows(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        if line.strip():
            yield [cell.strip() for cell in line.split(",")]


def _query(what: str, fields: Sequence[str]) -> str:
    command = ["nvidia-smi", f"{what}={','.join(fields)}", "--format=csv,noheader,nounits"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=_TIMEOUT_S).stdout
