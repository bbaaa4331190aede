"""The `data` section of a run's configuration: data sets, and how they are mixed."""

from dataclasses import dataclass, field
from typing import Literal

from vadv_dist.config.checks import Section, require, require_at_least
from vadv_dist.config.places import expand_fields


@dataclass(frozen=True)
class SourceConfig(Section):
    """One data set to train on.

    Args:
        uri: folder that contains its `dataset.json`.
        weight: with `data.mixing: repeats`, how often an epoch reads each of its clips (2.5 reads every clip twice and
            half of them a third time); with `equal` and `temperature`, a factor on its share; otherwise 1.
        name: its name in metrics by source; null uses the last part of `uri`.
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
        """The name of the source."""
        return self.name or self.uri.rstrip("/").rsplit("/", 1)[-1] or self.uri


@dataclass(frozen=True)
class DataConfig(Section):
    """The training data and how it is read.

    Args:
        sources: data sets, read as one.
        batch_size: clips in a global batch, summed over ranks and accumulated micro-batches. Table 3.
        window_bytes: maximum shard bytes of one window; a node keeps at most two windows in memory.
        max_tokens: texts are truncated to this many tokens. Section 5.1 of the paper.
        bucket_batches: rows are sorted by length within groups of this many batches; 1 turns bucketing off.
        missing: what to do with clips that lack a feature the teacher needs: leave them out (`drop`), keep them and
            mask the missing branch and the teacher's terms (`mask`), or fail (`error`).
        mixing: how several sources are mixed. `proportional` reads every clip once per epoch, `repeats` reads it
            `weight` times. `equal` and `temperature` keep the number of clips in an epoch, but divide it among the
            sources: evenly, or in proportion to clips ** (1 / temperature), each times `weight`. If a source's share is
            smaller than the source, the next epoch continues where the previous one stopped.
        temperature: used by `mixing: temperature`; 1 is proportional, and higher values approach `equal`. The default
            is from Arivazhagan et al. 2019 (arXiv:1907.05019).
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
        require(
            1 <= self.temperature < float("inf"), "data.temperature", self.temperature, "a finite number of at least 1"
        )
        if self.mixing == "proportional":
            weights = [source.weight for source in self.sources if source.weight != 1]
            what = "1 if data.mixing is proportional; set data.mixing to repeats, equal or temperature"
            require(not weights, "data.sources[].weight", weights[0] if weights else 1, what)
        titles = [source.title for source in self.sources]
        twice = next((title for title in titles if titles.count(title) > 1), None)
        what = "unique names; set data.sources[].name"
        require(twice is None, "the name of two entries of data.sources", twice, what)
