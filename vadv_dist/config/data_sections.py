"""The section of a run's configuration that says what is trained on: data sets, and how they are read as one."""

from dataclasses import dataclass, field
from typing import Literal

from vadv_dist.config.checks import Section, require, require_at_least
from vadv_dist.config.places import expand_fields


@dataclass(frozen=True)
class SourceConfig(Section):
    """One data set to train on.

    Args:
        uri: folder that holds its `dataset.json`.
        weight: under `data.mixing: repeats` how often an epoch reads each of its clips (2.5 reads every clip twice and
            half of them a third time); under `equal` and `temperature` a factor on its share; otherwise 1.
        name: what metrics by source call it; null takes the last part of `uri`.
    """

    uri: str
    weight: float = 1.0
    name: str | None = None

    def __post_init__(self) -> None:
        expand_fields(self, "data.sources[]", "uri")
        require(bool(self.uri), "data.sources[].uri", self.uri, "the folder of a data set")
        require(
            0 < self.weight <= 100,
            "data.sources[].weight",
            self.weight,
            "a number above 0 and up to 100",
        )
        require(self.name is None or bool(self.name.strip()), "data.sources[].name", self.name, "a name, or null")

    @property
    def title(self) -> str:
        """What the source is called."""
        return self.name or self.uri.rstrip("/").rsplit("/", 1)[-1] or self.uri


@dataclass(frozen=True)
class DataConfig(Section):
    """What is trained on, and how it is read.

    Args:
        sources: data sets, read as one.
        batch_size: clips of a global batch, summed over ranks and accumulated micro-batches. Table 3.
        window_bytes: bound on the shard bytes of one window; at most two windows are in memory on a node.
        max_tokens: texts are cut after this many tokens. Section 5.1 of the paper.
        bucket_batches: rows are sorted by length within groups of this many batches; 1 turns bucketing off.
        missing: what becomes of clips without a feature that the teacher needs: left out (`drop`), kept with the
            teacher's terms and the missing branch masked (`mask`), or refused (`error`).
        mixing: how several sources are read as one. `proportional` reads every clip once per epoch, `repeats` reads it
            `weight` times. `equal` and `temperature` keep the number of clips of an epoch, but share them out among
            the sources: evenly, or by clips ** (1 / temperature), each times `weight`. Where that is less than a source
            has, an epoch goes on in it where the one before ended.
        temperature: of `mixing: temperature`; 1 is proportional, and the higher the nearer to `equal`. 5 is that of
            Arivazhagan et al. 2019 (arXiv:1907.05019).
    """

    sources: list[SourceConfig] = field(default_factory=list)
    batch_size: int = 4
    window_bytes: int = 256 << 20
    max_tokens: int = 100
    bucket_batches: int = 16
    missing: Literal["drop", "mask", "error"] = "error"
    mixing: Literal["proportional", "equal", "temperature", "repeats"] = "proportional"
    temperature: float = 5.0

    def __post_init__(self) -> None:
        require_at_least("data", self, {"batch_size": 1, "bucket_batches": 1})
        require(self.window_bytes >= 1 << 16, "data.window_bytes", self.window_bytes, "at least 65536 bytes")
        require(self.max_tokens >= 3, "data.max_tokens", self.max_tokens, "at least 3 tokens")
        require(1 <= self.temperature < float("inf"), "data.temperature", self.temperature, "a number from 1")
        if self.mixing == "proportional":
            weights = [source.weight for source in self.sources if source.weight != 1]
            what = "1 where data.mixing is proportional; set data.mixing to repeats, equal or temperature"
            require(not weights, "data.sources[].weight", weights[0] if weights else 1, what)
        titles = [source.title for source in self.sources]
        twice = next((title for title in titles if titles.count(title) > 1), None)
        what = "another one for each source; give data.sources[].name"
        require(twice is None, "the name of two of data.sources", twice, what)
