"""Run a heavy stage as a job on a Ray cluster.

The id of the job is made of the stage's name and identity, so a second start follows the running job. The job runs
`vadv workflow stage`, and the stage's numbered attempts decide what is complete, as on one machine.
"""

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vadv_dist import __version__
from vadv_dist.config.load import take_overrides
from vadv_dist.config.study_runs import find_study, load_study, small_study
from vadv_dist.config.workflow import ExtractDataConfig, WorkflowConfig
from vadv_dist.errors import MachineError, PreemptedError, StoppedError, UserError
from vadv_dist.runtime.signals import STOPPED
from vadv_dist.runtime.terminal import counted
from vadv_dist.storage import find_json, write_json
from vadv_dist.submission.address import require_token, resolve_address
from vadv_dist.submission.client import command_line, connect, running_or_free, runtime_environment, submit_once
from vadv_dist.submission.follow import ENDED, PREEMPTED, follow
from vadv_dist.submission.job_id import job_slug
from vadv_dist.submission.packing import pack, tracked_files
from vadv_dist.submission.reach import Reach, require_tracked
from vadv_dist.workflow.extraction import extraction_config
from vadv_dist.workflow.plan import Workflow, load_workflow, plan_workflow, workflow_root
from vadv_dist.workflow.run import inputs_of, run_stage
from vadv_dist.workflow.run_stages import DATA, placeholders, run_config
from vadv_dist.workflow.stage import NAME_LENGTH, Finished, Stage, read_finished, stage_folder

if TYPE_CHECKING:
    from rich.console import Console

JOB = "job.json"  # in a stage's folder: what its job cannot find out itself
_ROOT_LENGTH = 6  # of a hash of the workflow's folder, in a job's id


def run_remote(
    workflow: Workflow,
    file: str | Path,
    overrides: Sequence[str],
    name: str,
    address: str | None,
    console: "Console",
    *,
    force: bool = False,
) -> Finished:
    """Run a stage and return it: a heavy one as a job on a cluster, any other in this process.

    A running job of the same stage is followed instead. The job gets the files below the current folder that git
    tracks.

    Args:
        workflow: the workflow.
        file: its file, or the name of a shipped one.
        overrides: `--section.field=value`.
        name: name of the stage.
        address: address of the job server; None uses Ray's environment variables.
        console: shows progress and the job's output.
        force: run it again although it is complete.
    Raises:
        UserError: as `run_stage`; or the job could not reach a location, or ended with a user error.
        PreemptedError: the job lost its node. The same call submits it again.
        StoppedError: somebody stopped the job.
        MachineError: the job failed, or the job server does not answer.
    """
    stage = workflow.stage(name)
    if not stage.heavy:
        return run_stage(workflow, name, console, force=force)
    inputs, folder = inputs_of(workflow, stage), workflow.folder(stage)
    known = read_finished(folder)
    if known is not None and stage.is_current(known, inputs) and not force:
        console.print(f"{name}: complete in {folder}", highlight=False)
        return known

    def say(text: str) -> None:
        console.print(f"{name}: {text}", highlight=False, markup=False, soft_wrap=True)

    address = resolve_address(address)
    require_token(address)
    arguments = job_arguments(workflow, file, overrides, stage, address)
    client = connect(address)
    base = job_name(workflow, stage)
    is_running, job, _ = running_or_free(client, base, base)
    if not is_running:
        write_json(folder / JOB, {**workflow.planned, "config": None})  # a job gets other locations
        with tempfile.TemporaryDirectory(prefix="vadv-job-") as scratch:
            count, size = pack(Path(), Path(scratch))
            is_running = not submit_once(
                client,
                job,
                entrypoint=command_line(address, [*arguments, *(["--force"] if force else [])]),
                runtime_env=runtime_environment(scratch, False, os.environ),
                metadata={"job_name": base},
                **_resources(workflow, stage, str(file)),
            )
        if not is_running:
            say(f"submitted {job} to {address} with {counted(count, 'file')}, {size / 2**20:.1f} MiB")
    if is_running:
        say(f"{job} already runs on {address}: following it (`vadv jobs stop {job} --address {address}` stops it)")
    code = follow(client, job, say, out=sys.stderr)
    found = read_finished(folder)
    if code == 0 and found is not None and found.is_built_on(inputs):
        return found
    if code == 0 and str(client.get_job_status(job).value) not in ENDED:
        raise KeyboardInterrupt  # it was left running
    raise _error(code, f"{name}: the job {job} on {address}")


def job_name(workflow: Workflow, stage: Stage) -> str:
    """The id of a stage's job: its name, its identity and a hash of the workflow's folder."""
    root = hashlib.sha256(str(workflow.root.resolve()).encode()).hexdigest()[:_ROOT_LENGTH]
    return f"{job_slug('workflow', stage.name)}-{stage.identity[:NAME_LENGTH]}-{root}"


