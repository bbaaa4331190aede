"""Which columns of a person's table are what, by their usual names and what is in them."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath

from vadv_dist.data.readers.clip_rows import FILE_NAMES, ID_NAMES
from vadv_dist.data.readers.labels import label_number
from vadv_dist.workflow.own_labels import are_of_sentiment, can_be_labels, split_of_word

# Usual names of columns, the likeliest first.
USUAL = {
    "id": ID_NAMES,
    "text": ("text", "transcript", "sentence", "utterance", "words", "content", "review", "comment"),
    "label": ("label", "labels", "sentiment", "class", "emotion", "score", "rating", "stars", "target", "category"),
    "split": ("split", "mode", "set", "subset", "partition", "fold"),
    "video": ("video_id", "video", "video_name", "dialogue_id", "speaker"),
    "path": FILE_NAMES,
}
_CLIPS = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv", ".ts")
# Two words, or characters of a script that has no spaces between words.
_SEVERAL_WORDS = re.compile(r"\w\s+\w|[^\x00-\x7f]{2}")
_MAX_LEVELS = 20
_MIN_CLIPS_OF_LEVEL = 2
Cells = Sequence[str]


def propose_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, str]:
    """The columns of a table by field; a field may be missing.

    Columns are known by their usual names. If none has one, the text is the column with the longest texts, most of them
    different, and the label the only column that repeats a few numbers or words, or words of sentiment.
    """
    cells = {name: [row[number] for row in rows] for number, name in enumerate(header)}
    fits: dict[str, Callable[[Cells], bool]] = {
        "label": can_be_labels,
        "split": _are_splits,
        "path": lambda column: PurePosixPath(column[0].strip().lower()).suffix in _CLIPS,
    }
    found = {}
    for field_name, names in USUAL.items():
        usual = [name for known in names for name in header if name.strip().lower() == known]
        fitting = [name for name in usual if fits.get(field_name, bool)(cells[name])]
        if fitting:
            found[field_name] = fitting[0]
    left = {name: column for name, column in cells.items() if name not in found.values() and not _are_splits(column)}
    texts = [name for name, column in left.items() if _are_texts(column)]
    if "text" not in found and texts:
        found["text"] = max(texts, key=lambda name: sum(map(len, left[name])))
    levels = [name for name, column in left.items() if name not in found.values() and _are_levels(column)]
    likeliest = [name for name in levels if are_of_sentiment(left[name])] or levels
    if "label" not in found and len(likeliest) == 1:
        found["label"] = likeliest[0]
    if "id" in found and "video" in found and len(set(cells[found["id"]])) < len(cells[found["id"]]):
        found["id"] = f"{found['video']}+{found['id']}"  # numbered within each video
    return found


def example_columns(header: Sequence[str], known: Mapping[str, str], needed: Sequence[str]) -> str:
    """An answer made of a table's own columns, such as `text=Review Text,label=Mood`.

    A field whose column is not known has one that no other field has: the last for the label, else the first.
    """
    used = {column for columns in known.values() for column in columns.split("+")}
    others = [name for name in header if name not in used]
    pairs = {}
    for name in needed:
        pairs[name] = known.get(name) or (others.pop(-1 if name == "label" else 0) if others else "COLUMN")
    return columns_text(pairs | dict(known))


def columns_text(columns: Mapping[str, str]) -> str:
    """Columns by field as the option `--columns` has them; a pair that contains a comma is in quotes."""
    pairs = (f"{name}={column}" for name, column in columns.items())
    return ",".join(f'"{pair}"' if "," in pair else pair for pair in pairs)


def _are_splits(column: Cells) -> bool:
    return all(split_of_word(cell) for cell in column if cell.strip())


def _are_texts(column: Cells) -> bool:
    """Whether most cells have several words, and most are different."""
    several = sum(bool(_SEVERAL_WORDS.search(cell)) for cell in column)
    return 2 * several > len(column) and 2 * len(set(column)) > len(column)


def _are_levels(column: Cells) -> bool:
    """Whether the cells are a few numbers or words, each in several rows."""
    different = {cell.strip() for cell in column if cell.strip()}
    if not 2 <= len(different) <= min(_MAX_LEVELS, len(column) / _MIN_CLIPS_OF_LEVEL):
        return False
    numbers = sum(math.isfinite(label_number(cell)) for cell in different)
    return can_be_labels(column) and (numbers in (0, len(different)))
