"""Open files that may be compressed (gzip, bzip2, xz, zstd, by their first bytes), with bounded memory and size."""

import bz2
import gzip
import io
import lzma
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from vadv_dist.errors import UserError, first_line

_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"(\xb5/\xfd": "zstd"}
# Tables compress by a factor of 3 to 20; a file that grows a hundredfold repeats itself.
_FREE_BYTES = 1 << 30
_GROWTH = 100
_XZ_MEMORY = 256 << 20  # for the dictionary that a file declares
_CHUNK = 1 << 16


def compression_of(path: Path) -> str:
    """The compression of a file; empty if there is none."""
    with path.open("rb") as file:
        head = file.read(8)
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "")


def open_decompressed(path: Path, where: object) -> BinaryIO:
    """Open a file for reading in one pass, decompressed if it is compressed.

    Raises:
        UserError: when read: the file is damaged, or expands to more than a hundred times its size.
    """
    kind = compression_of(path)
    if not kind:
        return path.open("rb")
    return io.BufferedReader(_Decompressed(path, kind, where), _CHUNK)


class _Decompressed(io.RawIOBase):
    def __init__(self, path: Path, kind: str, where: object) -> None:
        openers: dict[str, Any] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": _XzReader, "zstd": _zstd}
        self._file = openers[kind](path)
        self._kind, self._where, self._read = kind, where, 0
        self._limit = max(_FREE_BYTES, _GROWTH * path.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # io's own type is wider
        try:
            part = self._file.read(min(len(buffer), _CHUNK))
        except (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException) as error:
            raise UserError(
                f"{self._where} is compressed with {self._kind} and damaged: {first_line(error)}. Copy it again."
            ) from None
        self._read += len(part)
        if self._read > self._limit:
            raise UserError(
                f"{self._where} is compressed with {self._kind} and expands to more than {self._limit:,} bytes. "
                "Decompress it yourself if that is right."
            )
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _zstd(path: Path) -> BinaryIO:
    stream: BinaryIO = pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")
    return stream


class _XzReader:
    """One or more xz streams; `lzma.open` would allocate any dictionary that a file declares."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._decoder = self._new()

    def _new(self) -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)

    def read(self, size: int) -> bytes:
        fed = b""
        while True:
            if self._decoder.eof:
                fed = (self._decoder.unused_data or self._file.read(_CHUNK)).lstrip(b"\0")  # padding between streams
                if not fed:
                    return b""
                self._decoder = self._new()
            elif self._decoder.needs_input and not fed:
                fed = self._file.read(_CHUNK)
                if not fed:
                    raise EOFError("it ends in the middle")
            part = self._decoder.decompress(fed, size)
            fed = b""
            if part:
                return part

    def close(self) -> None:
        self._file.close()
