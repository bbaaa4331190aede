"""The Slurm script trains on two hosts, requeues itself at its time limit, and resumes."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hosts import Host, hosts, needs_hosts

from vadv_dist.runs.folder import RunFolder

SCRIPT = Path(__file__).parents[2] / "cluster" / "slurm" / "vadv.sbatch"

# Stands in for srun on the first host: asks the tests, which can reach all hosts, to run a command on each.
_SRUN = """#!{python}
import json, os, sys, time
from pathlib import Path
desk = Path("{desk}")
options = [word for word in sys.argv[1:] if word.startswith("--")]
command = sys.argv[1 + next(n for n, word in enumerate(sys.argv[1:]) if not word.startswith("--")):]
(desk / "new").write_text(json.dumps(dict(options=options, command=command, environment=dict(os.environ))))
(desk / "new").rename(desk / "request")
while not (desk / "code").exists():
    time.sleep(0.1)
sys.exit(int((desk / "code").read_text()))
"""


class Slurm:
    """Runs batch scripts on hosts."""

    def __init__(self, nodes: list[Host], folder: Path) -> None:
        self.nodes, self.folder, self.log = nodes, folder, folder / "job.log"
        self.options: list[str] = []
        self.requeued = folder / "requeued"
        for name, program in {
            "srun": _SRUN.format(python=sys.executable, desk=folder),
            "scontrol": f'#!/bin/sh\necho "$@" >> {self.requeued}\n',
        }.items():
            (folder / name).write_text(program)
            (folder / name).chmod(0o755)

    @contextmanager
    def job(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """Start the script as sbatch does, on the first node."""
        environment = {
            **os.environ,
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "VADV_BIN": str(Path(sys.executable).parent),
            "VADV_STATE_DIR": str(self.folder),
            "SLURM_JOB_ID": "4242",
            "SLURM_JOB_NUM_NODES": str(len(self.nodes)),
            "SLURM_CPUS_PER_TASK": "2",
        }
        for name in ("request", "code"):
            (self.folder / name).unlink(missing_ok=True)
        process = self.nodes[0].start(["bash", SCRIPT, *arguments], environment, self.log)
        served = threading.Thread(target=self._serve, args=(process,), daemon=True)
        served.start()
        try:
            yield process
        finally:
            process.kill()
            process.wait(30)
            served.join(60)

    def _serve(self, job: subprocess.Popen[bytes]) -> None:
        request = self.folder / "request"
        while not request.exists():
            if job.poll() is not None:
                return
            time.sleep(0.1)
        asked = json.loads(request.read_text())
        self.options = asked["options"]
        tasks = [
            node.start(asked["command"], {**asked["environment"], "SLURM_NODEID": str(number)}, self.log)
            for number, node in enumerate(self.nodes)
        ]
        while all(task.poll() is None for task in tasks) and job.poll() is None:
            time.sleep(0.1)
        limit = time.monotonic() + 60  # --wait=60
        while any(task.poll() is None for task in tasks) and time.monotonic() < limit and job.poll() is None:
            time.sleep(0.1)
        for task in tasks:
            task.kill()
        (self.folder / "new").write_text(str(max(task.wait() % 256 for task in tasks)))
        (self.folder / "new").rename(self.folder / "code")

    def signal_script(self, process: subprocess.Popen[bytes], name: str) -> None:
        """What `#SBATCH --signal=B:…` does: only the script gets the signal, not the steps."""
        script = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]
        subprocess.run(["kill", f"-{name}", script], check=True)


@pytest.mark.ray
@pytest.mark.long
@needs_hosts
def test_job_trains_on_two_nodes_requeues_at_its_limit_and_resumes(write_config, tmp_path: Path) -> None:
    config = write_config("slurm")
    arguments = (str(config), "--trainer.epochs=12")

    def steps() -> list[int]:
        if not (tmp_path / "runs" / "slurm" / "metrics.jsonl").exists():
            return []
        lines = [line.to_json() for line in RunFolder.open(tmp_path / "runs" / "slurm").metrics_log().lines()]
        return [line["step"] for line in lines if line["kind"] == "step"]

    with hosts(2) as nodes:
        slurm = Slurm(nodes, tmp_path)
        with slurm.job(*arguments) as job:
            deadline = time.monotonic() + 400
            while not steps():
                assert job.poll() is None, slurm.log.read_text()
                assert time.monotonic() < deadline, slurm.log.read_text()
                time.sleep(0.2)
            slurm.signal_script(job, "USR1")
            assert job.wait(120) == 75, slurm.log.read_text()
        assert Path("/tmp/vadv-4242").is_dir()  # for the requeued job
        assert "--cpus-per-task=2" in slurm.options
        assert slurm.requeued.read_text() == "requeue 4242\n"
        first = max(steps())
        assert first < 12 * 6, "it ended before the signal"
        with slurm.job(*arguments) as job:
            assert job.wait(400) == 0, slurm.log.read_text()
    told = slurm.log.read_text()
    assert told.count("starting 2 Ray Train workers") == 2
    assert slurm.requeued.read_text() == "requeue 4242\n"  # not again
    done = steps()
    assert done == sorted(set(done))  # no step twice
    assert not list(tmp_path.glob(".vadv-job.*"))
    assert not Path("/tmp/vadv-4242").exists()
