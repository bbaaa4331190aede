"""Print `dataset_info` of a data set in a terminal of 80 columns or more."""

from itertools import pairwise
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from vadv_dist.data.classes import class_names, listed

_COLOURS = {"train": "cyan", "valid": "magenta", "test": "yellow"}
_EIGHTHS = "▏▎▍▌▋▊▉█"
_INDENT = 2
_MAX_BAR_CELLS = 44
_MAX_CLASSES = 50
_SEEN = {
    "constant": "nothing",
    "text": "text",
    "video": "video and face",
    "text_and_video": "text, video and face",
    "latent": "the latent itself",
}


def render_info(info: dict[str, Any], console: Console) -> None:
    """Print counts, shapes, label histogram, words and provenance, and the truth of synthetic data."""
    shards = sum(split["shards"] for split in info["splits"].values())
    console.print(Text(info["uri"], style="bold"))
    console.print(
        Text(
            f"{info['rows']:,} clips, {_size(info['bytes'])} in {shards:,} {'shard' if shards == 1 else 'shards'}, "
            f"fingerprint {info['fingerprint'][:12]}",
            style="dim",
        )
    )
    _section(console, "Splits", _splits(info))
    _section(console, "Features", _features(info))
    _section(console, _labels(info["label"]), _histogram(info, console.width))
    if info["truth"]:
        title = info["truth"].get("title", "Lowest possible mean absolute error")
        _section(console, title, _truth(info["truth"], console.width))
    _section(console, "Provenance", _provenance(info["provenance"]))


def _labels(label: dict[str, Any]) -> str:
    if label["kind"] == "class":
        return f"{label['high'] + 1:,.0f} classes"
    bounds = f"[{label['low']:g}, {label['high']:g}]"
    return f"Labels in {bounds}, negative below {label['threshold']:g}, positive above"


def _section(console: Console, title: str, content: RenderableType) -> None:
    console.print(Text(f"\n{title}", style="bold"))
    console.print(Padding(content, (0, 0, 0, _INDENT)), highlight=False)


