"""Step time of the joint model on one CUDA device, against the floor that its bytes and operations set.

    python benchmarks/gpu.py                          # RoBERTa-Large, bf16, batch 4, 16 and 64
    python benchmarks/gpu.py --device cpu --tiny      # only to see that it runs

Needs torch and transformers alone. Clips have MOSI-like lengths, batches are bucketed as in training and padded to a
multiple of 8 tokens. Weights are fp32 and compute is bf16 under autocast, as in the plain engine; an update is fused
AdamW with clipping. Three ways to run a step: `eager`; `compile` (torch.compile of the model); `graph` (the whole
step captured as a CUDA graph, one per length). Results belong into docs/results.md.

Floor of a step = max(operations / matmul rate, 12 P / bandwidth) + 28 P / bandwidth, with P trained parameters:
forward and backward read the weights once each and write the gradient (4 + 4 + 4 bytes a parameter); the update reads
weight, gradient and two moments and writes weight and moments (16 + 12). Operations are those of the matrix products
of forward and backward, counted by torch's FlopCounterMode. Rate and bandwidth are measured on the device first, on a
large bf16 product and a large copy. Model FLOP utilisation = operations / (step time × measured rate).
"""

import argparse
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import RobertaConfig, RobertaModel

from vadv_dist.models.teacher import Teacher
from vadv_dist.models.text_student import TextStudent
from vadv_dist.objectives.base import weighted_total
from vadv_dist.objectives.outputs import TeacherStudentOutputs
from vadv_dist.objectives.step_distillation import TERMS, loss_terms

WEIGHTS = dict(zip((term.name for term in TERMS), (1.0, 10.0, 1.0, 10.0, 1.0), strict=True))
MOSI_CLIPS, PAPER_EPOCHS = 1284, 100
Step = Callable[[], None]


class Joint(nn.Module):
    """Teacher and student, and the weighted objective of one batch."""

    def __init__(self, tiny: bool) -> None:
        super().__init__()
        width, layers, heads, vocabulary = (32, 2, 2, 100) if tiny else (1024, 24, 16, 50265)
        config = RobertaConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            max_position_embeddings=514,
            type_vocab_size=1,
            attn_implementation="sdpa",
        )
        self.video_width = 32 if tiny else 768
        hidden = 16 if tiny else 128
        self.vocabulary = vocabulary
        encoder = RobertaModel(config, add_pooling_layer=False)
        self.student = TextStudent(encoder, hidden=hidden, pooling="cls", dropout=0.1)
        self.teacher = Teacher(
            visual_shape=(8, 1, self.video_width),
            face_shape=(64, 8),
            width=self.video_width,
            hidden=hidden,
            heads=max(1, self.video_width // 64),
            cct_layers=1,
            mit_layers=1,
            prompt_layers=2,
            prompt_alpha=0.1,
            prompting="video",
            similarity="dot",
        )

    def forward(self, ids_BL: Tensor, mask_BL: Tensor, visual: Tensor, face: Tensor, label_B: Tensor) -> Tensor:
        """Return the weighted loss, []."""
        rows = len(label_B)
        seen = self.teacher(visual=visual, face=face)
        outputs = TeacherStudentOutputs(
            self.student(ids_BL, mask_BL), seen.video_logit, seen.prompt_logit, seen.class_logits
        )
        terms = loss_terms(
            outputs, label_B, valid_B=torch.ones_like(label_B), has_video_B=None, num_rows=rows, num_video_rows=rows
        )
        return weighted_total(terms, WEIGHTS)


def batch_lengths(batch_size: int) -> Counter[int]:
    """Padded length of each batch of an epoch of MOSI's size: log-normal word counts (median 10, 95 % below 28)."""
    random = torch.Generator().manual_seed(1)
    words = torch.exp(math.log(10) + 0.63 * torch.randn(MOSI_CLIPS, generator=random)).clamp(1, 97)
    tokens = (words * 1.2 + 2).clamp(max=100)
    group = 16 * batch_size
    found: Counter[int] = Counter()
    for start in range(0, MOSI_CLIPS, group):
        ordered = tokens[start : start + group].sort().values
        found.update(min(104, 8 * math.ceil(float(part.max()) / 8)) for part in ordered.split(batch_size))
    return found


def example(model: Joint, batch_size: int, length: int, device: torch.device) -> tuple[Tensor, ...]:
    """One random batch; a tenth of its tokens are padding."""
    ids = torch.randint(5, model.vocabulary, (batch_size, length), device=device)
    mask = torch.ones_like(ids)
    mask[:, length - length // 10 :] = 0
    visual = torch.randn(batch_size, 8, 1, model.video_width, device=device, dtype=torch.float16)
    face = torch.randn(batch_size, 64, 8, device=device, dtype=torch.float16)
    return ids, mask, visual, face, torch.randn(batch_size, device=device)


def make_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, batch: tuple[Tensor, ...], device: torch.device
) -> Step:
    """A whole training step on a fixed batch."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def step() -> None:
        optimizer.zero_grad(set_to_none=False)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = model(*batch)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    return step


def captured(step: Step) -> Step:
    """The same step as one CUDA graph: the host launches once instead of thousands of times."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def seconds(step: Step, device: torch.device, repeats: int) -> float:
    """Median time of a step, after warming up."""
    for _ in range(3):
        step()
    times = []
    for _ in range(repeats):
        if device.type == "cuda":
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            step()
            end.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(end) / 1000)
        else:
            began = time.perf_counter()
            step()
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def ceilings(device: torch.device, tiny: bool) -> tuple[float, float]:
    """Measured bf16 matmul rate (operations/s) and copy bandwidth (bytes read and written per second)."""
    size, elements = (256, 1 << 16) if tiny else (8192, 1 << 30)
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    rate = 2 * size**3 / seconds(lambda: torch.mm(a, b), device, 10)
    source, target = torch.randn(elements, device=device), torch.empty(elements, device=device)
    return rate, 8 * elements / seconds(lambda: target.copy_(source), device, 10)


