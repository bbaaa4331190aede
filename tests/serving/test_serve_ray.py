"""`vadv serve --ray`: replicas are killed under load, and no request is lost."""

import functools
import os
import re
import signal
import time

import pytest
from servers import Load, Served, serving
from tiny_students import TEXTS


@pytest.mark.ray
@pytest.mark.slow
def test_no_request_is_lost_while_a_replica_is_killed_under_load(cluster, tiny_export, expected):
    def replicas() -> list[int]:
        return [process.pid for process in cluster.processes("ServeReplica")]

    # Texts wait for others in their replica, so that each replica holds some whenever it is killed.
    options = ("--ray", "--replicas", "2", "--max-wait-ms", "300", "--drain", "0.5", "--timeout", "300")
    with serving(tiny_export, *options, environment=cluster.environment) as served:
        assert len(replicas()) == 2
        status, answer, _ = served.ask("/predict", {"texts": TEXTS, "previous": [["fun"]] * len(TEXTS)})
        assert status == 200
        assert answer["predictions"] == pytest.approx([expected(f"{text} [SEP] fun") for text in TEXTS], abs=1e-6)
        with Load(served, TEXTS).running(clients=8) as load:
            wait_until(lambda: len(load.answered) > 50)
            for _ in range(5):  # a replica that has just answered its batch may hold nothing
                time.sleep(0.15)  # half the time for which a batch waits: not just after an answer
                os.kill(replicas()[0], signal.SIGKILL)
                enough = len(load.answered) + 100
                wait_until(functools.partial(has_answered, load, enough))
                if num_repeated(served) >= 1:
                    break
                wait_until(lambda: len(replicas()) == 2)
            assert num_repeated(served) >= 1
            served.process.send_signal(signal.SIGTERM)
            assert served.process.wait(120) == 0
    assert load.lost == []
    assert {text for text, _ in load.answered} == set(TEXTS)
    for text, prediction in load.answered:
        assert prediction == pytest.approx(expected(text), abs=1e-6)
    wait_until(lambda: replicas() == [])  # nothing is left on the cluster


def has_answered(load: Load, number: int) -> bool:
    return len(load.answered) > number


def num_repeated(served: Served) -> float:
    """Requests that were sent again, since the replica that held them ended."""
    _, page, _ = served.ask("/metrics")
    return float(re.search(r"^vadv_serve_repeated_requests_total (\S+)$", page, re.MULTILINE)[1])


def wait_until(condition, seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
