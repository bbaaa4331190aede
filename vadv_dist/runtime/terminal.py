"""Terminal output that replaces control characters by visible symbols.

Ids, texts, file names and manifests are untrusted. An escape sequence in them could clear the screen, hide a warning or
forge a line; a bidirectional override could show a name backwards. `harmless_streams` covers everything written to
standard output and standard error, and `console` covers rich's output. Tabs and line ends are kept. JSON loses nothing:
`json_line` writes such characters as escapes.
"""

import contextlib
import json
import re
import sys
from collections.abc import Iterable, Iterator
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from rich.console import Console

# C0 except tab and line feed, DEL, C1, line and paragraph separators, bidirectional embeddings, overrides and isolates,
# and unpaired surrogates, which cannot be encoded at all.
_COMMANDING = "\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_COMMAND = re.compile(f"[{_COMMANDING}]")
_REPLACEMENT = "\ufffd"
_CONTROL_PICTURES = 0x2400  # ␀ and the symbols of the other C0 characters
_PICTURE_OF_DELETE = "\u2421"


def visible(text: str) -> str:
    """Replace every character that a terminal would interpret by a visible symbol of one column."""
    return _COMMAND.sub(_sign, text)


def counted(number: float, noun: str, plural: str = "") -> str:
    """A number of things, such as `1 step`, `1,200 steps` or `0.5 GPUs`."""
    shown = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{shown} {noun if number == 1 else plural or f'{noun}s'}"


def duration(seconds: float | None) -> str:
    """A duration, such as `20 s` or `1:02:03`; `?` if unknown."""
    if seconds is None:
        return "?"
    return f"{seconds:.0f} s" if seconds < 100 else str(timedelta(seconds=round(seconds)))


def json_line(value: object) -> str:
    """Format a value as one line of JSON, lossless, without characters that a terminal would interpret."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return _COMMAND.sub(lambda found: json.dumps(found[0])[1:-1], text)


@contextlib.contextmanager
def harmless_streams() -> Iterator[None]:
    """Make everything written to standard output and standard error `visible` during the block."""
    out, err = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = cast(TextIO, _Harmless(out)), cast(TextIO, _Harmless(err))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = out, err


def console(*, stderr: bool = False, quiet: bool = False) -> "Console":
    """Create a rich console that makes its text `visible`, apart from rich's own styles and cursor moves.

    Square brackets are text, not markup; pass styles as `rich.text.Text`.
    """
    stream: Any = sys.stderr if stderr else sys.stdout
    raw = stream.stream if isinstance(stream, _Harmless) else None  # rich's styles are escapes that must pass
    made: Console = _console_class()(file=raw, stderr=stderr, quiet=quiet, markup=False)
    return made


class _Harmless:
    """A text stream whose text is made `visible`; other attributes are those of the stream."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(visible(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@cache
def _console_class() -> Any:
    from rich.console import Console

    class HarmlessConsole(Console):
        def render(self, renderable: Any, options: Any = None) -> Any:
            for segment in super().render(renderable, options):
                harmless = segment.control or not _COMMAND.search(segment.text)
                yield segment if harmless else segment._replace(text=visible(segment.text))

    return HarmlessConsole


def _sign(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(_CONTROL_PICTURES + code)
    return _PICTURE_OF_DELETE if code == 0x7F else _REPLACEMENT
