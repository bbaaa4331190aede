"""Faults: each disturbs work that is under way and leaves it running or ended, its surroundings whole again.

Whoever calls a fault starts the command again if it has ended.
"""

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from vadv_dist.runs.checkpoint import MANIFEST, STATE

from .child import Inside
from .cluster import RayCluster
from .subjects import HANG_S, Subject
from .work import SoakError, Work

_A_MOMENT = 5  # steps that a process may do before a signal reaches it


@dataclass(frozen=True)
class Surroundings:
    """What faults may break.

    Attributes:
        disk: a small file system that holds outputs; None where none can be mounted.
        proxy: `s3_server.FaultyProxy`, in front of the object store.
        cluster: the Ray cluster; None where no subject needs one.
    """

    disk: Path | None
    proxy: object
    cluster: RayCluster | None


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Attributes:
        name: for the table.
        inject: disturbs the work; raises `SoakError` if it reacts wrongly.
        suits: whether it applies to a subject.
        begins_again: whether the command itself starts its workers again.
    """

    name: str
    inject: Callable[[Work, Surroundings], None]
    suits: Callable[[Subject], bool] = lambda subject: True
    begins_again: bool = False


def _kill(work: Work, around: Surroundings) -> None:
    work.signal(signal.SIGKILL)
    if work.process is not None:
        work.wait()


def _kill_twice(work: Work, around: Surroundings) -> None:
    _kill(work, around)
    work.start()
    time.sleep(work.chance.uniform(0.0, 0.5))  # part of its start
    _kill(work, around)


def _ended(work: Work, *expected: int) -> None:
    """Wait for the end of a process that may also have completed its work before the fault."""
    code = work.wait()
    if code not in (0, *expected):
        raise SoakError(f"ended with {code} in place of {' or '.join(map(str, expected))}: {work.last_words()}")


def _signal(number: signal.Signals, *expected: int) -> Callable[[Work, Surroundings], None]:
    """A signal that ends the process, which completes its work only if it was all but complete."""

    def inject(work: Work, around: Surroundings) -> None:
        if number == signal.SIGINT:
            _wait_until_heard(work, number)
        before = work.subject.progress(work.output)
        work.signal(number)
        _ended(work, *expected)
        after = work.subject.progress(work.output)
        # In an object store, progress is seen seconds later.
        if work.codes[-1] == 0 and after - before > _A_MOMENT and not work.subject.in_object_store:
            raise SoakError(f"goes on after {number.name}, from {before} to {after}")

    return inject


def _wait_until_heard(work: Work, number: signal.Signals) -> None:
    """Wait until the process has a handler for a signal, which it ignores in its first moments."""
    while work.is_running:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, StopIteration):
            lines = Path(f"/proc/{work.process.pid}/status").read_text().splitlines()
            caught = next(line for line in lines if line.startswith("SigCgt:"))
            if int(caught.split()[1], 16) >> (number - 1) & 1:
                return
        time.sleep(0.01)


def _stop(work: Work, around: Surroundings) -> None:
    work.signal(signal.SIGSTOP)
    with work.taking_time():
        time.sleep(work.chance.uniform(0.2, 2.0))
    work.signal(signal.SIGCONT)


def _restart(inside: Callable[[Work], Inside], *expected: int) -> Callable[[Work, Surroundings], None]:
    """A fault inside the next process: the present one is killed, and the next one ends or goes on by itself."""

    def inject(work: Work, around: Surroundings) -> None:
        _kill(work, around)
        work.start(inside(work))
        _ended(work, *expected)

    return inject


def _twin(work: Work, around: Surroundings) -> None:
    """A second process of the same command is refused, or waits its turn, and damages nothing."""
    twin = Work(work.subject, work.output, work.chance, work.environment, work.log, work.inside)
    twin.start()
    code = twin.wait()
    if code not in (0, 1, 2):
        raise SoakError(f"the second process ended with {code}: {work.last_words()}")


def _checkpoint_damage(damage: Callable[[Path, Work], None]) -> Callable[[Work, Surroundings], None]:
    """Damage to a file of the newest checkpoint.

    With another one before it, the run goes back to that. Without, it names the file and ends until it is restored.
    """

    def inject(work: Work, around: Surroundings) -> None:
        _kill(work, around)
        files = work.subject.files(work.output)
        folders = sorted({file.parent for file in files if not file.parent.name.startswith(".")}, key=_step)
        if not folders:
            return
        file = work.chance.choice([file for file in files if file.parent == folders[-1]])
        copy = file.read_bytes()
        damage(file, work)
        others = any((folder / MANIFEST).exists() and any(folder.glob(f"{STATE}-*")) for folder in folders[:-1])
        if others or not (folders[-1] / MANIFEST).exists():  # without a manifest it was never complete
            return
        work.start()
        code = work.wait()
        if code not in (0, 1, 2) or (code and file.parent.name not in work.last_words()):
            raise SoakError(f"its only checkpoint is damaged: ended with {code}: {work.last_words()}")
        if code:
            file.write_bytes(copy)

    return inject


def _step(folder: Path) -> int:
    digits = "".join(filter(str.isdigit, folder.name))
    return int(digits) if digits else -1


def _tear(file: Path, work: Work) -> None:
    size = file.stat().st_size
    os.truncate(file, work.chance.randrange(size) if size else 0)


def _flip(file: Path, work: Work) -> None:
    data = bytearray(file.read_bytes())
    if data:
        data[work.chance.randrange(len(data))] ^= 1 << work.chance.randrange(8)
    file.write_bytes(bytes(data))


def _remove(file: Path, work: Work) -> None:
    file.unlink()


def _torn_log(work: Work, around: Surroundings) -> None:
    """The end of the log is lost, as when a machine loses power; lines up to a checkpoint are durable before it is."""
    _kill(work, around)
    assert work.subject.saved is not None
    saved = work.subject.saved(work.output)
    for path in Path(work.output).glob("run/metrics.jsonl"):
        data = path.read_bytes()
        durable = 0
        for match in re.finditer(rb"[^\n]+\n", data):
            if json.loads(match[0]).get("step", 0) <= saved:
                durable = match.end()
        if durable < len(data):
            os.truncate(path, work.chance.randrange(durable, len(data)))


def _shard_damage(damage: Callable[[Path, Work], None]) -> Callable[[Work, Surroundings], None]:
    def inject(work: Work, around: Surroundings) -> None:
        _kill(work, around)
        shard = work.chance.choice([path for path in work.subject.inputs if "test" not in path.parts])
        copy = shard.read_bytes()
        try:
            damage(shard, work)
            work.start()
            code = work.wait()
            # 0: it was complete, and reads no data.
            if code not in (0, 2) or (code == 2 and shard.name not in work.log.read_text(errors="replace")):
                raise SoakError(f"a damaged shard: ended with {code}: {work.last_words()}")
        finally:
            shard.write_bytes(copy)

    return inject


def _disk_full(work: Work, around: Surroundings) -> None:
    assert around.disk is not None
    filler = around.disk / "filler"
    try:
        with work.taking_time(), contextlib.suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(b"0" * (1 << 16))
                file.flush()
        code = work.wait()
        if code not in (0, 1):
            raise SoakError(f"a full disk: ended with {code}: {work.last_words()}")
    finally:
        filler.unlink(missing_ok=True)


def _store(**fault: object) -> Callable[[Work, Surroundings], None]:
    """The object store misbehaves for some seconds."""

    def inject(work: Work, around: Surroundings) -> None:
        for name, value in fault.items():
            setattr(around.proxy, name, value)
        try:
            with work.taking_time():
                time.sleep(work.chance.uniform(1.0, 4.0))
        finally:
            around.proxy.share, around.proxy.hold, around.proxy.delay_s = 0.0, None, 0.0  # type: ignore[attr-defined]

    return inject


def _on_ray(number: signal.Signals, title: str = "") -> Callable[[Work, Surroundings], None]:
    """A signal to one of the Ray workers with such a title, by default of those that do the work."""

    def inject(work: Work, around: Surroundings) -> None:
        assert around.cluster is not None
        found = around.cluster.processes(title or work.subject.on_ray)
        if found:
            if not title:
                work.begins_again()
            with contextlib.suppress(psutil.NoSuchProcess):
                work.chance.choice(found).send_signal(number)
                if number == signal.SIGSTOP:
                    work.least.own_s += HANG_S

    return inject


def _kill_node(work: Work, around: Surroundings) -> None:
    """The node with the workers dies; some time later, another one comes."""
    assert around.cluster is not None
    work.begins_again()
    around.cluster.kill_node()
    with work.taking_time():
        time.sleep(work.chance.uniform(0.0, 2.0))
        around.cluster.add_node()


def _kill_head(work: Work, around: Surroundings) -> None:
    """The head dies, and with it the cluster; another one is started."""
    assert around.cluster is not None
    around.cluster.kill_head()
    if work.process is not None:
        _ended(work, 1, -signal.SIGKILL)
    with work.taking_time():
        around.cluster.close()
        around.cluster.start()
    work.environment = around.cluster.environment


def _on_disk(subject: Subject) -> bool:
    return not subject.in_object_store


def _on_workers(subject: Subject) -> bool:
    """Whether it is a training with workers on Ray."""
    return subject.on_ray == "RayTrainWorker"


def _has_checkpoints(subject: Subject) -> bool:
    return subject.name == "training"


def _trains(subject: Subject) -> bool:
    return subject.name.startswith("training")


def _here(subject: Subject) -> bool:
    """Whether the command does the work in its own process, where `Inside` has an effect."""
    return not subject.on_ray


FAULTS = [
    Fault("killed", _kill),
    Fault("killed again while it starts", _kill_twice),
    # In the first moments of a process, the handlers of these two are not set.
    Fault("SIGTERM", _signal(signal.SIGTERM, 143, -signal.SIGTERM)),
    Fault("notice (SIGUSR1)", _signal(signal.SIGUSR1, 75, -signal.SIGUSR1)),
    Fault("Ctrl-C", _signal(signal.SIGINT, 130, 1)),
    Fault("stopped for a moment", _stop),
    Fault(
        "killed while a file is published",
        _restart(lambda work: replace(work.inside, kill_at_publication=work.chance.randrange(1, 25)), -signal.SIGKILL),
        lambda subject: _on_disk(subject) and _here(subject),
    ),
    Fault("a second process", _twin, _on_disk),
    Fault("checkpoint file torn", _checkpoint_damage(_tear), _has_checkpoints),
    Fault("checkpoint file with a wrong bit", _checkpoint_damage(_flip), _has_checkpoints),
    Fault("checkpoint file missing", _checkpoint_damage(_remove), _has_checkpoints),
    Fault("metrics.jsonl torn", _torn_log, _has_checkpoints),
    Fault("shard with a wrong bit", _shard_damage(_flip), lambda subject: bool(subject.inputs)),
    Fault("shard torn", _shard_damage(_tear), lambda subject: bool(subject.inputs)),
    Fault("shard missing", _shard_damage(_remove), lambda subject: bool(subject.inputs)),
    Fault("disk full", _disk_full, _on_disk),
    Fault(
        "a weight becomes NaN",
        _restart(lambda work: replace(work.inside, nan_at_step=work.chance.randrange(1, 20)), 2),
        lambda subject: _trains(subject) and _here(subject),
    ),
    Fault(
        "clock jumps by an hour",
        _restart(lambda work: replace(work.inside, clock_jump_s=work.chance.choice((-3600.0, 3600.0)))),
        _here,
    ),
    Fault(
        "no more memory",
        _restart(
            lambda work: replace(work.inside, no_memory_after_s=work.chance.uniform(0.0, 1.0)), 1, 134, -6, -9, -11
        ),
        _here,
    ),
    Fault("worker killed", _on_ray(signal.SIGKILL), _on_workers, True),
    Fault("worker stopped (SIGSTOP)", _on_ray(signal.SIGSTOP), _on_workers, True),
    Fault("controller killed", _on_ray(signal.SIGKILL, "TrainController"), _on_workers),
    Fault("windows' actor killed", _on_ray(signal.SIGKILL, "_NodeWindows"), _on_workers),
    Fault("trial killed", _on_ray(signal.SIGKILL), lambda subject: subject.on_ray == "TrialActor", True),
    Fault("process of a stage killed", _on_ray(signal.SIGKILL), lambda subject: subject.on_ray == "MapBatches"),
    Fault("node killed", _kill_node, lambda subject: bool(subject.on_ray), True),
    Fault("head killed", _kill_head, lambda subject: bool(subject.on_ray)),
    Fault("object store refuses and cuts requests", _store(share=0.4), lambda subject: subject.in_object_store),
    Fault("object store does not answer", _store(hold="/"), lambda subject: subject.in_object_store),
    Fault("object store refuses everything", _store(share=1.0), lambda subject: subject.in_object_store),
    Fault("object store is slow", _store(delay_s=0.5), lambda subject: subject.in_object_store),
]
