"""`vadv doctor`: find problems before a run does, with advice for each."""

import contextlib
import importlib.metadata
import os
import platform
import re
import resource
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vadv_dist.config import Config
from vadv_dist.errors import VadvError
from vadv_dist.runtime.nvidia_smi import GpuReport, gpu_report, is_too_old, oldest_driver, others_on
from vadv_dist.runtime.terminal import counted
from vadv_dist.storage import clock_skew_s, copy_of_folder, free_bytes, location, on_disk, write_text

if TYPE_CHECKING:
    from rich.console import Console

    from vadv_dist.training.splits import Splits

# Older versions can execute foreign code when loading a checkpoint or joining a cluster (SECURITY.md), or lack an API.
_MINIMUM_VERSIONS = {
    "torch": ("2.10", "older versions can execute code in a weights file"),
    "ray": ("2.60", "training follows its notices of nodes that leave; versions before 2.56 are vulnerable"),
    "transformers": ("5.0", "encoders are loaded through its API"),
    "deepspeed": ("0.18", "required by engine.kind deepspeed"),
    "pyarrow": ("26", "older versions cannot read clips that lack a feature"),
}
_LOW_DISK_BYTES, _LOW_SHM_BYTES, _LOW_FILES = 10 << 30, 2 << 30, 4096
_LARGEST_SKEW_S = 300.0
_BF16_CAPABILITY = 8  # Ampere
_ENGINE_ADVICE = "Fix this or set another engine.kind: a run with this engine would fail in the same way."


@dataclass(frozen=True)
class Finding:
    """One check: its subject, its result, and advice if there is a problem."""

    level: Literal["ok", "warning", "fault"]
    what: str
    found: str
    advice: str = ""

    def to_json(self) -> dict[str, str]:
        """Plain containers."""
        return asdict(self)


def examine(config: Config | None = None) -> list[Finding]:
    """Check this machine and what a configuration needs, without starting a cluster or a run."""
    findings = [*_versions(), *_machine(), *_gpus(config), *_ray(config)]
    if config is not None:
        findings += [*_data(config), *_engine(config), *_memory(config), *_storage(config), *_port(config)]
    return findings


def render(findings: list[Finding], console: "Console") -> None:
    """Print one line per finding, and advice below problems."""
    from rich.text import Text

    marks = {"ok": ("✓ ok     ", "green"), "warning": ("! warning", "yellow"), "fault": ("✗ fault  ", "red")}
    for finding in findings:
        console.print(Text(*marks[finding.level]), end=" ")
        console.print(f"{finding.what}: {finding.found}", highlight=False, soft_wrap=True)
        if finding.advice:
            console.print(f"          → {finding.advice}", highlight=False, soft_wrap=True)
    faults, warnings = (sum(finding.level == level for finding in findings) for level in ("fault", "warning"))
    totals = (counted(len(findings), "check"), counted(faults, "fault"), counted(warnings, "warning"))
    console.print(", ".join(totals), highlight=False)


def _finding(what: str, found: str, advice: str = "", *, level: Literal["warning", "fault"] = "fault") -> Finding:
    """A finding that is a problem if there is advice."""
    return Finding(level if advice else "ok", what, found, advice)


def _versions() -> Iterator[Finding]:
    good = (3, 11) <= sys.version_info < (3, 14)
    yield _finding("python", platform.python_version(), "" if good else "Use Python 3.11, 3.12 or 3.13.")
    for name, (least, why) in _MINIMUM_VERSIONS.items():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield _finding(name, "not installed", f"pip install '{name}>={least}': {why}.")
            continue
        yield _finding(name, found, f"Install {least} or later: {why}." if _release(found) < _release(least) else "")


def _machine() -> Iterator[Finding]:
    yield _finding("cores", str(os.cpu_count()))
    shm = Path("/dev/shm")
    if shm.is_dir():
        free = shutil.disk_usage(shm).free
        advice = "Give the container more (docker --shm-size=16g): Ray's object store and NCCL need it."
        yield _finding("shared memory", _gib(free), advice if free < _LOW_SHM_BYTES else "", level="warning")
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    low = 0 <= files < _LOW_FILES
    yield _finding("open files", str(files), "Raise it: ulimit -n 65536." if low else "", level="warning")


