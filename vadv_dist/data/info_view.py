"""Print `dataset_info` of a data set in a terminal of 80 columns or more."""

from itertools import pairwise
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

_COLOURS = {"train": "cyan", "valid": "magenta", "test": "yellow"}
_EIGHTHS = "▏▎▍▌▋▊▉█"
_INDENT = 2
_MAX_BAR_CELLS = 44
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
        _section(console, "Lowest possible mean absolute error", _truth(info["truth"], console.width))
    _section(console, "Provenance", _provenance(info["provenance"]))


def _labels(label: dict[str, Any]) -> str:
    if label["threshold"] is None:
        return "Labels"
    return f"Labels in [{label['low']:g}, {label['high']:g}], positive from {label['threshold']:g}"


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
    table = _table("", "clips>", "share>", "shards>", "label mean ± std>", "words: median>", "most>", "all>")
    for name, split in info["splits"].items():
        words = split["words"] or {}
        known = split["label_mean"] is not None and split["label_std"] is not None
        table.add_row(
            _coloured(name, name),
            f"{split['rows']:,}",
            f"{split['rows'] / info['rows']:.0%}",
            f"{split['shards']:,}",
            f"{split['label_mean']:+.2f} ± {split['label_std']:.2f}" if known else "–",
            *(f"{words[key]:,.0f}" if words.get(key) is not None else "–" for key in ("median", "max", "total")),
        )
    return table


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
    if histogram is None:
        return f"from {info['label']['low']:g} to {info['label']['high']:g}"
    edges, most = histogram["edges"], max(histogram["counts"])
    if info["label"]["kind"] == "class":
        names = info["label"]["classes"]
        bins = [names[i] if i < len(names) else f"class {i}" for i in range(len(edges) - 1)]
    else:
        bins = [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
    counts = {name: [f"{n:,}" for n in split["label_histogram"]["counts"]] for name, split in splits.items()}
    taken = (
        _INDENT + max(map(len, bins)) + 2 + sum(max(map(len, [name, *column])) + 2 for name, column in counts.items())
    )
    cells = max(8, min(_MAX_BAR_CELLS, width - taken - 2))
    table = _table(">", "", *(f"{name}>" for name in splits))
    for i, label in enumerate(bins):
        parts = {name: split["label_histogram"]["counts"][i] for name, split in splits.items()}
        table.add_row(label, _stacked_bar(parts, most, cells), *(_coloured(name, counts[name][i]) for name in splits))
    return table


def _truth(truth: dict[str, Any], width: int) -> RenderableType:
    best: dict[str, float] = {}
    for key, entries in truth.items():
        metric = key.removeprefix("best_")
        if metric != key and isinstance(entries, dict):
            best |= {name: entry[metric] for name, entry in entries.items() if isinstance(entry, dict)}
    table = _table("knowing", "error>", "")
    for name, error in best.items():
        cells = min(_MAX_BAR_CELLS, width - _INDENT - 32)
        table.add_row(
            _SEEN.get(name, name), f"{error:.3f}", Text(_bar(error / max(best.values()) * cells), style="green")
        )
    return Group(table, Text(f"\n{truth.get('human', '')}\n{truth.get('model', '')}", style="dim"))


def _provenance(provenance: dict[str, Any]) -> Table:
    table = _table("", "")
    for key, value in provenance.items():
        table.add_row(Text(key.replace("_", " "), style="dim"), Text(_in_words(value)))
    return table


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
        return "\n".join(_in_words(item) for item in value)
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
