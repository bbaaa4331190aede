"""Recognise the encoding of a text file: UTF-8 and UTF-16, and what spreadsheets write in other parts of the world."""

import codecs
import re
from typing import BinaryIO

from vadv_dist.errors import UserError, did_you_mean

_CHUNK = 1 << 20
_BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_USUAL = ("utf-8", "utf-16", "cp1252", "latin-1", "cp1250", "cp1251", "koi8-r", "gb18030", "big5", "shift_jis", "cp949")
_UTF8_SEQUENCE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_HIGH = re.compile(rb"[\x80-\xff]")
_HIGH_RUN = re.compile(rb"[\x80-\xff]+")
_KANA = re.compile(r"[\u3040-\u30ff]")
_HAN = re.compile(r"[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]")
_MOST = 0.8
# Korean syllables of KS X 1001 start with B0 to C8; Chinese in GB 2312 uses B0 to F7, often above C8.
_LAST_KOREAN = 0xC8
_ENOUGH = 20


def require_encoding(name: str) -> None:
    """Refuse a name that is no text encoding.

    Raises:
        UserError: it is none.
    """
    try:
        "a".encode(name)
    except (LookupError, ValueError):
        raise UserError(
            f"the encoding is {name!r}, expected one that Python knows, such as {', '.join(_USUAL[:6])}."
            f"{did_you_mean(name, _USUAL)}"
        ) from None


def detect_encoding(file: BinaryIO) -> str | None:
    """Recognise the encoding of a whole file in one pass; None if it cannot be told.

    UTF-8 with some damaged bytes is UTF-8: reading it reports where they are.
    """
    head = file.read(_CHUNK)
    for bom, name in _BOMS.items():
        if head.startswith(bom):
            return name
    if zeros := head.count(0):
        at_odd = head[1::2].count(0)
        if zeros > len(head) * 0.3 and max(at_odd, zeros - at_odd) > _MOST * zeros:
            return "utf-16-le" if at_odd > zeros / 2 else "utf-16-be"
        return "utf-8"  # reading it reports the NUL bytes
    decoder = codecs.getincrementaldecoder("utf-8")()
    seen_sequences = 0
    chunk = head
    while True:
        try:
            decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError:
            sequences = seen_sequences + len(_UTF8_SEQUENCE.findall(chunk))
            stray = len(_HIGH.findall(_UTF8_SEQUENCE.sub(b"", chunk)))
            return "utf-8" if sequences > stray else _legacy(chunk)
        if not chunk:
            return "utf-8"
        if not chunk.isascii():
            seen_sequences += len(_UTF8_SEQUENCE.findall(chunk))
        chunk = file.read(_CHUNK)


def _legacy(sample: bytes) -> str | None:
    """The encoding of text with bytes above 127 that is not UTF-8."""
    runs = _HIGH_RUN.findall(sample)
    num_high = sum(map(len, runs))
    if b"\x7f" in sample or len(re.findall(rb"[\x01-\x08\x0e-\x1f]", sample)) > 0:
        return None  # not text
    in_pairs = sum(len(run) for run in runs if len(run) % 2 == 0 and min(run) >= 0xA1) > _MOST * num_high
    if in_pairs and (text := _decoded(sample, "gb18030")):
        other = "".join(sign for sign in text if not sign.isascii())
        if len(_KANA.findall(other)) > 0.2 * len(other):
            return "euc_jp"
        if len(_HAN.findall(other)) > _MOST * len(other):
            leads = [run[at] for run in runs for at in range(0, len(run) - 1, 2) if run[at] >= 0xB0]
            korean = len(leads) >= _ENOUGH and max(leads) <= _LAST_KOREAN
            return "cp949" if korean else "gb18030"
    if text := _decoded(sample, "shift_jis"):
        other = "".join(sign for sign in text if not sign.isascii())
        if len(_KANA.findall(other)) > 0.2 * len(other) and not re.search(r"[\uff61-\uff9f]{3}", other):
            return "shift_jis"
    longer = sum(len(run) for run in runs if len(run) >= 3)
    if longer > num_high / 2:  # whole words of another script
        lower = sum(byte >= 0xE0 for run in runs for byte in run)
        cyrillic = sum(byte >= 0xC0 for run in runs for byte in run)
        if cyrillic > _MOST * num_high:
            return "cp1251" if lower > cyrillic / 2 else "koi8-r"
        return None
    return "cp1252" if _decoded(sample, "cp1252") else None


def _decoded(sample: bytes, encoding: str) -> str:
    """The text of a sample whose last character may be cut; empty if it is not in this encoding."""
    try:
        return codecs.getincrementaldecoder(encoding)().decode(sample)
    except UnicodeDecodeError:
        return ""