def _gpus(config: Config | None) -> Iterator[Finding]:
    import torch

    report = gpu_report()  # before this process uses a GPU and is listed itself
    if not torch.cuda.is_available():
        yield _missing_gpu(config, report, torch.__version__, torch.version.cuda)
        return
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        has_bf16 = facts.major >= _BF16_CAPABILITY
        found = f"{facts.name}, {_gib(free)} of {_gib(total)} free, bf16 {'yes' if has_bf16 else 'no'}"
        others = others_on(str(facts.uuid), report.processes, os.getpid())
        if not has_bf16 and config is not None and config.trainer.precision == "bf16":
            advice = "Set trainer.precision: auto, which trains in fp32 on this GPU."
            yield _finding(f"GPU {number}", found, advice)
            continue
        found += "" if has_bf16 else " (trains in fp32)"
        advice = "Another process is using it (see nvidia-smi)." if free < 0.9 * total else ""
        if others:
            advice = f"It is also used by {', '.join(map(str, others))}: expect less memory and slower steps."
        yield _finding(f"GPU {number}", found, advice, level="warning")
    if torch.cuda.device_count() > 1 or (config is not None and config.trainer.workers > 1):
        try:
            yield _finding("NCCL", ".".join(map(str, torch.cuda.nccl.version())))  # type: ignore[no-untyped-call]  # untyped in torch
        except (AttributeError, RuntimeError) as error:
            yield _finding("NCCL", str(error), "Install a torch build with NCCL.")


def _missing_gpu(config: Config | None, report: GpuReport, torch_version: str, cuda: str | None) -> Finding:
    """Why torch finds no GPU."""
    wanted = None if config is None else config.trainer.use_gpu
    if not report.gpus:
        found = "none found" + ("" if cuda else f" (torch {torch_version} is a CPU build)")
        found += f"; {report.problem}" if report.problem else ""
        missing = "the driver" if cuda else "a CUDA build of torch, and the driver"
        advice = f"Install {missing}, or set trainer.use_gpu to auto or false." if wanted is True else ""
        return _finding("GPU", found, advice)
    gpu = report.gpus[0]
    found = f"{gpu.name} with driver {gpu.driver}, but torch cannot use it"
    level: Literal["warning", "fault"] = "warning" if wanted is False else "fault"
    if cuda is None:
        found += f": torch {torch_version} is a CPU build"
        return _finding("GPU", found, "Install a CUDA build of torch (https://pytorch.org/get-started).", level=level)
    if is_too_old(gpu.driver, cuda):
        found += f": torch {torch_version} is built for CUDA {cuda}, which needs driver {oldest_driver(cuda)} or later"
        advice = "Update the driver, or install a torch build for an older CUDA (https://pytorch.org/get-started)."
        return _finding("GPU", found, advice, level=level)
    advice = "Check CUDA_VISIBLE_DEVICES, and that the container was started with its GPUs (docker --gpus all)."
    return _finding("GPU", f"{found} (torch {torch_version}, CUDA {cuda})", advice, level=level)


def _ray(config: Config | None) -> Iterator[Finding]:
    from vadv_dist.runtime.ray_connection import has_token, named_cluster, require_usable
    from vadv_dist.submission.address import is_this_machine

    try:
        token = has_token()
    except VadvError as error:
        yield _finding("Ray token", "readable by other users", str(error))
        token = True
    try:
        named = named_cluster("trainer.ray_address", config.trainer.ray_address if config else None)
    except VadvError as error:
        yield _finding("Ray", "the cluster's address is not valid", str(error))
        return
    if named.address is None:
        yield _finding("Ray", f"a run with workers starts its own cluster on this machine ({named.by})")
        return
    http = f"http://{named.address.rpartition('://')[2]}"
    if not token and named.address != "auto" and not is_this_machine(http):
        advice = "Put its token into ~/.ray/auth_token (mode 600) and set RAY_AUTH_MODE=token."
        yield _finding("Ray token", f"none, but the cluster is not on this machine ({named.address})", advice)
    try:
        yield _finding("Ray", f"a run with workers joins {require_usable(named)} ({named.by})")
    except VadvError as error:
        yield _finding("Ray", f"{named.address} cannot be joined", str(error))


def _data(config: Config) -> Iterator[Finding]:
    from vadv_dist.training.splits import Splits

    try:
        splits = Splits.open(config)
    except (VadvError, OSError) as error:
        yield _finding("data", "cannot be used", str(error))
        yield from _encoder(config, None)
        return
    rows = ", ".join(f"{int(split.table.rows.sum())} {split.name}" for split in (splits.train, splits.valid))
    yield _finding("data", f"{rows} clips (`vadv data-check` verifies each)")
    yield from _encoder(config, splits)


