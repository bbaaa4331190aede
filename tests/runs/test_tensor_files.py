"""Files of tensors' parts: written as the library would write them, read in any ranges."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from vadv_dist.errors import MachineError, UserError
from vadv_dist.formats.tensor_parts import TensorPart, whole_tensors
from vadv_dist.runs.tensor_files import HostBuffer, SavedTensors

TENSORS = {
    "matrix": torch.randn(7, 3, 2),
    "vector": torch.randn(11),
    "number": torch.tensor(4.5),
    "count": torch.tensor([5, 6]),
    "flag": torch.tensor([True, False, True]),
}


def write(path: Path, parts: list[TensorPart]) -> Path:
    """Write one file."""
    [image] = HostBuffer().copy({"file": parts}).values()
    path.write_bytes(b"".join(image.pieces(5)))
    return path


def divide(tensors: dict[str, Tensor], cuts: list[float]) -> list[list[TensorPart]]:
    """Parts of every tensor, one list for each rank; cut at the same fractions of each."""
    ranks: list[list[TensorPart]] = [[] for _ in range(len(cuts) + 1)]
    for name, tensor in tensors.items():
        places = [0, *(int(cut * tensor.numel()) for cut in sorted(cuts)), tensor.numel()]
        for rank, (start, stop) in enumerate(pairwise(places)):
            if start < stop:
                ranks[rank].append(TensorPart(name, tuple(tensor.shape), start, tensor.flatten()[start:stop]))
    return ranks


@contextmanager
def opened(folder: Path, ranks: list[list[TensorPart]]) -> Iterator[SavedTensors]:
    @contextmanager
    def path(name: str) -> Iterator[Path]:
        yield folder / name

    names = [write(folder / str(rank), parts).name for rank, parts in enumerate(ranks)]
    with SavedTensors(names, path) as tensors:
        yield tensors


def test_whole_tensors_are_a_file_that_the_library_reads(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", [TensorPart.whole(n, t) for n, t in TENSORS.items()])
    found = load_file(path)
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_16_bit_numbers_are_saved_in_fp32(tmp_path: Path) -> None:
    tensor = torch.randn(6).bfloat16()
    found = load_file(write(tmp_path / "x.safetensors", [TensorPart.whole("x", tensor)]))["x"]
    assert found.dtype == torch.float32
    assert torch.equal(found, tensor.float())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 1), max_size=3), st.lists(st.floats(0, 1), max_size=3))
def test_parts_of_any_number_of_ranks_are_read_in_the_ranges_of_another(tmp_path_factory, saved, wanted) -> None:
    folder = tmp_path_factory.mktemp("parts")
    with opened(folder, divide(TENSORS, saved)) as tensors:
        for part in (part for rank in divide(TENSORS, wanted) for part in rank):
            values = tensors.read(part.name, part.start, part.start + part.values.numel())
            assert torch.equal(values, part.values)
        for name, tensor in TENSORS.items():
            assert torch.equal(tensors.read(name), tensor.flatten())
            assert torch.equal(tensors.whole()[name], tensor)


def test_a_range_is_read_out_of_a_whole_tensor_without_the_rows_around_it(tmp_path: Path) -> None:
    with opened(tmp_path, [[TensorPart.whole("matrix", TENSORS["matrix"])]]) as tensors:
        for start in range(0, 42, 5):
            for stop in range(start, 43, 4):
                assert torch.equal(tensors.read("matrix", start, stop), TENSORS["matrix"].flatten()[start:stop])


def test_only_files_that_are_needed_are_opened(tmp_path: Path) -> None:
    ranks = divide({"vector": TENSORS["vector"]}, [0.5])
    asked: list[str] = []

    @contextmanager
    def path(name: str) -> Iterator[Path]:
        asked.append(name)
        yield tmp_path / name

    names = [write(tmp_path / str(rank), parts).name for rank, parts in enumerate(ranks)]
    with SavedTensors(names[::-1], path) as tensors:
        tensors.read("vector", 6, 9)
        assert asked == ["1"]
        tensors.read("vector", 4, 9)
        assert asked == ["1", "0"]


def test_values_that_no_file_has_are_reported(tmp_path: Path) -> None:
    ranks = divide({"vector": TENSORS["vector"]}, [0.5])
    with opened(tmp_path, ranks[:1]) as tensors:
        with pytest.raises(MachineError, match=r"no values 0 to .* of vector: a file of it is incomplete"):
            tensors.read("vector")
        with pytest.raises(UserError, match="holds the weights of another model: it lacks other, which the model"):
            tensors.read("other")


def test_host_memory_is_reused(tmp_path: Path) -> None:
    buffer = HostBuffer()
    parts = [TensorPart.whole("x", torch.randn(1000))]
    first = buffer.copy({"a": parts, "b": parts})
    again = buffer.copy({"a": parts})
    assert again["a"].values.data_ptr() == first["a"].values.data_ptr()
    assert torch.equal(again["a"].values.view(torch.float32), parts[0].values)


def test_parts_are_put_together_on_the_cpu() -> None:
    parts = [part for rank in divide(TENSORS, [0.3, 0.6]) for part in rank]
    found = whole_tensors(parts)
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())
    parts[0].values.zero_()
    assert not torch.equal(found["matrix"], whole_tensors(parts)["matrix"])  # a copy
