"""The page of a data set: what is in it, and what may be wrong with it, in one file that loads nothing."""

import base64
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from vadv_dist.data.check_report import CheckReport, counted
from vadv_dist.data.checks import check_dataset
from vadv_dist.data.classes import class_name
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.info import dataset_info
from vadv_dist.data.profile import DataProfile, GroupProfile, profile_dataset
from vadv_dist.data.repeated_texts import repeated_in, shared_by
from vadv_dist.data.schema import FEATURE_LAYOUT, LabelSpec
from vadv_dist.errors import UserError
from vadv_dist.reporting.markup import Markup, join, tag
from vadv_dist.reporting.page import Page, Section, document, folded, grid
from vadv_dist.reporting.pictures import Picture
from vadv_dist.reporting.style import PALETTE
from vadv_dist.reporting.tables import facts_list, plain_table
from vadv_dist.storage import scratch_folder

_COMMAND = "vadv data-info --html"
_MAX_SOURCES = 12
_MAX_CLASSES = 30
_WORD_BINS = 16
_ROLE = {"train": "o1", "valid": "o2", "test": "o3"}
_AXES = {
    "visual": "T frames of N tokens of width D, from the frozen image encoder",
    "face": "T face crops, each with E scores of the expression classifier",
    "audio": "T steps of width D, or one vector",
}


def data_page(uri: str) -> Page:
    """The page of a data set; all of its rows are read.

    Raises:
        UserError: there is no data set, or a shard cannot be read.
    """
    dataset = Dataset.open(uri)
    info, profile, check = dataset_info(uri), profile_dataset(uri), check_dataset(uri)
    label = dataset.manifest.label
    sections = [
        _splits(info, profile, label),
        _labels(profile, label),
        _words(profile),
        _features(info),
        _warnings(profile, check),
        _sheets(dataset),
        _examples(profile, label),
        _origin(info),
    ]
    header = join(
        tag("p", tag("b", info["uri"]), f" · fingerprint {info['fingerprint'][:12]}", class_="over"),
        tag("h1", f"{info['rows']:,} clips of {_videos(profile):,} videos"),
        tag("p", _lede(label, profile), class_="lede"),
    )
    return document(f"{dataset.root.name} · vadv data set", header, sections, _COMMAND)


def _videos(profile: DataProfile) -> int:
    return len(set[str]().union(*(group.videos for group in profile.splits.values())))


def _lede(label: LabelSpec, profile: DataProfile) -> str:
    if label.is_class:
        kind = f"Labels are {label.num_classes} classes"
    else:
        kind = (
            f"Labels are numbers from {label.low:g} to {label.high:g}, negative below {label.positive_from:g}, "
            "positive above"
        )
    sources = profile.sources
    return f"{kind}. " + (f"All clips are of {sources[0]}." if len(sources) == 1 else f"{len(sources)} sources.")


def _splits(info: dict[str, Any], profile: DataProfile, label: LabelSpec) -> Section:
    features = list(info["features"])
    mean = "Classes" if label.is_class else "Mean label"
    columns = ("Split", "Clips", "Share", "Videos", mean, "Words: median", "most", *(f"No {f}" for f in features))
    rows = []
    for split, group in profile.splits.items():
        missing = info["splits"][split]["missing"]
        cells = [split, f"{group.clips:,}", f"{group.clips / info['rows']:.1%}", f"{len(group.videos):,}"]
        cells += [_mean(group, label), f"{_median(group.words):,}", f"{max(group.words, default=0):,}"]
        rows.append((None, [*cells, *(f"{missing[f]:,} ({missing[f] / group.clips:.0%})" for f in features)]))
    parts = [plain_table("Splits", columns, rows)]
    if len(profile.sources) > 1:
        by_source = [
            (None, [source, split, f"{group.clips:,}", f"{len(group.videos):,}", _mean(group, label)])
            for (split, source), group in sorted(profile.groups.items(), key=lambda item: (item[0][1], item[0][0]))
        ]
        parts.append(plain_table("Sources", ("Source", "Split", "Clips", "Videos", mean), by_source))
    return Section("splits", "Splits", "", join(*parts))


