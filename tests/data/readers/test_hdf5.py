"""HDF5 files read in another process: the same values, and no harm from malicious files."""

import os
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest

from vadv_dist.data.readers import hdf5
from vadv_dist.data.readers.hdf5 import Hdf5File
from vadv_dist.errors import UserError


def whole(path: Path, name: str) -> object:
    with Hdf5File(path, "--file") as file:
        return file.texts(name) if file.describe(name).kind == "text" else file.numbers(name)


@pytest.mark.parametrize("dtype", ["f2", "<f4", ">f8", "i1", "u2", "<i8"])
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_numbers_are_read_unchanged(tmp_path: Path, dtype: str, compression: str | None) -> None:
    values = np.arange(24).reshape(4, 3, 2).astype(dtype)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("a/b", data=values, compression=compression)
    with Hdf5File(tmp_path / "x.h5", "--file") as file:
        assert file.names("/") == ["a"]
        info = file.describe("a/b")
        assert (info.shape, info.kind) == ((4, 3, 2), np.dtype(dtype).kind)
        np.testing.assert_array_equal(file.numbers("a/b", 1, 3), values[1:3])
        np.testing.assert_array_equal(file.numbers("a/b"), values)


def test_fixed_and_variable_length_strings_are_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["fixed"] = np.array([[b"one"], [b"two"]], "S8")
        file["free"] = ["um", "ä, ö"]
    assert whole(tmp_path / "x.h5", "fixed") == ["one", "two"]
    assert whole(tmp_path / "x.h5", "free") == ["um", "ä, ö"]


def test_two_files_can_be_open_at_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with h5py.File(tmp_path / name, "w") as file:
            file[name] = [1.0]
    with Hdf5File(tmp_path / "a", "--file") as one, Hdf5File(tmp_path / "b", "--file") as other:
        assert (one.names("/"), other.names("/"), one.names("/")) == (["a"], ["b"], ["a"])


@pytest.fixture
def tricky(tmp_path: Path) -> Path:
    """A file with links, external data and other unusual objects."""
    (tmp_path / "secret").write_bytes(b"\0" * 80)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.zeros(10)
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("external", (10,), "f8", external=[(str(tmp_path / "secret"), 0, 80)])
        file["link"] = h5py.ExternalLink("other.h5", "x")
        file["real"] = np.zeros(10)
        file["soft"] = h5py.SoftLink("/real")
        layout = h5py.VirtualLayout((10,), "f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (10,))
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("huge", (1 << 40,), "f8", chunks=(1024,))
        file.create_dataset("huge filtered", (1 << 40,), "f8", chunks=(1024,), compression="gzip")
        file.create_dataset("empty", data=h5py.Empty("f8"))
        file.create_dataset("records", (3,), [("a", "f4")])
        file.create_dataset("references", data=[file["real"].ref], dtype=h5py.ref_dtype)
        file.create_group("group")
    return path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("external", "stores the values of 'external' in other files"),
        ("virtual", "stores the values of 'virtual' in other files"),
        ("link", "has a link at 'link', and links are not followed"),
        ("soft", "has a link at 'soft'"),
        ("huge", "declares 8,796,093,022,208 bytes at 'huge', but stores 0"),
        ("huge filtered", "but stores 0"),
        ("empty", "has no array at 'empty'"),
        ("records", "expected numbers or strings"),
        ("references", "expected numbers or strings"),
        ("group", "has no array at 'group'"),
        ("nothing", "has nothing at 'nothing'"),
        ("real/more", "has nothing at 'real/more'"),
    ],
)
def test_only_data_in_the_file_itself_is_read(tricky: Path, name: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        whole(tricky, name)
    assert message in str(caught.value)
    np.testing.assert_array_equal(whole(tricky, "real"), np.zeros(10))


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", (1 << 25,), "f8", chunks=(1 << 20,), compression="gzip", fillvalue=0)[:] = 0
    assert (tmp_path / "x.h5").stat().st_size < 1 << 20
    with pytest.raises(UserError, match="bytes"):
        whole(tmp_path / "x.h5", "x")


def breaking(tmp_path: Path) -> Path:
    """A file that overflows the library's stack: a group whose tree is its own child."""
    path = tmp_path / "circle.h5"
    with h5py.File(path, "w") as file:
        for number in range(200):
            file[f"{number:03d}"] = number
    data = bytearray(path.read_bytes())
    roots = [at for at in range(len(data)) if data[at : at + 5] == b"TREE\0"]
    for at in roots:
        data[at + 5] = 1  # a level above the leaves, with the node itself as first child
        data[at + 32 : at + 40] = at.to_bytes(8, "little")
    path.write_bytes(data)
    return path


def test_a_file_that_hangs_or_crashes_the_library_is_a_user_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5, "REQUEST_SECONDS", 1.0)
    path = breaking(tmp_path)
    with (
        Hdf5File(path, "--file") as file,
        pytest.raises(UserError, match=r"circle.h5 (crashed the HDF5 library|made the HDF5 library hang)"),
    ):
        file.names("/")


@pytest.mark.parametrize(
    ("ending", "seconds", "message"),
    [
        (signal.SIGSEGV, 60.0, "crashed the HDF5 library"),
        (signal.SIGKILL, 60.0, "crashed the HDF5 library"),
        (signal.SIGALRM, 0.0, "made the HDF5 library hang for more than 0 s"),
    ],
)
def test_the_death_of_the_reading_process_is_reported_and_the_next_file_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: signal.Signals, seconds: float, message: str
) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = [1.0, 2.0]
    monkeypatch.setattr(hdf5, "REQUEST_SECONDS", seconds)
    with Hdf5File(tmp_path / "x.h5", "--file") as file:
        os.kill(file.process_id, ending)
        with pytest.raises(UserError, match=rf"x\.h5 {message}: it is damaged"):
            file.names("/")
    np.testing.assert_array_equal(whole(tmp_path / "x.h5", "x"), [1, 2])


def test_the_forking_process_is_restarted_after_it_died(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = [1.0]
    whole(tmp_path / "x.h5", "x")
    worker = hdf5._worker()
    worker.process.kill()
    worker.process.wait()
    np.testing.assert_array_equal(whole(tmp_path / "x.h5", "x"), [1])


def test_a_file_that_is_not_hdf5_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    for name, message in (("text", "cannot be read as HDF5"), ("gone", "does not exist"), (".", "is a folder")):
        with pytest.raises(UserError, match=message):
            whole(tmp_path / name, "x")
