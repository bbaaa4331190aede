"""A small ONNX file, written as protocol buffers by hand: the mean colour of an image times a matrix."""

from pathlib import Path

import numpy as np


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def message(field: int, content: bytes | str) -> bytes:
    content = content.encode() if isinstance(content, str) else content
    return varint(field << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def node(kind: str, inputs: list[str], output: str) -> bytes:
    named = b"".join(message(1, name) for name in inputs)
    return message(1, named + message(2, output) + message(4, kind))


def tensor_info(field: int, name: str, shape: list[int | str]) -> bytes:
    axes = b"".join(message(1, number(1, n) if isinstance(n, int) else message(2, n)) for n in shape)
    return message(field, message(1, name) + message(2, message(1, number(1, 1) + message(2, axes))))


def write_onnx(path: Path, matrix: np.ndarray, side: int, *, softmax: bool = False, batch: int | str = "batch") -> Path:
    """Write a model [B, 3, side, side] → [B, E]: pixel mean times `matrix` [3, E]; optionally with softmax."""
    rows, columns = matrix.shape
    values = number(1, rows) + number(1, columns) + number(2, 1) + message(8, "matrix")
    values += message(9, np.ascontiguousarray(matrix, np.float32).tobytes())
    graph = node("GlobalAveragePool", ["image"], "mean") + node("Flatten", ["mean"], "colour")
    graph += node("MatMul", ["colour", "matrix"], "logits" if softmax else "scores")
    graph += node("Softmax", ["logits"], "scores") if softmax else b""
    graph += message(2, "graph") + message(5, values)
    graph += tensor_info(11, "image", [batch, 3, side, side]) + tensor_info(12, "scores", [batch, columns])
    path.write_bytes(number(1, 8) + message(7, graph) + message(8, message(1, "") + number(2, 13)))
    return path