def _labels(profile: DataProfile, label: LabelSpec) -> Section:
    pictures = [_label_picture(split, split, group, profile, label) for split, group in profile.splits.items()]
    note = "Shares of the clips of a split."
    if len(profile.sources) > 1:
        shown = profile.sources[:_MAX_SOURCES]
        by_source = [
            _label_picture(f"{source}-{split}", f"{source}, {split}", group, profile, label)
            for (split, source), group in sorted(profile.groups.items(), key=lambda item: (item[0][1], item[0][0]))
            if source in shown
        ]
        more = f" of the first {_MAX_SOURCES} of {len(profile.sources)}" if len(profile.sources) > _MAX_SOURCES else ""
        content = join(grid(pictures), folded(f"By source{more}", grid(by_source)))
        return Section("labels", "Labels", note, content)
    return Section("labels", "Labels", note, grid(pictures))


def _label_picture(name: str, title: str, group: GroupProfile, profile: DataProfile, label: LabelSpec) -> Picture:
    shares = [100 * count / max(1, group.clips) for count in group.labels]
    role = PALETTE[_ROLE.get(title.rpartition(" ")[2], "label")]
    if label.is_class:
        names = [class_name(label.classes, number) for number in range(len(shares))]
        order = sorted(sorted(range(len(shares)), key=lambda number: -shares[number])[:_MAX_CLASSES])
        picture = Picture(f"labels-{name}", title, (320, 34 + 30 * len(order)))
        values = [f"{group.labels[number]:,} ({shares[number]:.1f} %)" for number in order]
        picture.rows([names[number] for number in order], values, (0.0, max(shares) * 1.02 or 1.0))
        for place, number in enumerate(order):
            picture.line([(0.0, place), (shares[number], place)], "label", width=5, color=role)
        picture.note = "" if len(order) == len(shares) else f"the {_MAX_CLASSES} largest of {len(shares)} classes"
        said = (f"{names[number]} {value}" for number, value in zip(order, values, strict=True))
        picture.label = f"Classes of {title}: {', '.join(said)}."
        return picture
    picture = Picture(f"labels-{name}", title, (320, 170))
    _bars(picture, profile.bins, group.labels, role, "share of clips (%) by label")
    picture.label = f"Histogram of the labels of {title}."
    return picture


def _bars(picture: Picture, edges: Sequence[float], counts: Sequence[int], colour: str, x_label: str) -> None:
    shares = [100 * count / max(1, sum(counts)) for count in counts]
    picture.frame((edges[0], edges[-1]), (0.0, max(shares) * 1.05 or 1.0), x_label=x_label, ticks=(7, 4))
    for (low, high), count, share in zip(pairwise(edges), counts, shares, strict=True):
        if count:
            [bar] = picture.axes.bar((low + high) / 2, share, 0.92 * (high - low), color=colour, alpha=0.85)
            picture.title(bar, [f"{low:g} to {high:g}: {count:,} clips, {share:.1f} %"])


