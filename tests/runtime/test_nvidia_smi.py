"""What nvidia-smi prints, in the formats of its manual page, and what follows from it."""

import os
from pathlib import Path

import pytest

from vadv_dist.runtime.nvidia_smi import (
    Gpu,
    GpuProcess,
    gpu_report,
    is_too_old,
    oldest_driver,
    others_on,
    parse_gpus,
    parse_processes,
)

GPUS = """GPU-5a1ec8f1-2f1d-7a2b-92f7-6a54b2d30c41, NVIDIA H100 80GB HBM3, 535.104.05
GPU-0d7e1a52-94e2-3c0e-8f8a-cf9f4b7d1a10, Tesla T4, 535.104.05
"""
PROCESSES = """GPU-5a1ec8f1-2f1d-7a2b-92f7-6a54b2d30c41, 2345, /usr/bin/python3, 20518
GPU-5a1ec8f1-2f1d-7a2b-92f7-6a54b2d30c41, 777, train, sharded, 420
GPU-0d7e1a52-94e2-3c0e-8f8a-cf9f4b7d1a10, 99, [Insufficient Permissions], [N/A]
"""
H100, T4 = (gpu.uuid for gpu in parse_gpus(GPUS))


def test_gpus_and_processes_are_parsed() -> None:
    assert parse_gpus(GPUS)[0] == Gpu(H100, "NVIDIA H100 80GB HBM3", "535.104.05")
    assert parse_processes(PROCESSES) == [
        GpuProcess(H100, 2345, "/usr/bin/python3", 20518),
        GpuProcess(H100, 777, "train, sharded", 420),
        GpuProcess(T4, 99, "[Insufficient Permissions]", None),
    ]
    assert [str(process) for process in parse_processes(PROCESSES)] == [
        "/usr/bin/python3 (pid 2345, 20.0 GiB)",
        "train, sharded (pid 777, 0.4 GiB)",
        "[Insufficient Permissions] (pid 99)",
    ]


@pytest.mark.parametrize("text", ["", "\n", "No devices were found\n"])
def test_output_without_rows_gives_nothing(text: str) -> None:
    assert parse_gpus(text) == []
    assert parse_processes(text) == []


def test_other_processes_on_a_gpu_do_not_include_this_one() -> None:
    processes = parse_processes(PROCESSES)
    bare = H100.removeprefix("GPU-")  # as torch writes it
    assert [process.pid for process in others_on(bare, processes, own_pid=777)] == [2345]
    # In a container our id is another one: a small process may be this one, a large one cannot.
    assert [process.pid for process in others_on(H100, processes, own_pid=1)] == [2345]
    assert [process.pid for process in others_on(H100, processes[:1], own_pid=1)] == [2345]
    assert others_on("another", processes, own_pid=1) == []


@pytest.mark.parametrize(
    ("driver", "cuda", "expected"),
    [
        ("535.104.05", "13.0", True),
        ("580.65.06", "13.0", False),
        ("535.104.05", "12.8", False),
        ("470.82.01", "12.6", True),
        ("[N/A]", "13.0", False),
        ("535.104.05", "99.0", False),  # a CUDA version that is not known yet
    ],
)
def test_drivers_too_old_for_a_cuda_version(driver: str, cuda: str, expected: bool) -> None:
    assert is_too_old(driver, cuda) == expected


def test_the_oldest_driver_is_that_of_the_major_version() -> None:
    assert (oldest_driver("13.0"), oldest_driver("12.8"), oldest_driver("99.0")) == (580, 525, None)


def install(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program named nvidia-smi in front of all others."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_the_program_is_asked_for_gpus_and_processes(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "gpus").write_text(GPUS)
    (tmp_path / "processes").write_text(PROCESSES)
    install(
        tmp_path,
        f"""case "$*" in
"--query-gpu=uuid,name,driver_version --format=csv,noheader,nounits") cat {tmp_path}/gpus ;;
"--query-compute-apps=gpu_uuid,pid,process_name,used_gpu_memory --format=csv,noheader,nounits")
    cat {tmp_path}/processes ;;
*) exit 2 ;;
esac""",
        monkeypatch,
    )
    report = gpu_report()
    assert [gpu.name for gpu in report.gpus] == ["NVIDIA H100 80GB HBM3", "Tesla T4"]
    assert len(report.processes) == 3
    assert report.problem == ""


def test_a_driver_that_does_not_answer_is_quoted(tmp_path: Path, monkeypatch) -> None:
    said = "Failed to initialize NVML: Driver/library version mismatch"
    install(tmp_path, f"echo '{said}'; echo 'NVML library version: 580.65'; exit 18", monkeypatch)
    assert gpu_report().problem == said


def test_a_machine_without_the_program_has_an_empty_report(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    report = gpu_report()
    assert (report.gpus, report.processes, report.problem) == ([], [], "")
