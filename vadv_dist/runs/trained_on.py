"""What a run is trained on: where its data sets and its encoder were, and fingerprints by which they are known again.

Names are not enough: `data/mosi` is another data set in another folder, and what lies at a place may be replaced.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vadv_dist.config import Config
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.sources import Sources
from vadv_dist.errors import UserError
from vadv_dist.runs.encoder_identity import EncoderIdentity
from vadv_dist.storage import location

# Part of the path under which Ray lays out the folders of jobs.
_RAY_FOLDER = "working_dir_files"


@dataclass(frozen=True)
class SourceIdentity:
    """One data set of a run.

    Attributes:
        place: its absolute place.
        fingerprint: of its shards and prompts.
        label: kind, range and threshold of its labels; empty where they were not recorded.
    """

    place: str
    fingerprint: str
    label: Mapping[str, Any]

    @classmethod
    def of(cls, dataset: Dataset) -> "SourceIdentity":
        """Identify a data set."""
        label = dataset.manifest.label
        return cls(
            str(dataset.root.resolve()),
            dataset.manifest.fingerprint,
            {"kind": label.kind, "low": label.low, "high": label.high, "threshold": label.positive_from},
        )

    def is_as(self, other: "SourceIdentity") -> bool:
        """Whether two are one data set: equal bytes, and labels that mean the same as far as is known of both."""
        known = self.label.keys() & other.label.keys()
        return self.fingerprint == other.fingerprint and all(self.label[k] == other.label[k] for k in known)

    def __str__(self) -> str:
        return f"{self.place} (fingerprint {self.fingerprint[:12]})"


@dataclass(frozen=True)
class TrainedOn:
    """All that a run is trained on, in the order of its configuration."""

    data: tuple[SourceIdentity, ...]
    encoder: EncoderIdentity

    @classmethod
    def of(cls, config: Config, sources: Sources, *, weights: bool = True) -> "TrainedOn":
        """Identify what a configuration names from here.

        Args:
            config: the run's.
            sources: its data sets, opened.
            weights: whether to read the encoder's pretrained weights.
        """
        student = config.student
        return cls(
            tuple(SourceIdentity.of(dataset) for dataset in sources.datasets),
            EncoderIdentity.of(student.encoder, weights=weights and student.pretrained),
        )

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> "TrainedOn":
        """Rebuild what `to_json` gave."""
        return cls(tuple(SourceIdentity(**entry) for entry in raw["data"]), EncoderIdentity(**raw["encoder"]))

    def to_json(self) -> dict[str, Any]:
        """As plain containers."""
        return {"data": [asdict(source) for source in self.data], "encoder": asdict(self.encoder)}

    def with_known(self, earlier: "TrainedOn | None") -> "TrainedOn":
        """Itself, with what is known of the encoder from an earlier record alone."""
        if earlier is None:
            return self
        mine, theirs = self.encoder, earlier.encoder
        encoder = replace(
            mine,
            tokenizer=theirs.tokenizer if mine.tokenizer is None else mine.tokenizer,
            weights=theirs.weights if mine.weights is None else mine.weights,
        )
        return replace(self, encoder=encoder)

    def has_data_of(self, other: "TrainedOn") -> bool:
        """Whether both are trained on the same data sets in the same order."""
        pairs = zip(self.data, other.data, strict=False)
        return len(self.data) == len(other.data) and all(mine.is_as(theirs) for mine, theirs in pairs)

    def differing(self, now: "TrainedOn") -> str | None:
        """How `now` is something else than this, with both named; None where it is the same."""
        said = []
        if not self.has_data_of(now):
            said.append(f"on other data than is found now: {_listed(self.data)} then, {_listed(now.data)} now")
        if not self.encoder.is_as(now.encoder):
            said.append(f"with another encoder than is found now: {self.encoder} then, {now.encoder} now")
        return "; and ".join(said) or None


def find_again(config: Config, trained_on: TrainedOn, data: Sequence[str] = (), encoder: str | None = None) -> Config:
    """The run's configuration with the places at which its data sets and its encoder are now.

    Each is looked for where it was recorded, and where the configuration names it from here. What is found counts by
    its fingerprint alone.

    Args:
        config: the run's.
        trained_on: what was recorded of it.
        data: places to which its data sets were moved.
        encoder: place to which its encoder was moved.
    Raises:
        UserError: something is gone, or another one lies in its place.
    """
    configured = config.data.sources
    if len(configured) != len(trained_on.data):
        raise UserError(
            f"The run's config names {len(configured)} data sets, but it was trained on {_listed(trained_on.data)}. "
            "Its config.yaml was changed; put it back."
        )
    several = len(configured) > 1
    sources = []
    for source, recorded in zip(configured, trained_on.data, strict=True):
        place = _place_of(recorded, [*data, recorded.place, source.uri])
        # Its name stays, whatever its folder is called now.
        sources.append(replace(source, uri=place, name=source.title if several else source.name))
    student = replace(config.student, encoder=_encoder_of(config, trained_on.encoder, encoder))
    return replace(config, data=replace(config.data, sources=sources), student=student)


def with_absolute_places(config: Config) -> Config:
    """A configuration that names the same data sets, encoder and storage from every folder.

    In a Ray job's own folder, which is removed after the job, relative names stay: they are those of the project.
    """
    if _RAY_FOLDER in Path.cwd().parts:
        return config
    sources = [replace(source, uri=str(location(source.uri).resolve())) for source in config.data.sources]
    if len(sources) > 1:
        sources = [replace(s, name=given.title) for s, given in zip(sources, config.data.sources, strict=True)]
    encoder = Path(config.student.encoder).expanduser()
    student = replace(config.student, encoder=str(encoder.resolve())) if encoder.is_dir() else config.student
    run = replace(config.run, storage=str(location(config.run.storage).resolve()))
    return replace(config, run=run, data=replace(config.data, sources=sources), student=student)


def _place_of(recorded: SourceIdentity, places: Sequence[str]) -> str:
    found: list[str] = []
    for place in dict.fromkeys(places):
        try:
            there = SourceIdentity.of(Dataset.open(place))
        except UserError:
            continue  # nothing is there, or something unreadable
        if there.is_as(recorded):
            return place
        if str(there) not in found:
            found.append(str(there))
    others = f" Found instead: {', '.join(found)}." if found else " Nothing is there now."
    raise UserError(
        f"The run was trained on {recorded}.{others} If that data set was moved, name its new place with --data; to "
        "score the student on other data, name that with --data."
    )


def _encoder_of(config: Config, recorded: EncoderIdentity, moved: str | None) -> str:
    if moved is not None:
        places = [moved]
    elif recorded.tokenizer is None:
        return recorded.place
    else:
        places = [recorded.place, config.student.encoder]
    found = []
    for place in dict.fromkeys(places):
        there = EncoderIdentity.of(place, weights=False)  # a checkpoint holds all weights
        if there.tokenizer is not None and there.is_as(recorded):
            return place
        if there.tokenizer is not None:
            found.append(str(there))
    others = f" Found instead: {', '.join(found)}." if found else " Nothing is there now."
    raise UserError(
        f"The run was trained with the encoder {recorded}.{others} Put it back, or name the place to which it was "
        "moved with --encoder."
    )


def _from(folder: str, name: str) -> str:
    """A place that was named in another folder."""
    place = location(name)
    return os.path.join(folder, name) if not place.is_absolute() else str(place)


def _listed(sources: Sequence[SourceIdentity]) -> str:
    return " and ".join(str(source) for source in sources)
