"""Objects in an S3 store, with the part of pathlib's interface that readers use.

An object appears whole or not at all, also a large one, which is uploaded in parts. s3fs connects and sends requests.
Its file methods are not used, because they neither take nor return an ETag (`pipe_file`, `cat_file`), send a whole file
again when one part fails (`put_file`, `get_file`), or list more than is needed (`ls`, `isdir`).
"""

import fnmatch
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from itertools import chain
from pathlib import Path
from typing import Any

from vadv_dist.errors import MachineError, UserError
from vadv_dist.storage.object_client import ConflictError, error_code, with_retries

logger = logging.getLogger(__name__)

# Parts of a large object are transferred in parallel, each with its own retries. S3 requires at least 5 MB per part.
PART_BYTES = 16 << 20
_PARTS_AT_ONCE = 4


@dataclass(frozen=True)
class Opened:
    """An object of which the first part was read.

    Attributes:
        size: its bytes.
        etag: identifies its content.
        parts: its bytes in order, all of this content; raises `ConflictError` if the object changes in between.
    """

    size: int
    etag: str
    parts: Iterator[bytes]


@dataclass(frozen=True)
class S3Path:
    """A location in an object store: an object, or a prefix of objects, which serves as a folder."""

    bucket: str
    key: str

    @classmethod
    def parse(cls, uri: str) -> "S3Path":
        """Read `s3://bucket/key`.

        Raises:
            UserError: there is no bucket, or the key leaves it.
        """
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        parts = [part for part in key.split("/") if part not in ("", ".")]
        if not bucket or ".." in parts:
            raise UserError(f"{uri} is not a location in an object store, expected s3://bucket/prefix.")
        return cls(bucket, "/".join(parts))

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}" if self.key else f"s3://{self.bucket}"

    def __truediv__(self, other: str) -> "S3Path":
        return S3Path(self.bucket, "/".join(part for part in (self.key, *str(other).split("/")) if part))

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The name's extension, with its dot."""
        return Path(self.name).suffix

    @property
    def parent(self) -> "S3Path":
        """The prefix that contains it."""
        return S3Path(self.bucket, self.key.rpartition("/")[0])

    def with_name(self, name: str) -> "S3Path":
        """Another object below the same prefix."""
        return self.parent / name

    def resolve(self) -> "S3Path":
        """Itself, because a location is never relative."""
        return self

    def is_absolute(self) -> bool:
        """Always true, because a location is never relative."""
        return True

    def exists(self) -> bool:
        """Whether it is an object or a prefix of one."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Whether there is such an object."""
        return self._head() is not None

    def is_dir(self) -> bool:
        """Whether there is any object below it."""
        return next(self._pages(1), []) != []

    def iterdir(self) -> Iterator["S3Path"]:
        """Objects and prefixes directly below it."""
        start = len(self.key) + 1 if self.key else 0
        for page in self._pages(1000, Delimiter="/"):
            yield from (self / key[start:] for key in page if key[start:])

    def glob(self, pattern: str) -> Iterator["S3Path"]:
        """Objects and prefixes directly below it whose name matches `pattern`."""
        return (path for path in self.iterdir() if fnmatch.fnmatchcase(path.name, pattern))

    def files(self) -> list["S3Path"]:
        """Every object below it."""
        return [S3Path(self.bucket, key) for page in self._pages(1000) for key in page]

    def size(self) -> int:
        """Bytes of the object.

        Raises:
            FileNotFoundError: there is none.
        """
        return int(self._call("head_object", Bucket=self.bucket, Key=self.key)["ContentLength"])

    def etag(self) -> str | None:
        """The store's identifier of the object's present content, or None if there is no object."""
        head = self._head()
        return None if head is None else str(head["ETag"])

    def age_s(self) -> float:
        """Seconds since the object was written, by the store's clock; 0 if there is no object."""
        head = self._head()
        return 0.0 if head is None else _clock_s(head) - float(head["LastModified"].timestamp())

    def clock_s(self) -> float:
        """The store's clock, in seconds since 1970, to the second.

        Raises:
            FileNotFoundError: there is no such object.
        """
        return _clock_s(self._call("head_object", Bucket=self.bucket, Key=self.key))

    def open(self) -> Opened:
        """Read the object's first part, which also tells its size: a small object takes a single request.

        Raises:
            FileNotFoundError: there is none.
            UserError: there is no such bucket, or the store denies access.
            MachineError: the store does not respond.
        """
        answer, first = self._get(0, PART_BYTES)
        size = int(answer["ContentRange"].rpartition("/")[2]) if "ContentRange" in answer else len(first)
        etag = str(answer.get("ETag", ""))
        return Opened(size, etag, chain((first,), self.read_parts(size, start=len(first), etag=etag)))

    def read_parts(self, size: int, *, start: int = 0, etag: str | None = None) -> Iterator[bytes]:
        """The object's bytes in order, in parts; the next parts are fetched in the background.

        Args:
            size: of the object.
            start: where to begin.
            etag: the expected content.
        Raises:
            ConflictError: the object has another content than `etag`.
        """
        waiting: deque[Future[tuple[Any, bytes]]] = deque()
        try:
            with ThreadPoolExecutor(_PARTS_AT_ONCE) as pool:
                for first in range(start, size, PART_BYTES):
                    waiting.append(pool.submit(self._get, first, min(first + PART_BYTES, size), etag))
                    if len(waiting) == _PARTS_AT_ONCE:
                        yield waiting.popleft().result()[1]
                while waiting:
                    yield waiting.popleft().result()[1]
        except FileNotFoundError as error:
            if etag is None:
                raise
            raise ConflictError(f"reading {self}") from error

    def read_bytes(self) -> bytes:
        """The object's bytes.

        Raises:
            FileNotFoundError, UserError, MachineError: as in `open`.
            ConflictError: it was changed while it was read.
        """
        return b"".join(self.open().parts)

    def read_range(self, start: int, end: int) -> bytes:
        """The object's bytes from `start` to before `end`; errors as in `open`."""
        return self._get(start, end)[1]

    def read_text(self, encoding: str = "utf-8") -> str:
        """The object as text."""
        return self.read_bytes().decode(encoding)

    def write_bytes(self, data: bytes, *, if_etag: str | None = None, if_absent: bool = False) -> str:
        """Write an object and return its ETag.

        Raises:
            ConflictError: the object has another ETag than `if_etag`, or exists although `if_absent` is set.
        """
        options: dict[str, Any] = {"IfNoneMatch": "*"} if if_absent else {}
        if if_etag is not None:
            options["IfMatch"] = if_etag
        return str(self._call("put_object", Bucket=self.bucket, Key=self.key, Body=data, **options)["ETag"])

    def upload(self, path: Path) -> None:
        """Write a file's bytes, in parts if it is large; the object appears once all parts have arrived."""
        size = path.stat().st_size
        if size <= PART_BYTES:
            self.write_bytes(path.read_bytes())
            return
        target = {"Bucket": self.bucket, "Key": self.key}
        target["UploadId"] = self._call("create_multipart_upload", **target)["UploadId"]

        def send(number: int) -> dict[str, Any]:
            with path.open("rb") as file:
                file.seek((number - 1) * PART_BYTES)
                answer = self._call("upload_part", **target, PartNumber=number, Body=file.read(PART_BYTES))
            return {"PartNumber": number, "ETag": answer["ETag"]}

        try:
            with ThreadPoolExecutor(_PARTS_AT_ONCE) as pool:
                parts = list(pool.map(send, range(1, -(-size // PART_BYTES) + 1)))
            try:
                self._call("complete_multipart_upload", **target, MultipartUpload={"Parts": parts})
            except FileNotFoundError:  # as for the second attempt, if the answer to a successful first one was lost
                if not self.is_file() or self.size() != size:
                    raise
        except BaseException:
            try:
                self._call("abort_multipart_upload", **target)
            except (OSError, MachineError, UserError):
                logger.warning("%s: an unfinished upload could not be removed; it is not visible.", self)
            raise

    def download(self, path: Path) -> None:
        """Write the object's bytes to a file."""
        parts = self.open().parts
        with path.open("wb") as file:
            file.writelines(parts)

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object if it exists."""
        self._call("delete_object", Bucket=self.bucket, Key=self.key)

    def remove_files(self, files: Sequence["S3Path"]) -> None:
        """Remove some objects of this bucket."""
        for first in range(0, len(files), 1000):
            objects = [{"Key": file.key} for file in files[first : first + 1000]]
            self._call("delete_objects", Bucket=self.bucket, Delete={"Objects": objects, "Quiet": True})

    def _get(self, start: int, end: int, etag: str | None = None) -> tuple[dict[str, Any], bytes]:
        """The store's answer to a request for some bytes, and the bytes."""
        options = {"Bucket": self.bucket, "Key": self.key, "Range": f"bytes={start}-{end - 1}"}
        if etag is not None:
            options["IfMatch"] = etag

        async def get(fs: Any) -> tuple[dict[str, Any], bytes]:
            try:
                answer = await fs._call_s3("get_object", **options)
            except OSError as error:
                if start == 0 and error_code(error) == "InvalidRange":  # an empty object has no first byte
                    return {}, b""
                raise
            try:
                return answer, await answer["Body"].read()
            finally:
                answer["Body"].close()

        def run(fs: Any) -> tuple[dict[str, Any], bytes]:
            from fsspec.asyn import sync

            found: tuple[dict[str, Any], bytes] = sync(fs.loop, get, fs)
            return found

        return with_retries(f"reading {self}", run)

    def _pages(self, limit: int, **options: str) -> Iterator[list[str]]:
        """Keys below it, page by page; with a delimiter, only those directly below it, and the prefixes there."""
        options = {"Bucket": self.bucket, "Prefix": f"{self.key}/" if self.key else "", **options}
        while True:
            page = self._call("list_objects_v2", MaxKeys=limit, **options)
            prefixes = [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
            yield [*(entry["Key"] for entry in page.get("Contents", [])), *prefixes]
            if not page.get("IsTruncated"):
                return
            options["ContinuationToken"] = page["NextContinuationToken"]

    def _head(self) -> Any:
        """The object's metadata, or None if there is no object."""
        try:
            return self._call("head_object", Bucket=self.bucket, Key=self.key) if self.key else None
        except FileNotFoundError:
            return None

    def _call(self, method: str, **arguments: Any) -> Any:
        return with_retries(f"{method} {self}", lambda fs: fs.call_s3(method, **arguments))


Location = Path | S3Path


def _clock_s(answer: Any) -> float:
    return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()
