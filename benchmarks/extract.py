"""Clips/s of `vadv extract` through Ray against the same stages in one process, which keeps everything in memory.

Encoders have random weights, and sizes such that one stage (the image encoder) takes a little longer than the others
together. Each stage has one core and its torch one thread, also in the loop, so that two cores can at best halve the
time. The rate is that of the middle half of the clips: filling and draining the pipeline do not grow with the list.
Ways take turns, and the ratios are medians over the rounds, since a machine's speed changes within minutes. Clips are
GRID's where they are at hand, with YuNet, else generated, with face boxes from a CSV.
"""

import csv
import io
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import numpy as np
import psutil
import torch
from measure import Row
from rich.console import Console
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

from vadv_dist.config.extract_sections import (
    BatchingConfig,
    ClipsConfig,
    ComputeConfig,
    ExpressionConfig,
    ExtractConfig,
    FacesConfig,
    ImageConfig,
    OutputConfig,
    PromptsConfig,
)
from vadv_dist.features.extract import extract
from vadv_dist.features.listing import list_clips
from vadv_dist.features.plan import make_plan
from vadv_dist.features.ray_pipeline import Located, runtime, through_ray
from vadv_dist.features.stages import ClipBatch, ClipReader, EncodingStage, in_process

SAMPLES = Path(__file__).parents[2] / "shared" / "data"
YUNET = SAMPLES / "models" / "face_detection_yunet_2021sep.onnx"
_PER_BATCH = BatchingConfig().clips
_STAGE_BATCHES = 6


def measure(quick: bool) -> list[Row]:
    """Run the benchmark."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_encoders(folder, image_layers=17, face_layers=2)
        rounds = [throughput(folder, clips=24 if quick else 64) for _ in range(1 if quick else 3)]
        write_encoders(folder, image_layers=1, face_layers=1)
        few, many = (50, 100) if quick else (50, 500)
        memory = {count: peak_memory(folder, count) for count in (few, many)}
    rates = {name: statistics.median(rates[name] for rates in rounds) for name in rounds[0]}
    slowest = min(rates, key=lambda name: rates[name] if name not in ("ray", "loop") else np.inf)
    return [
        Row(
            "clips/s of vadv extract, each stage on one core",
            "the same stages in one process",
            statistics.median(rates["ray"] / rates["loop"] for rates in rounds),
            1.5,
            "at least",
            f"{rates['ray']:.2f} against {rates['loop']:.2f} clips/s",
        ),
        Row(
            "clips/s of vadv extract",
            f"its slowest stage alone on one core ({slowest})",
            statistics.median(rates["ray"] / rates[slowest] for rates in rounds),
            0.9,
            "at least",
            ", ".join(f"{name} {rate:.2f}" for name, rate in rates.items()),
        ),
        Row(
            f"peak memory of vadv extract, {many} clips",
            f"{few} clips",
            memory[many] / memory[few],
            1.1,
            "at most",
            f"{memory[many] / 2**20:.0f} against {memory[few] / 2**20:.0f} MiB over all processes",
        ),
    ]


def write_encoders(folder: Path, *, image_layers: int, face_layers: int) -> None:
    """A CLIP and a classifier of so many layers, with random weights."""
    for name in ("clip", "classifier"):
        shutil.rmtree(folder / name, ignore_errors=True)
    text = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8, "image_size": 224}
    config = CLIPConfig(text_config=text, vision_config={**vision, "num_hidden_layers": image_layers, "patch_size": 32})
    CLIPModel(config).save_pretrained(folder / "clip")
    CLIPImageProcessorPil().save_pretrained(folder / "clip")
    small = {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 4, "image_size": 64, "patch_size": 16}
    ViTForImageClassification(ViTConfig(num_hidden_layers=face_layers, num_labels=8, **small)).save_pretrained(
        folder / "classifier"
    )
    ViTImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(folder / "classifier")


def configure(folder: Path, clips: int, *, made: bool = False) -> ExtractConfig:
    """Write a list of so many clips, made ones if asked, and say how they are extracted."""
    files = sorted((SAMPLES / "video_samples" / "grid").glob("*.mpg"))
    faces = FacesConfig(kind="yunet", path=str(YUNET))
    if made or not files or not YUNET.is_file():
        files, faces = generated(folder)
    with (folder / "clips.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["clip_id", "video_id", "split", "label", "text", "path"])
        for number in range(clips):
            writer.writerow([f"c{number}", f"v{number}", "train", "0", "words", files[number % len(files)].resolve()])
    return ExtractConfig(
        clips=ClipsConfig(csv=str(folder / "clips.csv")),
        output=OutputConfig(uri=str(folder / "out"), shard_rows=32),
        image=ImageConfig(encoder=str(folder / "clip")),
        prompts=PromptsConfig(store=False),
        faces=faces,
        expression=ExpressionConfig(encoder=str(folder / "classifier")),
        batching=BatchingConfig(clips=_PER_BATCH, precision="fp32"),
        compute=ComputeConfig(use_gpu=False, num_workers=1, max_actors=1),
    )


def generated(folder: Path) -> tuple[list[Path], FacesConfig]:
    """A generated video of 3 s, and OpenFace's CSV of a face in its middle."""
    path = folder / "made.mp4"
    random = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 360, 288, "yuv420p"
        for _ in range(75):
            image = np.kron(random.integers(0, 255, (9, 10, 3), dtype=np.uint8), np.ones((32, 36, 1), np.uint8))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    rows = ["timestamp, confidence, success, x_0, x_1, y_0, y_1"]
    rows += [f"{i / 25}, 0.98, 1, 120, 240, 80, 220" for i in range(75)]
    (folder / "made.csv").write_text("\n".join(rows))
    return [path], FacesConfig(kind="openface", path=str(folder))