def main() -> None:
    """Measure every batch size and variant, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--variants", nargs="+", default=["eager", "compile", "graph"])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--tiny", action="store_true", help="a toy model, to see that the script runs")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("gpu.py: no CUDA device is found. --device cpu --tiny shows only that the script runs.")
    variants = options.variants if device.type == "cuda" else ["eager"]
    torch.manual_seed(1)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    rate, bandwidth = ceilings(device, options.tiny)
    print(f"{name}, torch {torch.__version__}: {rate / 1e12:.1f} TFLOP/s bf16, {bandwidth / 1e12:.3f} TB/s copy\n")
    print(
        "| batch | variant | ms/step | floor ms | × floor | MFU | 100 epochs of MOSI |\n|---|---|---|---|---|---|---|"
    )
    for batch_size in options.batch_sizes:
        lengths = batch_lengths(batch_size)
        for variant in variants:
            print(row(options, device, batch_size, variant, lengths, rate, bandwidth), flush=True)


def row(
    options: argparse.Namespace,
    device: torch.device,
    batch_size: int,
    variant: str,
    lengths: Counter[int],
    rate: float,
    bandwidth: float,
) -> str:
    """Measure one variant at one batch size, averaged over the lengths of an epoch's batches."""
    model = Joint(options.tiny).to(device).train()
    trained = sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True, capturable=device.type == "cuda")
    forward = torch.compile(model) if variant == "compile" else model
    taken = floor = operations = 0.0
    for length, count in sorted(lengths.items()):
        batch = example(model, batch_size, length, device)
        step = make_step(forward, optimizer, batch, device)
        with FlopCounterMode(display=False) as counter:
            make_step(model, optimizer, batch, device)()
        flops = counter.get_total_flops()
        taken += count * seconds(captured(step) if variant == "graph" else step, device, options.repeats)
        floor += count * (max(flops / rate, 12 * trained / bandwidth) + 28 * trained / bandwidth)
        operations += count * flops
    steps = sum(lengths.values())
    hours = taken * PAPER_EPOCHS / 3600
    return (
        f"| {batch_size} | {variant} | {1000 * taken / steps:.2f} | {1000 * floor / steps:.2f} | {taken / floor:.2f} | "
        f"{operations / taken / rate:.1%} | {hours:.2f} h |"
    )


if __name__ == "__main__":
    main()
