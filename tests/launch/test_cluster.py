"""Waiting for a cluster to grow."""

import json
import time
from dataclasses import replace

import pytest

from vadv_dist.config.trainer_sections import TrainerConfig
from vadv_dist.errors import MachineError, UserError
from vadv_dist.launch.cluster import ray_session

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_cluster_that_does_not_grow_is_told_of_and_the_request_withdrawn(joined) -> None:
    from ray.autoscaler._private.constants import AUTOSCALER_RESOURCE_REQUEST_CHANNEL
    from ray.autoscaler.v2.utils import is_autoscaler_v2
    from ray.experimental.internal_kv import _internal_kv_get

    said: list[str] = []
    began = time.monotonic()
    too_many = TrainerConfig(num_workers=40, cpus_per_worker=1)
    with pytest.raises(UserError, match="has 5 CPUs, but the workers need 40"), ray_session(too_many, said.append):
        raise AssertionError
    assert not said
    patient, what = replace(too_many, wait_for_room_s=3), r"not grown in 3 s \(trainer.wait_for_room_s\): 5 CPUs of 41"
    with pytest.raises(MachineError, match=what), ray_session(patient, said.append):
        raise AssertionError
    assert 3 <= time.monotonic() - began < 60
    assert said == ["waiting for the Ray cluster to grow (0 s): 5 CPUs of 41"]
    assert not is_autoscaler_v2()
    assert json.loads(_internal_kv_get(AUTOSCALER_RESOURCE_REQUEST_CHANNEL)) == []
    with ray_session(TrainerConfig(num_workers=[2, 40], cpus_per_worker=1), said.append) as cpus:
        assert cpus == 1