def throughput(folder: Path, clips: int) -> dict[str, float]:
    """Clips/s through Ray, in a loop, and of each stage alone on one core."""
    config = configure(folder, clips)
    listed = list_clips(config.clips)
    spec = make_plan(config, listed, use_gpu=False).stages
    every = [(clip, listed.location(clip)) for clip in listed.clips]

    def batches() -> Iterator[Located]:
        return iter([every[i : i + _PER_BATCH] for i in range(0, len(every), _PER_BATCH)])

    rates: dict[str, float] = {}
    reader = ClipReader(spec)
    rates["reading"] = middle_rate(
        (reader.read(0, part) for part in list(batches())[:_STAGE_BATCHES]), _STAGE_BATCHES * _PER_BATCH
    )
    some = reader.read(0, next(batches()))
    for branch in spec.branches:
        run = EncodingStage(branch, spec, torch.device("cpu")).run
        rates[f"encoding {branch}"] = middle_rate(
            (run(some) for _ in range(_STAGE_BATCHES)), _STAGE_BATCHES * _PER_BATCH
        )
    with runtime(config) as room:
        rates["ray"] = middle_rate(through_ray(spec, batches(), room), clips)
    kept: list[ClipBatch] = []
    rates["loop"] = middle_rate(keeping(in_process(spec, batches()), kept), clips)
    return rates


def keeping(batches: Iterable[ClipBatch], kept: list[ClipBatch]) -> Iterator[ClipBatch]:
    """Keep every batch in memory."""
    for batch in batches:
        kept.append(batch)
        yield batch


def middle_rate(batches: Iterable[ClipBatch], clips: int) -> float:
    """Clips/s from the time when a quarter is done to that when three quarters are."""
    done, marks = 0, []
    for batch in batches:
        done += len(batch.reports)
        if clips / 4 <= done <= 3 * clips / 4:
            marks.append((done, time.perf_counter()))
    (first, began), (last, ended) = marks[0], marks[-1]
    return (last - first) / (ended - began)


def peak_memory(folder: Path, clips: int) -> float:
    """Most bytes that this process and its descendants hold at once while so many clips are extracted.

    Memory that processes share (Ray's object store) counts once (PSS).
    """
    config = configure(folder, clips, made=True)
    for name in ("out", "out.work"):
        shutil.rmtree(folder / name, ignore_errors=True)
    most, stopped = 0.0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not stopped.wait(0.5):
            total = 0
            for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue
            most = max(most, total)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    extract(config, Console(file=io.StringIO()))
    stopped.set()
    watcher.join()
    return most