def _table(*columns: str) -> Table:
    """A table without lines; a column whose title ends in `>` is right-aligned."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_header=any(c.strip(">") for c in columns))
    for column in columns:
        right = column.endswith(">")
        table.add_column(column.removesuffix(">"), justify="right" if right else "left", no_wrap=right)
    return table


def _splits(info: dict[str, Any]) -> Table:
    is_class = info["label"]["kind"] == "class"
    has_words = any((split["words"] or {}).get("total") for split in info["splits"].values())
    words = {"words: median": "median", "most": "max", "all": "total"} if has_words or not is_class else {}
    label = "classes" if is_class else "label mean ± std"
    table = _table("", "clips>", "share>", "shards>", f"{label}>", *(f"{name}>" for name in words))
    for name, split in info["splits"].items():
        counts = split["words"] or {}
        table.add_row(
            _coloured(name, name),
            f"{split['rows']:,}",
            f"{split['rows'] / info['rows']:.0%}",
            f"{split['shards']:,}",
            _classes_with_clips(split) if is_class else _mean_and_std(split),
            *(f"{counts[key]:,.0f}" if counts.get(key) is not None else "–" for key in words.values()),
        )
    return table


def _mean_and_std(split: dict[str, Any]) -> str:
    known = split["label_mean"] is not None and split["label_std"] is not None
    return f"{split['label_mean']:+.2f} ± {split['label_std']:.2f}" if known else "–"


def _classes_with_clips(split: dict[str, Any]) -> str:
    histogram = split["label_histogram"]
    return "–" if histogram is None else f"{sum(count > 0 for count in histogram['counts']):,}"


def _features(info: dict[str, Any]) -> RenderableType:
    if not info["features"]:
        return "none: words only"
    table = _table("", "shape", "type", "per clip>", "missing>")
    for name, feature in info["features"].items():
        missing = sum(split["missing"][name] for split in info["splits"].values())
        table.add_row(
            name,
            " × ".join(str(n) for n in feature["shape"]),
            feature["dtype"],
            _size(feature["bytes_per_clip"]),
            f"{missing:,} ({missing / info['rows']:.1%})" if missing else "none",
        )
    if info["prompts"]:
        table.add_row("prompts", f"{info['prompts']} classes", "float32", "", "")
    return table


def _histogram(info: dict[str, Any], width: int) -> RenderableType:
    histogram, splits = info["label"]["histogram"], info["splits"]
    if info["label"]["values"]:
        bars = {name: _counts_of(info["label"]["values"], split) for name, split in splits.items()}
        return _bars([f"{value:g}" for value in info["label"]["values"]], bars, width)
    if histogram is None:
        return f"from {info['label']['low']:g} to {info['label']['high']:g}"
    edges = histogram["edges"]
    is_class = info["label"]["kind"] == "class"
    if is_class:
        bins = class_names(info["label"]["classes"], len(edges) - 1)
    else:
        bins = [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
    shown, rest = (bins[:_MAX_CLASSES], bins[_MAX_CLASSES:]) if is_class else (bins, [])
    bars = {name: split["label_histogram"]["counts"] for name, split in splits.items()}
    table = _bars(shown, bars, width)
    notes = [f"and {len(rest):,} more classes (--json lists all)"] if rest else []
    if is_class:
        for name, split in splits.items():
            absent = [one for one, n in zip(bins, split["label_histogram"]["counts"], strict=True) if not n]
            if absent:
                notes.append(f"no clips in {name}: {listed(absent)}")
    return Group(table, *(Text(note, style="dim") for note in notes))


def _counts_of(values: list[float], split: dict[str, Any]) -> list[int]:
    """How often a split has each label."""
    counts = {each["value"]: each["count"] for each in split["label_values"]}
    return [counts.get(value, 0) for value in values]


def _bars(labels: list[str], counts: dict[str, list[int]], width: int) -> Table:
    """A stacked bar for each label, with its counts by split; further counts are not shown."""
    shown = {name: [f"{n:,}" for n in column] for name, column in counts.items()}
    taken = (
        _INDENT + max(map(len, labels)) + 2 + sum(max(map(len, [name, *column])) + 2 for name, column in shown.items())
    )
    cells = max(8, min(_MAX_BAR_CELLS, width - taken - 2))
    most = max(sum(column) for column in zip(*counts.values(), strict=True))
    table = _table(">", "", *(f"{name}>" for name in counts))
    for i, label in enumerate(labels):
        bar = _stacked_bar({name: column[i] for name, column in counts.items()}, most, cells)
        table.add_row(Text(label), bar, *(_coloured(name, shown[name][i]) for name in counts))
    return table


def _truth(truth: dict[str, Any], width: int) -> RenderableType:
    best: dict[str, tuple[str, float]] = {}
    for key, entries in truth.items():
        metric = key.removeprefix("best_")
        if metric != key and isinstance(entries, dict):
            for name, entry in entries.items():
                if isinstance(entry, dict):
                    best[name] = (str(entry.get("knowing", _SEEN.get(name, name))), entry[metric])
    table = _table("knowing", f"{truth.get('value', 'error')}>", "")
    highest = max((value for _, value in best.values()), default=0.0) or 1.0
    cells = max(
        8, min(_MAX_BAR_CELLS, width - _INDENT - 13 - max((len(knowing) for knowing, _ in best.values()), default=0))
    )
    for knowing, value in best.values():
        table.add_row(Text(knowing), f"{value:.3f}", Text(_bar(value / highest * cells), style="green"))
    sentences = [truth[key] for key in ("human", "summary", "model") if key in truth]
    return Group(table, Text("\n" + "\n".join(map(str, sentences)), style="dim"))


def _provenance(provenance: dict[str, Any]) -> Table:
    table = _table("", "")
    for key, value in provenance.items():
        is_counts = key == "counts" and isinstance(value, dict) and "rows_read" in value
        text = "\n".join(_rows_in_words(value)) if is_counts else _in_words(value)
        table.add_row(Text(key.replace("_", " "), style="dim"), Text(text))
    return table


def _rows_in_words(counts: dict[str, Any]) -> list[str]:
    """What an ingestion counted, a line each."""
    dropped, places, notes = (
        found if isinstance(found := counts.get(name), dict) else {}
        for name in ("dropped", "dropped_for_example", "notes")
    )
    lines = [f"{_in_words(counts.get('rows_written', '?'))} of {_in_words(counts['rows_read'])} rows written"]
    for reason, count in dropped.items():
        shown = places.get(reason)
        where = ""
        if isinstance(shown, list) and shown:
            where = f" ({', '.join(map(str, shown))}{', …' if count != len(shown) else ''})"
        lines.append(f"{_in_words(count)} dropped: {reason}{where}")
    return [*lines, *(f"{_in_words(count)} {what}" for what, count in notes.items())]


def _in_words(value: object, nested: bool = False) -> str:
    if isinstance(value, dict):
        if "sha256" in value:
            size = value.get("bytes")
            known = _size(size) if isinstance(size, int) else "? B"
            return f"{value.get('name', '?')}, {known}, SHA-256 {str(value['sha256'])[:12]}…"
        pairs = [f"{key}={_in_words(item, nested=True)}" for key, item in value.items() if item not in (None, {}, [])]
        return f"({', '.join(pairs)})" if nested else ", ".join(pairs)
    if isinstance(value, list):
        if all(isinstance(item, int | float) and abs(item) < 1e300 for item in value):
            return f"[{', '.join(f'{item:g}' for item in value)}]"
        return (", " if nested else "\n").join(_in_words(item) for item in value)
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _stacked_bar(parts: dict[str, int], most: int, cells: int) -> Text:
    """Join parts; only the last may end inside a cell, because a cell has a single colour."""
    bar, drawn, running = Text(), 0, 0
    last = list(parts)[-1]
    for name, count in parts.items():
        running += count
        length = running / most * cells - drawn
        text = _bar(length) if name == last else "█" * round(length)
        bar.append(text, style=_COLOURS.get(name, ""))
        drawn += len(text)
    return bar


def _bar(length: float) -> str:
    """A bar of the given width in cells, in steps of an eighth; never empty if the value is positive."""
    if length <= 0:
        return ""
    full, eighths = divmod(max(1, round(length * 8)), 8)
    return "█" * full + (_EIGHTHS[eighths - 1] if eighths else "")


def _coloured(split: str, text: str) -> Text:
    return Text(text, style=_COLOURS.get(split, ""))


def _size(num_bytes: int) -> str:
    power = min((max(num_bytes, 1).bit_length() - 1) // 10, 4)
    return f"{num_bytes / 1024**power:.1f} {'KMGT'[power - 1]}iB" if power else f"{num_bytes} B"
