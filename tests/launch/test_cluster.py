"""Waiting for a cluster to grow, and being asked to stop while workers start."""

import json
import time
from dataclasses import replace
from typing import Any

import pytest

from vadv_dist.config import load_config
from vadv_dist.config.trainer_sections import TrainerConfig
from vadv_dist.errors import NoticedError, RoomError, StoppedError, UserError
from vadv_dist.launch.cluster import ray_session
from vadv_dist.launch.driver_notes import DriverNotes
from vadv_dist.launch.stop_actor import stop_flag
from vadv_dist.runtime.signals import StopRequest

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_cluster_that_does_not_grow_is_told_of_and_the_request_withdrawn(joined) -> None:
    from ray.autoscaler._private.constants import AUTOSCALER_RESOURCE_REQUEST_CHANNEL
    from ray.autoscaler.v2.utils import is_autoscaler_v2
    from ray.experimental.internal_kv import _internal_kv_get

    said: list[str] = []
    began = time.monotonic()
    too_many = TrainerConfig(num_workers=40, cpus_per_worker=1)
    with (
        pytest.raises(UserError, match="has room for 5 of 40 workers with 1 CPU each on one node"),
        ray_session(too_many, said.append),
    ):
        raise AssertionError
    assert not said
    patient, what = (
        replace(too_many, wait_for_room_s=3),
        r"not grown in 3 s \(trainer.wait_for_room_s\): room for 5 of 40",
    )
    with pytest.raises(RoomError, match=what), ray_session(patient, said.append):
        raise AssertionError
    assert 3 <= time.monotonic() - began < 60
    assert said == ["waiting for the Ray cluster to grow (0 s): room for 5 of 40 workers with 1 CPU each on one node"]
    assert not is_autoscaler_v2()
    assert json.loads(_internal_kv_get(AUTOSCALER_RESOURCE_REQUEST_CHANNEL)) == []
    with ray_session(TrainerConfig(num_workers=[2, 40], cpus_per_worker=1), said.append) as worker:
        assert worker == {"CPU": 1}


def test_a_run_asked_to_stop_while_its_workers_start_ends_at_once(joined, write_config) -> None:
    import ray

    from vadv_dist.launch.ray_run import _Following

    ray.init(log_to_driver=False)
    config = load_config(write_config())
    what = "arrived while the workers were starting"

    def following(key: str, cause: str, *, is_notice: bool) -> tuple[_Following, DriverNotes, Any]:
        flag, request = stop_flag(), StopRequest()
        follows = _Following(config, {"CPU": 1.0}, str, request, flag, key, may_leave=False)
        follows.look()
        request.ask(cause, is_notice=is_notice)
        return follows, DriverNotes(key), flag

    follows, notes, flag = following("none", "preemption", is_notice=True)
    with pytest.raises(NoticedError, match=f"^preemption {what}"):
        follows.look()

    follows, notes, flag = following("not heard", "SIGTERM", is_notice=False)
    notes.write("running", workers=2)
    with pytest.raises(StoppedError, match=f"^SIGTERM {what}") as stopped:
        follows.look()
    assert not isinstance(stopped.value, NoticedError)

    follows, notes, flag = following("lost", "SIGUSR1", is_notice=True)
    notes.write("running", workers=2)
    heard = flag.wait.remote()
    follows.look()
    assert ray.get(heard, timeout=60) == "SIGUSR1"
    notes.write("restarting", cause="lost worker", why="a worker was lost")
    follows.read()
    with pytest.raises(NoticedError, match=f"^SIGUSR1 {what}"):
        follows.look()


def test_a_run_that_waited_too_long_withdraws_its_request(joined, write_config, monkeypatch) -> None:
    import ray
    from ray.util import placement_group, placement_group_table

    from vadv_dist.launch import ray_run

    ray.init(log_to_driver=False)
    monkeypatch.setattr(ray_run, "_ROOM_LOST_S", 0.0)
    monkeypatch.setattr(ray_run, "SAY_EVERY_S", 0.0)
    config = load_config(write_config(), ["--trainer.num_workers=2", "--trainer.use_gpu=auto"])
    said: list[str] = []
    worker = {"CPU": 1.0, "GPU": 1.0}  # as `auto` chose while the cluster had GPUs
    group, notes = placement_group([worker, worker]), DriverNotes("too long")
    notes.write("group", id=group.id.hex())
    follows = ray_run._Following(config, worker, said.append, StopRequest(), stop_flag(), "too long", may_leave=False)
    missing = "room for 0 of 2 workers with 1 CPU and 1 GPU each on one node"
    with pytest.raises(RoomError, match=f"too small for the workers for 0 s: {missing}"):
        follows.look()
    assert said == [f"waiting for the Ray cluster to have room again (0 of 0 s): {missing}"]
    assert notes.has_given_up()
    assert placement_group_table(group)["state"] == "REMOVED"