def job_arguments(
    workflow: Workflow, file: str | Path, overrides: Sequence[str], stage: Stage, address: str
) -> list[str]:
    """The arguments of `vadv` that run a stage in a job whose folder is a copy of the current one.

    Raises:
        UserError: the job could not find a file, or would lose its output.
    """
    tracked = {str(name) for name in tracked_files(Path())}
    given = str(file)
    if Path(given).is_file() and Path(given).resolve().is_relative_to(Path.cwd()):
        given = str(Path(given).resolve().relative_to(Path.cwd()))
    for each in (given, *_files(workflow.config)):
        if Path(each).is_file():
            require_tracked(each, tracked)
    _require_encoder(workflow, given, tracked)
    reach = Reach(Path(), address)
    places = [f"--workflow.storage={reach(workflow.config.workflow.storage, 'workflow.storage')}"]
    extraction = workflow.config.data.get(stage.name.removeprefix("data-")) if stage.kind == "data" else None
    if isinstance(extraction, ExtractDataConfig):
        places += _extraction_places(extraction, stage.name.removeprefix("data-"), given, reach)
    taken, _ = take_overrides(overrides)
    return ["workflow", "stage", given, stage.name, f"--identity={stage.identity}", *taken, *places]


def plan_job(file: str | Path, overrides: Sequence[str], name: str, identity: str) -> Workflow:
    """Plan a workflow inside the job of one of its stages, where the files of other stages may be missing.

    Args:
        file: the workflow file.
        overrides: `--section.field=value`.
        name: name of the job's stage.
        identity: its identity where the job was submitted.
    Raises:
        UserError: the stage has another identity here.
    """
    folder = stage_folder(workflow_root(load_workflow(file, overrides)), name, identity)
    planned = find_json(folder / JOB)
    if planned is None:
        raise UserError(
            f"{folder / JOB} does not exist, so this machine does not see the workflow's folder. Set workflow.storage "
            "to s3://… or to a disk that all machines share."
        )
    workflow = plan_workflow(file, overrides, planned)
    if workflow.stage(name).identity != identity:
        versions = f"vadv {planned['version']} there, {__version__} here"
        raise UserError(
            f"{name} is another stage on this machine than where the workflow was started ({versions}). Its settings, "
            "files or version differ; install the same version, and start the workflow again."
        )
    return workflow


def _files(config: WorkflowConfig) -> Iterator[str]:
    """The files that the job reads besides the workflow file: recipes, spaces and studies, or shipped ones."""
    yield config.train.config
    yield from (data.config for data in config.data.values() if isinstance(data, ExtractDataConfig))
    if config.tune is not None:
        yield config.tune.space
    if config.study is not None:
        yield config.study.file
        study = load_study(find_study(config.study.file))
        if config.study.small:
            study = small_study(study, config.study.file)
        variants = study.variants.values()
        named = (study.config, *(each.config for each in variants), *(each.predictions for each in variants))
        yield from (each for each in named if each)


def _extraction_places(config: ExtractDataConfig, name: str, where: str, reach: Reach) -> list[str]:
    """The places of raw clips as an override."""
    extraction = extraction_config(config, "extracted", f"{where}, data.{name}")
    clips = extraction.clips
    places = {"clips.csv": clips.csv, "clips.mmsa": clips.mmsa, "clips.root": clips.root}
    places["faces.path"] = extraction.faces.path
    reached = {field: reach(uri, f"data.{name}, {field}") for field, uri in places.items() if uri is not None}
    return [f"--data.{name}.overrides={json.dumps({**config.overrides, **reached})}"]


def _require_encoder(workflow: Workflow, where: str, tracked: set[str]) -> None:
    student = _run(workflow, where).text_student
    if student is None or student.encoder.startswith(DATA) or os.path.isabs(student.encoder):
        return
    config = Path(student.encoder) / "config.json"
    if config.is_file() and os.path.normpath(config) not in tracked:
        raise UserError(
            f"student.encoder is {student.encoder}, a path relative to the job's folder, which has only files tracked "
            "by git. Write an absolute path on a disk that all nodes see, or the encoder's name on the hub."
        )


def _resources(workflow: Workflow, stage: Stage, where: str) -> dict[str, int]:
    """What Ray reserves for the job's own process: the stage's work, unless that runs on workers."""
    config = workflow.config
    on_workers = {
        "train": _run(workflow, where).trainer.workers != 0,
        "tune": config.tune is not None and config.tune.use_ray,
        "study": config.study is not None and config.study.use_ray,
        "data": True,
    }
    if on_workers.get(stage.kind, False):
        return {}
    trainer = _run(workflow, where).trainer
    gpus = {"entrypoint_num_gpus": 1} if trainer.use_gpu is True else {}
    return {"entrypoint_num_cpus": trainer.cpus_per_worker or 1, **gpus}


def _run(workflow: Workflow, where: str) -> Any:
    data = [stage for stage in workflow.stages.values() if stage.kind == "data"]
    return run_config(workflow.config.train, placeholders(data), where)


def _error(code: int, what: str) -> Exception:
    if code == UserError.exit_code:
        return UserError(f"{what} ended with a user error, which its output above describes.")
    if code == PREEMPTED:
        return PreemptedError(f"{what} lost its node. Run the same command again to resume.")
    if code == STOPPED:
        return StoppedError(f"{what} was stopped. Run the same command again to resume.")
    return MachineError(f"{what} failed (its output is above). Run the same command again to resume.")
