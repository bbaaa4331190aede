"""What `vadv serve --device cuda` computes, without HTTP: answers against a CPU, memory that runs out, rates.

    python benchmarks/serve_gpu.py [--device cuda] [--out FILE.json]

Students have random weights, one of MiniLM's and one of RoBERTa-Large's size; texts have the lengths of CMU-MOSI's
sentences. Needs neither fastapi nor a network. Exits with 1 if answers differ from the CPU's in fp32 by more than 1e-5
(bf16: 0.15; the standard deviation of predictions is printed), or a batch that is too large is not computed in parts.
"""

import argparse
import asyncio
import json
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertTokenizer, RobertaConfig
from transformers.utils import logging as hf_logging

from vadv_dist.inference.export import export_student
from vadv_dist.inference.model_card import ModelCard
from vadv_dist.inference.predict import Student
from vadv_dist.models.encoders import build_encoder
from vadv_dist.models.text_student import TextStudent
from vadv_dist.serving import text_model
from vadv_dist.serving.batcher import Batcher
from vadv_dist.serving.load import load_model
from vadv_dist.serving.settings import ServeSettings
from vadv_dist.serving.text_model import TextModel
from vadv_dist.storage import location

MAX_TOKENS = 100
began = time.monotonic()
failures: list[str] = []
found: dict[str, object] = {}


def say(text: str) -> None:
    print(f"[{time.monotonic() - began:5.1f} s] {text}", flush=True)


def check(name: str, holds: bool, detail: str) -> None:
    say(f"{'ok  ' if holds else 'FAIL'} {name}: {detail}")
    if not holds:
        failures.append(name)


def make_tokenizer() -> BertTokenizer:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(2000))]
    return BertTokenizer(vocab={word: number for number, word in enumerate(words)})


def make_texts(number: int) -> list[str]:
    """Texts as long as CMU-MOSI's sentences: 3 to 60 words, 12 at the median."""
    random = np.random.default_rng(0)
    lengths = np.clip(np.exp(random.normal(np.log(12), 0.6, number)).astype(int), 3, 60)
    return [" ".join(f"w{word}" for word in random.integers(0, 2000, length)) for length in lengths]


def make_student(config: BertConfig, scratch: Path) -> TextStudent:
    torch.manual_seed(0)
    config.save_pretrained(scratch)
    encoder = build_encoder(str(scratch), pretrained=False, dropout=None, gradient_checkpointing=False)
    student = TextStudent(encoder, hidden=128, pooling="cls", dropout=0.1)
    with torch.no_grad():  # predictions as wide as labels
        student.out.weight.normal_(0, 0.15)
    return student.eval()


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median_seconds(call, device: torch.device, budget_s: float) -> float:
    call(), call()
    synchronize(device)
    times, end = [], time.perf_counter() + budget_s
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        call()  # ends with a copy to the host
        times.append(time.perf_counter() - start)
    return statistics.median(times)


async def answers(model: TextModel, texts: list[str]) -> tuple[np.ndarray, int]:
    """Each text as a request of its own, all at once; the number of batches."""
    records = []
    batcher = Batcher(
        model, batch_tokens=model.student.batch_tokens, max_wait_s=0.002, max_queued=10_000, observe=records.append
    )
    await batcher.start()
    results = await asyncio.gather(*(batcher.predict([text]) for text in texts))
    await batcher.close()
    return np.array([result.results[0] for result in results]), len(records)


async def closed_loop(model: TextModel, texts: list[str], clients: int, seconds: float) -> float:
    """Sentences per second of clients that ask again when answered."""
    batcher = Batcher(model, batch_tokens=model.student.batch_tokens, max_wait_s=0.002 if clients > 1 else 0.0)
    await batcher.start()
    end, done = time.perf_counter() + seconds, 0

    async def client(first: int) -> None:
        nonlocal done
        place = first
        while time.perf_counter() < end:
            await batcher.predict([texts[place % len(texts)]])
            place, done = place + 1, done + 1

    start = time.perf_counter()
    await asyncio.gather(*(client(number * 7) for number in range(clients)))
    rate = done / (time.perf_counter() - start)
    await batcher.close()
    return rate


