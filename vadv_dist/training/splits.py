"""The splits that training uses."""

from dataclasses import dataclass

from vadv_dist.config import Config
from vadv_dist.data.classes import require_classes_in_share, require_classes_in_train
from vadv_dist.data.sources import Sources, SplitShards


@dataclass(frozen=True)
class Splits:
    """The train and valid splits; never the test split."""

    train: SplitShards
    valid: SplitShards

    @classmethod
    def open(cls, config: Config) -> "Splits":
        """Open the data sets of a run and check that they fit it.

        Raises:
            UserError: see `Sources.open`, `Sources.split`, `require_classes_in_train` and `require_classes_in_share`.
        """
        sources = Sources.open(config)
        train, valid = sources.split("train"), sources.split("valid")
        require_classes_in_train(train)
        if train.share is not None and sources.label.is_class:
            manifests = [dataset.manifest for dataset in sources.datasets]
            require_classes_in_share(manifests, train.labels(), train.share)
        return cls(train, valid)
