"""`submit` and `jobs`, which run commands on a cluster, and `doctor`, which checks the machine and a config."""

import argparse
import sys
from pathlib import Path

from vadv_dist.cli.parser import Commands, Parser, path
from vadv_dist.errors import MachineError, UserError
from vadv_dist.runtime.terminal import console, json_line

JOBS = ("train", "tune", "study", "extract", "evaluate")


def add_cluster_commands(commands: Commands) -> None:
    """Add `submit`, `jobs` and `doctor`."""
    submit = commands.add_parser(
        "submit",
        help="run train, tune, study, extract or evaluate on a Ray cluster",
        description="Packages the files that git tracks, submits the job and follows its output. All arguments after "
        "the command are passed to it. Exit codes: 0 success, 1 system failure, 2 invalid input, 75 the job lost its "
        "node (submit again), 130 interrupted.",
        allow_abbrev=False,
    )
    submit.add_argument("job", choices=JOBS, metavar="|".join(JOBS))
    submit.add_argument("--address", help="job server, http://HOST:8265 (default: $RAY_API_SERVER_ADDRESS)")
    folder = "folder to package (default: the current one)"
    submit.add_argument("--working-dir", type=path, default=Path("."), help=folder)
    submit.add_argument(
        "--files",
        action="append",
        metavar="PATH",
        help="upload this file or folder of it instead of the files that git tracks; repeatable",
    )
    submit.add_argument("--install", action="store_true", help="install the package and its pinned versions on nodes")
    submit.add_argument("--detach", action="store_true", help="return after submitting instead of following the job")
    submit.set_defaults(call=_submit)

    jobs = commands.add_parser("jobs", help="list the jobs of a Ray cluster, print their output, or stop one")
    jobs.set_defaults(call=_jobs)
    actions = jobs.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=Parser)
    listed = actions.add_parser("list", help="list jobs, the newest first")
    listed.add_argument("--all", action="store_true", help="also those that ended more than a day ago")
    listed.add_argument("--json", action="store_true", help="print one JSON object")
    logs = actions.add_parser("logs", help="print the output of a job")
    logs.add_argument("--follow", action="store_true", help="until the job ends; its exit code is that of the job")
    stop = actions.add_parser(
        "stop",
        help="stop a job; a training has RAY_JOB_STOP_WAIT_TIME_S of the head to write a checkpoint "
        "(Ray's default: 3 s; 40 s on the clusters of cluster/)",
    )
    for action in (logs, stop):
        action.add_argument("job", help="its id, or the beginning of it")
    for action in (listed, logs, stop):
        action.add_argument("--address", help="job server, http://HOST:8265 (default: $RAY_API_SERVER_ADDRESS)")

    doctor = commands.add_parser(
        "doctor",
        help="check this machine, and optionally a config, for problems",
        description="Checks this machine and what a config needs. The exit code is 1 if there is a fault.",
        allow_abbrev=False,
    )
    doctor.add_argument("--config", type=path, help="also check what this run needs")
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    doctor.set_defaults(call=_doctor)


def _submit(options: argparse.Namespace) -> int:
    from vadv_dist.submission import Submission, submit

    submission = Submission(
        options.job,
        tuple(options.overrides),
        address=options.address,
        working_dir=options.working_dir,
        install=options.install,
        detach=options.detach,
        files=None if options.files is None else tuple(options.files),
    )
    return submit(submission, _say)


def _jobs(options: argparse.Namespace) -> int:
    from vadv_dist.submission.address import resolve_address
    from vadv_dist.submission.jobs import connect_to, find_job, follow_job, job_lines, list_jobs, stop_job

    address = resolve_address(options.address)
    if options.action == "logs" and options.follow:
        return follow_job(address, options.job)
    client = connect_to(address)
    if options.action == "list":
        jobs = list_jobs(client, ended=options.all)
        if options.json:
            print(json_line([job.to_json() for job in jobs]))
        else:
            print("\n".join(job_lines(jobs)) if jobs else f"{address} has no jobs.")
        return 0
    job = find_job(client, options.job)
    if options.action == "stop":
        print(stop_job(client, job, _say))
    else:
        print(client.get_job_logs(job), end="")
    return 0


def _say(text: str) -> None:
    print(f"vadv: {text}", file=sys.stderr, flush=True)


def _doctor(options: argparse.Namespace) -> int:
    from vadv_dist.config import load_config
    from vadv_dist.doctor import examine, render

    if options.overrides and options.config is None:
        raise UserError(f"doctor: {options.overrides[0]!r} overrides a config. Add --config.")
    config = load_config(options.config, options.overrides) if options.config else None
    findings = examine(config)
    if options.json:
        print(json_line([finding.to_json() for finding in findings]))
    else:
        render(findings, console())
    return MachineError.exit_code if any(finding.level == "fault" for finding in findings) else 0
