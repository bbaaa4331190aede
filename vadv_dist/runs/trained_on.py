"""Locations and fingerprints of the data sets and the encoder that a run is trained on.

Names are not enough: `data/mosi` differs between working directories, and a data set can be replaced in place.
"""

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

# Part of the path of the folders that Ray unpacks jobs to.
_RAY_FOLDER = "working_dir_files"


@dataclass(frozen=True)
class SourceIdentity:
    """One data set of a run.

    Attributes:
        place: its absolute location.
        fingerprint: fingerprint of its shards and prompts.
        label: kind, range and threshold of its labels; empty if they were not recorded.
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
        """Whether two data sets have the same bytes and, as far as is known, the same meaning of labels."""
        known = self.label.keys() & other.label.keys()
        return self.fingerprint == other.fingerprint and all(self.label[k] == other.label[k] for k in known)

    def __str__(self) -> str:
        return f"{self.place} (fingerprint {self.fingerprint[:12]})"


@dataclass(frozen=True)
class TrainedOn:
    """The data sets, in the order of the configuration, and the encoder of a run; None if its student reads no text."""

    data: tuple[SourceIdentity, ...]
    encoder: EncoderIdentity | None

    @classmethod
    def of(cls, config: Config, sources: Sources, *, weights: bool = True) -> "TrainedOn":
        """Identify the data sets and the encoder of a configuration.

        Args:
            config: the run's configuration.
            sources: its data sets, opened.
            weights: whether to hash the encoder's pretrained weights.
        """
        student = config.text_student
        return cls(
            tuple(SourceIdentity.of(dataset) for dataset in sources.datasets),
            None if student is None else EncoderIdentity.of(student.encoder, weights=weights and student.pretrained),
        )

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> "TrainedOn":
        """Rebuild from the result of `to_json`."""
        encoder = raw["encoder"]
        data = tuple(SourceIdentity(**entry) for entry in raw["data"])
        return cls(data, None if encoder is None else EncoderIdentity(**encoder))

    def to_json(self) -> dict[str, Any]:
        """Convert to plain containers."""
        encoder = None if self.encoder is None else asdict(self.encoder)
        return {"data": [asdict(source) for source in self.data], "encoder": encoder}

    def with_known(self, earlier: "TrainedOn | None") -> "TrainedOn":
        """Fill in unknown hashes of the encoder from an earlier record."""
        if earlier is None or self.encoder is None or earlier.encoder is None:
            return self
        mine, theirs = self.encoder, earlier.encoder
        encoder = replace(
            mine,
            tokenizer=theirs.tokenizer if mine.tokenizer is None else mine.tokenizer,
            weights=theirs.weights if mine.weights is None else mine.weights,
        )
        return replace(self, encoder=encoder)

    def has_data_of(self, other: "TrainedOn") -> bool:
        """Whether both have the same data sets in the same order."""
        pairs = zip(self.data, other.data, strict=False)
        return len(self.data) == len(other.data) and all(mine.is_as(theirs) for mine, theirs in pairs)

    def differing(self, now: "TrainedOn") -> str | None:
        """Describe how `now` differs from this; None if it is the same."""
        said = []
        if not self.has_data_of(now):
            said.append(f"on different data: {_listed(self.data)} then, {_listed(now.data)} now")
        if self.encoder is not None and now.encoder is not None and not self.encoder.is_as(now.encoder):
            said.append(f"with a different encoder: {self.encoder} then, {now.encoder} now")
        return " and ".join(said) or None


def find_again(config: Config, trained_on: TrainedOn, data: Sequence[str] = (), encoder: str | None = None) -> Config:
    """Return the run's configuration with the current locations of its data sets and its encoder.

    Each is searched at the given, recorded and configured locations, and identified by its fingerprint.

    Args:
        config: the run's configuration.
        trained_on: its record.
        data: new locations of its data sets, if they were moved.
        encoder: new location of its encoder, if it was moved.
    Raises:
        UserError: one of them is not found.
    """
    configured = config.data.sources
    if len(configured) != len(trained_on.data):
        raise UserError(
            f"The run's config names {len(configured)} data sets, but it was trained on {_listed(trained_on.data)}. "
            "Its config.yaml was modified; restore it."
        )
    several = len(configured) > 1
    sources = []
    for source, recorded in zip(configured, trained_on.data, strict=True):
        place = _place_of(recorded, [*data, recorded.place, source.uri])
        # Keep its name, whatever its folder is called now.
        sources.append(replace(source, uri=place, name=source.title if several else source.name))
    config = replace(config, data=replace(config.data, sources=sources))
    student = config.text_student
    if student is None or trained_on.encoder is None:
        return config
    return replace(config, student=replace(student, encoder=_encoder_of(student.encoder, trained_on.encoder, encoder)))


def with_absolute_places(config: Config) -> Config:
    """Make the locations in a configuration independent of the working directory.

    In the folder of a Ray job, which is removed after the job, relative locations are kept: they refer to the project.
    """
    if _RAY_FOLDER in Path.cwd().parts:
        return config
    sources = [replace(source, uri=str(location(source.uri).resolve())) for source in config.data.sources]
    if len(sources) > 1:
        sources = [replace(s, name=given.title) for s, given in zip(sources, config.data.sources, strict=True)]
    student = config.text_student
    if student is not None and (encoder := Path(student.encoder).expanduser()).is_dir():
        config = replace(config, student=replace(student, encoder=str(encoder.resolve())))
    run = replace(config.run, storage=str(location(config.run.storage).resolve()))
    return replace(config, run=run, data=replace(config.data, sources=sources))


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
        f"The run was trained on {recorded}.{others} If that data set was moved, give its new location with --data; to "
        "score the student on another data set, give that with --data."
    )


def _encoder_of(configured: str, recorded: EncoderIdentity, moved: str | None) -> str:
    if moved is not None:
        places = [moved]
    elif recorded.tokenizer is None:
        return recorded.place
    else:
        places = [recorded.place, configured]
    found = []
    for place in dict.fromkeys(places):
        there = EncoderIdentity.of(place, weights=False)  # a checkpoint contains all weights
        if there.tokenizer is not None and there.is_as(recorded):
            return place
        if there.tokenizer is not None:
            found.append(str(there))
    others = f" Found instead: {', '.join(found)}." if found else " Nothing is there now."
    raise UserError(
        f"The run was trained with the encoder {recorded}.{others} Restore it, or give its new location with --encoder."
    )


def _listed(sources: Sequence[SourceIdentity]) -> str:
    return " and ".join(str(source) for source in sources)
