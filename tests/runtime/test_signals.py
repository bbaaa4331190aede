"""SIGTERM ends a command with exit code 143 and a message, within the grace period."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vadv_dist.cli import main
from vadv_dist.runtime.signals import (
    TerminatedError,
    finishing_first,
    is_termination,
    sigterm_kept,
    sigterm_raises,
    termination,
)

# Hashing takes a minute in C code, which releases the GIL but runs no Python handler.
GRACE = """
import hashlib, sys
from vadv_dist.runtime.signals import finishing_first, sigterm_raises
with sigterm_raises(), finishing_first(float(sys.argv[1]), on_signal=lambda name: print("heard", flush=True),
                                       safe=lambda: "Step 7 is saved.") as request:
    request.is_working = True
    if sys.argv[2]:
        request.ask(sys.argv[2], is_notice=True)
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", 100_000_000)
"""


def start(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_first_signal_requests_a_stop_and_the_second_raises() -> None:
    with sigterm_raises():
        with finishing_first(60, on_signal=lambda name: None, safe=str) as request:
            with pytest.raises(TerminatedError):  # nothing has started
                signal.raise_signal(signal.SIGTERM)
            request.is_working = True
            assert not request.asked
            signal.raise_signal(signal.SIGTERM)
            assert request.asked
            with pytest.raises(TerminatedError):
                signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt) as raised:  # outside the block there is no request
            signal.raise_signal(signal.SIGTERM)
        assert is_termination(raised.value)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_whose_exception_is_ignored_arrives_again(number: signal.Signals) -> None:
    class Finalized:
        def __del__(self) -> None:  # Python ignores its exceptions
            began.append(True)
            signal.raise_signal(number)
            ended.append(True)

    def work() -> None:
        Finalized()
        time.sleep(5)

    began: list[bool] = []
    ended: list[bool] = []
    with sigterm_raises():
        with pytest.raises(KeyboardInterrupt) as raised:
            work()
        assert is_termination(raised.value) == (number != signal.SIGINT)
    assert began
    assert not ended


def test_handlers_of_a_calling_program_are_not_changed() -> None:
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append("mine"))
    try:
        mine = signal.getsignal(signal.SIGTERM)
        assert main(["recipes"]) == 0
        with finishing_first(60, on_signal=lambda name: heard.append("theirs"), safe=str) as request:
            signal.raise_signal(signal.SIGTERM)
        assert (heard, request.asked) == (["mine"], False)
        with sigterm_raises():
            assert signal.getsignal(signal.SIGTERM) is not mine
        assert signal.getsignal(signal.SIGTERM) is mine
        with sigterm_kept():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # like `ray.init`
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with sigterm_raises():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_exception_of_ray_inits_handler_counts_as_termination() -> None:
    with sigterm_raises(), pytest.raises(TerminatedError), sigterm_kept():
        sys.exit(signal.SIGTERM)
    with pytest.raises(SystemExit), sigterm_kept():
        sys.exit(3)


@pytest.mark.parametrize(
    ("grace_s", "signals", "at_most_s", "notice", "number", "code"),
    [
        ("1", 1, 20, "", signal.SIGTERM, 143),
        ("600", 2, 40, "", signal.SIGTERM, 143),
        ("1", 1, 20, "", signal.SIGUSR1, 75),
        ("1", 1, 20, "preemption", signal.SIGTERM, 75),
    ],
)
def test_a_process_stuck_in_c_code_ends_after_the_grace_period(
    grace_s: str, signals: int, at_most_s: float, notice: str, number: signal.Signals, code: int
) -> None:
    process = start("-c", GRACE, grace_s, notice)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    began = time.monotonic()
    process.send_signal(number)
    assert process.stdout.readline() == "heard\n"
    for _ in range(signals - 1):
        process.send_signal(number)
    _, told = process.communicate(timeout=120)
    assert process.returncode == code
    assert time.monotonic() - began < at_most_s
    assert told == f"vadv: {number.name}: trainer.grace_s ({grace_s} s) is over. Step 7 is saved.\n"


def test_the_first_signal_after_a_notice_of_the_node_does_not_end_the_command_at_once() -> None:
    with sigterm_raises():
        with finishing_first(60, on_signal=lambda name: None, safe=str) as request:
            request.is_working = True
            request.ask("preemption", is_notice=True)
            signal.raise_signal(signal.SIGTERM)
            assert (request.cause, request.is_notice) == ("preemption", True)
            with pytest.raises(TerminatedError):
                signal.raise_signal(signal.SIGTERM)
        assert termination() == ("SIGTERM", 75)


def test_sigterm_is_a_notice_only_if_the_environment_says_so(monkeypatch) -> None:
    for value, code in (("", 143), ("1", 75)):
        monkeypatch.setenv("VADV_SIGTERM_IS_NOTICE", value)
        with sigterm_raises():
            with pytest.raises(TerminatedError):
                signal.raise_signal(signal.SIGTERM)
            assert termination() == ("SIGTERM", code)


@pytest.mark.parametrize(
    ("number", "code", "name"),
    [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGUSR1, 75, "SIGUSR1"), (signal.SIGINT, 130, "Ctrl-C")],
)
def test_an_interrupted_data_set_leaves_nothing_behind(
    tmp_path: Path, number: signal.Signals, code: int, name: str
) -> None:
    process = start("-m", "vadv_dist.cli", "synth", str(tmp_path / "made"), "--num-clips", "1000000")
    deadline = time.monotonic() + 120
    while not any(tmp_path.rglob("*.parquet")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == code
    assert told == f"vadv: stopped by {name}.\n"
    assert list(tmp_path.iterdir()) == []
