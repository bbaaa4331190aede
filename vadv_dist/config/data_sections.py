"""The `data` section of a run's configuration: data sets, and how they are mixed."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from vadv_dist.config.checks import NUMBER, SETTINGS, Count, Natural, require
from vadv_dist.config.places import Place


@dataclass(frozen=True, config=SETTINGS)
class SourceConfig:
    """One data set to train on."""

    uri: Place
    """Folder that contains its `dataset.json`."""
    weight: Annotated[float, Field(gt=0, le=100), NUMBER] = 1.0
    """With `data.mixing: repeats`, how often an epoch reads each of its clips (2.5 reads every clip twice and half of
    them a third time); with `equal` and `temperature`, a factor on its share; otherwise 1."""
    name: str | None = None
    """Its name in metrics by source; null uses the last part of `uri`."""

    def __post_init__(self) -> None:
        require(self.name is None or bool(self.name.strip()), "name", self.name, "a name, or null")

    @property
    def title(self) -> str:
        """The name of the source."""
        return self.name or self.uri.rstrip("/").rsplit("/", 1)[-1] or self.uri


@dataclass(frozen=True, config=SETTINGS)
class DataConfig:
    """The training data and how it is read."""

    sources: list[SourceConfig] = Field(default_factory=list)
    """Data sets, read as one."""
    batch_size: Count = 4
    """Clips in a global batch, summed over ranks and accumulated micro-batches. Table 3."""
    window_bytes: Annotated[int, Field(ge=1 << 16)] = 256 << 20
    """Maximum shard bytes of one window. A process without Ray keeps at most two windows in memory; the object store of
    a Ray node keeps four, the one in use and three that are read ahead. If an epoch has several, ranks read only their
    lanes of each, of which there are at most as many as a window has shards."""
    max_tokens: Annotated[int, Field(ge=3)] = 100
    """Texts are truncated to this many tokens. Section 5.1 of the paper."""
    bucket_batches: Count = 16
    """Rows are sorted by length within groups of about this many batches; 1 turns bucketing off."""
    missing: Literal["drop", "mask", "error"] = "error"
    """What to do with clips that lack a feature the model needs: leave them out (`drop`), fail (`error`), or keep them
    (`mask`). Kept clips of sentiment train without the missing branch and the teacher's terms. Those of retrieval train
    nothing, and are evaluated by the modality that they have."""
    mixing: Literal["proportional", "equal", "temperature", "repeats"] = "proportional"
    """How several sources are mixed. `proportional` reads every clip once per epoch, `repeats` reads it `weight` times.
    `equal` and `temperature` keep the number of clips in an epoch, but divide it among the sources: evenly, or in
    proportion to clips ** (1 / temperature), each times `weight`. If a source's share is smaller than the source, the
    next epoch continues where the previous one stopped."""
    temperature: Annotated[float, Field(ge=1), NUMBER] = 5.0
    """Used by `mixing: temperature`; 1 is proportional, and higher values approach `equal`. The default is from
    Arivazhagan et al. 2019 (arXiv:1907.05019)."""
    train_share: Annotated[float, Field(gt=0, le=1), NUMBER] = 1.0
    """Share of each source's training clips to train on; valid and test stay whole. Clips are drawn at random, evenly
    over the shards. A larger share contains a smaller one, and every `run.seed` trains on the same clips."""
    train_share_seed: Natural = 0
    """Draws the clips of `train_share`."""

    def __post_init__(self) -> None:
        titles: set[str] = set()
        for number, source in enumerate(self.sources):
            entry = f"sources[{number}]"
            if self.mixing == "proportional":
                what = "1 if data.mixing is proportional; set data.mixing to repeats, equal or temperature"
                require(source.weight == 1, f"{entry}.weight", source.weight, what)
            what = "a unique name; set data.sources[].name"
            require(source.title not in titles, f"{entry}.name", source.title, what)
            titles.add(source.title)
