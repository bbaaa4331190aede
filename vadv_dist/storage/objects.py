"""Objects in an S3 store, with the part of pathlib's interface that readers use.

An object appears whole or not at all, also a large one, which is uploaded in parts. s3fs gives the connection and
sends the requests. Its verbs for files are not used where they lack a condition on the ETag or do not return it
(`pipe_file`, `cat_file`), send a whole file again when one part fails (`put_file`, `get_file`), or list more than is
asked for (`ls`, `isdir`).
"""

import fnmatch
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from vadv_dist.errors import MachineError, UserError
from vadv_dist.storage.object_client import ConflictError, error_code, with_retries

logger = logging.getLogger(__name__)

# Parts of a large object travel side by side, and each is tried again by itself. S3 wants at least 5 MB a part.
PART_BYTES = 16 << 20
_PARTS_AT_ONCE = 4


@dataclass(frozen=True)
class Opened:
    """An object that has begun to be read.

    Attributes:
        size: its bytes.
        etag: what the store calls its content.
        first: its first bytes, at most `PART_BYTES`.
    """

    place: "S3Path"
    size: int
    etag: str
    first: bytes

    def parts(self) -> Iterator[bytes]:
        """The object's bytes in order; all are of the same content.

        Raises:
            ConflictError: the object was changed or removed since.
        """
        yield self.first
        try:
            yield from self.place.read_parts(self.size, start=len(self.first), etag=self.etag)
        except FileNotFoundError as error:
            raise ConflictError(f"reading {self.place}") from error


