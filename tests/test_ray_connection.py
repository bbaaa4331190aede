"""A cluster that is named and does not answer is one message at once, not minutes of warnings."""

import time

import pytest
from ray_nodes import free_port

from vadv_dist.errors import MachineError
from vadv_dist.ray_connection import connect


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "not-an-address", "127.0.0.1:99999999"])
def test_a_named_cluster_that_does_not_answer_is_told_at_once(address: str, monkeypatch) -> None:
    named = address.format(free_port())
    monkeypatch.setenv("RAY_ADDRESS", named)
    begun = time.monotonic()
    with pytest.raises(MachineError, match=f"RAY_ADDRESS names {named}, where no Ray cluster answers"):
        connect(1)
    assert time.monotonic() - begun < 10
