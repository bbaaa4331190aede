"""Find videos that several data sets share across splits.

If one set trains on a video and another tests on it, a model knows a test clip's speaker and topic, and the test score
is too good. Only the `video_id` columns are read, shard by shard; memory holds one count per video.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, permutations
from pathlib import Path

from rich.console import Console

from vadv_dist.data.check_report import CheckReport, Finding, counted, render_finding, render_report
from vadv_dist.data.checks import check_dataset
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.sources import misfits

# The split that a model learns from, and the splits that evaluate it.
_PAIRS = (("train", "test"), ("train", "valid"), ("valid", "test"))
_MAX_EXAMPLES = 10


@dataclass(frozen=True)
class SharedVideos:
    """Videos in the training split of one data set and in an evaluation split of another.

    Attributes:
        seen, seen_split: the data set and split that a model learns from.
        judged, judged_split: the data set and split that evaluate it.
        videos: their ids, ascending.
        clips: number of clips of these videos in the evaluation split.
    """

    seen: str
    seen_split: str
    judged: str
    judged_split: str
    videos: list[str]
    clips: int

    def to_json(self) -> dict[str, object]:
        """Plain containers with all ids, and the message as `told`."""
        return {**asdict(self), "told": self.sentence}

    @property
    def sentence(self) -> str:
        """A message with the first ids."""
        more = len(self.videos) - _MAX_EXAMPLES
        ids = ", ".join(self.videos[:_MAX_EXAMPLES]) + (f" and {more:,} more" if more > 0 else "")
        return (
            f"{counted(len(self.videos), 'video')} of {self.judged}'s {self.judged_split} split "
            f"({counted(self.clips, 'clip')}) also in {self.seen}'s {self.seen_split} split: {ids}."
        )


@dataclass(frozen=True)
class Check:
    """Results of checking one or several data sets.

    Attributes:
        reports: one per data set.
        between: findings about several data sets; empty if one of them has errors.
    """

    reports: tuple[CheckReport, ...]
    between: tuple[Finding, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no report has an error."""
        return all(report.ok for report in self.reports)

    def to_json(self) -> dict[str, object]:
        """Plain containers; for one data set, its report."""
        if len(self.reports) == 1:
            return self.reports[0].to_json()
        between = [asdict(finding) for finding in self.between]
        return {"reports": [report.to_json() for report in self.reports], "between": between, "ok": self.ok}


def check_datasets(uris: Sequence[str | Path]) -> Check:
    """Check each data set, and if none has errors, what they share.

    Raises:
        UserError: one is not a data set.
    """
    reports = tuple(check_dataset(uri) for uri in uris)
    if len(reports) == 1 or not all(report.ok for report in reports):
        return Check(reports)
    return Check(reports, tuple(check_across([Dataset.open(uri) for uri in uris])))


def render_check(check: Check, console: Console) -> None:
    """Print every report, then the findings about several data sets."""
    for report in check.reports:
        render_report(report, console)
    for finding in check.between:
        render_finding(finding, console)
    if len(check.reports) > 1 and not check.between:
        nothing = "the data sets share nothing between their splits"
        console.print(nothing if check.ok else "fix these errors to check what the data sets share", highlight=False)


def shared_videos(
    datasets: Mapping[str, Dataset], judged_splits: Sequence[str] = ("valid", "test")
) -> list[SharedVideos]:
    """Find videos that one data set trains on and another is evaluated on.

    Args:
        datasets: data sets by their names in the result.
        judged_splits: evaluation splits; apart from them only train is read.
    Raises:
        UserError: a shard cannot be read.
    """
    pairs = [pair for pair in _PAIRS if pair[1] in judged_splits and pair[0] in ("train", *judged_splits)]
    wanted = {split for pair in pairs for split in pair}
    videos = {
        name: {split: Counter(dataset.column(split, "video_id")) for split in wanted}
        for name, dataset in datasets.items()
    }
    found = []
    for seen, judged in permutations(datasets, 2):
        for seen_split, judged_split in pairs:
            theirs = videos[judged][judged_split]
            shared = sorted(videos[seen][seen_split].keys() & theirs.keys())
            if shared:
                clips = sum(theirs[video] for video in shared)
                found.append(SharedVideos(seen, seen_split, judged, judged_split, shared, clips))
    return found


def check_across(datasets: Sequence[Dataset]) -> list[Finding]:
    """Warnings about data sets that are used as sources of one run.

    Raises:
        UserError: a shard cannot be read.
    """
    findings = []
    for first, other in combinations(datasets, 2):
        shared_features = first.manifest.features.keys() & other.manifest.features.keys()
        for name, what, advice in misfits(first, other, sorted(shared_features)):
            findings.append(Finding("warning", f"{first.root} and {other.root}", None, name, what, advice))
    advice = "Remove the videos from one data set, or consider whether the score may benefit from known speakers."
    for shared in shared_videos({str(dataset.root): dataset for dataset in datasets}):
        places = f"{shared.seen}/{shared.seen_split}/ and {shared.judged}/{shared.judged_split}/"
        findings.append(Finding("warning", places, None, "video_id", shared.sentence, advice))
    return findings