def measure(name: str, model: TextModel, texts: list[str], budget_s: float) -> None:
    device = model.student.device
    rates = {}
    for rows in (1, 32):
        some = texts[:rows] if rows > 1 else [sorted(texts, key=len)[len(texts) // 2]]
        seconds = median_seconds(lambda some=some: model.predict(model.read(some)), device, budget_s)
        rates[f"batch {rows}"] = round(rows / seconds)
        rates[f"ms of batch {rows}"] = round(1000 * seconds, 2)
    rates["32 clients"] = round(asyncio.run(closed_loop(model, texts, 32, 2 * budget_s)))
    found[name] = rates
    say(f"     {name} on {model.student.place}: {rates}")


def call_cost(model: TextModel, budget_s: float) -> None:
    """What a call costs beside its tokens, as a number of tokens; and 32 texts under several values of it."""
    student, device = model.student, model.student.device
    ids = model.read(["w1"])[0].token_ids
    short, many = [(ids * 20)[:16]], [(ids * 20)[:32]] * (student.batch_tokens // 32)
    one = median_seconds(lambda: student.predict_tokens(short), device, budget_s)
    all_of = median_seconds(lambda: student.predict_tokens(many), device, budget_s)
    tokens = 32 * len(many)
    per_token = (all_of - one) / (tokens - 16)
    cost = one / per_token
    name = "GPU_GROUP_TOKENS" if student.on_gpu else "CPU_GROUP_TOKENS"
    before, times = getattr(text_model, name), {}
    readings = model.read(make_texts(32))
    for value in (0, 32, 1024, 8192, 65536) if student.on_gpu else ():
        setattr(text_model, name, value)
        times[value] = round(1000 * median_seconds(lambda: model.predict(readings), device, budget_s / 2), 2)
    setattr(text_model, name, before)
    found[f"call cost, {student.precision}"] = {"ms": 1000 * one, "tokens": round(cost), "ms of 32 texts": times}
    say(
        f"     a call of one short text takes {1000 * one:.2f} ms, {tokens} tokens take {1000 * all_of:.1f} ms: a call "
        f"costs {cost:.0f} tokens; ms of 32 texts by {name}: {times}"
    )


def out_of_memory(export: Path, texts: list[str], expected: np.ndarray, device: torch.device) -> None:
    """Too little memory for a batch: it is split, and the answers are the same."""
    student = Student.load(export, device=str(device))
    bound = student.batch_tokens
    token_ids = student.tokenize(texts)
    student.predict_tokens(token_ids[:8])
    synchronize(device)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(device) + 64 * 2**20) / total, device)
    try:
        values = student.predict_tokens(token_ids)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    difference = float(np.abs(values - expected).max())
    check("memory runs out", student.batch_tokens < bound, f"bound {bound} -> {student.batch_tokens} tokens")
    check("answers after it", difference <= 1e-5, f"differ by at most {difference:.1e}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--budget", type=float, default=0.4, help="seconds of each measurement")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="        log: %(message)s")
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    device = torch.device(args.device)
    on_gpu = device.type == "cuda"
    found["device"] = torch.cuda.get_device_name(device) if on_gpu else "cpu"
    found["torch"] = torch.__version__
    say(f"torch {torch.__version__}, {found['device']}, fastapi is not used")
    texts = make_texts(2048 if on_gpu else 256)
    with tempfile.TemporaryDirectory() as scratch:
        small = BertConfig(
            vocab_size=30522, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
        )
        card = ModelCard(name="random", encoder="random", max_tokens=MAX_TOKENS, metrics={}, data=[], config={})
        export = Path(scratch) / "export"
        export_student(make_student(small, Path(scratch) / "a"), make_tokenizer(), location(export), card=card)
        expected = Student.load(export, device="cpu").predict(texts)
        say(f"     CPU predictions of {len(texts)} texts: standard deviation {expected.std():.3f}")
        for precision, tolerance in (("fp32", 1e-5), ("bf16", 0.15)):
            settings = ServeSettings(location(export), device=args.device, precision=precision)
            model = load_model(settings).model
            values, batches = asyncio.run(answers(model, texts))
            difference = np.abs(values - expected)
            found[f"{precision} difference"] = {"max": float(difference.max()), "mean": float(difference.mean())}
            check(
                f"batcher, MiniLM-size, {precision}",
                float(difference.max()) <= tolerance,
                f"{batches} batches; differ from the CPU in fp32 by {difference.max():.1e} at most, "
                f"{difference.mean():.1e} on average (allowed {tolerance:g})",
            )
            measure(f"MiniLM-size, {precision}", model, texts, args.budget)
            if precision == "fp32" or on_gpu:
                call_cost(model, args.budget)
        auto = load_model(ServeSettings(location(export), device=args.device)).model.student.precision
        wanted = "bf16" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
        check("precision auto", auto == wanted, auto)
        if on_gpu:
            out_of_memory(export, texts, expected, torch.device("cuda", 0))
        large = RobertaConfig(
            vocab_size=50265,
            hidden_size=1024,
            num_hidden_layers=24,
            num_attention_heads=16,
            intermediate_size=4096,
            max_position_embeddings=514,
            pad_token_id=0,
        )
        student = make_student(large, Path(scratch) / "b")
        say("     RoBERTa-Large-size student built")
        few = texts[: 16 if on_gpu else 4]
        exact = Student(student, make_tokenizer(), MAX_TOKENS, device="cpu").predict(few)
        for precision, tolerance in (("fp32", 1e-5), ("bf16", 0.15)) if on_gpu else (("fp32", 1e-5),):
            model = TextModel(Student(student, make_tokenizer(), MAX_TOKENS, device=args.device, precision=precision))
            values, _ = asyncio.run(answers(model, few))
            difference = float(np.abs(values - exact).max())
            check(
                f"batcher, RoBERTa-Large-size, {precision}",
                difference <= tolerance * max(1.0, float(np.abs(exact).max())),
                f"differ from the CPU in fp32 by {difference:.1e} at most (standard deviation {exact.std():.3f})",
            )
            if on_gpu:
                measure(f"RoBERTa-Large-size, {precision}", model, texts, args.budget)
        if on_gpu:
            found["peak memory, MiB"] = round(torch.cuda.max_memory_allocated(device) / 2**20)
    found["seconds"] = round(time.monotonic() - began, 1)
    print(json.dumps(found))
    if args.out:
        args.out.write_text(json.dumps(found, indent=2) + "\n")
    if failures:
        print(f"FAILED: {', '.join(failures)}", file=sys.stderr)
        return 1
    say("all checks hold")
    return 0


if __name__ == "__main__":
    sys.exit(main())
