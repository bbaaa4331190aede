"""Random faults in trainings, searches, extractions and workflows on this machine, and a table of what came of them.

    python -m tests.soak --minutes 10 --seed 1

Each round takes one kind of work, disturbs it a few times at random moments, starts the same command again whenever it
has ended, and compares what it leaves, bit by bit and without times, with an undisturbed run. Exits with 1 if anything
was lost, or if a command reacted in another way than its documentation says; logs of such rounds are kept.

The last table compares the seconds that the rounds took with those that they take at least (`costs.py`): undisturbed
work, the start of each process, the steps since a checkpoint, and the faults themselves.
"""

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1]))

from .child import PROCESSES, Inside, run_here
from .cluster import ray_cluster
from .costs import Undisturbed
from .faults import FAULTS, Fault, Surroundings
from .subjects import Subject, incomplete, make
from .work import SoakError, Work

_DISK_MB = 96
_LEASE_S = 2.0


@dataclass
class Tally:
    """What came of a kind of fault; `least_s` is how much of the lost seconds is unavoidable."""

    injected: int = 0
    recovered: int = 0
    steps_lost: list[int] = field(default_factory=list)
    seconds_lost: list[float] = field(default_factory=list)
    least_s: list[float] = field(default_factory=list)


@dataclass
class Spent:
    """Rounds of a subject: their number, the seconds that they took, and those that they take at least."""

    rounds: int = 0
    seconds: float = 0.0
    least_s: float = 0.0


