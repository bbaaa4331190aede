"""Read the bytes of a pickle from the front, and bound the memory that it may use."""

# Memory that a file may use apart from views of itself: so many bytes per byte of the file (a reference of eight bytes
# takes two in the file), and room for the strings and containers of a small file.
_GROWTH = 8
_SLACK = 256 << 20
# Approximate size of a Python object.
OBJECT_BYTES = {"memo": 100, "text": 60, "bytes": 184, "list": 64, "dict": 64, "set": 216, "tuple": 56, "view": 250}
MAX_NAME = 256


class RefusedError(Exception):
    """The reason why a pickle is refused."""


class PickleBytes:
    """A position in a pickle and the remaining memory budget.

    Args:
        data: the whole file.
    """

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.position = 0
        self.allowance = _GROWTH * len(data) + _SLACK

    def take(self, size: int) -> memoryview:
        """Return the next bytes as a view.

        Raises:
            RefusedError: there are not enough bytes.
        """
        end = self.position + size
        if end > len(self.data):
            raise RefusedError(
                f"is truncated or damaged: {size:,} bytes are expected at byte {self.position:,} of {len(self.data):,}"
            )
        part = self.data[self.position : end]
        self.position = end
        return part

    def unsigned(self, size: int) -> int:
        """Return the next bytes as an unsigned number."""
        return int.from_bytes(self.take(size), "little")

    def line(self) -> str:
        """Return the next name, which ends at the end of its line."""
        start = self.position
        part = bytes(self.data[start : start + MAX_NAME])
        end = part.find(b"\n")
        if end < 0:
            raise RefusedError(f"is damaged: the name at byte {start:,} does not end")
        self.position += end + 1
        return part[:end].decode("latin1")

    def text(self, size: int) -> str:
        """Return the next bytes as UTF-8 text."""
        self.spend(OBJECT_BYTES["text"])
        start = self.position
        try:
            return str(self.take(size), "utf-8", "surrogatepass")  # as Python does; rows are validated later
        except UnicodeDecodeError:
            raise RefusedError(f"is damaged: the text at byte {start:,} is not UTF-8") from None

    def damaged(self, what: str) -> RefusedError:
        """The error for a pickle with a problem at this position."""
        return RefusedError(f"is damaged: {what} at byte {self.position:,}")

    def spend(self, size: int) -> None:
        """Charge bytes that are allocated rather than viewed."""
        self.allowance -= size
        if self.allowance < 0:
            raise RefusedError(f"needs more memory than allowed for a file of {len(self.data):,} bytes")