@dataclass(frozen=True)
class S3Path:
    """A place in an object store: an object, or a prefix that objects share as if it were a folder."""

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
            raise UserError(f"{uri} is no place in an object store, expected s3://bucket/prefix.")
        return cls(bucket, "/".join(parts))

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}" if self.key else f"s3://{self.bucket}"

    def __truediv__(self, other: str) -> "S3Path":
        return S3Path(self.bucket, "/".join(part for part in (self.key, *str(other).split("/")) if part))

    @property
    def name(self) -> str:
        """Last part of the key."""
        return self.key.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """Ending of the name, with its dot."""
        return Path(self.name).suffix

    @property
    def parent(self) -> "S3Path":
        """The prefix that it stands in."""
        return S3Path(self.bucket, self.key.rpartition("/")[0])

    def with_name(self, name: str) -> "S3Path":
        """Another object of the same prefix."""
        return self.parent / name

    def resolve(self) -> "S3Path":
        """Itself: such a place is the same from every folder."""
        return self

    def is_absolute(self) -> bool:
        """Always: such a place is the same from every folder."""
        return True

    def exists(self) -> bool:
        """Whether it is an object or a prefix of one."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Whether there is such an object."""
        return self._head() is not None

    def is_dir(self) -> bool:
        """Whether any object stands below it."""
        return next(self._pages(1), []) != []

    def iterdir(self) -> Iterator["S3Path"]:
        """What stands right below it: objects, and prefixes once each."""
        start = len(self.key) + 1 if self.key else 0
        for page in self._pages(1000, Delimiter="/"):
            yield from (self / key[start:] for key in page if key[start:])

    def glob(self, pattern: str) -> Iterator["S3Path"]:
        """What stands right below it and has a name like `pattern`."""
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
        """What the store calls the object's present content, or None where there is none."""
        head = self._head()
        return None if head is None else str(head["ETag"])

    def age_s(self) -> float | None:
        """Seconds since the object was written, by the store's own clock, or None where there is none."""
        head = self._head()
        return None if head is None else _clock_s(head) - float(head["LastModified"].timestamp())

    def clock_s(self) -> float:
        """What the store's clock says, in seconds since 1970, to the second."""
        return _clock_s(self._call("head_object", Bucket=self.bucket, Key=self.key))

    def read_bytes(self, start: int | None = None, end: int | None = None) -> bytes:
        """The object's bytes, or those from `start` to before `end`.

        Raises:
            FileNotFoundError: there is none.
            ConflictError: it was changed while it was read.
            MachineError: the store does not answer.
        """
        if start is not None and end is not None:
            return self._get(start, end)[1]
        opened = self.open()
        return opened.first if len(opened.first) == opened.size else b"".join(opened.parts())

    def read_text(self, encoding: str = "utf-8") -> str:
        """The object as text."""
        return self.read_bytes().decode(encoding)

    def open(self) -> Opened:
        """Ask for the object's first part, which tells its size too: all of a small object in one request.

        Raises:
            FileNotFoundError: there is none.
            UserError: there is no such bucket, or the store refuses.
            MachineError: the store does not answer.
        """
        answer, data = self._get(0, PART_BYTES)
        size = int(answer["ContentRange"].rpartition("/")[2]) if "ContentRange" in answer else len(data)
        return Opened(self, size, str(answer.get("ETag", "")), data)

    def read_parts(self, size: int, *, start: int = 0, etag: str | None = None) -> Iterator[bytes]:
        """The object's bytes in order, in parts of which the next ones are on their way.

        Args:
            size: of the object.
            start: where to begin.
            etag: the content that is meant.
        Raises:
            ConflictError: the object has another content than `etag`.
        """
        starts = range(start, size, PART_BYTES)
        with ThreadPoolExecutor(_PARTS_AT_ONCE) as pool:
            waiting = [pool.submit(self._part, start, size, etag) for start in starts[:_PARTS_AT_ONCE]]
            for following in [*starts[_PARTS_AT_ONCE:], *[None] * len(waiting)]:
                if not waiting:
                    break
                data = waiting.pop(0).result()
                if following is not None:
                    waiting.append(pool.submit(self._part, following, size, etag))
                yield data

    def write_bytes(self, data: bytes, *, if_etag: str | None = None, if_absent: bool = False) -> str:
        """Put an object, and return what the store calls its content.

        Raises:
            ConflictError: `if_etag` or `if_absent` does not hold any more.
        """
        options: dict[str, Any] = {"IfNoneMatch": "*"} if if_absent else {}
        if if_etag is not None:
            options["IfMatch"] = if_etag
        return str(self._call("put_object", Bucket=self.bucket, Key=self.key, Body=data, **options)["ETag"])

    def upload(self, path: Path) -> None:
        """Put a file's bytes, in parts where it is large; it appears when all have arrived."""
        size = path.stat().st_size
        if size <= PART_BYTES:
            self.write_bytes(path.read_bytes())
            return
        target = {"Bucket": self.bucket, "Key": self.key}
        upload = {**target, "UploadId": self._call("create_multipart_upload", **target)["UploadId"]}

        def send(number: int) -> dict[str, Any]:
            with path.open("rb") as file:
                file.seek((number - 1) * PART_BYTES)
                body = file.read(PART_BYTES)
            return {
                "PartNumber": number,
                "ETag": self._call("upload_part", **upload, PartNumber=number, Body=body)["ETag"],
            }

        try:
            with ThreadPoolExecutor(_PARTS_AT_ONCE) as pool:
                parts = list(pool.map(send, range(1, -(-size // PART_BYTES) + 1)))
            self._complete(upload, parts, size)
        except BaseException:
            try:
                self._call("abort_multipart_upload", **upload)
            except (OSError, MachineError, UserError):
                logger.warning("%s: an unfinished upload could not be taken back; it is not visible.", self)
            raise

    def download(self, path: Path) -> None:
        """Write the object's bytes to a file."""
        with path.open("wb") as file:
            for part in self.read_parts(self.size()):
                file.write(part)

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object; one that is not there is not missed."""
        self._call("delete_object", Bucket=self.bucket, Key=self.key)

    def remove_tree(self) -> None:
        """Remove every object below it."""
        self.remove_files(self.files())

    def remove_files(self, files: Sequence["S3Path"]) -> None:
        """Remove some objects of this bucket."""
        for first in range(0, len(files), 1000):
            objects = [{"Key": file.key} for file in files[first : first + 1000]]
            self._call("delete_objects", Bucket=self.bucket, Delete={"Objects": objects, "Quiet": True})

    def _complete(self, upload: dict[str, Any], parts: list[dict[str, Any]], size: int) -> None:
        try:
            self._call("complete_multipart_upload", **upload, MultipartUpload={"Parts": parts})
        except FileNotFoundError:
            # An answer that was lost on its way leaves an upload that is complete, and then unknown.
            if not self.is_file() or self.size() != size:
                raise

    def _part(self, start: int, size: int, etag: str | None = None) -> bytes:
        end = min(start + PART_BYTES, size)
        data = self._get(start, end, etag)[1]
        if len(data) != end - start:
            raise MachineError(f"{self} is shorter than its {size:,} bytes. It was changed while it was read.")
        return data

    def _get(self, start: int, end: int, etag: str | None = None) -> tuple[dict[str, Any], bytes]:
        """What the store answers to a request for some bytes, and the bytes."""
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
        """Keys below it, a page at a time; with a delimiter, those right below it and the prefixes that end with it."""
        options = {"Bucket": self.bucket, "Prefix": f"{self.key}/" if self.key else "", **options}
        while True:
            page = self._call("list_objects_v2", MaxKeys=limit, **options)
            prefixes = [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
            yield [*(entry["Key"] for entry in page.get("Contents", [])), *prefixes]
            if not page.get("IsTruncated"):
                return
            options["ContinuationToken"] = page["NextContinuationToken"]

    def _head(self) -> Any:
        """What the store knows of the object, or None where there is none."""
        try:
            return self._call("head_object", Bucket=self.bucket, Key=self.key) if self.key else None
        except FileNotFoundError:
            return None

    def _call(self, method: str, **arguments: Any) -> Any:
        return with_retries(f"{method} {self}", lambda fs: fs.call_s3(method, **arguments))


Location = Path | S3Path


def _clock_s(answer: Any) -> float:
    return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()
