"""Read arrays of untrusted `.npz` files, whose size in memory is checked before decoding; pickles are never loaded."""

import io
import math
import shutil
import zipfile
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt

from vadv_dist.errors import UserError, VadvError, did_you_mean, first_line, require_memory

# Compressed arrays are decompressed into memory. Padding compresses well, so a file may legitimately grow several
# times.
_FREE_BYTES = 256 << 20
_MAX_EXPANSION = 20
_PIECE_BYTES = 1 << 20


class NpzFile:
    """An `.npz` file opened for reading, used as a context manager.

    Inside the context, any error that is not a `UserError` is reported as a damaged file.

    Args:
        path: the file.
    Raises:
        UserError: it is not an `.npz` file, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not zipfile.is_zipfile(path):
            raise UserError(
                f"{path} is not an .npz file, and no other format is read. "
                "Save numeric arrays with numpy.savez(FILE, id=ids, NAME=values)."
            )

    def __enter__(self) -> Self:
        try:
            self._archive = zipfile.ZipFile(self.path)
        except Exception as error:
            require_memory()
            raise self._damaged(error) from None
        self.names = [name.removesuffix(".npy") for name in self._archive.namelist()]
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._archive.close()
        # zipfile, its decompressors and numpy raise nearly any type on damaged files.
        if isinstance(error, Exception) and not isinstance(error, VadvError):
            require_memory()
            raise self._damaged(error) from None

    def array(self, key: str, *, what: str = "", max_bytes: int | None = None) -> npt.NDArray[Any]:
        """Load an array after checking its size; memory-map it if it is uncompressed.

        Args:
            key: its name.
            what: what it holds, for the message if it is absent, such as `, which holds the ids`.
            max_bytes: bound on its size; None takes the size of an uncompressed array, and a multiple of a compressed
                one's.
        Raises:
            UserError: no such array, pickled objects, or an array above the bound.
        """
        if key not in self.names:
            shown = ", ".join(name[:40] for name in self.names[:20])
            raise UserError(f"{self.path} has no {key!r} array{what} (arrays: {shown}).{did_you_mean(key, self.names)}")
        info = self._archive.infolist()[self.names.index(key)]
        is_stored = info.compress_type == zipfile.ZIP_STORED
        limit = info.compress_size if is_stored else max(_FREE_BYTES, _MAX_EXPANSION * info.compress_size)
        limit = limit if max_bytes is None else max_bytes
        if info.file_size > limit:
            raise UserError(
                f"{self.path} would expand {key!r} from {info.compress_size:,} to {info.file_size:,} bytes, but the "
                f"limit is {limit:,}. Save it again with numpy.savez, which does not compress."
            )
        with self._archive.open(info) as file:
            shape, in_fortran_order, dtype = _header(file)
            if dtype.hasobject:
                raise UserError(
                    f"{self.path}: {key!r} has pickled objects, which are not loaded because they could run code. "
                    "Save plain numeric arrays, and ids as strings, with numpy.savez."
                )
            start, size = file.tell(), math.prod(shape) * dtype.itemsize
            if start + size != info.file_size:
                held = info.file_size - start
                raise ValueError(f"{key!r} declares shape {list(shape)} of {dtype}, but has {held} bytes")
            if is_stored and size:
                while file.read(_PIECE_BYTES):  # read to the end, where the checksum is verified
                    pass
                offset = _content_offset(self.path, info) + start
                flat: npt.NDArray[Any] = np.memmap(self.path, dtype, "r", offset, (math.prod(shape),))
            else:
                content = io.BytesIO()
                shutil.copyfileobj(file, content, _PIECE_BYTES)
                flat = np.frombuffer(content.getbuffer(), dtype)
        return flat.reshape(shape, order="F" if in_fortran_order else "C")

    def _damaged(self, error: Exception) -> UserError:
        return UserError(f"{self.path} is not a readable .npz file ({first_line(error)[:200]}). Save it again.")


def _header(file: IO[bytes]) -> "tuple[tuple[int, ...], bool, np.dtype[Any]]":
    """Shape, order and type declared in an `.npy` header."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"version {version} of the .npy format is not supported")
    shape, in_fortran_order, dtype = read(file)
    if any(n < 0 for n in shape) or dtype.itemsize == 0:
        raise ValueError(f"shape {shape} of {dtype} is invalid")
    return tuple(int(n) for n in shape), bool(in_fortran_order), dtype


def _content_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Offset of a member's data: after its local header of 30 bytes, its name and its extra field."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        local = file.read(30)
    return info.header_offset + 30 + int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