def _encoder(config: Config, splits: "Splits | None") -> Iterator[Finding]:
    """Build the model with its weights and check it, as a run does before its first step."""
    from vadv_dist.engines.distributed import choose_device
    from vadv_dist.models.pretrained import missing_files
    from vadv_dist.tasks import build

    student, name = config.text_student, config.student.title
    part = "student" if student is None else "encoder"
    if student is not None and (missing := missing_files(copy_of_folder(name), weights=student.pretrained)) is not None:
        advice = "Download it before the run (hf download), or the run needs access to the Hugging Face Hub."
        level: Literal["warning", "fault"] = "fault" if "/" in name else "warning"
        yield _finding("encoder", f"{name} is not on this machine ({missing})", advice, level=level)
        return
    if splits is None:  # the model depends on the data's features
        where = "" if student is None else "is on this machine; it "
        yield _finding(part, f"{name} {where}is tested once the data can be used")
        return
    try:
        build(config, splits.train.sources).check(choose_device(config.trainer.use_gpu))
    except VadvError as error:
        yield _finding(part, f"{name} cannot be trained as configured", str(error))
        return
    padding = "" if student is None else "respects padding, and "
    yield _finding(part, f"{name}: {padding}every trained parameter gets a gradient")


def _engine(config: Config) -> Iterator[Finding]:
    from vadv_dist.engines.check import check_engine
    from vadv_dist.launch.dry_run import chosen_engine

    chosen, reason = config, ""
    with contextlib.suppress(VadvError, OSError, KeyError, TypeError, ValueError):  # reported with the data or encoder
        choice = chosen_engine(config)
        chosen, reason = replace(config, engine=choice.engine), f" ({choice.reason})" if choice.reason else ""
    works, found = check_engine(chosen)
    what = "trains" if works else "does not train"
    name = chosen.engine.title
    yield _finding("engine", f"{name} {what} a toy model: {found}{reason}", "" if works else _ENGINE_ADVICE)


def _memory(config: Config) -> Iterator[Finding]:
    import torch

    from vadv_dist.launch.dry_run import describe

    try:
        need = int(describe(config)["memory_per_device"]["total"])
    except (VadvError, OSError, KeyError, TypeError, ValueError):
        return  # a problem with the data or encoder, which has been reported
    if torch.cuda.is_available() and config.trainer.use_gpu is not False:
        free, what = int(torch.cuda.mem_get_info()[0]), "GPU memory"
    else:
        free, what = _available_memory(), "memory"
        need *= max(1, config.trainer.workers)
    advice = "Use more workers, a larger trainer.accumulate, or student.gradient_checkpointing."
    found = f"needs about {_gib(need)} of {_gib(free)} free"
    yield _finding(what, found, "" if need < 0.9 * free else advice, level="warning")


def _storage(config: Config) -> Iterator[Finding]:
    place = location(config.run.storage)
    probe = place / f".vadv-doctor-{os.getpid()}"
    disk = on_disk(place)
    made = disk is not None and not disk.exists()
    try:
        write_text(probe, "probe")
        skew = clock_skew_s(probe)
        probe.unlink(missing_ok=True)
    except (VadvError, OSError) as error:
        yield _finding("run.storage", f"{place} cannot be written", str(error))
        return
    yield _finding("run.storage", f"{place} is readable and writable")
    if skew is not None:
        advice = "Set the clock: object stores reject requests that are minutes off."
        yield _finding("clock", f"{skew:+.0f} s relative to the store's", advice if abs(skew) > _LARGEST_SKEW_S else "")
    if disk is not None and made:
        disk.rmdir()
    if (free := free_bytes(place)) is not None:
        advice = "Free some space: a checkpoint of RoBERTa-Large takes 5 GB, and replaces one that is as large."
        yield _finding("disk", f"{_gib(free)} free", advice if free < _LOW_DISK_BYTES else "", level="warning")


def _port(config: Config) -> Iterator[Finding]:
    port = config.telemetry.port
    if port is None:
        return
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
            yield _finding("telemetry.port", f"{port} is free")
        except OSError as error:
            yield _finding("telemetry.port", f"{port}: {error.strerror}", "Choose another --telemetry.port.")


def _available_memory() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def _release(version: str) -> tuple[int, ...]:
    """The first two numbers of a version such as `2.10.0a0+cu128`."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
