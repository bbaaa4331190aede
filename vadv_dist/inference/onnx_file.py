"""Write a module as an ONNX file, check that onnxruntime computes the same, and quantize the file to int8."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from vadv_dist.errors import MachineError, UserError
from vadv_dist.runtime.garbage_collection import no_collection

if TYPE_CHECKING:
    import onnxruntime

# Largest difference of a file's output from the module's.
TOLERANCE = 1e-5
# Larger weights are written to a second file, because a protocol buffer holds at most 2 GiB.
_MAX_INLINE_BYTES = 1 << 30


def require_onnx() -> None:
    """Check that ONNX files can be written.

    Raises:
        UserError: a package is missing.
    """
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise UserError(f'Writing ONNX needs {" and ".join(missing)}. Install: pip install "vadv-dist[onnx]".')


def write_onnx(module: nn.Module, path: Path, inputs: Mapping[str, Tensor], axes: tuple[str, ...], output: str) -> None:
    """Write a module in eval mode as an ONNX file with weights in fp32.

    Args:
        module: takes the inputs as positional arguments and returns one tensor.
        path: the file.
        inputs: an example of each input, by name, in the order of the arguments.
        axes: names of the first axes of every input, whose size may vary.
        output: name of the output.
    Raises:
        MachineError: the file's output differs from the module's by more than `TOLERANCE`.
    """
    dims = {number: torch.export.Dim(axis) for number, axis in enumerate(axes)}
    values = tuple(inputs.values())
    with _quiet(), torch.no_grad(), no_collection():
        program = torch.onnx.export(
            module,
            values,
            dynamo=True,
            input_names=list(inputs),
            output_names=[output],
            dynamic_shapes=(dims,) * len(inputs),
            verbose=False,
        )
        if program is None:
            raise MachineError(f"torch wrote no ONNX program for {path.name}.")
        size = sum(p.numel() * p.element_size() for p in module.parameters())
        program.save(path, external_data=size > _MAX_INLINE_BYTES)
        expected = module(*values).numpy()
    difference = float(np.abs(run_onnx(path, {k: v.numpy() for k, v in inputs.items()}, output) - expected).max())
    if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise MachineError(
            f"{path.name} as run by onnxruntime differs from the student by {difference:.2g}, so nothing was written. "
            "Export it without --format onnx."
        )


def quantize_onnx(path: Path, out: Path) -> None:
    """Write an ONNX file with weights in int8, one scale per output channel; activations are quantized as they come.

    Args:
        path: the file in fp32.
        out: the file to write.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(path)
    # The exporter's shapes are of weights that it has transposed since; the quantizer infers its own.
    del model.graph.value_info[:]
    size = model.ByteSize()
    with _quiet():
        quantize_dynamic(
            model, out, per_channel=True, weight_type=QuantType.QInt8, use_external_data_format=size > _MAX_INLINE_BYTES
        )


def open_session(path: Path) -> "onnxruntime.InferenceSession":
    """Open an ONNX file on the CPU, with as many threads as torch has.

    Raises:
        UserError: onnxruntime is missing.
    """
    if find_spec("onnxruntime") is None:
        raise UserError(f'{path} needs onnxruntime. Install: pip install "vadv-dist[onnx]".')

    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run_onnx(path: Path, inputs: Mapping[str, np.ndarray], output: str) -> np.ndarray:
    """Run an ONNX file on the CPU."""
    found: np.ndarray = open_session(path).run([output], dict(inputs))[0]
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's and the quantizer's remarks, and torch's about its own code."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
