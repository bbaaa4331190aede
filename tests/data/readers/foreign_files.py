"""Small files in external formats, as their own libraries write them."""

import csv
import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

SPLIT_ROWS = {"train": 5, "valid": 2, "test": 3}
VISION_WIDTH, AUDIO_WIDTH, PADDED_ROWS = 3, 2, 6


def as_numpy_1(data: bytes) -> bytes:
    """The same pickle with numpy 1's function names."""
    for module in (b"multiarray", b"numeric"):
        new, old = b"numpy._core." + module, b"numpy.core." + module
        data = data.replace(b"\x8c" + bytes([len(new)]) + new, b"\x8c" + bytes([len(old)]) + old)
        data = data.replace(b"c" + new + b"\n", b"c" + old + b"\n")
    if data[2:3] == b"\x95":  # the single frame of a small pickle of protocol 4 or 5
        data = data[:3] + (len(data) - 11).to_bytes(8, "little") + data[11:]
    return data


def mmsa_content(aligned: bool = False, seed: int = 0) -> dict[str, dict[str, Any]]:
    """`{train, valid, test}` as in MMSA's feature files; values are never zero outside the padding."""
    generator = np.random.default_rng(seed)
    content = {}
    for split, rows in SPLIT_ROWS.items():
        columns: dict[str, Any] = {
            "raw_text": np.array([f"{split} words {row}" for row in range(rows)]),
            "id": [f"vid_{split}{row // 2}$_${row}" for row in range(rows)],
            "regression_labels": np.linspace(-3, 3, rows).astype(np.float32),
            "annotations": ["Neutral"] * rows,
            "text_bert": generator.normal(size=(rows, 3, 4)),
        }
        for name, width, dtype in (("vision", VISION_WIDTH, np.float32), ("audio", AUDIO_WIDTH, np.float64)):
            lengths = generator.integers(1, PADDED_ROWS + 1, size=rows)
            values = generator.uniform(1, 2, size=(rows, PADDED_ROWS, width)).astype(dtype)
            for row, length in enumerate(lengths):
                values[row, length:] = 0
            columns[name] = values
            if not aligned:
                columns[f"{name}_lengths"] = lengths.tolist()
        content[split] = columns
    return content


def write_mmsa(path: Path, content: Mapping[str, Any] | None = None, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(mmsa_content() if content is None else content, protocol))
    return path


def write_csd(path: Path, name: str, videos: Mapping[str, tuple[Any, Any]]) -> Path:
    """A computational sequence: intervals and features of each video."""
    with h5py.File(path, "w") as file:
        for video, (intervals, features) in videos.items():
            group = file.create_group(f"{name}/data/{video}")
            group["intervals"] = np.asarray(intervals, np.float32)
            group["features"] = np.asarray(features)
        file[f"{name}/metadata/root name"] = [json.dumps(name)]
    return path


def sdk_files(folder: Path, videos: Sequence[str] = ("a", "b_c", "d")) -> dict[str, Path]:
    """Labels, words, texts, a visual and an audio sequence of some videos, and their folds."""
    labels = {v: ([[0, 2], [2, 3.5]], [[1.0 + i, 9], [-0.5, 9]]) for i, v in enumerate(videos)}
    said = np.array([[b"sp"], [b"well"], [b"good"], [b"sp"], [b"bad"]], "S32")
    words = {v: ([[0, 0.4], [0.4, 1], [1, 1.9], [1.9, 2.2], [2.2, 3]], said) for v in videos}
    frames = np.arange(8, dtype=np.float32)
    seen = np.stack([frames, 10 * frames], axis=1)
    visual = {v: (np.stack([frames / 2, frames / 2 + 0.5], axis=1), seen) for v in videos}
    audio = {v: (visual[v][0][:5], np.stack([frames[:5]] * 3, axis=1)) for v in videos}
    folds = folder / "folds.json"
    folds.write_text(json.dumps({"train": ["a"], "valid": ["b_c"], "test": ["d", "gone"]}))
    texts = folder / "texts.csv"
    with texts.open("w", newline="") as file:
        rows = [[v, k, f"{v} says {k}", s, e] for v in videos for k, (s, e) in ((1, (0, 2)), (2, (2, 3.5)))]
        csv.writer(file).writerows([["video_id", "clip_id", "text", "start", "end"], *rows])
    return {
        "labels": write_csd(folder / "labels.csd", "Opinion Labels", labels),
        "words": write_csd(folder / "words.csd", "words", words),
        "visual": write_csd(folder / "visual.csd", "FACET", visual),
        "audio": write_csd(folder / "audio.csd", "COVAREP", audio),
        "folds": folds,
        "texts": texts,
    }


def write_vegas(
    path: Path,
    train: Sequence[int] = tuple(i % 10 for i in range(60)),
    test: Sequence[int] = tuple(range(10)),
    one_hot: bool = False,
    compression: str | None = None,
    num_classes: int = 10,
) -> Path:
    """Vectors of widths 6 and 4 whose first value is the row index."""
    generator = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for split, classes in (("train", train), ("test", test)):
            for name, width in (("visual", 6), ("audio", 4)):
                values = generator.normal(size=(len(classes), width)).astype(np.float32)
                values[:, 0] = np.arange(len(classes))
                file.create_dataset(f"{name}_{split}", data=values, compression=compression)
            labels = np.eye(num_classes)[list(classes)] if one_hot else np.asarray(classes)
            file.create_dataset(f"lab_{split}", data=labels, compression=compression)
    return path