def _words(profile: DataProfile) -> Section | None:
    if not any(max(group.words, default=0) for group in profile.splits.values()):
        return None
    most = max(_percentile(group.words, 0.99) for group in profile.splits.values())
    width = max(1, -(-(most + 1) // _WORD_BINS))
    pictures = []
    for split, group in profile.splits.items():
        counts = [0] * _WORD_BINS
        for words, clips in group.words.items():
            counts[min(_WORD_BINS - 1, words // width)] += clips
        picture = Picture(f"words-{split}", split, (320, 170))
        edges = [float(place * width) for place in range(_WORD_BINS + 1)]
        _bars(picture, edges, counts, PALETTE[_ROLE[split]], "share of clips (%) by number of words")
        picture.label = f"Histogram of the number of words in {split}."
        pictures.append(picture)
    note = "Words of a clip, separated by white space. The last bar has all longer clips, at most 1 %."
    return Section("words", "Length", note, grid(pictures))


def _features(info: dict[str, Any]) -> Section:
    if not info["features"]:
        return Section("features", "Features", "None: a student can be trained on the words alone.", Markup(""))
    rows = [
        (None, [name, " × ".join(map(str, spec["shape"])), FEATURE_LAYOUT[name], spec["dtype"], _AXES[name]])
        for name, spec in info["features"].items()
    ]
    table = plain_table("Features", ("Feature", "Shape", "Axes", "Type", "What"), rows)
    return Section("features", "Features", "Clips that lack one are counted above, under Splits.", table)


def _warnings(profile: DataProfile, check: CheckReport) -> Section:
    rows = [(None, [finding.level, finding.where, f"{finding.what} {finding.advice}"]) for finding in check.findings]
    table = (
        plain_table("Findings", ("Level", "Where", "What"), rows)
        if rows
        else tag("p", "vadv data-check found nothing.")
    )
    lines = [repeated_in(count, split) for split, count in profile.repeated.items() if count]
    lines += [
        f"{shared_by(count, one, other)}: the scores may be too good"
        for (one, other), count in profile.shared.items()
        if count
    ]
    lines += [
        f"{counted(count, 'video')} {'is' if count == 1 else 'are'} in both {one} and {other}: the speaker and the "
        "scene are known"
        for (one, other), count in profile.shared_videos.items()
        if count
    ]
    texts = tag(
        "ul", *(tag("li", line) for line in lines or ["No text of four or more words is repeated."]), class_="notes"
    )
    examples = tag("ul", *(tag("li", tag("q", text)) for text in profile.shared_examples), class_="notes")
    shown = folded("Texts in two splits", examples) if profile.shared_examples else Markup("")
    note = "What makes scores better than they are, and what training would stop at."
    return Section("warnings", "Duplicates and leaks", note, join(texts, shown, table))


def _sheets(dataset: Dataset) -> Section | None:
    """Frames of a few clips, if they were extracted and are still where they were."""
    from vadv_dist.features.assemble import SOURCES_NAME
    from vadv_dist.features.contact_sheet import write_contact_sheets

    if SOURCES_NAME not in dataset.manifest.records:
        return None
    with scratch_folder() as folder:
        try:
            sheets = write_contact_sheets(dataset.root, folder)
        except UserError as error:
            return Section("frames", "Frames", "", tag("p", str(error), class_="notice"))
        images = [_image(Path(str(sheet))) for sheet in sheets]
    return Section(
        "frames", "Frames", "What the encoders saw of a few clips, with the face that was followed.", join(*images)
    )


def _image(path: Path) -> Markup:
    data = base64.b64encode(path.read_bytes()).decode()
    picture = tag("img", src=f"data:image/png;base64,{data}", alt=f"Frames of {path.stem}", style="width:100%")
    return tag("figure", tag("figcaption", tag("b", path.stem)), picture)


def _examples(profile: DataProfile, label: LabelSpec) -> Section:
    def shown(value: float) -> str:
        return class_name(label.classes, int(value)) if label.is_class else f"{value:.2f}"

    rows = [
        (None, [tag("q", text) if text else "–", split, clip, shown(value)])
        for split, group in profile.splits.items()
        for clip, value, text in group.examples
    ]
    table = plain_table("Clips", ("Words", "Split", "Clip", "Label"), rows)
    return Section("clips", "Clips", "A few of each split: are the words and labels what they should be?", table)


def _origin(info: dict[str, Any]) -> Section:
    made = info["provenance"]
    facts = {key.replace("_", " "): str(made[key]) for key in ("made_by", "created", "vadv_version") if key in made}
    facts |= {key.replace("_", " "): str(value) for key, value in _flat(made.get("options", {}))}
    files = [
        (None, [str(file.get("name", "?")), f"{file.get('bytes', 0):,}", str(file.get("sha256", ""))[:16]])
        for file in made.get("files", [])
        if isinstance(file, dict)
    ]
    table = plain_table("Files", ("File", "Bytes", "SHA-256"), files) if files else Markup("")
    return Section("origin", "Origin", "", join(facts_list(facts), table))


def _flat(options: Any, prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in options.items() if isinstance(options, dict) else ():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif value not in (None, [], "", ()):
            yield f"{prefix}{key}", value


def _mean(group: GroupProfile, label: LabelSpec) -> str:
    if label.is_class:
        return f"{sum(count > 0 for count in group.labels):,}"
    return f"{group.label_sum / max(1, group.clips):+.2f}"


def _median(words: Counter[int]) -> int:
    return _percentile(words, 0.5)


def _percentile(words: Counter[int], share: float) -> int:
    """The least number of words that this share of clips does not exceed."""
    reached, total = 0, words.total()
    for number in sorted(words):
        reached += words[number]
        if reached >= share * total:
            return number
    return 0
