"""Small `.npz` files that declare huge arrays are refused before memory is allocated."""

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from csv_files import IDS, write_csv

from tests.limited import refused
from vadv_dist.data.readers.arrays import load_features, parse_array_sources
from vadv_dist.errors import UserError


def npy(shape: tuple[int, ...], dtype: str) -> bytes:
    """The header of an array without its values."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape})
    return header.getvalue()


def member(archive: zipfile.ZipFile, name: str, head: bytes, zeros: int) -> None:
    with archive.open(name, "w", force_zip64=True) as file:
        file.write(head)
        for _ in range(zeros // (1 << 20)):
            file.write(bytes(1 << 20))
        file.write(bytes(zeros % (1 << 20)))


def npz(path: Path, zeros: dict[str, tuple[bytes, int]], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """An archive of the table's ids and of members with a header and zeros."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        if "id.npy" not in zeros:
            ids = io.BytesIO()
            np.save(ids, np.array(IDS))
            archive.writestr("id.npy", ids.getvalue())
        for name, (head, count) in zeros.items():
            member(archive, name, head, count)
    return path


ROW = 75_000_000
BOMBS = {
    "values": {"video.npy": (npy((4, ROW // 4), "f4"), 4 * ROW)},
    "ids": {"id.npy": (npy((4,), f"<U{ROW // 4}"), ROW * 4), "video.npy": (npy((4, 2), "f4"), 32)},
    "header": {"video.npy": (b"\x93NUMPY\x02\x00" + struct.pack("<I", 4 * ROW), 4 * ROW)},
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_decompression_bomb_is_refused_with_a_gigabyte_of_memory(tmp_path: Path, kind: str) -> None:
    path = npz(tmp_path / "f.npz", BOMBS[kind])
    assert path.stat().st_size < 1_000_000
    table = write_csv(tmp_path / "c.csv")
    message = refused("ingest", "table", "--csv", table, "--arrays", f"{path}:video=visual", "--out", tmp_path / "out")
    assert "f.npz would expand" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_padded_arrays_within_bounds_are_read(tmp_path: Path, compression: int) -> None:
    path = npz(tmp_path / "f.npz", {"video.npy": (npy((4, 50, 2000), "f4"), 4 * 50 * 2000 * 4)}, compression)
    [source] = parse_array_sources([f"{path}:video=visual"])
    values = load_features(source, "float16").values
    assert values.shape == (4, 50, 1, 2000)
    assert not values.any()


def test_a_truncated_member_is_refused(tmp_path: Path) -> None:
    path = npz(tmp_path / "f.npz", {"video.npy": (npy((4, 1000), "f4"), 4 * 1000 * 4 - 4)})
    [source] = parse_array_sources([f"{path}:video=visual"])
    with pytest.raises(UserError, match="declares shape"):
        load_features(source, "float16")
