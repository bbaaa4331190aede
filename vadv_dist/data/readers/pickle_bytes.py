"""The bytes of a pickle, taken from the front, and an account of the memory that they may ask for."""

# What a file may make in memory, beside views of itself: so many bytes for each of its own (a reference of eight bytes
# takes two in the file), and room for the strings and containers of a small one.
_GROWTH = 8
_SLACK = 256 << 20
# About what Python takes for one.
OBJECT_BYTES = {"memo": 100, "text": 60, "bytes": 184, "list": 64, "dict": 64, "set": 216, "tuple": 56, "view": 250}
MAX_NAME = 256


class RefusedError(Exception):
    """Why a pickle is not read."""


class PickleBytes:
    """A place in a pickle, and what may still be made.

    Args:
        data: the whole file.
    """

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.position = 0
        self.allowance = _GROWTH * len(data) + _SLACK

    def take(self, size: int) -> memoryview:
        """The next bytes, as a view.

        Raises:
            RefusedError: there are not so many.
        """
        end = self.position + size
        if end > len(self.data):
            raise RefusedError(
                f"is cut off or damaged: {size:,} bytes are wanted at byte {self.position:,} of {len(self.data):,}"
            )
        part = self.data[self.position : end]
        self.position = end
        return part

    def unsigned(self, size: int) -> int:
        """The next bytes as a number from 0."""
        return int.from_bytes(self.take(size), "little")

    def line(self) -> str:
        """The next name, which ends with its line."""
        start = self.position
        part = bytes(self.data[start : start + MAX_NAME])
        end = part.find(b"\n")
        if end < 0:
            raise RefusedError(f"is damaged: a name at byte {start:,} does not end")
        self.position += end + 1
        return part[:end].decode("latin1")

    def text(self, size: int) -> str:
        """The next bytes as UTF-8."""
        self.spend(OBJECT_BYTES["text"])
        start = self.position
        try:
            return str(self.take(size), "utf-8", "surrogatepass")  # as Python writes them; rows are checked later
        except UnicodeDecodeError:
            raise RefusedError(f"is damaged: the text at byte {start:,} is not UTF-8") from None

    def damaged(self, what: str) -> RefusedError:
        """Why a pickle with this fault here is not read."""
        return RefusedError(f"is damaged: {what} at byte {self.position:,}")

    def spend(self, size: int) -> None:
        """Count bytes that are made rather than viewed."""
        self.allowance -= size
        if self.allowance < 0:
            raise RefusedError(f"asks for more memory than a file of {len(self.data):,} bytes may")
