"""100,000 sentences through the command `vadv predict`: rate, memory and silence.

    python benchmarks/predict_file.py [--texts 100000]

The rate, the command's start included, is compared with the Hugging Face pipeline's on 2,000 of the sentences, measured
before and after; the peak memory with that of a tenth of the sentences. Silence is the longest time without a line on a
stderr that is not a terminal.
"""

import argparse
import csv
import itertools
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
from predict import MOSI, make_student, minilm, read_texts
from transformers import pipeline
from transformers.utils import logging

PIPELINE_TEXTS, THREADS = 2000, 2


class Measured(NamedTuple):
    """One run of the command."""

    seconds: float
    peak_bytes: int
    silence_s: float


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=100_000)
    number = parser.parse_args().texts
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    source, some = read_texts(MOSI)
    texts = list(itertools.islice(itertools.cycle(some), number))
    with tempfile.TemporaryDirectory() as scratch:
        student = Path(scratch) / "student"
        make_student(student, minilm(), "cls")
        classify = pipeline("text-classification", model=str(student), batch_size=32, device="cpu")

        def pipeline_rate() -> float:
            began = time.perf_counter()
            classify(texts[:PIPELINE_TEXTS], truncation=True)
            return PIPELINE_TEXTS / (time.perf_counter() - began)

        pipeline_rate()
        rates = [pipeline_rate()]
        tenth = command(student, texts[: number // 10], Path(scratch) / "tenth.csv")
        whole = command(student, texts, Path(scratch) / "whole.csv")
        rates.append(pipeline_rate())
    rate, other = number / whole.seconds, sum(rates) / len(rates)
    print(
        f"vadv predict, {number:,} {source}, {THREADS} threads: {rate:.0f} sentences/s, start included; pipeline "
        f"{rates[0]:.0f} and {rates[1]:.0f}, ratio {rate / other:.2f}; peak {whole.peak_bytes / 2**20:.0f} MiB, of a "
        f"tenth {tenth.peak_bytes / 2**20:.0f} MiB; longest silence {whole.silence_s:.1f} s"
    )


def command(student: Path, texts: list[str], path: Path) -> Measured:
    """Run `vadv predict` on a CSV of texts."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text"])
        writer.writerows(enumerate(texts))
    output = path.with_suffix(".out.csv")
    arguments = ["predict", str(student), "--input", str(path), "--output", str(output), "--device", "cpu"]
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "vadv_dist.cli", *arguments], stderr=subprocess.PIPE, text=True)
    peaks: list[int] = []
    watcher = threading.Thread(target=watch_memory, args=(process.pid, peaks))
    watcher.start()
    times = [began]
    for line in process.stderr or ():
        times.append(time.perf_counter())
        print(f"  {times[-1] - began:6.1f} s  {line.rstrip()}", file=sys.stderr)
    process.wait()
    times.append(time.perf_counter())
    watcher.join()
    with output.open(encoding="utf-8", newline="") as file:
        if process.returncode or sum(1 for _ in csv.reader(file)) != len(texts) + 1:
            sys.exit(f"vadv predict ended with {process.returncode}.")
    silence_s = max(later - earlier for earlier, later in itertools.pairwise(times))
    return Measured(times[-1] - began, max(peaks), silence_s)


def watch_memory(pid: int, peaks: list[int]) -> None:
    """Collect the memory of a process that it does not share, until it ends."""
    try:
        process = psutil.Process(pid)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            peaks.append(process.memory_info().rss - process.memory_info().shared)
            time.sleep(0.2)
    except psutil.NoSuchProcess:
        pass


if __name__ == "__main__":
    main()