class Soak:
    """Rounds of faults.

    Args:
        folder: of data, outputs and logs.
        around: what faults may break.
        environment: variables of processes that do not use Ray.
        subjects, faults: what is disturbed, and how.
        seed: of everything random.
    """

    def __init__(
        self,
        folder: Path,
        around: Surroundings,
        environment: dict[str, str],
        subjects: list[Subject],
        faults: list[Fault],
        seed: int,
    ) -> None:
        self.folder, self.around, self.environment = folder, around, environment
        self.chance = Random(seed)
        self.subjects, self.faults = subjects, faults
        self.tallies: dict[str, Tally] = defaultdict(Tally)
        self.spent: dict[str, Spent] = defaultdict(Spent)
        self.failures: list[str] = []
        self.rounds = self.restarts = 0
        warm_up = PROCESSES.Process(target=run_here, args=(["--version"], os.devnull, environment, Inside()))
        warm_up.start()
        warm_up.join()
        self.undisturbed = {each.name: self._without_faults(each) for each in subjects}

    def _work(self, subject: Subject, name: str) -> Work:
        disk = self.around.disk or self.folder
        output = f"s3://tests/{name}" if subject.in_object_store else str(disk / "outputs")
        if not subject.in_object_store:
            shutil.rmtree(output, ignore_errors=True)
        inside = Inside(lease_s=_LEASE_S if subject.in_object_store else None)
        environment = self.environment
        if subject.on_ray:
            assert self.around.cluster is not None
            environment = self.around.cluster.environment
        return Work(subject, output, self.chance, environment, self.folder / f"{name}.log", inside)

    def _without_faults(self, subject: Subject) -> Undisturbed:
        self.rounds += 1
        work = self._work(subject, f"undisturbed-{self.rounds}")
        began, began_s, joined = time.time(), time.monotonic(), None
        work.start()
        while work.is_running:
            if joined is None and work.log.exists() and "joined the Ray cluster" in work.log.read_text():
                joined = time.time()
            time.sleep(0.05)
        code = work.wait()
        if code != 0:
            raise SystemExit(f"{subject.name} does not work without faults: {work.last_words()} ({work.log})")
        found = Undisturbed.of(subject, work.output, began, joined, time.monotonic() - began_s)
        print(
            f"{subject.name}: {found.seconds:.1f} s, {found.progress} steps of {found.step_s:.3f} s, the first of "
            f"which begins after {found.begin_s:.1f} s",
            flush=True,
        )
        return found

    def measure_again(self) -> None:
        """Take the mean of the times of undisturbed work before and after the soak."""
        for subject in self.subjects:
            self.undisturbed[subject.name].average(self._without_faults(subject))

    def round(self) -> None:
        """Disturb one piece of work some times."""
        self.rounds += 1
        [subject] = self.chance.choices(self.subjects, [each.weight for each in self.subjects])
        expected = self.undisturbed[subject.name]
        work = self._work(subject, f"round-{self.rounds}")
        suited = [each for each in self.faults if each.suits(subject) and self._possible(each)]
        faults: list[Fault] = []
        began = time.monotonic()
        try:
            work.start()
            for _ in range(self.chance.randint(1, 5)):
                ahead = expected.progress - subject.progress(work.output)
                if ahead <= 1 or not work.wait_for(subject.progress(work.output) + self.chance.randint(0, ahead // 2)):
                    break
                faults.append(self.chance.choice(suited))
                self._inject(faults[-1], work)
            work.finish()
            seconds = time.monotonic() - began
            found = subject.outcome(work.output)
            if left := incomplete(work.output):
                raise SoakError(f"left {left}")
            if found != expected.outcome:
                keys = {*found, *expected.outcome}
                differing = sorted(key for key in keys if found.get(key) != expected.outcome.get(key))
                raise SoakError(f"ends otherwise than undisturbed: {', '.join(differing)[:300]}")
        except SoakError as error:
            self._fail(error, work, faults)
        else:
            work.log.unlink()
            self._recovered(faults)
            spent = self.spent[subject.name]
            named = ", ".join(fault.name for fault in faults)
            print(f"round {self.rounds}, {subject.name}: {seconds:.0f} s with {named or 'no fault'}", flush=True)
            spent.rounds += 1
            spent.seconds += seconds
            spent.least_s += expected.seconds + work.least.seconds(expected)
        self.restarts += work.started - 1

    def _fail(self, error: SoakError, work: Work, faults: list[Fault]) -> None:
        after = ", ".join(fault.name for fault in faults)
        self.failures.append(f"round {self.rounds}, {work.subject.name}, after {after}: {error} ({work.log})")
        print(f"FAILED {self.failures[-1]}", flush=True)
        if work.process is not None:
            work.process.kill()
            work.process.join()
        if not work.subject.in_object_store:
            shutil.copytree(work.output, work.log.with_suffix(""), dirs_exist_ok=True)
        self._recovered(faults[:-1])

    def _recovered(self, faults: list[Fault]) -> None:
        for fault in faults:
            self.tallies[fault.name].recovered += 1

    def _possible(self, fault: Fault) -> bool:
        return fault.name != "disk full" or self.around.disk is not None

    def _inject(self, fault: Fault, work: Work) -> None:
        subject, expected = work.subject, self.undisturbed[work.subject.name]
        tally = self.tallies[fault.name]
        before, began, starts = subject.progress(work.output), time.monotonic(), subject.starts(work.output)
        least_s = work.least_so_far(expected)
        tally.injected += 1
        processes = work.started
        fault.inject(work, self.around)
        if not work.is_running:
            if work.process is not None:
                work.wait()
            work.start()
        again = bool(starts) and (fault.begins_again or work.started > processes)
        work.wait_for(before, starts=len(starts) + 1 if again else 0)
        tally.seconds_lost.append(time.monotonic() - began)
        tally.least_s.append(work.least_so_far(expected) - least_s)
        begun = subject.starts(work.output)
        if again and len(begun) > len(starts):  # otherwise it was complete
            tally.steps_lost.append(max(0, before - begun[-1]))

    def table(self) -> str:
        """The outcome as Markdown."""
        lines = [
            "| fault | injected | recovered | steps lost (mean, most) | seconds until as far as before | at least |",
            "|---|---|---|---|---|---|",
        ]
        for name, tally in sorted(self.tallies.items()):
            steps = f"{statistics.mean(tally.steps_lost):.1f}, {max(tally.steps_lost)}" if tally.steps_lost else "–"
            seconds, least = (f"{statistics.mean(s):.1f}" if s else "–" for s in (tally.seconds_lost, tally.least_s))
            lines.append(f"| {name} | {tally.injected} | {tally.recovered} | {steps} | {seconds} | {least} |")
        injected = sum(tally.injected for tally in self.tallies.values())
        recovered = sum(tally.recovered for tally in self.tallies.values())
        lines.append(f"| **all {len(self.tallies)}** | {injected} | {recovered} | | | |")
        lines += ["", "| work | rounds | seconds | at least | share |", "|---|---|---|---|---|"]
        for name, each in sorted(self.spent.items()):
            share = each.least_s / each.seconds
            lines.append(f"| {name} | {each.rounds} | {each.seconds:.0f} | {each.least_s:.0f} | {share:.0%} |")
        seconds_s = sum(each.seconds for each in self.spent.values())
        least_s = sum(each.least_s for each in self.spent.values())
        share = least_s / max(seconds_s, 1e-9)
        rounds = sum(each.rounds for each in self.spent.values())
        lines.append(f"| **all** | {rounds} | {seconds_s:.0f} | {least_s:.0f} | {share:.0%} |")
        return "\n".join(lines)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """A file system of a few megabytes, where this user may mount one."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MB}m", "tmpfs", str(folder)], capture_output=True
    )
    try:
        yield folder if done.returncode == 0 else None
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", "-l", str(folder)], check=False)


def main() -> int:
    """Run rounds for some minutes and print the table; the exit code."""
    from s3_server import CREDENTIALS, FaultyProxy, s3_server

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--subjects", nargs="+", help="only these, by name")
    parser.add_argument("--faults", nargs="+", help="only these, by name")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="vadv-soak-"))
    subjects = [each for each in make(folder) if options.subjects is None or each.name in options.subjects]
    faults = [each for each in FAULTS if options.faults is None or each.name in options.faults]
    with (
        small_disk(folder / "disk") as disk,
        s3_server() as port,
        FaultyProxy(port, share=0.0, seed=options.seed) as proxy,
        ray_cluster(is_needed=any(each.on_ray for each in subjects)) as cluster,
    ):
        os.environ.update(CREDENTIALS, AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}")
        behind = {**CREDENTIALS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.server_port}"}
        soak = Soak(folder, Surroundings(disk, proxy, cluster), behind, subjects, faults, options.seed)
        began = time.monotonic()
        while time.monotonic() - began < 60 * options.minutes:
            soak.round()
        soak.measure_again()
    print(f"\n{soak.table()}\n\n{soak.restarts} restarts of commands.")
    if soak.failures:
        print(f"{len(soak.failures)} failures; logs in {folder}:", *soak.failures, sep="\n- ")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
