"""A search whose data set is replaced in the middle ends before a trial on the new one is counted."""

from pathlib import Path
from typing import Any

import pytest

from vadv_dist.config import config_to_dict, load_config
from vadv_dist.data.sources import Sources
from vadv_dist.errors import UserError
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.trained_on import SourceIdentity, TrainedOn
from vadv_dist.tuning.events import Epoch, Event
from vadv_dist.tuning.pools import LocalPool
from vadv_dist.tuning.same_data import SameData


class OneEvent(LocalPool):
    """A pool whose training has come to the end of its first epoch."""

    def start(self, key: str, raw: dict[str, Any]) -> None:
        self._key = key

    def next(self) -> tuple[str, Event]:
        return self._key, Epoch(0, 1.0)


def test_a_trial_on_other_data_ends_the_search(write_config: Any, tmp_path: Path) -> None:
    config = load_config(write_config())
    begun_on = TrainedOn.of(config, Sources.open(config))
    pool = SameData(OneEvent(1.0), begun_on)
    RunFolder.of(config).claim(config, begun_on)
    pool.start("trial 0", config_to_dict(config))
    assert pool.next() == ("trial 0", Epoch(0, 1.0))
    replaced = TrainedOn((SourceIdentity(begun_on.data[0].place, "f" * 64, {}),), begun_on.encoder)
    config = load_config(write_config("other"))
    RunFolder.of(config).claim(config, replaced)
    pool.start("trial 1", config_to_dict(config))
    with pytest.raises(UserError, match=rf"started on .*{begun_on.data[0].fingerprint[:12]}.*trial 1 .*ffffffffffff"):
        pool.next()
